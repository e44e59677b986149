"""The convolution and its derivative, in every layout of the weights, against PyTorch's own in double precision."""

import math

import pytest
import torch
import torch.nn.functional as F

from deepdream.networks.torch import conv2d
from deepdream.networks.torch.chain import Chain
from deepdream.networks.torch.conv2d import FusedConv2d, Window

# in, out, kernel, stride, pad, dilation, groups
WINDOWS = {
    "3x3": (8, 12, 3, 1, 1, 1, 1),
    "1x1": (16, 32, 1, 1, 0, 1, 1),
    "5x3": (8, 12, (5, 3), 1, (2, 0), 1, 1),
    "dilated": (8, 12, 3, 1, 2, 2, 1),
    "padded beyond its reach": (8, 12, 3, 1, 3, 1, 1),
    "two groups": (8, 12, 3, 1, 1, 1, 2),
    "depthwise": (16, 16, 5, 1, 2, 1, 16),
    "strided": (8, 12, 3, 2, 1, 1, 1),
    "strided depthwise": (16, 16, 3, 2, 1, 1, 16),
    "of a picture": (3, 16, 7, 2, 3, 1, 1),
    "of a picture, dilated": (3, 16, 3, 1, 2, 2, 1),
}
# What rounding may make of sums of some hundred products, relative to the largest value.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def made(window, dtype, ceiling, owns_gradient=False, sizes=None):
    """A `FusedConv2d`, and its convolution without the activation in double precision."""
    ins, outs, kernel, stride, pad, dilation, groups = window
    torch.manual_seed(1)
    weight = torch.randn(outs, ins // groups, *pair(kernel)).to(dtype)
    bias = torch.randn(outs).to(dtype)
    places = pair(stride), pair(pad), pair(dilation), groups

    def plain(x):
        return F.conv2d(x, weight.double(), bias.double(), *places)

    return FusedConv2d(
        weight, bias, Window(pair(kernel), *places), ceiling, sizes or [outs], owns_gradient, False, dtype
    ), plain


def assert_near(found, wanted, dtype, largest=None):
    assert (found.double() - wanted).abs().max() <= TOLERANCES[dtype] * (largest or wanted.abs().max())


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("ceiling", [None, math.inf, 3.0])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_values_and_derivatives_are_those_of_pytorch(window, ceiling, dtype):
    """At sizes that go up and down, since the weights' layout is chosen by the size."""
    convolve, plain = made(window, dtype, ceiling)
    for height, width in ((9, 11), (40, 33), (41, 33), (9, 12)):
        x = torch.randn(1, window[0], height, width).to(dtype)
        mine, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
        (y,), before = Chain([convolve])(mine), plain(theirs)
        found, wanted = y.detach(), before.detach()
        assert found.dtype == (torch.promote_types(dtype, torch.float32) if window[0] == 3 else dtype)
        assert_near(found, wanted if ceiling is None else wanted.clamp(0, ceiling), dtype, wanted.abs().max())
        # Which gradients pass an activation is decided by the values that were found, rounded as they are.
        passing = torch.ones_like(found) if ceiling is None else (found > 0) & (found < ceiling)
        direction = torch.randn(y.shape).to(found.dtype)
        torch.autograd.backward(y, direction)
        torch.autograd.backward(before, direction.double() * passing)
        assert_near(mine.grad, theirs.grad, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chain_is_its_links_one_after_another(dtype):
    """Bit by bit, the first of them in another type than the rest: a picture is not rounded to bfloat16."""
    links = [made((3, 16, 3, 1, 1, 1, 1), dtype, 3.0)[0], made(WINDOWS["1x1"], dtype, None)[0]]
    links.append(made((32, 8, 3, 1, 1, 1, 1), dtype, math.inf, sizes=[3, 5])[0])
    x = torch.randn(1, 3, 9, 11)
    whole, parts = x.clone().requires_grad_(), x.clone().requires_grad_()
    between = parts
    for link in links[:-1]:
        (between,) = Chain([link])(between)
    chained, alone = Chain(links)(whole), Chain(links[-1:])(between)
    directions = [torch.randn(y.shape).to(y.dtype) for y in alone]
    torch.autograd.backward(chained, directions)
    torch.autograd.backward(alone, directions)
    assert all(map(torch.equal, chained, alone)) and torch.equal(whole.grad, parts.grad)
    assert [y.dtype for y in chained] == [dtype, dtype] and whole.grad.abs().max() > 0


@pytest.mark.parametrize("owns", [True, False])
def test_only_a_gradient_of_its_own_is_overwritten(owns):
    convolve, _ = made(WINDOWS["3x3"], torch.float32, math.inf, owns)
    x = torch.randn(1, 8, 9, 11, requires_grad=True)
    (y,) = Chain([convolve])(x)
    gradient = torch.randn(y.shape).contiguous(memory_format=torch.channels_last)
    before = gradient.clone()
    convolve.backward((gradient,), y.detach(), x.shape)
    assert torch.equal(gradient, before) != owns


def test_a_gradient_that_is_spread_out_is_left_alone():
    """One number for a whole channel, as a global mean gives it, cannot hold what passes the activation."""
    results = []
    for owns in (True, False):
        convolve, _ = made(WINDOWS["3x3"], torch.float32, math.inf, owns)
        torch.manual_seed(0)
        x = torch.randn(1, 8, 9, 11, requires_grad=True)
        results.append(torch.autograd.grad(Chain([convolve])(x)[0].mean((2, 3)).sum(), x)[0])
    assert torch.equal(*results)


def test_outputs_side_by_side_are_split_and_their_gradients_joined():
    convolve, plain = made(WINDOWS["1x1"], torch.float32, math.inf, sizes=[5, 20, 7])
    x = torch.randn(1, 16, 9, 11, requires_grad=True)
    outputs = Chain([convolve])(x)
    assert [y.shape[1] for y in outputs] == [5, 20, 7]
    directions = [torch.randn(y.shape) for y in outputs]
    torch.autograd.backward(outputs, directions)
    twin = x.detach().double().requires_grad_()
    torch.autograd.backward(plain(twin).clamp(0), torch.cat(directions, 1).double())
    assert_near(x.grad, twin.grad, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes, owns", [([32], True), ([32], False), ([5, 20, 7], False)])
def test_of_large_values_a_bit_each_is_kept_which_changes_nothing(dtype, sizes, owns, monkeypatch):
    convolve, _ = made(WINDOWS["1x1"], dtype, 3.0, owns, sizes)
    x = torch.randn(1, 16, 9, 11, requires_grad=True)
    direction = torch.randn(1, 32, 9, 11).to(dtype)
    gradients, kept = [], []
    for large in (32 * 9 * 11 + 1, 32 * 9 * 11):
        monkeypatch.setattr(conv2d, "LARGE", large)
        kept.append(convolve.kept(convolve.forward(x.detach().to(dtype))))
        gradients += torch.autograd.grad(Chain([convolve])(x), x, direction.split(sizes, 1))
    assert [one.dtype for one in kept] == [dtype, torch.uint8] and kept[0].numel() == 8 * kept[1].numel()
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    "pictures, kept",
    [((1, 3, 2, 1 << 17), torch.uint8), ((2, 1, 1, 1 << 17), torch.uint8), ((1, 3, 1, (1 << 18) - 1), None)],
)
def test_of_small_pictures_values_are_kept_as_they_are(pictures, kept, monkeypatch):
    monkeypatch.setattr(conv2d, "LARGE", 1)
    convolve, _ = made(WINDOWS["1x1"], torch.float32, 3.0)
    y = convolve.forward(torch.randn(1, 16, 9, 11))
    with conv2d.looked_at(torch.empty(pictures, device="meta")):
        assert convolve.kept(y).dtype == (kept or y.dtype)
    assert convolve.kept(y).dtype == torch.uint8


def test_a_gradient_keeps_what_suits_the_size_of_its_picture(small_network, monkeypatch):
    seen = []
    monkeypatch.setattr(conv2d.FusedConv2d, "kept", lambda self, y: seen.append(conv2d.is_picture_large.get()))
    for side in (16, 32):
        monkeypatch.setattr(conv2d, "LARGE_PICTURE", 32 * 32)
        small_network.gradient(torch.zeros(3, side, side), "conv1", lambda top: top)
    assert seen == [False, True]


@pytest.mark.parametrize("small, made_anew", [(True, 1), (False, 3)])
def test_small_weights_stay_laid_out_for_all_octaves_and_large_ones_for_the_last(small, made_anew, monkeypatch):
    if not small:
        monkeypatch.setattr(conv2d, "MAX_SMALL_WEIGHT", 16 * 8 - 1)
    weight, calls = torch.randn(8, 16, 1, 1), []
    convolve = conv2d.PackedConv2d(lambda: calls.append(1) or weight)
    pictures = [torch.randn(1, 16, *size).contiguous(memory_format=torch.channels_last) for size in ((9, 11), (20, 20))]
    for x in (*pictures, *pictures, pictures[1][:, :, :-1]):
        torch.testing.assert_close(convolve(x), F.conv2d(x, weight))
    assert len(calls) == 1 + made_anew
    for number in range(conv2d.MAX_LAYOUTS + 2):
        convolve(torch.randn(1, 16, 3, 8 << number).contiguous(memory_format=torch.channels_last))
    assert len(convolve._layouts) == (conv2d.MAX_LAYOUTS if small else 1)
