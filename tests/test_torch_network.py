"""A network's forward pass and its gradient, against Caffe, scipy and finite differences."""

from collections import Counter

import numpy as np
import pytest
import torch
from nets import SMALL, SMALL_SIZE, random_blobs, write_model
from scipy import ndimage, signal
from torch.utils._python_dispatch import TorchDispatchMode

from deepdream.errors import ModelError, OutOfMemory, PictureTooSmall
from deepdream.networks.caffemodel import load_model
from deepdream.networks.torch import compiled, fusion
from deepdream.networks.torch import network as torch_network
from deepdream.networks.torch.fusion import ChainStep
from deepdream.networks.torch.network import TorchNetwork
from deepdream.picture import objectives

CAFFE_LAYERS = ("pool1", "fire2/concat", "fire5/concat", "fire8/concat", "fire9/concat")


def random_picture(height, width, seed=0):
    values = np.random.default_rng(seed).uniform(-120, 130, (3, height, width))
    return torch.from_numpy(values.astype(np.float32))


def small_model(folder, prototxt=SMALL, without=()):
    blobs = {name: arrays for name, arrays in random_blobs(SMALL).items() if name not in without}
    return load_model(*write_model(folder, prototxt, blobs))


def network_of(model):
    return TorchNetwork(model, mean=(104, 116, 122), loop=())


# --- Forward ---------------------------------------------------------------------------------------


def test_a_convolution_is_that_of_scipy(small_network):
    weights, bias = random_blobs(SMALL)["conv1"]
    picture = random_picture(21, 30)
    wanted = [
        sum(signal.correlate2d(plane, kernel, "valid") for plane, kernel in zip(picture.numpy(), kernels)) + shift
        for kernels, shift in zip(weights, bias)
    ]
    seen = small_network.activations(picture, "conv1")
    np.testing.assert_allclose(seen, np.stack(wanted)[:, ::2, ::2], atol=1e-3)


def test_pooling_keeps_the_last_window_as_caffe_does(small_network):
    relu = small_network.activations(random_picture(20, 32), "relu1").numpy()
    assert relu.shape == (6, 8, 14)
    wanted = ndimage.maximum_filter(relu, (1, 3, 3))[:, 1::2, 1::2]  # windows start at 0, 2, 4 ...
    pooled = small_network.activations(random_picture(20, 32), "pool1").numpy()
    assert pooled.shape == (6, 4, 7)  # the last row and column of windows hang over the edge
    np.testing.assert_array_equal(pooled, wanted)


def test_a_layer_is_read_before_the_in_place_layer_that_follows(small_network):
    picture = random_picture(*SMALL_SIZE)
    for layer, after in (("conv1", "relu1"), ("mixed", "relu2")):
        raw, rectified = (small_network.activations(picture, name).numpy() for name in (layer, after))
        assert raw.min() < 0
        np.testing.assert_array_equal(rectified, raw.clip(0))
    # What comes later works on the rectified values all the same.
    both = [small_network.activations(picture, name) for name in ("left", "right")]
    np.testing.assert_array_equal(small_network.activations(picture, "mixed"), torch.cat(both))


def test_only_what_a_layer_needs_is_run(tmp_path):
    text = SMALL.replace('name: "prob" type: "Softmax"', 'name: "prob" type: "Mystery"')
    network = network_of(small_model(tmp_path, text, without=("right", "narrow", "classes")))
    assert network.activations(random_picture(*SMALL_SIZE), "left").shape[0] == 4
    with pytest.raises(ModelError, match="layer right"):
        network.activations(random_picture(*SMALL_SIZE), "mixed")


def test_a_layer_that_needs_another_input_is_refused(tmp_path):
    text = SMALL.replace('bottom: "norm1" top: "right"', 'bottom: "other" top: "right"')
    text = text.replace("dim: 48 }", 'dim: 48 } input: "other" input_shape { dim: 1 dim: 6 dim: 9 dim: 11 }', 1)
    network = network_of(small_model(tmp_path, text))
    assert network.activations(random_picture(*SMALL_SIZE), "left").shape[0] == 4
    with pytest.raises(ModelError, match="layer mixed needs an input that is not the picture"):
        network.activations(random_picture(*SMALL_SIZE), "mixed")


