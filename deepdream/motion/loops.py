"""Compiled loops of the stabilised dream: a formula of several terms takes one pass over a frame.

Frames are (h, w, 3) in 0..255, uint8 or float32, weights (h, w) in 0..1.
"""

import numba
import numpy as np

from deepdream.compiling import compile_loop

Array = np.ndarray
_ZERO, _LARGEST = np.float32(0), np.float32(255)


@compile_loop
def lay_warped(warped: Array, frame: Array, weight: Array, start: Array) -> None:
    """Lay a ``warped`` hallucination onto its ``frame``, in place: the warped dream.

    Write to ``start`` what lies by ``weight`` on the way from the frame to it. Both float32.
    """
    for i in numba.prange(len(start)):
        for j in range(start.shape[1]):
            for c in range(3):
                below = np.float32(frame[i, j, c])
                there = min(max(warped[i, j, c] + below, _ZERO), _LARGEST)
                warped[i, j, c] = there
                start[i, j, c] = below + (there - below) * weight[i, j]


@compile_loop
def ease(
    dreamed: Array, warped: Array, weight: Array, share: float, frame: Array, fade: float, eased: Array, added: Array
) -> None:
    """Write to ``eased`` (uint8) the ``dreamed`` frame, drawn to the ``warped`` dream by that ``share`` of ``weight``.

    What is then added to the ``frame`` is multiplied by ``fade``; before that the sum of its absolute values in each
    row is written to ``added``, float64 (h,).
    """
    for i in numba.prange(len(eased)):
        total = 0.0
        for j in range(eased.shape[1]):
            part = weight[i, j] * np.float32(share)
            for c in range(3):
                before, below = np.float32(dreamed[i, j, c]), np.float32(frame[i, j, c])
                change = before + (warped[i, j, c] - before) * part - below
                total += abs(change)
                eased[i, j, c] = np.uint8(np.rint(below + change * np.float32(fade)))
        added[i] = total
