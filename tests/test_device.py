"""What a GPU would run, as far as a machine without one can tell: the octave on the `meta` device, and the plain path.

Tensors on `meta` have shapes and no values. Whatever asks for a value, as a copy to the host does, fails there.
"""

import re

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deepdream.networks import load as load_module
from deepdream.networks.caffemodel import load_model
from deepdream.networks.default import default_model_files
from deepdream.networks.torch import compiled
from deepdream.networks.torch.layers import LAYER_TYPES
from deepdream.networks.torch.network import TorchNetwork
from deepdream.options import DivideMode, DivideOptions, DreamOptions
from deepdream.picture import ascent, objectives
from tests import nets
from tests.architectures import ARCHITECTURES, densenet121, googlenet, mobilenet2, squeezenet11
from tests.layer_nets import SMALL_NETS, small_net

META = torch.device("meta")
SIZE = (80, 112)
MEAN = (104, 116, 122)


class OnDevice(TorchDispatchMode):
    """While this is entered, an operation that reads or makes a tensor off the `meta` device fails."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            assert not isinstance(value, torch.Tensor) or value.device == META, f"{function} leaves the device"
        return result


def load(folder, device="cpu"):
    model = load_model(folder / "deploy.prototxt", folder / "net.caffemodel")
    return TorchNetwork(model, MEAN, loop=(), device=device)


def ascend(network, layer, objective=objectives.l2, division=DivideOptions(), size=SIZE, **dream):
    """All steps of an octave of random pixels, none of which leaves the device; their strengths."""
    x = torch.empty(3, *size, device=META)
    steps = ascent.ascend(
        x, network, layer, objective, DreamOptions(iterations=2, **dream), np.random.default_rng(0), division
    )  # fmt: skip
    next(steps)  # the first step of all also brings the weights
    with OnDevice():
        return list(steps)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: x + torch.from_numpy(np.ones(3, np.float32)).to(META),
        lambda x: x.index_select(0, torch.tensor([1])),
    ],
)
def test_whatever_leaves_the_device_is_noticed(attempt):
    x = torch.empty(3, device=META)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), OnDevice():
        attempt(x)


@pytest.mark.parametrize(
    "build",
    [googlenet, mobilenet2, densenet121],
    ids=lambda build: build.__name__,
)
@pytest.mark.parametrize("mode", [DivideMode.OFF, DivideMode.SEAMLESS])
def test_an_octave_stays_on_the_device(tmp_path, build, mode):
    network = load(nets.save(tmp_path, build(ARCHITECTURES[build])), META)
    layer = [name for name in network.layers if name.startswith(("inception_4a", "block3", "dense2"))][-1]
    assert len(ascend(network, layer, division=DivideOptions(mode, 60, 60))) == 1


def test_an_octave_of_the_default_network_stays_on_the_device(tmp_path):
    network = TorchNetwork(load_model(*default_model_files(tmp_path)), MEAN, loop=(), device=META)
    assert len(ascend(network, "block_11/output")) == 1


def a_net_for_each_path():
    """The names of small nets: one for each layer function, and for each that computes otherwise by a parameter."""
    covered = {}
    for name, text in SMALL_NETS.items():
        for type_name in re.findall(r'type: "(\w+)"', text):
            covered.setdefault(LAYER_TYPES[type_name], name)
    others = ("Pooling AVE", "LRN within channel", "BatchNorm of its own", "Eltwise PROD", "Eltwise MAX")
    return sorted({*covered.values(), *others})


@pytest.mark.parametrize("name", a_net_for_each_path())
def test_each_layer_type_stays_on_the_device(tmp_path, name):
    network = load(nets.save(tmp_path, small_net(SMALL_NETS[name])), META)
    assert len(ascend(network, network.layers[-1], size=(11, 13))) == 1


@pytest.mark.parametrize("name", a_net_for_each_path())
def test_each_layer_type_keeps_the_pictures_of_a_batch_apart(tmp_path, name):
    network = load(nets.save(tmp_path, small_net(SMALL_NETS[name])))
    layer, batch = network.layers[-1], torch.stack([nets.picture((11, 13), seed) for seed in range(2)])
    alone = [network.gradient(picture, layer, objectives.l2) for picture in batch]
    torch.testing.assert_close(network.gradient(batch, layer, objectives.l2), torch.stack(alone))


def test_a_panorama_stays_on_the_device(tmp_path):
    network = load(nets.save(tmp_path, squeezenet11((99, 129))), META)
    assert len(ascend(network, "fire4/concat", size=(64, 128), panorama=True, smooth=1.0)) == 1


def test_a_guided_octave_stays_on_the_device(tmp_path):
    network = load(nets.save(tmp_path, squeezenet11((99, 129))), META)
    guide = objectives.guide(network.activations(torch.empty(3, 64, 64, device=META), "fire4/concat"))
    assert len(ascend(network, "fire4/concat", guide)) == 1


@pytest.mark.parametrize("gpu, precision", [(True, "tf32"), (None, "tf32"), (False, "ieee")])
def test_a_gpu_convolves_on_its_tensor_cores(monkeypatch, gpu, precision):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **how: torch.device("cuda", 0))
    before = torch.backends.cudnn.conv.fp32_precision
    try:
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        assert load_module._choose_device(gpu, print).type == ("cpu" if gpu is False else "cuda")
        assert torch.backends.cudnn.conv.fp32_precision == precision
    finally:
        torch.backends.cudnn.conv.fp32_precision = before


class OneDnnCalls(TorchDispatchMode):
    """While this is entered, ``count`` is how often oneDNN was called by its own name."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.namespace in ("mkldnn", "onednn")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["googlenet", "default"])
def test_the_plain_path_computes_what_the_fused_one_does(tmp_path, monkeypatch, name):
    """On a GPU a convolution and its activation are two calls of PyTorch, on a CPU one of oneDNN; and nothing there is
    compiled by Numba."""
    if name == "default":
        files = default_model_files(tmp_path)
    else:
        folder = nets.save(tmp_path, googlenet(ARCHITECTURES[googlenet]))
        files = folder / "deploy.prototxt", folder / "net.caffemodel"
    picture = nets.picture(SIZE)
    gradients, calls = [], []
    for path in ("fused", "plain"):
        if path == "plain":
            monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
            monkeypatch.setattr(compiled, "is_supported", lambda x: False)
        network = TorchNetwork(load_model(*files), MEAN, loop=())
        layers = [layer for layer in network.layers if layer.endswith("/output")][::2]
        with OneDnnCalls() as onednn:
            gradients.append([network.gradient(picture, layer, objectives.l2) for layer in layers])
        calls.append(onednn.count)
    assert len(layers) >= 5 and calls[0] > 0 and calls[1] == 0
    for fused, plain in zip(*gradients):
        assert (plain - fused).norm() < 1e-3 * fused.norm()