def test_a_layer_that_puts_nothing_out_is_refused(tmp_path):
    text = SMALL + 'layer { name: "hush" type: "Silence" bottom: "prob" }'
    with pytest.raises(ModelError, match=r"layer hush \(Silence\) puts nothing out"):
        network_of(small_model(tmp_path, text)).activations(random_picture(*SMALL_SIZE), "hush")


@pytest.mark.parametrize("layer", CAFFE_LAYERS)
def test_squeezenet_computes_what_caffe_does(squeezenet, caffe_reference, layer):
    seen = squeezenet.activations(torch.from_numpy(caffe_reference["input"]), layer).numpy()
    wanted = caffe_reference[layer.replace("/", "__")]
    np.testing.assert_allclose(seen, wanted, atol=1e-4 * abs(wanted).max())


# --- Gradient --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv1", "relu1", "pool1", "norm1", "mixed", "narrow", "prob"])
@pytest.mark.parametrize("objective", ["l2", "guide"])
def test_the_gradient_is_that_of_finite_differences(small_folder, layer, objective):
    model = load_model(small_folder / "deploy.prototxt", small_folder / "net.caffemodel")
    network = TorchNetwork(model, mean=(104, 116, 122), loop=(), precision="float64")
    # Small values, for the class probabilities are flat where one of them is nearly 1.
    picture = random_picture(*SMALL_SIZE).double() / 100
    towards = network.activations(random_picture(*SMALL_SIZE, seed=1).double() / 100, layer)

    def value(x):
        layer_values = network.activations(x, layer)
        if objective == "l2":
            return float(layer_values.square().sum() / 2)
        return float((layer_values.reshape(len(towards), -1).T @ towards.reshape(len(towards), -1)).max(1).values.sum())

    gradient = network.gradient(picture, layer, objectives.l2 if objective == "l2" else objectives.guide(towards))
    assert gradient.dtype == torch.float64 and gradient.shape == picture.shape
    numeric, analytic, reach = [], [], 1e-6
    for place in np.random.default_rng(0).choice(picture.numel(), 40, replace=False):
        change = torch.zeros_like(picture)
        change.view(-1)[place] = reach
        numeric.append((value(picture + change) - value(picture - change)) / (2 * reach))
        analytic.append(float(gradient.reshape(-1)[place]))
    assert np.abs(analytic).max() > 0
    np.testing.assert_allclose(numeric, analytic, rtol=1e-4, atol=1e-5 * np.abs(analytic).max())


def test_squeezenets_gradient_is_caffes(squeezenet, caffe_reference):
    gradient = squeezenet.gradient(torch.from_numpy(caffe_reference["input"]), "pool1", objectives.l2).numpy()
    wanted = caffe_reference["grad__pool1"]
    np.testing.assert_allclose(gradient, wanted, atol=1e-4 * abs(wanted).max())


@pytest.mark.parametrize("layer", CAFFE_LAYERS[1:])
def test_squeezenets_deep_gradients_point_where_caffes_do(squeezenet, caffe_reference, layer):
    # Where two values of a pooling window nearly tie, float32 rounds one way or the other, and
    # the gradient of those few pixels goes elsewhere: so most pixels agree, and not all.
    gradient = squeezenet.gradient(torch.from_numpy(caffe_reference["input"]), layer, objectives.l2).numpy()
    wanted = caffe_reference[f"grad__{layer.replace('/', '__')}"]
    alike = (gradient * wanted).sum() / np.linalg.norm(gradient) / np.linalg.norm(wanted)
    assert alike > 0.999
    assert abs(np.linalg.norm(gradient) / np.linalg.norm(wanted) - 1) < 1e-2


def test_the_gradient_leaves_the_picture_alone(small_network):
    picture = random_picture(*SMALL_SIZE)
    before = picture.clone()
    gradient = small_network.gradient(picture, "conv1", objectives.l2)
    assert torch.equal(picture, before)
    assert not picture.requires_grad and not gradient.requires_grad


# --- Shapes and sizes ------------------------------------------------------------------------------


