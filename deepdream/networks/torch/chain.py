"""Convolutions one after another: differentiated as one function, and computed in strips where their values are many.

Between two 1x1 convolutions a depthwise one often stands among six times as many channels. Whole, they go out to memory
between the passes over them and come back; a strip of their rows stays in the processor's cache. A step of the default
network at 1280x720 takes four fifths of the time so, and three fifths of the memory: what is widest is never there as a
whole. Each value is computed from the same numbers in the same order.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from deepdream.networks.torch import compiled
from deepdream.networks.torch.conv2d import CHANNELS_LAST, FusedConv2d, is_picture_large
from deepdream.networks.torch.loops import Pair

STRIP = 1 << 21  # values of the widest of a strip's results: fewer are mostly calls, more leave the cache

_Passed = list[tuple[Tensor | None, torch.Size]]  # of each convolution: what it kept, and the shape of its input


class Chain:
    """Convolutions one after another: called with (n, c, h, w), returns the tuple of the last one's outputs.

    PyTorch differentiates it as one function: each of them costs time, of a small picture more than its convolution.
    """

    def __init__(self, links: Sequence[FusedConv2d]) -> None:
        self.links = links
        self._runs = [_Run(part) for part in _parted(links)]

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        # One of several outputs side by side is a slice; both passes want it on its own.
        x = x.to(self.links[0].dtype).contiguous(memory_format=CHANNELS_LAST)
        return _ChainFunction.apply(x, self.links[-1], self._runs)


def _parted(links: Sequence[FusedConv2d]) -> list[Sequence[FusedConv2d]]:
    """Parts in each of which one convolution at most sees more than a pixel, parted where the fewest values pass."""
    seeing = [number for number, link in enumerate(links) if link.reach]
    cuts = [1 + min(range(*pair), key=lambda number: links[number].channels) for pair in pairwise(seeing)]
    return [links[start:stop] for start, stop in pairwise([0, *cuts, len(links)])]


class _ChainFunction(torch.autograd.Function):
    """autograd.Function for `Chain`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, last: FusedConv2d, runs: Sequence["_Run"]) -> tuple[Tensor, ...]:
        ctx.runs, ctx.passed = runs, []
        for run in runs:
            x, passed = run.forward(x, ctx.needs_input_grad[0])
            ctx.passed += passed
        kept, ctx.shape = ctx.passed.pop()
        ctx.save_for_backward(kept)  # it may be what is returned
        return last.split(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.passed.append((*ctx.saved_tensors, ctx.shape))
        for run in reversed(ctx.runs):
            gradients = (run.backward(gradients, ctx.passed),)
        return gradients[0], None, None


class _Run:
    """Some of a chain's convolutions, computed one after another, or together in strips of rows."""

    def __init__(self, links: Sequence[FusedConv2d]) -> None:
        self._links = links
        self._can_go_in_rows = len(links) > 1 and all(link.can_go_in_rows for link in links)

    def forward(self, x: Tensor, keeps: bool) -> tuple[Tensor, _Passed]:
        """What the last of them puts out, all outputs in one tensor, and what each ``keeps`` for the way back."""
        count = self._strips(x, x.shape)
        if count > 1:
            return self._forward_in_strips(x, keeps, count)
        passed: _Passed = []
        for link in self._links:
            shape, x = x.shape, link.forward(x)
            passed.append((link.kept(x) if keeps else None, shape))
        return x, passed

    def backward(self, gradients: Sequence[Tensor], passed: _Passed) -> Tensor:
        """The derivative by the input. What was ``passed`` is taken off its end."""
        count = self._strips(gradients[0], passed[-len(self._links)][1])
        if count > 1:
            return self._backward_in_strips(gradients[0], [passed.pop() for _ in self._links][::-1], count)
        for link in reversed(self._links):
            gradients = (link.backward(gradients, *passed.pop()),)
        return gradients[0]

    def _strips(self, like: Tensor, shape: torch.Size) -> int:
        """Into how many strips an input of ``shape`` is cut, on a device and in a type as those of ``like``."""
        if not (self._can_go_in_rows and len(like) == 1 and is_picture_large.get() and compiled.is_supported(like)):
            return 1
        size, widest = (shape[2], shape[3]), 0
        for link in self._links:
            size = link.size(size)
            widest = max(widest, link.channels * math.prod(size))
        return math.ceil(widest / STRIP)

    def _forward_in_strips(self, x: Tensor, keeps: bool, count: int) -> tuple[Tensor, _Passed]:
        sizes = [(x.shape[2], x.shape[3])]
        for link in self._links:
            sizes.append(link.size(sizes[-1]))
        y, kept = _Whole(sizes[-1][0]), [_Whole(height) for height, _ in sizes[1:]]
        for rows in _cut(sizes[-1][0], count):
            spans = [rows]  # of what goes in, and of what each link puts out
            for link, (height, _) in zip(reversed(self._links), reversed(sizes[:-1])):
                spans.insert(0, link.rows_read(*spans[0], height))
            strip = x[:, :, slice(*spans[0])]
            for link, before, span, stops in zip(self._links, spans, spans[1:], kept):
                strip = link.forward_rows(strip, before[0], *span)
                if keeps:
                    stops.put(link.stops(strip), span)
            y.put(strip, rows)
        shapes = [x.shape, *(torch.Size((1, link.channels, *size)) for link, size in zip(self._links, sizes[1:-1]))]
        assert y.whole is not None
        return y.whole, [(stops.whole, shape) for stops, shape in zip(kept, shapes)]

    def _backward_in_strips(self, gradient: Tensor, passed: _Passed, count: int) -> Tensor:
        gradient = gradient.to(self._links[-1].dtype).contiguous(memory_format=CHANNELS_LAST)
        heights = [*(shape[2] for _, shape in passed[1:]), gradient.shape[2]]
        dx = _Whole(passed[0][1][2])
        for rows in _cut(dx.height, count, math.prod(link.stride for link in self._links)):
            spans = [rows]
            for link, height in zip(self._links, heights):
                spans.append(link.backward_rows_read(*spans[-1], height))
            strip = gradient[:, :, slice(*spans[-1])]
            for link, (stops, shape), before, span in reversed([*zip(self._links, passed, spans[1:], spans)]):
                here = None if stops is None else stops[:, :, slice(*before)]
                strip = link.backward_rows(strip, here, shape[3], before[0], *span)
            dx.put(strip, rows)
        assert dx.whole is not None
        return dx.whole


class _Whole:
    """Strips put together: ``whole`` (1, c, height, w), or None as long as there are none."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.whole: Tensor | None = None

    def put(self, strip: Tensor | None, rows: Pair) -> None:
        if strip is None:
            return
        if self.whole is None:
            _, channels, _, width = strip.shape
            shape = 1, channels, self.height, width
            self.whole = torch.empty(shape, dtype=strip.dtype, device=strip.device, memory_format=CHANNELS_LAST)
        self.whole[:, :, slice(*rows)] = strip


def _cut(height: int, count: int, unit: int = 1) -> Iterator[Pair]:
    """``height`` rows in ``count`` parts or fewer, as alike as can be, that begin at multiples of ``unit``.

    Rows at the end that are no whole unit, which a convolution that strides may not reach, belong to the last part.
    """
    units = max(1, height // unit)
    count = min(count, units)
    return pairwise([*(unit * (units * number // count) for number in range(count)), height])
