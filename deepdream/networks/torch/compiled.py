"""Layers that PyTorch has no fast functions for, differentiable, from compiled loops.

PyTorch differentiates a maximum on one core and keeps eight bytes for each place that it picks; a response norm
takes it a dozen passes over memory; in bfloat16 its derivative of depthwise convolutions that stride is slower than in
float32.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepdream.compiling import use_pytorchs_threads
from deepdream.networks.torch import loops
from deepdream.networks.torch.loops import Pair

MAX_PLACES = int(loops.STOPPED)  # in a window of a maximum, which notes them in a byte
MAX_NEAR = 33  # channels that a response norm looks at: their sum is compiled as so many additions
_devices = ["cpu"]


def is_supported(x: Tensor) -> bool:
    """Whether the functions here take a tensor: on the CPU, or what stands for that within `emulate_device`."""
    return x.device.type in _devices and x.dtype in (torch.float32, torch.bfloat16)


@contextmanager
def emulate_device(device: torch.device) -> Iterator[None]:
    """Within this, tensors on ``meta``, which have shapes and no values, are treated as those of ``device`` are."""
    if device.type == "cpu":
        _devices.append("meta")
    try:
        yield
    finally:
        _devices[1:] = []


class Norm(NamedTuple):
    """A local response norm: x * (k + alpha * sum of the squares of channels ``near``) ** -`loops.LRN_BETA`.

    ``near``: how far away each of them is, -1, 0 and 1 for example; `MAX_NEAR` at the most.
    """

    near: loops.Near
    alpha: np.float32
    k: np.float32


class MaxWindow(NamedTuple):
    """How the window of a maximum moves; each pair is (vertical, horizontal). Kernels have `MAX_PLACES` at most."""

    kernel: Pair
    stride: Pair
    pad: Pair


def norm_and_max_pool(
    x: Tensor, norm: Norm | None, window: MaxWindow | None, size: Pair | None = None, stops: bool = False
) -> Tensor:
    """A local response norm of ``x`` (n, c, h, w), and the largest value of each window of that, in float32.

    Either may be missing. ``size`` is the number of windows (vertical, horizontal), each of which must reach into the
    picture; of equal values the first gets the gradient. ``stops``: the derivative by ``x`` is 0 where that of the
    ReLU which ``x`` came from is.
    """
    return _NormAndMaxPool.apply(x.float(), norm, window, size, stops)


def find_stops(y: Tensor, ceiling: float) -> Tensor:
    """Where the activation min(max(x, 0), ceiling) that gave ``y`` (n, c, h, w) stops the derivative: bits, as uint8.

    That is all that the derivative needs of it, in a thirty-second of the memory.
    """
    count, channels, height, width = y.shape
    stops = _empty((count, 1, height, math.ceil(channels * width / 8)), y, torch.uint8)
    _run(loops.find_stops, _bits(y), stops, *_limits(ceiling, y.dtype))
    return stops


def stop(gradient: Tensor, stops: Tensor) -> None:
    """Set a gradient, in channels_last, to 0 in place where `find_stops` has found that it stops."""
    _run(loops.stop, _bits(gradient), stops)


def depthwise_backward(gradient: Tensor, weight: Tensor, shape: Sequence[int], stride: Pair, pad: Pair) -> Tensor:
    """The derivative by the input, of ``shape``, of a depthwise convolution.

    ``gradient``: that by its value, bfloat16 (n, c, h, w) in channels_last. ``weight``: (c, 1, kh, kw); ``stride`` and
    ``pad``: (vertical, horizontal). Sums are float32. PyTorch takes ten times as long where the convolution strides.
    """
    out = _empty(shape, gradient, gradient.dtype)
    factors = weight.detach()[:, 0].permute(1, 2, 0).float().contiguous()
    _run(loops.depthwise_backward, _bits(gradient), _bits(out), stride, pad, factors)
    return out


def _bits(tensor: Tensor) -> Tensor:
    """The bits of floating point values as integers: in the same order among positive values, below zero for others."""
    return tensor.view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)


@cache
def _limits(ceiling: float, dtype: torch.dtype) -> tuple[np.integer, ...]:
    """The bits of a ceiling, those of all but the sign, and those of infinity, as the loops take them."""
    ceiling_bits, infinity = _bits(torch.tensor((ceiling, math.inf), dtype=dtype)).numpy()
    return ceiling_bits, infinity.dtype.type(np.iinfo(infinity.dtype).max), infinity


class _NormAndMaxPool(torch.autograd.Function):
    """autograd.Function for `norm_and_max_pool`. Of a norm it keeps the input alone, and computes the rest again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Norm | None, window: MaxWindow | None, size: Pair | None, stops: bool
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        top = _empty((*x.shape[:2], *(size or x.shape[2:])), x, x.dtype)
        places = _empty(top.shape, x, torch.uint8) if window else None
        if norm is None:
            assert window is not None
            _run(loops.max_pool, x, top, places, *window, stops)
        elif window is None:
            _run(loops.lrn, x, top, *norm)
        else:
            _run(loops.lrn_max_pool, x, top, places, *norm, *window)
        ctx.save_for_backward(x if norm else None, places)
        ctx.shape, ctx.norm, ctx.window, ctx.stops = x.shape, norm, window, stops
        return top

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, places = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        out = _empty(ctx.shape, gradient, gradient.dtype)
        if x is None:
            _run(loops.max_pool_backward, gradient, places, out, *ctx.window)
        elif places is None:
            _run(loops.lrn_backward, x, gradient, out, *ctx.norm, ctx.stops)
        else:
            _run(loops.lrn_max_pool_backward, x, gradient, places, out, *ctx.norm, ctx.stops, *ctx.window)
        return out, None, None, None, None


def _empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _run(loop: Callable[..., None], *arguments: Any) -> None:
    """Call a loop, picture by picture, with the memory of tensors (n, c, h, w) as arrays (h, w, c).

    Other arguments stay as they are.
    """
    if arguments[0].device.type != "meta":
        use_pytorchs_threads()
        for number in range(len(arguments[0])):
            loop(*(_memory(argument, number) for argument in arguments))


def _memory(argument: Any, number: int) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    return (argument[number].permute(1, 2, 0) if argument.ndim == 4 else argument).detach().numpy()