def test_layers_are_in_the_order_of_the_prototxt(small_network):
    assert small_network.layers[:5] == ("conv1", "relu1", "pool1", "norm1", "left")
    assert small_network.input_size == SMALL_SIZE


@pytest.mark.parametrize("size", [SMALL_SIZE, (19, 33), (64, 21)])
def test_shapes_are_foretold(small_network, size):
    for layer in ("conv1", "pool1", "mixed", "narrow"):
        assert small_network.shape(layer, size) == tuple(small_network.activations(random_picture(*size), layer).shape)


@pytest.mark.parametrize("layer, least", [("conv1", 5), ("pool1", 7), ("right", 7), ("narrow", 19)])
def test_the_least_size_is_the_least(small_network, layer, least):
    assert small_network.least_size(layer) == least
    small_network.check_size(layer, (least, least + 7))
    assert small_network.activations(random_picture(least, least), layer).numel() > 0
    # A picture one pixel smaller is told with the layer, its own size, and the least one.
    for size in ((least - 1, least + 7), (least + 7, least - 1)):
        with pytest.raises(PictureTooSmall, match=f"layer {layer} .* {size[1]}x{size[0]} .*at least {least}x{least}"):
            small_network.check_size(layer, size)


def test_a_layer_that_takes_one_size_only_says_so(small_network):
    small_network.check_size("classes", SMALL_SIZE)
    with pytest.raises(PictureTooSmall, match="layer classes takes pictures of 48x40 only, not 64x64"):
        small_network.check_size("classes", (64, 64))


def test_an_unknown_layer_is_refused(small_network):
    with pytest.raises(ModelError, match="small has no layer conv9"):
        small_network.activations(random_picture(*SMALL_SIZE), "conv9")


def test_the_layers_are_listed_with_shapes_or_reasons(tmp_path):
    listed = dict(network_of(small_model(tmp_path, SMALL.replace('"Softmax"', '"Mystery"'))).layer_shapes())
    assert listed["conv1"] == (6, 18, 22)
    assert listed["classes"] == (7,)
    assert "prob has the type Mystery" in listed["prob"]


# --- Fusion ----------------------------------------------------------------------------------------

BRANCHES = """
name: "branches" input: "data" input_shape { dim: 1 dim: 3 dim: 24 dim: 30 }
layer { name: "stem" type: "Convolution" bottom: "data" top: "stem"
        convolution_param { num_output: 8 kernel_size: KERNEL stride: STRIDE pad: PAD } }
layer { name: "stem/relu" type: "ReLU" bottom: "stem" top: "stem" }
layer { name: "stem/flip" type: "Power" bottom: "stem" top: "flipped" power_param { scale: -1 shift: 0.5 } }
layer { name: "stem/relu2" type: "ReLU" bottom: "flipped" top: "flipped" }
layer { name: "stem/flip2" type: "Power" bottom: "flipped" top: "capped" power_param { scale: -1 shift: 0.5 } }
layer { name: "a" type: "Convolution" bottom: "capped" top: "a" convolution_param { num_output: 3 kernel_size: 1 } }
layer { name: "a/relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "Convolution" bottom: "capped" top: "b"
        convolution_param { num_output: 4 kernel_size: 1 bias_term: false } }
layer { name: "b/relu" type: "ReLU" bottom: "b" top: "b" }
layer { name: "c" type: "Convolution" bottom: "capped" top: "c" convolution_param { num_output: 5 kernel_size: 1 } }
layer { name: "b/wide" type: "Convolution" bottom: "b" top: "b/wide"
        convolution_param { num_output: 5 kernel_size: 3 pad: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "b/wide" bottom: "c" top: "sum" }
layer { name: "all" type: "Concat" bottom: "a" bottom: "b" bottom: "sum" bottom: "stem" top: "all" }
"""


