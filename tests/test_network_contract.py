"""What every engine keeps: one suite over both. The net has a bit of everything that goes wrong easily."""

import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, run_python

import dreamer
from deepdream.errors import DreamError, ModelError, PictureTooSmall
from deepdream.networks import load_network
from deepdream.networks.caffe.network import CaffeNetwork
from deepdream.networks.caffemodel import parse_prototxt, write_caffemodel
from deepdream.options import ENGINES, DivideOptions, DreamOptions
from deepdream.picture import ascent, objectives
from tests import nets, parity
from tests.architectures import NetBuilder

SIZE = (37, 41)

try:
    parity.import_caffe()
    NO_CAFFE = ""
except ImportError as error:
    NO_CAFFE = f"NO REAL CAFFE HERE: {error}; scripts/build_caffe.sh builds it"

needs_caffe = pytest.mark.skipif(bool(NO_CAFFE), reason=NO_CAFFE)
engines = pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=needs_caffe if name == "caffe" else ()) for name in ENGINES], scope="module"
)


def contract_net(size=SIZE):
    net = NetBuilder("contract", size)
    top = net.pool("pool1", net.conv("conv1", "data", 8, 5, 2), 3, 2)
    top = net.lrn("norm1", top)
    left, right = net.conv("left", top, 6, 1), net.conv_norm("right", top, 6, 3, pad=1)
    top = net.add("sum", net.concat("both", left, right), net.conv("aside", top, 12, 1, relu=False))
    top = net.layer("smooth", "TanH", top)
    return net.classify(net.full("classes", net.pool("pool2", top, 3, 2), 10, relu=False))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return nets.save(tmp_path_factory.mktemp("contract"), contract_net())


@pytest.fixture(scope="module")
def network(model, engine):
    return load_network(model, engine=engine, on_message=print)


