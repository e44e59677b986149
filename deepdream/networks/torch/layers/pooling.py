"""Pooling, with Caffe's rules for windows at the border."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from deepdream.errors import ModelError
from deepdream.networks.caffemodel import Layer, pb
from deepdream.networks.torch import compiled
from deepdream.networks.torch.layers.registry import LayerFunction, Weights, layer_type, optional, pair
from deepdream.networks.torch.loops import Pair


@layer_type("Pooling")
def pooling(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.pooling_param
    if p.pool == pb.PoolingParameter.STOCHASTIC:
        raise ModelError(f"layer {layer.name} (Pooling): STOCHASTIC pooling has no gradient to dream with")
    is_maximum = p.pool == pb.PoolingParameter.MAX
    if p.global_pooling:
        # Of equal values the first gets the gradient, which amax would share out among them.
        return lambda x: F.max_pool2d(x, x.shape[2:]) if is_maximum else x.mean((2, 3), keepdim=True)
    window = _window(layer)
    pool = max_pool if is_maximum else average_pool
    return lambda x: pool(x, *window)


def stopping_maximum(layer: Layer) -> Callable[..., Tensor] | None:
    """`max_pool` of (x, stops=) as a maximum pooling has it that the compiled loop can take; None for other layers."""
    p = layer.parameters.pooling_param
    if layer.type != "Pooling" or p.pool != pb.PoolingParameter.MAX or p.global_pooling:
        return None
    kernel, stride, pad, round_up = _window(layer)
    if not _suits_loop(kernel, pad):
        return None
    return partial(max_pool, kernel=kernel, stride=stride, pad=pad, round_up=round_up)


def _window(layer: Layer) -> tuple[Pair, Pair, Pair, bool]:
    """A layer's kernel, stride and pad, and whether the number of windows is rounded up."""
    p = layer.parameters.pooling_param
    kernel_size = [p.kernel_size] if p.HasField("kernel_size") else []
    kernel = pair(layer, "kernel_size", kernel_size, optional(p, "kernel_h"), optional(p, "kernel_w"), None)
    stride = pair(layer, "stride", [p.stride], optional(p, "stride_h"), optional(p, "stride_w"), 1)
    pad = pair(layer, "pad", [p.pad], optional(p, "pad_h"), optional(p, "pad_w"), 0)
    if min(kernel + stride) < 1:
        raise ModelError(f"layer {layer.name} (Pooling): kernel and stride must be 1 or more")
    return kernel, stride, pad, p.ceil_mode and p.round_mode == pb.PoolingParameter.CEIL


def _suits_loop(kernel: Pair, pad: Pair) -> bool:
    reaches_in = all(p < k for p, k in zip(pad, kernel))  # every window holds a pixel
    return reaches_in and math.prod(kernel) <= compiled.MAX_PLACES


def max_pool(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, round_up: bool, stops: bool = False) -> Tensor:
    """The largest value of each window; of equal ones the first gets the gradient.

    ``stops``, as `compiled.max_pool` has it, only where that is used.
    """
    margins = _margins(x, kernel, stride, pad, round_up)
    if _suits_loop(kernel, pad) and compiled.is_supported(x):
        height, width = (_window_count(*side, round_up) for side in zip(x.shape[2:], kernel, stride, pad))
        return compiled.max_pool(x, kernel, stride, pad, (height, width), stops)
    if 2 * pad[0] <= kernel[0] and 2 * pad[1] <= kernel[1] and min(margins) >= 0 and round_up:
        return F.max_pool2d(x, kernel, stride, pad, ceil_mode=True)
    return F.max_pool2d(F.pad(x, margins, value=-math.inf), kernel, stride)


def average_pool(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, round_up: bool) -> Tensor:
    """The mean over each window, padding counted in, but not what lies beyond the padding."""
    total = F.avg_pool2d(F.pad(x, _margins(x, kernel, stride, pad, round_up)), kernel, stride, divisor_override=1)
    rows, columns = (
        _counts(total.shape[2 + axis], x.shape[2 + axis] + 2 * pad[axis], kernel[axis], stride[axis], x.device)
        for axis in (0, 1)
    )
    return total / (rows[:, None] * columns)


def _counts(windows: int, padded_size: int, kernel: int, stride: int, device: torch.device) -> Tensor:
    """How many places of each window along one axis lie inside the padded picture."""
    starts = torch.arange(windows, device=device) * stride
    return (starts + kernel).clamp(max=padded_size) - starts


def _margins(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, round_up: bool) -> list[int]:
    """The padding (left, right, top, bottom) after which every window of Caffe's lies inside."""
    margins = []
    for axis in (1, 0):
        size = x.shape[2 + axis]
        windows = _window_count(size, kernel[axis], stride[axis], pad[axis], round_up)
        if windows < 1:
            raise ValueError(f"a window of {kernel[axis]} does not fit into {size}")
        if (windows - 1) * stride[axis] >= size + pad[axis]:
            # Caffe takes no value from there, and writes the gradient to memory out of bounds.
            raise ValueError(f"the last window of {kernel[axis]}, {stride[axis]} apart, lies outside {size}")
        margins += [pad[axis], (windows - 1) * stride[axis] + kernel[axis] - size - pad[axis]]
    return margins


def _window_count(size: int, kernel: int, stride: int, pad: int, round_up: bool) -> int:
    """How many windows Caffe lays over ``size``: rounded up, less a last one that would start in the padding."""
    span = size + 2 * pad - kernel
    windows = (-(-span // stride) if round_up else span // stride) + 1
    if pad and (windows - 1) * stride >= size + pad:
        windows -= 1
    return windows