def assert_fused_as_alone(model, layer, monkeypatch):
    """In double precision, where nothing but a mistake tells the two apart."""
    picture = random_picture(23, 31).double() / 20  # some values reach the ceiling of `BRANCHES`
    results = []
    for fusing in (True, False):
        if not fusing:
            monkeypatch.setattr(torch_network, "fuse", lambda steps, target: steps)
        network = TorchNetwork(model, mean=(104, 116, 122), loop=(), precision="float64")
        results.append((network.activations(picture, layer), network.gradient(picture, layer, objectives.l2)))
    for fused, alone in zip(*results):
        torch.testing.assert_close(fused, alone, rtol=1e-10, atol=1e-12)


WINDOWS = [(3, 1, 1), (7, 2, 3), (5, 3, 0), (4, 4, 2), (2, 3, 1), (1, 2, 0)]
FUSED_LAYERS = ("stem", "stem/relu", "stem/flip2", "a/relu", "b", "c", "sum")


@pytest.mark.parametrize(
    "kernel, stride, pad, layer",
    [(*window, "all") for window in WINDOWS] + [(*WINDOWS[1], layer) for layer in FUSED_LAYERS],
)
def test_fused_layers_compute_what_each_would_alone(tmp_path, monkeypatch, kernel, stride, pad, layer):
    """The stem is read by two layers here, so that its activation must not be swallowed where "all" is asked for."""
    text = BRANCHES.replace("KERNEL", str(kernel)).replace("STRIDE", str(stride)).replace("PAD", str(pad))
    write_model(tmp_path, text, random_blobs(text))
    model = load_model(tmp_path / "deploy.prototxt", tmp_path / "net.caffemodel")
    assert_fused_as_alone(model, layer, monkeypatch)


@pytest.mark.parametrize(
    "before, after",
    [
        ('top: "capped" power_param { scale: -1 shift: 0.5 }', 'top: "capped" power_param { scale: -1 shift: 0.6 }'),
        ('bottom: "flipped" top: "flipped" }', 'bottom: "flipped" top: "flipped" relu_param { negative_slope: 0.1 } }'),
    ],
)
def test_flips_that_do_not_undo_each_other_are_no_ceiling(tmp_path, monkeypatch, before, after):
    text = BRANCHES.replace("KERNEL", "3").replace("STRIDE", "1").replace("PAD", "1")
    assert before in text
    model = load_model(*write_model(tmp_path, text.replace(before, after), random_blobs(text)))
    assert_fused_as_alone(model, "sum", monkeypatch)


NORMALISED = """
name: "normalised" input: "data" input_shape { dim: 1 dim: 3 dim: 24 dim: 30 }
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
        convolution_param { num_output: 8 kernel_size: 3 bias_term: false } }
layer { name: "a/bn" type: "BatchNorm" bottom: "a" top: "a" batch_norm_param { eps: 0.01 } }
layer { name: "a/scale" type: "Scale" bottom: "a" top: "a" scale_param { bias_term: true } }
layer { name: "a/relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "b/bn" type: "BatchNorm" bottom: "b" top: "b" }
layer { name: "c" type: "Convolution" bottom: "a" top: "c" convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "c/scale" type: "Scale" bottom: "c" top: "c" }
layer { name: "d" type: "Convolution" bottom: "a" top: "d" convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "d/bn" type: "BatchNorm" bottom: "d" top: "d/bn" batch_norm_param { use_global_stats: false } }
layer { name: "e/scale" type: "Scale" bottom: "d" bottom: "c" top: "e" scale_param { axis: 0 } }
layer { name: "all" type: "Concat" bottom: "b" bottom: "c" bottom: "d/bn" bottom: "e" top: "all" }
"""


def normalised_model(folder):
    rng = np.random.default_rng(3)

    def numbers(*shapes):
        return [np.float32(rng.uniform(0.5, 1.5, shape)) for shape in shapes]

    blobs = random_blobs(NORMALISED)
    blobs |= {"a/bn": numbers(8, 8, 1), "a/scale": numbers(8, 8), "b/bn": numbers(4, 4, 1), "c/scale": numbers(4)}
    return load_model(*write_model(folder, NORMALISED, blobs))


@pytest.mark.parametrize("layer", ["a", "a/bn", "a/scale", "a/relu", "b", "b/bn", "c/scale", "d/bn", "e/scale", "all"])
def test_normalising_layers_worked_into_the_weights_compute_the_same(tmp_path, monkeypatch, layer):
    model = normalised_model(tmp_path)
    assert_fused_as_alone(model, layer, monkeypatch)