@engines
class TestContract:
    def test_tells_about_itself(self, network):
        assert network.name == "contract" and network.input_size == SIZE
        assert network.layers[:3] == ("data", "conv1", "conv1/relu")
        assert set(network.loop) <= set(network.layers)
        assert network.mean.shape == (3, 1, 1) and network.device == torch.device("cpu") and network.digest

    def test_shapes(self, network):
        shapes = dict(network.layer_shapes())
        assert shapes["conv1"] == (8, 17, 19) and shapes["pool1"] == (8, 8, 9) and shapes["classes"] == (10,)
        assert network.shape("conv1", (97, 131)) == (8, 47, 64)

    def test_activations_have_the_shape_told(self, network):
        for layer in network.layers[1:]:
            found = network.activations(nets.picture(SIZE), layer)
            assert found.dtype == torch.float32 and tuple(found.shape) == network.shape(layer, SIZE)

    def test_stops_before_a_layer_in_place(self, network):
        before, after = (network.activations(nets.picture(SIZE), layer) for layer in ("conv1", "conv1/relu"))
        assert before.min() < 0 and torch.equal(before.clamp(min=0), after)

    @pytest.mark.parametrize("layer", ["smooth", "sum", "classes"])
    def test_gradient_is_the_derivative(self, network, layer):
        picture = nets.picture(SIZE)
        gradient = network.gradient(picture, layer, objectives.l2)
        assert gradient.dtype == torch.float32 and gradient.shape == picture.shape

        def value(x):
            return float(network.activations(x, layer).double().square().sum() / 2)

        direction = torch.from_numpy(np.random.default_rng(1).standard_normal(picture.shape)).float()
        for step in (direction, gradient / gradient.norm() * direction.norm()):
            change = (value(picture + 1e-2 * step) - value(picture - 1e-2 * step)) / 2e-2
            expected = float((gradient.double() * step.double()).sum())
            scale = float(gradient.double().norm() * step.double().norm())
            assert abs(change - expected) < 1e-2 * scale

    def test_gradient_of_any_objective(self, network):
        picture = nets.picture(SIZE)
        ones = network.gradient(picture, "smooth", torch.ones_like)
        twos = network.gradient(picture, "smooth", lambda top: 2 * torch.ones_like(top))
        assert torch.allclose(2 * ones, twos, rtol=1e-4, atol=1e-6 * float(twos.abs().max()))
        guide = objectives.guide(network.activations(nets.picture((29, 33), 5), "smooth"))
        assert torch.isfinite(network.gradient(picture, "smooth", guide)).all()

    @pytest.mark.parametrize(
        "layers",
        [("conv1", "sum"), ("smooth", "conv1"), ("left", "right", "aside"), ("classes", "norm1", "conv1/relu")],
    )
    def test_gradient_of_a_sum_is_the_sum_of_gradients(self, network, layers):
        """A layer that another works on in place, branches side by side, in any order."""
        picture = nets.picture(SIZE)
        goals = [objectives.l2, torch.ones_like, objectives.scaled(objectives.l2, -0.5)]
        together = network.gradient_of_sum(picture, dict(zip(layers, goals)))
        alone = [network.gradient(picture, layer, goal) for layer, goal in zip(layers, goals)]
        assert parity.error(together, sum(alone)) < 1e-5
        assert torch.equal(network.gradient(picture, layers[0], goals[0]), alone[0])

    def test_gradient_of_a_sum_is_the_derivative(self, network):
        picture = nets.picture(SIZE)
        goals = {"conv1": objectives.channels([1, 6]), "smooth": objectives.l2}
        gradient = network.gradient_of_sum(picture, goals)

        def value(x):
            first, second = (network.activations(x, layer).double() for layer in goals)
            return float(first[[1, 6]].sum() + second.square().sum() / 2)

        step = torch.from_numpy(np.random.default_rng(1).standard_normal(picture.shape)).float()
        change = (value(picture + 1e-2 * step) - value(picture - 1e-2 * step)) / 2e-2
        expected = float((gradient.double() * step.double()).sum())
        assert abs(change - expected) < 1e-2 * float(gradient.double().norm() * step.double().norm())

    @pytest.mark.parametrize("layers", [("smooth",), ("conv1", "norm1"), ("classes", "pool1")])
    def test_a_batch_is_differentiated_picture_by_picture(self, network, layers):
        """Also where a layer, such as a fully connected one, takes one picture at a time."""
        batch, goals = (
            torch.stack([nets.picture(SIZE, seed) for seed in range(3)]),
            dict.fromkeys(layers, objectives.l2),
        )
        together = network.gradient_of_sum(batch, goals)
        assert together.shape == batch.shape
        for found, picture in zip(together, batch):
            assert parity.error(found, network.gradient_of_sum(picture, goals)) < 1e-6
        if len(layers) == 1:
            assert torch.equal(network.gradient(batch, layers[0], objectives.l2), together)

    def test_nothing_is_left_of_the_last_call(self, network):
        picture, other = nets.picture(SIZE), nets.picture((51, 33), 7)
        first = network.gradient(picture, "left", objectives.l2)
        network.gradient(other, "sum", objectives.l2)
        network.activations(other, "right")
        assert torch.equal(first, network.gradient(picture, "left", objectives.l2))

    def test_leaves_the_picture_alone(self, network):
        picture = nets.picture(SIZE)
        kept = picture.clone()
        network.gradient(picture, "sum", objectives.l2)
        assert torch.equal(picture, kept) and not picture.requires_grad

    def test_a_picture_in_any_memory_layout(self, network):
        picture = nets.picture(SIZE)
        rolled = picture.flip(2).permute(1, 2, 0).contiguous().permute(2, 0, 1)
        assert torch.equal(
            network.activations(rolled, "conv1"), network.activations(picture.flip(2).contiguous(), "conv1")
        )

    def test_unknown_layer(self, network):
        with pytest.raises(ModelError, match="the network contract has no layer nix"):
            network.activations(nets.picture(SIZE), "nix")

    def test_too_small_a_picture(self, network):
        for call in (
            lambda: network.activations(nets.picture((6, 40)), "sum"),
            lambda: network.gradient(nets.picture((6, 40)), "sum", objectives.l2),
            lambda: network.check_size("sum", (6, 40)),
        ):
            with pytest.raises(PictureTooSmall, match="layer sum cannot take an octave of 40x6 pixels; .* 7x7"):
                call()
        assert network.activations(nets.picture((7, 7)), "sum").shape[0] == 12

    def test_only_one_size_for_a_classifier(self, network):
        with pytest.raises(PictureTooSmall, match="layer prob takes pictures of 41x37 only, not 64x64"):
            network.activations(nets.picture((64, 64)), "prob")

    @pytest.mark.parametrize("objective", ["l2", "guide"])
    def test_a_few_steps_raise_the_objective(self, network, objective):
        picture = np.random.default_rng(2).integers(60, 190, (*SIZE, 3), dtype=np.uint8)
        guide = network.activations(nets.picture((29, 33), 5), "smooth")
        goal = objectives.l2 if objective == "l2" else objectives.guide(guide)

        def value(rgb):
            top = network.activations(ascent.to_network(rgb, network), "smooth")
            return float((top * goal(top)).sum())

        options = DreamOptions(octaves=1, iterations=5, jitter=2)
        dreamt = ascent.dream(picture, network, "smooth", options, DivideOptions(), goal, np.random.default_rng(0))
        assert value(dreamt) > 1.02 * value(picture)


