"""The layer types of Caffe's forks that real Caffe, as it is built here, does not have: against formulas in numpy.

And corners of other types that must hold where real Caffe is not there to compare with.
"""

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from deepdream.errors import ModelError
from deepdream.networks.caffemodel import Layer, pb
from deepdream.networks.torch.layers import LAYER_TYPES, Weights

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 6, 5, 7))


def run(text, bottoms, blobs=()):
    """A layer on arrays of float64; its gradient is checked against finite differences on the way."""
    p = text_format.Parse(text, pb.LayerParameter(name="layer"))
    layer = Layer("layer", p.type, ("x",) * len(bottoms), ("top",), p, tuple(blobs))
    function = LAYER_TYPES[p.type](layer, Weights(layer, "cpu", torch.float64))
    inputs = [torch.from_numpy(bottom).requires_grad_() for bottom in bottoms]
    assert torch.autograd.gradcheck(function, inputs)
    return function(*inputs).detach().numpy()


def test_axpy():
    a, y = RNG.standard_normal((1, 6, 1, 1)), RNG.standard_normal(X.shape)
    expected = np.stack([a[0, c, 0, 0] * X[0, c] + y[0, c] for c in range(6)])[None]
    np.testing.assert_allclose(run('type: "Axpy"', [a, X, y]), expected)


def test_shuffle_channel():
    """Zhang et al. 2017: channel c of group g comes to stand at c * groups + g."""
    found = run('type: "ShuffleChannel" shuffle_channel_param { group: 3 }', [X])
    np.testing.assert_array_equal(found[0], X[0, [0, 2, 4, 1, 3, 5]])


@pytest.mark.parametrize("name", ["DepthwiseConvolution", "ConvolutionDepthwise"])
@pytest.mark.parametrize("group", ["", "group: 6"])
def test_depthwise_convolution(name, group):
    weight, bias = RNG.standard_normal((6, 1, 3, 3)), RNG.standard_normal(6)
    text = f'type: "{name}" convolution_param {{ num_output: 6 kernel_size: 3 stride: 2 pad: 1 {group} }}'
    padded = np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.empty((1, 6, 3, 4))
    for c, h, w in np.ndindex(6, 3, 4):
        window = padded[0, c, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3]
        expected[0, c, h, w] = (window * weight[c, 0]).sum() + bias[c]
    np.testing.assert_allclose(run(text, [X], [weight, bias]), expected)


def bilinear(x, height, width):
    """Corners on corners, as DeepLab's Interp."""
    for axis, size in ((2, height), (3, width)):
        old = x.shape[axis]
        position = np.arange(size) * ((old - 1) / (size - 1) if size > 1 else 0)
        low = np.minimum(position.astype(int), old - 1)
        high, share = np.minimum(low + 1, old - 1), position - low
        share = share[:, None] if axis == 2 else share
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return x


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        ("height: 9 width: 4", (9, 4)),
        ("zoom_factor: 3", (13, 19)),
        ("shrink_factor: 2", (3, 4)),
        ("shrink_factor: 2 zoom_factor: 2", (5, 7)),
        ("height: 1 width: 1", (1, 1)),
    ],
)
def test_interp(parameters, size):
    found = run(f'type: "Interp" interp_param {{ {parameters} }}', [X])
    np.testing.assert_allclose(found, bilinear(X, *size), atol=1e-12)


def test_interp_crops():
    found = run('type: "Interp" interp_param { height: 4 width: 4 pad_beg: -1 pad_end: -2 }', [X])
    np.testing.assert_allclose(found, bilinear(X[:, :, 1:-2, 1:-2], 4, 4), atol=1e-12)


def test_upsample():
    """Real Caffe has it, but without a gradient."""
    found = run('type: "Upsample" upsample_param { scale: 2 }', [X])
    np.testing.assert_array_equal(found, X.repeat(2, 2).repeat(2, 3))