STAGES = """
name: "stages" input: "data" input_shape { dim: 1 dim: 3 dim: 48 dim: 60 }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 8 kernel_size: 3 } }
layer { name: "a/relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "a/pool" type: "Pooling" bottom: "a" top: "a/pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "a/norm" type: "LRN" bottom: "a/pool" top: "a/norm" lrn_param { local_size: 5 alpha: 1 beta: 0.75 } }
layer { name: "b" type: "Convolution" bottom: "a/norm" top: "b" convolution_param { num_output: 9 kernel_size: 3 } }
layer { name: "b/relu" type: "ReLU" bottom: "b" top: "b" }
layer { name: "b/norm" type: "LRN" bottom: "b" top: "b/norm" lrn_param { local_size: 3 alpha: 1 beta: 0.75 } }
layer { name: "b/pool" type: "Pooling" bottom: "b/norm" top: "b/pool" pooling_param { kernel_size: 3 pad: 1 } }
layer { name: "c" type: "Convolution" bottom: "b/pool" top: "c" convolution_param { num_output: 9 kernel_size: 1 } }
layer { name: "c/relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "c/norm" type: "LRN" bottom: "c" top: "c/norm" lrn_param { local_size: 3 alpha: 1 beta: 0.75 } }
layer { name: "d" type: "Convolution" bottom: "c/norm" top: "d" convolution_param { num_output: 9 kernel_size: 1 } }
layer { name: "d/relu" type: "ReLU" bottom: "d" top: "d" }
layer { name: "d/pool" type: "Pooling" bottom: "d" top: "d/pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "d/again" type: "Pooling" bottom: "d" top: "d/again" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "all" type: "Concat" bottom: "d/pool" bottom: "d/again" top: "all" }
layer { name: "e" type: "Convolution" bottom: "d/pool" top: "e"
        convolution_param { num_output: 6 kernel_size: 3 pad: 1 } }
layer { name: "e/relu" type: "ReLU" bottom: "e" top: "e" }
layer { name: "f" type: "Convolution" bottom: "d/pool" top: "f" convolution_param { num_output: 7 kernel_size: 1 } }
layer { name: "f/relu" type: "ReLU" bottom: "f" top: "f" }
layer { name: "g" type: "Convolution" bottom: "d/pool" top: "g" convolution_param { num_output: 5 kernel_size: 1 } }
layer { name: "g/relu" type: "ReLU" bottom: "g" top: "g" }
layer { name: "module" type: "Concat" bottom: "e" bottom: "f" top: "module" }
layer { name: "pooled" type: "Pooling" bottom: "module" top: "pooled" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "e/pool" type: "Pooling" bottom: "e" top: "e/pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "shared" type: "Concat" bottom: "pooled" bottom: "e/pool" top: "shared" }
layer { name: "g/pool" type: "Pooling" bottom: "g" top: "g/pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "beside" type: "Concat" bottom: "pooled" bottom: "g/pool" top: "beside" }
layer { name: "again" type: "Pooling" bottom: "module" top: "again" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "twice" type: "Concat" bottom: "pooled" bottom: "again" top: "twice" }
"""
ENDS = ("a/pool", "b/norm", "b/pool", "c/norm", "d/pool", "all", "pooled", "shared", "beside", "twice")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer", ENDS)
def test_norms_and_maximums_after_a_relu_compute_the_same_at_once_as_alone(tmp_path, monkeypatch, layer, precision):
    """Bit by bit. A value may be read by another layer as well, as a whole or in part: neither may stop for both."""
    model = load_model(*write_model(tmp_path, STAGES, random_blobs(STAGES)))
    picture = random_picture(47, 62) / 100
    gradients = []
    for joins in (True, False):
        if not joins:
            monkeypatch.setattr(fusion, "_with_stops", lambda steps, uses, readers: steps)
        network = TorchNetwork(model, mean=(104, 116, 122), loop=(), precision=precision)
        assert any(isinstance(step, fusion.StoppingStep) for step, _ in network._plan(layer)[0]) == joins
        gradients.append(network.gradient(picture, layer, objectives.l2))
    assert torch.equal(*gradients) and gradients[0].any()


