"""Compiled loops of layers.

Their arrays are (h, w, c), contiguous, which is how a tensor (1, c, h, w) in channels_last lies in memory.
"""

import numba
import numpy as np

from deepdream.compiling import compile_loop

Array = np.ndarray
Pair = tuple[int, int]  # (vertical, horizontal)
Near = tuple[int, ...]  # how far channels are away, 0 in the middle: of a tuple the compiler knows the length

LRN_BETA = 0.75  # the exponent that nearly all nets have: square roots give it, several times as fast as a power
STOPPED = np.uint8(255)  # stands for a place in a window
_ROWS = 8  # that a core takes at a time of what lies in its cache meanwhile
_ZERO, _ONE = np.float32(0), np.float32(1)


@compile_loop
def max_pool(x: Array, top: Array, places: Array, kernel: Pair, stride: Pair, pad: Pair, stops: bool) -> None:
    """Write the largest value of each window to ``top``, and to ``places`` (uint8) where in the window it is first.

    With ``stops`` the place of values that are 0 or less is `STOPPED`.
    """
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
            if stops:
                for c in range(channels):
                    place[c] = STOPPED if best[c] <= _ZERO else place[c]


@compile_loop
def max_pool_backward(gradient: Array, places: Array, out: Array, kernel: Pair, stride: Pair, pad: Pair) -> None:
    """Write to ``out``, shaped as the input, the derivative from that at the top and the ``places`` of `max_pool`."""
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


@numba.njit(error_model="numpy", inline="always")
def _sum_near(values: Array, c: int, near: Near) -> np.float32:
    """The sum of as many ``values`` as there are channels ``near``, from number ``c`` on."""
    total = values[c]
    for step in range(1, len(near)):
        total += values[c + step]
    return total


@compile_loop
def lrn(x: Array, top: Array, near: Near, alpha: np.float32, k: np.float32) -> None:
    """Write x * (k + alpha * sum of the squares of channels ``near``) ** -0.75 to ``top``."""
    width, channels = x.shape[1:]
    for i in numba.prange(len(x)):
        squares = np.zeros(channels + len(near) - 1, np.float32)
        for j in range(width):
            value, result = x[i, j], top[i, j]
            for c in range(channels):
                squares[c + len(near) // 2] = value[c] * value[c]
            for c in range(channels):
                root = np.sqrt(k + alpha * _sum_near(squares, c, near))
                result[c] = value[c] / (root * np.sqrt(root))


@compile_loop
def lrn_backward(
    x: Array, gradient: Array, out: Array, near: Near, alpha: np.float32, k: np.float32, stops: bool
) -> None:
    """Write to ``out`` the derivative of `lrn` by ``x`` from that at the top.

    With ``stops`` it is 0 where ``x`` is 0 or less.
    """
    width, channels = x.shape[1:]
    for i in numba.prange(len(x)):
        squares = np.zeros(channels + len(near) - 1, np.float32)
        crossed = np.zeros(channels + len(near) - 1, np.float32)
        factor = np.empty(channels, np.float32)
        for j in range(width):
            value, given, result = x[i, j], gradient[i, j], out[i, j]
            for c in range(channels):
                squares[c + len(near) // 2] = value[c] * value[c]
            for c in range(channels):
                root = np.sqrt(k + alpha * _sum_near(squares, c, near))
                power = _ONE / (root * np.sqrt(root))
                factor[c] = power
                crossed[c + len(near) // 2] = given[c] * value[c] * power / (root * root)
            for c in range(channels):
                total = _sum_near(crossed, c, near)
                derivative = given[c] * factor[c] - np.float32(2 * LRN_BETA) * alpha * value[c] * total
                result[c] = _ZERO if stops and value[c] <= _ZERO else derivative


@compile_loop
def find_stops(bits: Array, stops: Array, ceiling: int, magnitude: int, infinity: int) -> None:
    """Write to ``stops``, a bit each, whether an activated value is 0 or less, or its ceiling or more.

    ``bits``: those of a floating point type, as integers with a sign, in the order of the values that are above 0.
    ``ceiling`` and ``infinity`` are such bits, ``magnitude`` all but the sign. What is no number does not stop.
    ``stops``: uint8 (h, k, 1). The first k values of a row have the lowest bits of its k bytes, the next ones the bits
    above them, and so on: compilers can work on such neighbours together.
    """
    for row in numba.prange(len(bits)):
        values, out = bits[row].reshape(-1), stops[row].reshape(-1)
        out[:] = 0
        for plane in range(8):
            value, mask = values[plane * len(out) : (plane + 1) * len(out)], np.uint8(1 << plane)
            for k in range(len(value)):
                is_stop = ((value[k] <= 0) | (value[k] >= ceiling)) & ((value[k] & magnitude) <= infinity)
                out[k] |= mask if is_stop else np.uint8(0)


@compile_loop
def stop(bits: Array, stops: Array) -> None:
    """Set to 0 where there are ``stops``, as `find_stops` writes them."""
    for row in numba.prange(len(bits)):
        values, stopped = bits[row].reshape(-1), stops[row].reshape(-1)
        for plane in range(8):
            value, mask = values[plane * len(stopped) : (plane + 1) * len(stopped)], np.uint8(1 << plane)
            for k in range(len(value)):
                value[k] = value[k] if stopped[k] & mask == 0 else 0


@compile_loop
def depthwise_backward(gradient: Array, out: Array, stride: Pair, pad: Pair, weight: Array) -> None:
    """Write to ``out`` the derivative by the input from that by the output.

    Both are the bits of bfloat16; ``weight`` is float32 (kh, kw, c).
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
                given, taken = gradient[row, column], bits[row - first_row, column]
                for c in range(channels):
                    taken[c] = np.uint32(given[c]) << np.uint32(16)
        _spread(bits.view(np.float32), first_row, out[start:stop], start, stride, pad, weight)


@numba.njit(error_model="numpy")
def _spread(gradient: Array, first_row: int, out: Array, start: int, stride: Pair, pad: Pair, weight: Array) -> None:
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
