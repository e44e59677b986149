"""Networks to dream with: found, loaded, and offered through one interface whatever engine runs them.

A network has ``name``, ``layers`` (names in order), ``loop`` (the layers of its customloop), ``mean``
((3, 1, 1), BGR), ``device``, ``precision`` (one of `PRECISIONS`), ``input_size`` ((h, w) or None), ``digest`` (of
its files), and
``gradient(picture, layer, objective)``, ``activations(picture, layer)``, ``shape(layer, size)`` and
``check_size(layer, size)`` as `network.Network` tells them.
"""

import atexit
import difflib
import hashlib
import os
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from deepdream.errors import ModelError
from deepdream.options import CUSTOM_LOOP

ENGINES = ("torch", "caffe")
PRECISIONS = ("float32", "bfloat16")
GOOGLENET = "bvlc_googlenet"
MEAN_FILES = ("mean.npy", "mean.binaryproto")
LOOP_FILE = "customloop.txt"
DEFAULT_MEAN = (104.0, 116.0, 122.0)
_FEATURES = ("Concat", "Eltwise")  # the layers in which a block of a modern net ends
_TEMPORARY = ExitStack()
atexit.register(_TEMPORARY.close)


def load_network(model_path=None, model_name=None, gpu=None, engine="torch", tell=print, precision="float32"):
    """Find a Caffe model and load it into an engine.

    ``model_path``: its directory, or None for the first of the usual places, else the embedded default.
    ``model_name``: its caffemodel, with or without the ending. ``gpu``: True, False, or None for one where
    there is one. ``engine``: one of `ENGINES`; ``precision``: one of `PRECISIONS`. ``tell`` gets a line for the user
    where something other than asked for is used. Raises `ModelError` where the model cannot be had.
    """
    from deepdream.networks.caffemodel import load_model

    prototxt, caffemodel, mean, loop = _find(model_path, model_name, tell)
    model = load_model(prototxt, caffemodel)
    known_mean, known_loop = _known(model)
    mean, loop = known_mean if mean is None else mean, loop or known_loop
    if engine == "caffe":
        network = _caffe_network(model, prototxt, caffemodel, mean, loop, gpu, precision, tell)
    else:
        from deepdream.networks.torch.network import TorchNetwork

        device = _device(gpu, tell)
        network = TorchNetwork(model, mean, loop, device, _precision(precision, device, tell))
    network.digest = _digest(prototxt, caffemodel, network.mean, engine)
    return network


def _caffe_network(model, prototxt, caffemodel, mean, loop, gpu, precision, tell):
    from deepdream.networks.caffe.network import CaffeNetwork

    if gpu:
        tell("--gpu 1: Caffe is used on the CPU only; dreaming on the CPU")
    if precision != CaffeNetwork.precision:
        tell(f"--precision {precision}: Caffe computes in {CaffeNetwork.precision} only; so does this dream")
    return CaffeNetwork(model, prototxt, caffemodel, mean, loop)


def resolve_layers(network, names, tell=print):
    """The layers that ``names`` mean: customloop is spelled out, and each name is the network's.

    A name of GoogLeNet's is translated where the embedded default network runs; ``tell`` gets the line that
    says so. Raises `ModelError` that offers the nearest names for an unknown one.
    """
    from deepdream.networks import default as default_network

    layers = []
    for name in chain.from_iterable(network.loop if name == CUSTOM_LOOP else (name,) for name in names):
        stand_in = default_network.stand_in(name) if network.name == default_network.NAME else None
        if name not in network.layers and stand_in:
            tell(f"{name} is a layer of GoogLeNet; {stand_in} of the default network stands in for it")
            name = stand_in
        if name not in network.layers:
            near = difflib.get_close_matches(name, network.layers, 3, 0.4)
            hint = f"near it: {', '.join(near)}; " if near else ""
            raise ModelError(f"the network {network.name} has no layer {name}; {hint}--list-layers shows all")
        layers.append(name)
    return tuple(layers)