@pytest.mark.parametrize("across", ["true", "false"])
def test_normalize_with_a_factor_a_channel(across):
    """Liu et al. 2015. Real Caffe computes it, but leaves the factors out of a part of its gradient."""
    factors = RNG.uniform(5, 20, 6)
    text = f'type: "Normalize" norm_param {{ across_spatial: {across} channel_shared: false }}'
    length = np.sqrt((X**2).sum((1, 2, 3) if across == "true" else 1, keepdims=True))
    np.testing.assert_allclose(run(text, [X], [factors]), X / length * factors[:, None, None])


# Where Caffe's result is no more than an accident, a layer has to do something sensible.


def test_mvn_of_a_flat_channel_has_a_gradient():
    flat = torch.full((1, 2, 4, 4), 7.0, requires_grad=True)
    p = pb.LayerParameter(name="layer", type="MVN")
    function = LAYER_TYPES["MVN"](Layer("layer", "MVN", ("x",), ("top",), p), None)
    (gradient,) = torch.autograd.grad(function(flat).sum(), flat)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ('type: "Eltwise"', [(1, 6, 5, 7), (1, 6, 1, 1)]),
        ('type: "Slice" top: "a" top: "b" top: "c" top: "d"', [(1, 6, 5, 7)]),
        ('type: "Scale"', [(1, 6, 5, 7), (1, 6)]),
        ('type: "Pooling" pooling_param { kernel_size: 1 stride: 2 }', [(1, 6, 8, 8)]),
    ],
)
def test_what_does_not_fit_is_no_result(text, shapes):
    p = text_format.Parse(text, pb.LayerParameter(name="layer"))
    layer = Layer("layer", p.type, ("x",) * len(shapes), tuple(p.top), p)
    with pytest.raises(ValueError):
        LAYER_TYPES[p.type](layer, Weights(layer, "cpu", torch.float64))(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [((3, 3), (2, 2), (1, 1)), ((3, 3), (2, 2), (2, 2)), ((5, 5), (4, 4), (0, 0)),
                                  ((4, 2), (3, 2), (3, 1))],
)  # fmt: skip
def test_average_pooling_counts_the_padding_and_nothing_beyond(kernel, stride, pad):
    """As Caffe's pooling_layer.cpp: a window ends at the padding's end at the latest, and its size is the divisor."""
    height, width = X.shape[2:]
    sides = zip((height, width), kernel, stride, pad)
    rows, columns = (-(-(size + 2 * p - k) // s) + 1 for size, k, s, p in sides)
    rows, columns = (  # the last window must start inside of the picture or of the padding before it
        count - (p > 0 and (count - 1) * s >= size + p)
        for count, size, s, p in zip((rows, columns), (height, width), stride, pad)
    )
    expected = np.empty((1, 6, rows, columns))
    for row, column in np.ndindex(rows, columns):
        top, left = row * stride[0] - pad[0], column * stride[1] - pad[1]
        bottom, right = min(top + kernel[0], height + pad[0]), min(left + kernel[1], width + pad[1])
        window = X[0, :, max(top, 0) : bottom, max(left, 0) : right]
        expected[0, :, row, column] = window.sum((1, 2)) / ((bottom - top) * (right - left))
    sizes = " ".join(
        f"{name}_{side}: {value}"
        for name, values in (("kernel", kernel), ("stride", stride), ("pad", pad))
        for side, value in zip("hw", values)
    )
    np.testing.assert_allclose(run(f'type: "Pooling" pooling_param {{ pool: AVE {sizes} }}', [X]), expected)


def test_a_kernel_in_three_dimensions_is_refused():
    text = 'type: "Convolution" convolution_param { num_output: 4 kernel_size: [3, 3, 3] }'
    with pytest.raises(ModelError, match="kernel_size in 3 dimensions; a picture has two"):
        run(text, [X], [np.zeros((4, 6, 3, 3, 3))])