def test_a_relu_whose_values_are_asked_for_as_well_is_differentiated_on_its_own(tmp_path):
    """Its own objective may pull where the maximum of it does not."""
    network = network_of(load_model(*write_model(tmp_path, STAGES, random_blobs(STAGES))))
    picture = random_picture(47, 62) / 100
    parts = {"a/relu": lambda top: -top, "a/pool": lambda top: top}
    apart = sum(network.gradient_of_sum(picture, {layer: objective}) for layer, objective in parts.items())
    torch.testing.assert_close(network.gradient_of_sum(picture, parts), apart, rtol=1e-4, atol=1e-5)


def test_of_a_concat_and_its_maximum_the_layer_that_fails_is_named(tmp_path):
    text = STAGES.replace(
        'top: "pooled" pooling_param { kernel_size: 3', 'top: "pooled" pooling_param { kernel_size: 60'
    )
    network = network_of(load_model(*write_model(tmp_path, text, random_blobs(STAGES))))
    with pytest.raises(PictureTooSmall) as raised:
        network.activations(random_picture(47, 62), "pooled")
    assert "layer pooled (Pooling) does not fit its input" in str(raised.value.__cause__)


@pytest.mark.parametrize(
    "parameters, message",
    [
        # Caffe takes no value from there, and writes the derivative to memory that is not its own.
        ("kernel_size: 2 stride: 30", "layer pool .Pooling.*the last window of 2, 30 apart, lies outside 30"),
        ("kernel_size: 2 pool: STOCHASTIC", "layer pool .Pooling.: STOCHASTIC pooling has no gradient"),
    ],
)
def test_pooling_that_cannot_be_differentiated_is_refused(tmp_path, parameters, message):
    text = """
    name: "far" input: "data" input_shape { dim: 1 dim: 3 dim: 24 dim: 30 }
    layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 8 kernel_size: 1 } }
    """
    pool = f'layer {{ name: "pool" type: "Pooling" bottom: "a" top: "pool" pooling_param {{ {parameters} }} }}'
    network = network_of(load_model(*write_model(tmp_path, text + pool, random_blobs(text))))
    with pytest.raises(ModelError, match=message):
        network.activations(random_picture(24, 30), "pool")


def test_parts_of_different_sizes_are_refused_though_their_maximums_fit(tmp_path):
    text = """
    name: "odd" input: "data" input_shape { dim: 1 dim: 3 dim: 24 dim: 30 }
    layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 8 kernel_size: 3 } }
    layer { name: "b" type: "Convolution" bottom: "data" top: "b" convolution_param { num_output: 4 kernel_size: 1 } }
    layer { name: "ab" type: "Concat" bottom: "a" bottom: "b" top: "ab" }
    layer { name: "pool" type: "Pooling" bottom: "ab" top: "pool" pooling_param { kernel_size: 8 stride: 8 } }
    """
    blobs = random_blobs(text.replace("kernel_size: 3", "kernel_size: 1"))
    blobs["a"] = [np.ones((8, 3, 3, 3), np.float32), np.ones(8, np.float32)]
    network = network_of(load_model(*write_model(tmp_path, text, blobs)))
    with pytest.raises(ModelError, match="^layer ab .Concat. does not fit its input"):
        network.activations(random_picture(24, 30), "pool")


class Calls(TorchDispatchMode):
    """While this is entered, ``count`` holds how often each operation is called, by its name."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count[str(function.overloadpacket).rpartition(".")[2]] += 1
        return function(*args, **(kwargs or {}))


def calls(network, layer, size):
    """How often a run up to ``layer`` calls each operation, once the weights are there."""
    network.activations(random_picture(*size), layer)
    with Calls() as counted:
        network.activations(random_picture(*size), layer)
    return counted.count


def test_normalising_layers_cost_nothing(tmp_path):
    """A convolution for a, one for b, c and d; what goes by its own values, or by another layer's, stays."""
    network = network_of(normalised_model(tmp_path))
    assert calls(network, "all", (24, 30))["_convolution_pointwise"] == 2
    for layer in ("a/scale", "b/bn", "c/scale"):
        assert not calls(network, layer, (24, 30)).keys() & {"mul", "add", "native_batch_norm", "cudnn_batch_norm"}