def _find(model_path, model_name, tell):
    """(prototxt, caffemodel, mean or None, loop or None) of the model asked for."""
    if model_path is None and model_name is None:
        usual = [Path("../caffe/models", GOOGLENET), Path("models", GOOGLENET)]
        if os.environ.get("CAFFE_ROOT"):
            usual.insert(0, Path(os.environ["CAFFE_ROOT"], "models", GOOGLENET))
        model_path = next((place for place in usual if any(place.glob("*.caffemodel"))), None)
    if model_path is None and model_name is None:
        return _find_default(tell)
    folder = Path(model_path or ".")
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a directory; -t takes the directory of a Caffe model")
    return (
        _find_prototxt(folder),
        _find_caffemodel(folder, model_name),
        _own_mean(folder),
        _own_loop(folder),
    )


def _find_default(tell):
    from deepdream.networks import default as default_network

    tell(
        "no GoogLeNet found: dreaming with the embedded EfficientNet-Lite0 "
        "(python scripts/get_model.py bvlc_googlenet fetches GoogLeNet)"
    )
    try:
        files = default_network.default_model_files()
    except default_network.CacheError as error:
        tell(f"{error}: the network is made anew for this run alone")
        # Deleted when the program ends.
        files = default_network.default_model_files(_TEMPORARY.enter_context(TemporaryDirectory(prefix="deepdream-")))
    return (*files, default_network.MEAN, default_network.LOOP)


def _find_prototxt(folder):
    deploy = folder / "deploy.prototxt"
    if deploy.is_file():
        return deploy
    found = sorted(folder.glob("*.prototxt"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ModelError(f"{folder} needs a deploy.prototxt, or exactly one .prototxt (there: {names})")
    return found[0]


def _find_caffemodel(folder, name):
    found = sorted(folder.glob("*.caffemodel"))
    there = ", ".join(path.name for path in found) or "none"
    if name is None:
        if len(found) != 1:
            raise ModelError(f"{folder} holds {len(found)} caffemodels ({there}); name one with -m")
        return found[0]
    for path in (folder / name, folder / f"{name}.caffemodel"):
        if path.is_file():
            return path
    raise ModelError(f"{folder} holds no caffemodel {name} (there: {there})")


def _own_mean(folder):
    from deepdream.networks.caffemodel import read_mean

    found = [folder / name for name in MEAN_FILES if (folder / name).is_file()]
    return read_mean(found[0]) if found else None


def _own_loop(folder):
    path = folder / LOOP_FILE
    if not path.is_file():
        return None
    loop = path.read_text(encoding="utf-8", errors="replace").split()
    if not loop:
        raise ModelError(f"{path} names no layers; write one name a line, or delete it")
    return tuple(loop)


def _known(model):
    """(mean, loop): of the known model that has these layers, else means and layers that suit most nets."""
    from deepdream.networks.models import find_known

    known = find_known([layer.name for layer in model.layers])
    if known:
        return known.mean, known.loop
    features = [layer.name for layer in model.layers if layer.type in _FEATURES]
    if len(features) < 3:
        features = [layer.name for layer in model.layers if layer.type == "Convolution"]
    middle = features[len(features) // 3 : -1] or features
    return DEFAULT_MEAN, tuple(middle[:: max(1, len(middle) // 5)][:5]) or (model.layers[-1].name,)


def _device(gpu, tell):
    import torch

    if gpu is not False and torch.accelerator.is_available():
        # On NVIDIA's tensor cores a convolution then rounds its factors to 10 bits (TF32) and adds in float32: several
        # times as fast. Matrix products keep float32: a guide's nearest features are found by them.
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        return torch.accelerator.current_accelerator()
    if gpu:
        tell("--gpu 1: no GPU that PyTorch can use was found; dreaming on the CPU")
    return torch.device("cpu")


def _precision(name, device, tell):
    """``name``, or float32 where the device has no arithmetic of that type and would be slower for it."""
    import torch

    if name == "bfloat16" and device.type == "cpu":
        has = any(able for feature, able in torch.cpu.get_capabilities().items() if feature.endswith("bf16"))
    else:
        has = name == "float32" or device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if not has:
        tell(f"--precision {name}: this {device.type.upper()} has no such arithmetic; dreaming in float32")
    return name if has else "float32"


def _digest(prototxt, caffemodel, mean, engine):
    """A sum over all that decides what a network computes, down to the rounding."""
    sha = hashlib.sha256(b"" if engine == "torch" else engine.encode())
    for path in (prototxt, caffemodel):
        sha.update(Path(path).read_bytes())
    sha.update(mean.cpu().numpy().tobytes())
    return sha.hexdigest()