@engines
def test_a_train_val_net_takes_the_picture_for_its_data(tmp_path, engine):
    model = nets.save(tmp_path / "deploy", contract_net((41, 41)))
    head, _, *layers = re.split(r"^(?=layer )", (model / "deploy.prototxt").read_text(), flags=re.MULTILINE)
    data = (
        'layer { name: "data" type: "Data" top: "data" top: "label" include { phase: %s } '
        "transform_param { crop_size: 41 mean_value: 104 } data_param { source: 'nowhere' batch_size: 9 } }\n"
    )
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "classes" bottom: "label" top: "loss" }'
    other = tmp_path / "train_val"
    other.mkdir()
    (other / "train_val.prototxt").write_text(head + data % "TRAIN" + data % "TEST" + "".join(layers) + loss)
    (other / "net.caffemodel").write_bytes((model / "net.caffemodel").read_bytes())
    network, picture = load_network(other, engine=engine, on_message=print), nets.picture((51, 43))
    assert network.input_size == (41, 41)
    expected = load_network(model, engine=engine, on_message=print).gradient(picture, "sum", objectives.l2)
    assert torch.equal(network.gradient(picture, "sum", objectives.l2), expected)


def save_convolution(directory, weight, declared=True):
    """The model of one convolution whose pictures have as many channels as its ``weight`` (out, in, kh, kw)."""
    directory.mkdir()
    shape = f"input_shape {{ dim: 1 dim: {weight.shape[1]} dim: 40 dim: 48 }}" if declared else ""
    (directory / "deploy.prototxt").write_text(
        f"""name: "one" input: "data" {shape}
        layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
                 convolution_param {{ num_output: {len(weight)} kernel_size: 3 bias_term: false }} }}"""
    )
    write_caffemodel(directory / "net.caffemodel", "one", {"conv": [weight]})
    return directory


@engines
def test_a_grey_net_gets_the_luminance(tmp_path, engine):
    """As a net of colour pictures does that weighs the channels by BT.601."""
    weight = np.random.default_rng(0).standard_normal((5, 1, 3, 3)).astype(np.float32)
    blue_green_red = np.array([0.114, 0.587, 0.299], np.float32).reshape(1, 3, 1, 1)
    grey, colour = (
        load_network(save_convolution(tmp_path / name, weights), engine=engine, on_message=print)
        for name, weights in (("grey", weight), ("colour", weight * blue_green_red))
    )
    picture = nets.picture(SIZE)
    values = [network.activations(picture, "conv") for network in (grey, colour)]
    gradients = [network.gradient(picture, "conv", objectives.l2) for network in (grey, colour)]
    assert parity.error(*values) < 1e-5 and parity.error(*gradients) < 1e-5
    assert dict(grey.layer_shapes()) == {"conv": (5, 38, 46)}


