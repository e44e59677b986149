"""A Caffe model found and loaded into the engine that runs it."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepdream.networks.find import ModelFiles, find_model
from deepdream.options import ENGINES, PRECISIONS

if TYPE_CHECKING:  # these take seconds to load, and --help needs none of them
    import torch

    from deepdream.networks.caffemodel import Model
    from deepdream.networks.network import Network

_FEATURES = ("Concat", "Eltwise")  # the layers in which a block of a modern net ends
OnMessage = Callable[[str], object]


def load_network(
    model_path: str | Path | None = None,
    model_name: str | None = None,
    *,
    gpu: bool | None = None,
    engine: str = ENGINES[0],
    precision: str = PRECISIONS[0],
    on_message: OnMessage = logging.getLogger("deepdream").info,
) -> "Network":
    """Find a Caffe model and load it into an engine.

    ``model_path``: its directory, or None for the first of the usual places, else the embedded default.
    ``model_name``: its caffemodel, with or without the ending. ``gpu``: True, False, or None for one where
    there is one. ``engine``: one of `ENGINES`; ``precision``: one of `PRECISIONS`. ``on_message`` gets a line for
    the user, as where something other than asked for is used. Raises `ModelError` where the model cannot be had.
    """
    files = find_model(model_path, model_name, on_message)
    return load_files(files, gpu=gpu, engine=engine, precision=precision, on_message=on_message)


def load_files(files: ModelFiles, *, gpu: bool | None, engine: str, precision: str, on_message: OnMessage) -> "Network":
    """Load the files of a model into an engine; see `load_network`."""
    from deepdream.networks.caffemodel import load_model

    model = load_model(files.prototxt, files.caffemodel)
    mean, loop = _mean_and_loop(files, model)
    network: Network
    if engine == "caffe":
        from deepdream.networks.caffe.network import CaffeNetwork

        if gpu:
            on_message("--gpu 1: Caffe is used on the CPU only; dreaming on the CPU")
        if precision != CaffeNetwork.precision:
            on_message(f"--precision {precision}: Caffe computes in {CaffeNetwork.precision} only; so does this dream")
        network = CaffeNetwork(model, files.prototxt, files.caffemodel, mean, loop)
    else:
        from deepdream.networks.torch.network import TorchNetwork

        device = _choose_device(gpu, on_message)
        network = TorchNetwork(model, mean, loop, device, _choose_precision(precision, device, on_message), on_message)
    network.labels = files.labels
    network.features = tuple(_feature_layers(model, "/output"))
    network.files = files
    network.digest = digest_of(files, network.mean.flatten().tolist(), engine)
    return network


def _mean_and_loop(files: ModelFiles, model: "Model") -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The model's own, else those of the known model that has these layers, else what suits most nets."""
    from deepdream.networks.models import DREAM_MEAN, find_known

    known = find_known([layer.name for layer in model.layers])
    mean, loop = (known.mean, known.loop) if known else (DREAM_MEAN, _common_loop(model))
    return files.mean or mean, files.loop or loop


def _feature_layers(model: "Model", *endings: str) -> list[str]:
    """The layers in which blocks end, by their types or the ``endings`` of their names; else the convolutions."""
    ends = [layer.name for layer in model.layers if layer.type in _FEATURES or layer.name.endswith(endings)]
    return ends if len(ends) >= 3 else [layer.name for layer in model.layers if layer.type == "Convolution"]


def _common_loop(model: "Model") -> tuple[str, ...]:
    """Up to five layers from the middle of a net."""
    features = _feature_layers(model)
    middle = features[len(features) // 3 : -1] or features
    return tuple(middle[:: max(1, len(middle) // 5)][:5]) or (model.layers[-1].name,)


def _choose_device(gpu: bool | None, on_message: OnMessage) -> "torch.device":
    import torch

    device = None if gpu == 0 else torch.accelerator.current_accelerator(check_available=True)
    if device is not None:
        # On NVIDIA's tensor cores a convolution then rounds its factors to 10 bits (TF32) and adds in float32: several
        # times as fast. Matrix products keep float32: a guide's nearest features are found by them.
        torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]  # made when torch is imported
        return device
    if gpu:
        on_message("--gpu 1: no GPU that PyTorch can use was found; dreaming on the CPU")
    return torch.device("cpu")


def _choose_precision(name: str, device: "torch.device", on_message: OnMessage) -> str:
    """``name``, or float32 where the device has no arithmetic of that type and would be slower for it."""
    import torch

    if name == "bfloat16" and device.type == "cpu":
        has = any(able for feature, able in torch.cpu.get_capabilities().items() if feature.endswith("bf16"))
    else:
        has = name == "float32" or device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if not has:
        on_message(f"--precision {name}: this {device.type.upper()} has no such arithmetic; dreaming in float32")
    return name if has else "float32"


def digest_of(files: ModelFiles, mean: Sequence[float], engine: str) -> str:
    """A SHA-256 of all that decides what a network computes, down to the rounding."""
    digest = hashlib.sha256(b"" if engine == "torch" else engine.encode())
    for path in (files.prototxt, files.caffemodel):
        digest.update(path.read_bytes())
    digest.update(np.array(mean, np.float32).tobytes())
    return digest.hexdigest()