def test_a_scale_of_another_number_of_channels_is_refused(tmp_path):
    text = NORMALISED[: NORMALISED.index('layer { name: "a/relu"')]
    blobs = random_blobs(text) | {"a/bn": [np.ones(n, np.float32) for n in (8, 8, 1)]}
    blobs["a/scale"] = [np.ones(5, np.float32), np.ones(5, np.float32)]
    network = network_of(load_model(*write_model(tmp_path, text, blobs)))
    with pytest.raises(ModelError, match="a/scale .Scale. scales 5 channels of 8"):
        network.activations(random_picture(24, 30), "a/scale")


def test_an_inception_module_is_four_convolutions(googlenet):
    """Of its six the three 1x1 that read the module's input are one; and no activation is a call of its own."""
    before, after = (calls(googlenet, layer, (97, 131)) for layer in ("pool2/3x3_s2", "inception_3a/output"))
    assert after["_convolution_pointwise"] - before["_convolution_pointwise"] == 4
    assert not after["relu"]


def test_an_activation_that_stops_at_6_costs_nothing(default_network):
    counted = calls(default_network, "block_0/output", (64, 64))
    assert counted["_convolution_pointwise"] == 3
    assert not counted.keys() & {"relu", "clamp", "hardtanh", "rsub", "neg"}


def test_convolutions_after_one_another_are_one_function(default_network):
    """Up to the value that a block both takes in and adds: it is read twice. The first block has no such sum."""
    steps = [step for step, _ in default_network._plan("block_2/output")[0]]
    assert [[link.layer.name for link in step.links] for step in steps if isinstance(step, ChainStep)] == [
        ["stem", "block_0/depthwise", "block_0/output", "block_1/expand", "block_1/depthwise", "block_1/output"],
        ["block_2/expand", "block_2/depthwise", "block_2/project"],
    ]
    assert len(steps) == 4


def test_of_a_chain_the_layer_that_fails_is_named(tmp_path):
    text = """
    name: "broken" input: "data" input_shape { dim: 1 dim: 3 dim: 24 dim: 30 }
    layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 8 kernel_size: 3 } }
    layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param { num_output: 4 kernel_size: 1 } }
    layer { name: "c" type: "Convolution" bottom: "b" top: "c" convolution_param { num_output: 4 kernel_size: 1 } }
    """
    blobs = random_blobs(text)
    blobs["b"] = np.ones((4, 5, 1, 1), np.float32), blobs["b"][1]
    network = network_of(load_model(*write_model(tmp_path, text, blobs)))
    for layer in "bc":
        with pytest.raises(ModelError, match="^layer b .Convolution. does not fit its input"):
            network.activations(random_picture(24, 30), layer)


def test_one_network_runs_a_layer_fused_for_one_target_and_alone_for_another(small_network):
    """What is built for one target must not be taken for another."""
    picture = random_picture(*SMALL_SIZE)
    before = small_network.activations(picture, "conv1")
    after = small_network.activations(picture, "relu1")
    assert (before < 0).any() and torch.equal(after, before.clamp(min=0))
    assert torch.equal(small_network.activations(picture, "conv1"), before)


# --- Memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("place", ["forward", "backward"])
def test_too_little_memory_is_told_with_the_layer(small_folder, monkeypatch, error, place):
    model = load_model(small_folder / "deploy.prototxt", small_folder / "net.caffemodel")
    network = network_of(model)
    picture = random_picture(*SMALL_SIZE)
    network.check_size("mixed", SMALL_SIZE)

    def fail(*arguments, **more):
        raise error

    target = (compiled, "max_pool") if place == "forward" else (torch.autograd, "grad")
    monkeypatch.setattr(*target, fail)
    with pytest.raises(OutOfMemory, match="not enough memory at layer") as raised:
        network.gradient(picture, "mixed", objectives.l2)
    assert raised.value.exit_status == 1