@pytest.mark.parametrize("declared", [True, False])
def test_a_net_of_pictures_in_many_channels_is_refused(tmp_path, declared):
    model = save_convolution(tmp_path / "many", np.ones((5, 15, 3, 3), np.float32), declared)
    with pytest.raises(ModelError, match="the network one takes pictures of 15 channels; only .* colour .* grey"):
        load_network(model, on_message=print)


@engines
def test_a_grey_train_val_net_takes_the_picture_for_its_data(tmp_path, engine):
    """Its Data layer does not say that its pictures are grey."""
    model = save_convolution(tmp_path / "grey", np.ones((5, 1, 3, 3), np.float32), declared=False)
    head, layer = (model / "deploy.prototxt").read_text().split(' input: "data"')
    data = 'layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 41 } }'
    (model / "deploy.prototxt").write_text(head + data + layer)
    gradient = load_network(model, engine=engine, on_message=print).gradient(nets.picture(SIZE), "conv", objectives.l2)
    assert gradient.shape == (3, *SIZE)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_weights_tell_the_channels_where_the_prototxt_does_not(tmp_path, channels):
    model = save_convolution(tmp_path / "one", np.ones((5, channels, 3, 3), np.float32), declared=False)
    assert load_network(model, on_message=print).gradient(nets.picture(SIZE), "conv", objectives.l2).shape == (3, *SIZE)


@needs_caffe
def test_gradient_of_a_sum_is_that_of_caffe(model):
    ours, theirs = (load_network(model, engine=engine, on_message=print) for engine in ENGINES)
    goals = {"smooth": objectives.l2, "conv1": objectives.channels([3, 5]), "left": lambda top: -0.1 * top}
    found, expected = (network.gradient_of_sum(nets.picture(SIZE), goals) for network in (ours, theirs))
    assert parity.error(found, expected) < parity.BACKWARD_BOUND


OLD_LAYOUTS = {
    "2014": """name: "old" input: "data" input_dim: 1 input_dim: 3 input_dim: 37 input_dim: 41
        layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv"
                 convolution_param { num_output: 6 kernel_size: 5 stride: 2 group: 3 } }
        layers { name: "relu" type: RELU bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
        layers { name: "pool" type: POOLING bottom: "conv" top: "pool"
                 pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
        layers { name: "full" type: INNER_PRODUCT bottom: "pool" top: "full" inner_product_param { num_output: 4 } }""",
    "2013": """name: "old" input: "data" input_dim: 1 input_dim: 3 input_dim: 37 input_dim: 41
        layers { layer { name: "conv" type: "conv" num_output: 6 kernelsize: 5 stride: 2 group: 3 }
                 bottom: "data" top: "conv" }
        layers { layer { name: "relu" type: "relu" } bottom: "conv" top: "conv" }
        layers { layer { name: "pool" type: "pool" pool: AVE kernelsize: 3 stride: 2 } bottom: "conv" top: "pool" }
        layers { layer { name: "full" type: "innerproduct" num_output: 4 } bottom: "pool" top: "full" }""",
}  # fmt: skip


