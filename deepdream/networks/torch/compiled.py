"""Layers that PyTorch has no fast functions for, differentiable, from compiled loops.

PyTorch differentiates a maximum on one core and keeps eight bytes for each place that it picks; a response norm
takes it a dozen passes over memory; in bfloat16 its derivative of depthwise convolutions that stride is slower than in
float32.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepdream.compiling import use_pytorchs_threads
from deepdream.networks.torch import loops
from deepdream.networks.torch.loops import Pair

MAX_PLACES = int(loops.STOPPED)  # in a window of a maximum, which notes them in a byte
MAX_REACH = 16  # of a response norm, whose sum is compiled as so many additions on either side
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


def max_pool(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, size: Pair, stops: bool = False) -> Tensor:
    """The largest value of each window, (n, c, *size) in float32; of equal ones the first gets the gradient.

    ``x``: (n, c, h, w). ``kernel`` (of at most `MAX_PLACES`), ``stride``, ``pad`` and ``size``, the number of
    windows: (vertical, horizontal). Every window must reach into the picture. With ``stops`` the derivative is 0 where
    ``x`` is 0 or less, which is that of the ReLU that ``x`` came from as well.
    """
    return _MaxPool.apply(x.float(), kernel, stride, pad, size, stops)


def local_response_norm(x: Tensor, reach: int, alpha: float, k: float, stops: bool = False) -> Tensor:
    """x * (k + alpha * sum of the squares up to ``reach`` channels away) ** -`loops.LRN_BETA`, in float32.

    ``reach``: `MAX_REACH` at the most. ``stops`` as in `max_pool`.
    """
    near = tuple(range(-reach, reach + 1))
    return _LocalResponseNorm.apply(x.float(), near, np.float32(alpha), np.float32(k), stops)


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


class _MaxPool(torch.autograd.Function):
    """autograd.Function for max pooling."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Pair, stride: Pair, pad: Pair, size: Pair, stops: bool) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        top, places = (_empty((*x.shape[:2], *size), x, dtype) for dtype in (x.dtype, torch.uint8))
        _run(loops.max_pool, x, top, places, kernel, stride, pad, stops)
        ctx.save_for_backward(places)
        ctx.shape, ctx.window = x.shape, (kernel, stride, pad)
        return top

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (places,) = ctx.saved_tensors
        out = _empty(ctx.shape, gradient, gradient.dtype)
        _run(loops.max_pool_backward, gradient.contiguous(memory_format=torch.channels_last), places, out, *ctx.window)
        return out, None, None, None, None, None


class _LocalResponseNorm(torch.autograd.Function):
    """autograd.Function for local response normalisation. It keeps its input alone, and computes the rest again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, near: loops.Near, alpha: np.float32, k: np.float32, stops: bool) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        top = _empty(x.shape, x, x.dtype)
        _run(loops.lrn, x, top, near, alpha, k)
        ctx.save_for_backward(x)
        ctx.settings = near, alpha, k, stops
        return top

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (x,) = ctx.saved_tensors
        out = _empty(x.shape, x, x.dtype)
        _run(loops.lrn_backward, x, gradient.contiguous(memory_format=torch.channels_last), out, *ctx.settings)
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
