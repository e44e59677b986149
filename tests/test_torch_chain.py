"""Chains of convolutions in strips of rows: bit by bit what they give as a whole, in less memory."""

import math

import pytest
import torch
from test_torch_convolution import made

from deepdream.networks.torch import chain, compiled, conv2d
from deepdream.networks.torch.chain import Chain
from deepdream.networks.torch.peak import PeakMemory

EXPAND, PROJECT = (8, 24, 1, 1, 0, 1, 1), (24, 12, 1, 1, 0, 1, 1)  # in, out, kernel, stride, pad, dilation, groups
DEPTHWISE = {
    "3x3": (24, 24, 3, 1, 1, 1, 24),
    "5x5": (24, 24, 5, 1, 2, 1, 24),
    "5x5 unpadded": (24, 24, 5, 1, 0, 1, 24),
    "5x3": (24, 24, (5, 3), 1, (2, 1), 1, 24),
    "dilated": (24, 24, 3, 1, 2, 2, 24),
    "3x3 strided": (24, 24, 3, 2, 1, 1, 24),
    "5x5 strided": (24, 24, 5, 2, 2, 1, 24),
    "3x3 strided by 3": (24, 24, 3, 3, 0, 1, 24),
    "2x2 strided": (24, 24, 2, 2, 0, 1, 24),
    "5x3 strided": (24, 24, (5, 3), (2, 1), (1, 1), 1, 24),
    "1x1 strided": (24, 24, 1, 2, 0, 1, 24),
}


def links(*windows, dtype=torch.float32, owns=True):
    """Each with an activation but the last; a gradient that is its own may be overwritten."""
    ceilings = [*[3.0, math.inf] * len(windows)][: len(windows) - 1] + [None]
    return [made(window, dtype, ceiling, owns)[0] for window, ceiling in zip(windows, ceilings)]


def both_ways(function, x):
    """The values of a chain and its derivative."""
    x = x.clone().requires_grad_()
    (y,) = function(x)
    torch.manual_seed(2)
    return y.detach(), torch.autograd.grad(y, x, torch.randn(y.shape).to(y.dtype))[0]


@pytest.fixture
def strips(monkeypatch):
    """Set how many values a strip has at most; gives how many strips were made, forward and back, one list each."""
    made_of = []

    def cut(*arguments):
        parts = list(whole_cut(*arguments))
        made_of.append(len(parts))
        return parts

    whole_cut = chain._cut
    monkeypatch.setattr(chain, "_cut", cut)

    def set_values(values):
        made_of.clear()
        monkeypatch.setattr(chain, "STRIP", values)
        return made_of

    return set_values


@pytest.mark.parametrize("size", [(37, 21), (40, 22), (12, 9)])
@pytest.mark.parametrize("window", DEPTHWISE.values(), ids=DEPTHWISE)
@pytest.mark.parametrize("around", ["before and after", "before", "after"])
def test_in_strips_a_chain_computes_what_it_does_as_a_whole(around, window, size, strips):
    parts = [window]
    parts = [EXPAND, *parts] if "before" in around else parts
    parts = [*parts, PROJECT] if "after" in around else parts
    chained = Chain(links(*parts))
    x = torch.randn(1, parts[0][0], *size)
    strips(1 << 40)
    whole = both_ways(chained, x)
    for rows in (whole[0].shape[2] // 2, 1):
        counts = strips(24 * whole[0].shape[3] * rows)
        in_strips = both_ways(chained, x)
        assert len(counts) == 2 and min(counts) > 1
        assert all(map(torch.equal, in_strips, whole))


def test_several_depthwise_ones_are_parted_where_the_fewest_values_pass():
    narrow, wide = (24, 4, 1, 1, 0, 1, 1), (4, 24, 1, 1, 0, 1, 1)
    first, second = DEPTHWISE["3x3"], DEPTHWISE["3x3 strided"]
    parted = chain._parted(links(EXPAND, first, narrow, wide, second, PROJECT))
    assert [[link.channels for link in part] for part in parted] == [[24, 24, 4], [24, 24, 12]]
    assert [len(part) for part in chain._parted(links(EXPAND, narrow))] == [2]


@pytest.mark.parametrize(
    "parts, count, dtype",
    [
        ((EXPAND, DEPTHWISE["3x3"]), 2, torch.float32),  # two pictures
        ((EXPAND, DEPTHWISE["3x3"]), 1, torch.bfloat16),
        ((EXPAND, (24, 24, 3, 1, 1, 1, 1)), 1, torch.float32),  # over all channels
        ((EXPAND, (24, 24, 3, 2, 3, 1, 24)), 1, torch.float32),  # padded beyond its reach
        ((DEPTHWISE["3x3"],), 1, torch.float32),  # alone
    ],
)
def test_what_has_nothing_from_strips_stays_whole(parts, count, dtype, strips):
    counts = strips(1)
    y, _ = both_ways(Chain(links(*parts, dtype=dtype)), torch.randn(count, parts[0][0], 20, 9).to(dtype))
    assert not counts and len(y) == count


def test_small_pictures_stay_whole(strips):
    counts = strips(1)
    with conv2d.looked_at(torch.empty(1, 3, 20, 9, device="meta")):
        both_ways(Chain(links(EXPAND, DEPTHWISE["3x3"])), torch.randn(1, 8, 20, 9))
    assert not counts


@pytest.mark.parametrize("owns", [True, False])
def test_only_a_gradient_of_its_own_is_overwritten(owns, strips):
    parts = links(EXPAND, DEPTHWISE["3x3"], owns=owns)
    parts[-1]._ceiling = math.inf
    x = torch.randn(1, 8, 20, 9, requires_grad=True)
    counts = strips(24 * 9 * 4)
    (y,) = Chain(parts)(x)
    direction = torch.randn(y.shape).contiguous(memory_format=torch.channels_last)
    before = direction.clone()
    torch.autograd.grad(y, x, direction)
    assert len(counts) == 2 and torch.equal(direction, before) != owns


def test_a_gradient_that_is_spread_out_is_left_alone(strips):
    """One number for a whole channel, as a global mean gives it, cannot hold what passes the activation."""
    parts = links(EXPAND, DEPTHWISE["3x3"])
    parts[-1]._ceiling = math.inf
    x = torch.randn(1, 8, 20, 9, requires_grad=True)
    gradients = []
    for values in (1 << 40, 24 * 9 * 4):
        counts = strips(values)
        gradients.append(torch.autograd.grad(Chain(parts)(x)[0].mean((2, 3)).sum(), x)[0])
    assert len(counts) == 2 and torch.equal(*gradients)


def test_strips_take_less_memory(strips):
    """By the estimate too. A wide value has 24 * 200 * 100 numbers, the ends 8 and 12."""
    chained = Chain(links(EXPAND, DEPTHWISE["3x3"], PROJECT))
    held = []
    for values in (1 << 40, 24 * 100 * 20):
        strips(values)
        with PeakMemory() as peak, compiled.emulate_device(torch.device("cpu")):
            x = torch.empty(1, 8, 200, 100, device="meta").requires_grad_()
            torch.autograd.grad(chained(x)[0].sum(), x)
        held.append(peak.bytes)
    assert held[0] > 2.2 * 4 * 24 * 200 * 100 and held[1] < 0.6 * held[0]
