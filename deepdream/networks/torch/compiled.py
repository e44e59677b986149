"""Layers that PyTorch has no fast functions for, as loops that Numba compiles for all cores of a CPU.

PyTorch differentiates a maximum on one core and keeps eight bytes for each place that it picks; a response norm
takes it a dozen passes over memory; in bfloat16 its derivatives of activations, and of depthwise convolutions that
stride, are slower than in float32. The loops' arrays are (h, w, c), contiguous, which is how a tensor (1, c, h, w) in
channels_last lies in memory. What is compiled is kept on disk, so that it takes seconds only once.
"""

import os
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch

# Both are read when Numba is imported. It shares PyTorch's OpenMP, and would tell that to take more threads.
os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))
os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "omp workqueue tbb")
import numba  # noqa: E402

MOST_PLACES = 256  # in a window of a maximum, which notes them in a byte
LRN_BETA = 0.75  # the exponent that nearly all nets have: square roots give it, several times as fast as a power
_PIXELS = 64  # that a core takes at a time
_ZERO, _ONE = np.float32(0), np.float32(1)
_ROWS = 8  # that a core takes at a time of what lies in its cache meanwhile
_devices = ["cpu"]


def _compile(function):
    options = {"parallel": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder for it can be written to: it is compiled in every run
        return numba.njit(**options)(function)


def serves(x):
    """Whether the functions here take a tensor: those of the CPU, and within `stand_for` those that stand for them."""
    return x.device.type in _devices and x.dtype in (torch.float32, torch.bfloat16) and len(x) == 1


@contextmanager
def stand_for(device):
    """Within this, tensors on ``meta``, which have shapes and no values, are treated as those of ``device`` are."""
    if device.type == "cpu":
        _devices.append("meta")
    try:
        yield
    finally:
        _devices[1:] = []


def max_pool(x, kernel, stride, pad, size):
    """The largest value of each window, (1, c, *size) in float32; of equal ones the first gets the gradient.

    ``x``: (1, c, h, w). ``kernel`` (of at most `MOST_PLACES`), ``stride``, ``pad`` and ``size``, the number of
    windows: (vertical, horizontal). Every window must reach into the picture.
    """
    return _MaxPool.apply(x.float(), kernel, stride, pad, size)


def across_channels(x, reach, alpha, k):
    """x * (k + alpha * sum of the squares up to ``reach`` channels away) ** -`LRN_BETA`, in float32."""
    return _AcrossChannels.apply(x.float(), reach, np.float32(alpha), np.float32(k))


def pass_back(gradient, y, ceiling):
    """Set a gradient to 0, in place, where the activation min(max(x, 0), ceiling) has put out ``y`` and passes none.

    Both are bfloat16 (1, c, h, w) in channels_last. PyTorch takes twice as long over them as in float32.
    """
    _run(_pass_back, _bits(gradient), _bits(y), *_passing(ceiling))


def depthwise_back(gradient, y, ceiling, weight, shape, stride, pad):
    """The derivative by the input, of ``shape``, of a depthwise convolution and the activation that gave ``y``.

    ``gradient``: that by ``y``; both bfloat16 (1, c, h, w) in channels_last. ``ceiling``: as of `pass_back`, or None
    for no activation. ``weight``: (c, 1, kh, kw); ``stride`` and ``pad``: (vertical, horizontal). Sums are float32.
    PyTorch takes ten times as long where the convolution strides.
    """
    out = _unfilled(shape, gradient, gradient.dtype)
    tensors = [_bits(tensor) for tensor in (gradient, gradient if ceiling is None else y, out)]
    factors = weight.detach()[:, 0].permute(1, 2, 0).float().contiguous()
    _run(_depthwise_back, *tensors, *_passing(ceiling), stride, pad, factors)
    return out


def _bits(tensor):
    """A bfloat16 as the int16 of its bits: in the same order among positive values, and below zero for others."""
    return tensor.view(torch.int16)


@cache
def _passing(ceiling):
    """The least and the largest bits of values that an activation passes: above 0 and below its ceiling."""
    if ceiling is None:
        return np.int16(-(2**15)), np.int16(2**15 - 1)
    return np.int16(1), np.int16(_bits(torch.tensor(ceiling, dtype=torch.bfloat16)).item() - 1)


class _MaxPool(torch.autograd.Function):
    """Hands the maximum to PyTorch's differentiation."""

    @staticmethod
    def forward(ctx, x, kernel, stride, pad, size):
        x = x.contiguous(memory_format=torch.channels_last)
        top, places = (_unfilled((1, x.shape[1], *size), x, dtype) for dtype in (x.dtype, torch.uint8))
        _run(_pool, x, top, places, kernel, stride, pad)
        ctx.save_for_backward(places)
        ctx.shape, ctx.window = x.shape, (kernel, stride, pad)
        return top

    @staticmethod
    def backward(ctx, gradient):
        (places,) = ctx.saved_tensors
        out = _unfilled(ctx.shape, gradient, gradient.dtype)
        _run(_pool_back, gradient.contiguous(memory_format=torch.channels_last), places, out, *ctx.window)
        return out, None, None, None, None


class _AcrossChannels(torch.autograd.Function):
    """Hands the response norm to PyTorch's differentiation. It keeps its input alone, and computes the rest again."""

    @staticmethod
    def forward(ctx, x, reach, alpha, k):
        x = x.contiguous(memory_format=torch.channels_last)
        top = _unfilled(x.shape, x, x.dtype)
        _run(_lrn, x, top, reach, alpha, k)
        ctx.save_for_backward(x)
        ctx.settings = reach, alpha, k
        return top

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        out = _unfilled(x.shape, x, x.dtype)
        _run(_lrn_back, x, gradient.contiguous(memory_format=torch.channels_last), out, *ctx.settings)
        return out, None, None, None


def _unfilled(shape, like, dtype):
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _run(loop, *arguments):
    """Call a loop with the memory of tensors (1, c, h, w) as arrays (h, w, c); others stay as they are laid out."""
    if arguments[0].device.type != "meta":
        loop(*map(_memory, arguments))


def _memory(argument):
    if not isinstance(argument, torch.Tensor):
        return argument
    return (argument[0].permute(1, 2, 0) if argument.ndim == 4 else argument).detach().numpy()


@_compile
def _pool(x, top, places, kernel, stride, pad):
    """Write the largest value of each window to ``top``, and to ``places`` (uint8) where in the window it is first."""
    height, width, channels = x.shape
    for row in numba.prange(top.shape[0]):
        first_row = row * stride[0] - pad[0]
        for column in range(top.shape[1]):
            first_column = column * stride[1] - pad[1]
            best, place = top[row, column], places[row, column]
            is_first = True
            for i in range(max(first_row, 0), min(first_row + kernel[0], height)):
                for j in range(max(first_column, 0), min(first_column + kernel[1], width)):
                    value = x[i, j]
                    number = np.uint8((i - first_row) * kernel[1] + j - first_column)
                    if is_first:
                        best[:] = value
                        place[:] = number
                        is_first = False
                    for c in range(channels):
                        is_larger = value[c] > best[c]
                        best[c] = value[c] if is_larger else best[c]
                        place[c] = number if is_larger else place[c]


@_compile
def _pool_back(gradient, places, out, kernel, stride, pad):
    """Write to ``out``, shaped as the input, the derivative from that at the top and the ``places`` of `_pool`."""
    height, width, channels = out.shape
    rows, columns = gradient.shape[:2]
    for i in numba.prange(height):
        first_row = max(0, -((kernel[0] - 1 - i - pad[0]) // stride[0]))
        for j in range(width):
            first_column = max(0, -((kernel[1] - 1 - j - pad[1]) // stride[1]))
            total = out[i, j]
            total[:] = _ZERO
            for row in range(first_row, min((i + pad[0]) // stride[0] + 1, rows)):
                for column in range(first_column, min((j + pad[1]) // stride[1] + 1, columns)):
                    down, right = i + pad[0] - row * stride[0], j + pad[1] - column * stride[1]
                    number = np.uint8(down * kernel[1] + right)
                    value, place = gradient[row, column], places[row, column]
                    for c in range(channels):
                        total[c] += value[c] if place[c] == number else _ZERO


@numba.njit(error_model="numpy")
def _sum_near(padded, reach, total):
    """Write to ``total`` the sum of each number of ``padded`` and ``reach`` on either side."""
    for c in range(len(total)):
        total[c] = padded[c]
    for step in range(1, 2 * reach + 1):
        for c in range(len(total)):
            total[c] += padded[c + step]


@_compile
def _lrn(x, top, reach, alpha, k):
    """Write x * (k + alpha * sum of the squares up to ``reach`` channels away) ** -0.75 to ``top``."""
    width, channels = x.shape[1:]
    pixels = x.shape[0] * width
    for part in numba.prange((pixels + _PIXELS - 1) // _PIXELS):
        squares, near = np.zeros(channels + 2 * reach, np.float32), np.empty(channels, np.float32)
        for pixel in range(part * _PIXELS, min((part + 1) * _PIXELS, pixels)):
            value, result = x[pixel // width, pixel % width], top[pixel // width, pixel % width]
            for c in range(channels):
                squares[c + reach] = value[c] * value[c]
            _sum_near(squares, reach, near)
            for c in range(channels):
                root = np.sqrt(k + alpha * near[c])
                result[c] = value[c] / (root * np.sqrt(root))


@_compile
def _lrn_back(x, gradient, out, reach, alpha, k):
    """Write to ``out`` the derivative of `_lrn` by ``x`` from that at the top."""
    width, channels = x.shape[1:]
    pixels = x.shape[0] * width
    for part in numba.prange((pixels + _PIXELS - 1) // _PIXELS):
        squares, crossed = np.zeros(channels + 2 * reach, np.float32), np.zeros(channels + 2 * reach, np.float32)
        near, factor = np.empty(channels, np.float32), np.empty(channels, np.float32)
        for pixel in range(part * _PIXELS, min((part + 1) * _PIXELS, pixels)):
            i, j = pixel // width, pixel % width
            value, given, result = x[i, j], gradient[i, j], out[i, j]
            for c in range(channels):
                squares[c + reach] = value[c] * value[c]
            _sum_near(squares, reach, near)
            for c in range(channels):
                root = np.sqrt(k + alpha * near[c])
                power = _ONE / (root * np.sqrt(root))
                factor[c] = power
                crossed[c + reach] = given[c] * value[c] * power / (root * root)
            _sum_near(crossed, reach, near)
            for c in range(channels):
                result[c] = given[c] * factor[c] - np.float32(2 * LRN_BETA) * alpha * value[c] * near[c]


@_compile
def _pass_back(gradient, y, least, most):
    """Set to 0 what belongs to no value between ``least`` and ``most``; all are the bits of bfloat16."""
    for i in numba.prange(len(y)):
        given, value = gradient[i].reshape(-1), y[i].reshape(-1)
        for k in range(len(value)):
            given[k] = given[k] if (value[k] >= least) & (value[k] <= most) else 0


@_compile
def _depthwise_back(gradient, y, out, least, most, stride, pad, weight):
    """Write to ``out`` the derivative by the input from that by the output, where that is of ``least`` to ``most``.

    All are the bits of bfloat16, but ``weight``, float32 (kh, kw, c).
    """
    height, channels = len(out), out.shape[2]
    rows, columns = gradient.shape[:2]
    for part in numba.prange((height + _ROWS - 1) // _ROWS):
        start, stop = part * _ROWS, min((part + 1) * _ROWS, height)
        first_row = max(0, -((weight.shape[0] - 1 - start - pad[0]) // stride[0]))
        last_row = max(first_row, min((stop - 1 + pad[0]) // stride[0] + 1, rows))
        bits = np.empty((last_row - first_row, columns, channels), np.uint32)
        for row in range(first_row, last_row):
            for column in range(columns):
                value, given, taken = y[row, column], gradient[row, column], bits[row - first_row, column]
                for c in range(channels):
                    passes = (value[c] >= least) & (value[c] <= most)
                    taken[c] = np.uint32(given[c]) << np.uint32(16) if passes else np.uint32(0)
        _spread(bits.view(np.float32), first_row, out[start:stop], start, stride, pad, weight)


@numba.njit(error_model="numpy")
def _spread(gradient, first_row, out, start, stride, pad, weight):
    """Write to ``out``, rows from ``start`` on, what the rows of ``gradient`` from ``first_row`` on give them."""
    total = np.empty(out.shape[2], np.float32)
    bits = total.view(np.uint32)
    for i in range(start, start + len(out)):
        near = max(0, -((weight.shape[0] - 1 - i - pad[0]) // stride[0]))
        far = min((i + pad[0]) // stride[0] + 1, first_row + len(gradient))
        for j in range(out.shape[1]):
            left = max(0, -((weight.shape[1] - 1 - j - pad[1]) // stride[1]))
            right = min((j + pad[1]) // stride[1] + 1, gradient.shape[1])
            total[:] = _ZERO
            for row in range(near, far):
                for column in range(left, right):
                    value = gradient[row - first_row, column]
                    factor = weight[i + pad[0] - row * stride[0], j + pad[1] - column * stride[1]]
                    for c in range(len(total)):
                        total[c] += value[c] * factor[c]
            result = out[i - start, j]
            for c in range(len(total)):
                to_even = np.uint32(0x7FFF) + ((bits[c] >> np.uint32(16)) & np.uint32(1))
                result[c] = (bits[c] + to_even) >> np.uint32(16)
