"""Layers that PyTorch has no fast functions for, as loops that Numba compiles for all cores of a CPU.

PyTorch differentiates a maximum on one core and keeps eight bytes for each place that it picks; a response norm
takes it a dozen passes over memory. The loops' arrays are float32 (h, w, c), contiguous, which is how a tensor
(1, c, h, w) in channels_last lies in memory. What is compiled is kept on disk, so that it takes seconds only once.
"""

import os

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


def _compile(function):
    options = {"parallel": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder for it can be written to: it is compiled in every run
        return numba.njit(**options)(function)


def serves(x):
    """Whether the functions here take a tensor. One on ``meta`` has no values, and stands for one of the CPU's."""
    return x.device.type in ("cpu", "meta") and x.dtype in (torch.float32, torch.bfloat16) and len(x) == 1


def max_pool(x, kernel, stride, pad, size):
    """The largest value of each window, (1, c, *size) in float32; of equal ones the first gets the gradient.

    ``x``: (1, c, h, w). ``kernel`` (of at most `MOST_PLACES`), ``stride``, ``pad`` and ``size``, the number of
    windows: (vertical, horizontal). Every window must reach into the picture.
    """
    return _MaxPool.apply(x.float(), kernel, stride, pad, size)


def across_channels(x, reach, alpha, k):
    """x * (k + alpha * sum of the squares up to ``reach`` channels away) ** -`LRN_BETA`, in float32."""
    return _AcrossChannels.apply(x.float(), reach, np.float32(alpha), np.float32(k))


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
    """Call a loop with the memory of the tensors (1, c, h, w) among ``arguments`` as arrays (h, w, c)."""
    tensors = [one for one in arguments if isinstance(one, torch.Tensor)]
    if tensors[0].device.type != "meta":
        loop(*(one.detach()[0].permute(1, 2, 0).numpy() for one in tensors), *arguments[len(tensors) :])


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