@needs_caffe
@pytest.mark.parametrize("year", OLD_LAYOUTS)
def test_old_layouts_are_what_caffe_takes_them_for(tmp_path, year):
    net = parse_prototxt(OLD_LAYOUTS[year])
    net.input_shape.add(dim=(1, 3, *SIZE))
    nets.save(tmp_path, net)
    (tmp_path / "deploy.prototxt").write_text(OLD_LAYOUTS[year])
    ours, theirs = (load_network(tmp_path, engine=engine, on_message=print) for engine in ENGINES)
    assert ours.input_size == SIZE
    for layer in ("conv", "relu", "pool", "full"):
        found, expected = (network.gradient(nets.picture(SIZE), layer, objectives.l2) for network in (ours, theirs))
        assert parity.error(found, expected) < parity.BACKWARD_BOUND
        found, expected = (network.activations(nets.picture(SIZE), layer) for network in (ours, theirs))
        assert parity.error(found, expected) < parity.FORWARD_BOUND


# What only a process can do wrong.


@needs_caffe
def test_the_child_ends_with_its_network(model):
    network = load_network(model, engine="caffe", on_message=print)
    child, folder = network._process._child, Path(network._process._directory.name)
    assert child.poll() is None and folder.exists()
    del network
    assert child.poll() is not None and not folder.exists()


@needs_caffe
@pytest.mark.parametrize("ending", ["", "raise KeyboardInterrupt", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_the_child_ends_with_its_parent(model, ending):
    code = (
        "import os, signal, sys; from deepdream.networks import load_network;"
        f"network = load_network({str(model)!r}, engine='caffe', on_message=print);"
        f"print(network._process._child.pid, flush=True); {ending}"
    )
    done = run_python("-c", code, cwd=ROOT, timeout=60)
    child, deadline = int(done.stdout), time.monotonic() + 10
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{child}")


@needs_caffe
def test_a_killed_child_is_an_error_and_no_hang(model):
    network = load_network(model, engine="caffe", on_message=print)
    network._process._child.kill()
    with pytest.raises(DreamError, match="its process ended with SIGKILL"):
        network.activations(nets.picture(SIZE), "conv1")
    with pytest.raises(DreamError, match="has ended before"):
        network.activations(nets.picture(SIZE), "conv1")


REFUSED = {
    'name: "net"': ('name: "net" frob: 3', "no field named .frob"),
    "num_output: 8": ("num_output: 9", "shape mismatch"),
    'type: "TanH"': ('type: "Frob"', "Unknown layer type: Frob"),
}


@needs_caffe
@pytest.mark.parametrize("old", REFUSED)
def test_what_caffe_refuses_is_one_line(model, tmp_path, capsys, old):
    new, reason = REFUSED[old]
    text = (model / "deploy.prototxt").read_text().replace('name: "contract"', 'name: "net"', 1)
    assert old in text
    (tmp_path / "deploy.prototxt").write_text(text.replace(old, new, 1))
    (tmp_path / "net.caffemodel").write_bytes((model / "net.caffemodel").read_bytes())
    assert dreamer.main(["--engine", "caffe", "-t", str(tmp_path), "--list-layers"]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and not printed.out
    assert "deploy.prototxt" in printed.err and re.search(reason, printed.err), printed.err


def test_without_caffe_it_says_how_to_get_it(model, monkeypatch, tmp_path):
    (tmp_path / "caffe.py").write_text("raise ImportError('No module named caffe')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModelError, match="scripts/build_caffe.sh"):
        load_network(model, engine="caffe", on_message=print)


def test_the_engine_needs_linux(model, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ModelError, match="--engine caffe needs Linux"):
        load_network(model, engine="caffe", on_message=print)


@needs_caffe
def test_a_type_of_caffe_alone_is_left_to_caffe(tmp_path):
    net = NetBuilder("own", SIZE)
    net.conv("conv1", "data", 4, 3)
    nets.save(tmp_path, net.message)
    with open(tmp_path / "deploy.prototxt", "a") as file:
        file.write('layer { name: "step" type: "Threshold" bottom: "conv1" top: "step" }')
    network = load_network(tmp_path, engine="caffe", on_message=print)
    assert isinstance(network, CaffeNetwork) and network.shape("step", SIZE) == (4, 35, 39)
    assert set(network.activations(nets.picture(SIZE), "step").unique().tolist()) == {0, 1}
