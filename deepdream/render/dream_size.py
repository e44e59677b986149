"""Dreaming at another width than the frames have: what a dream adds is laid onto the full frame, and taken off again.

Pictures are RGB (h, w, 3) in 0..255; sizes are (w, h). The hallucination is what a dream adds: dream less source.
"""

import math
from fractions import Fraction

import numpy as np

from deepdream.motion.flow import SAMPLE_REACH, wrap_around
from deepdream.opencv import opencv


def shrink(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A source frame, uint8, at the size of its dream: averaged over areas."""
    if picture.shape[1::-1] == size:
        return picture
    cv2 = opencv()
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def lay_on(dream: np.ndarray, source: np.ndarray, frame: np.ndarray, panorama: bool = False) -> np.ndarray:
    """The full ``frame`` with the hallucination of its dream, enlarged by cubics. All uint8.

    ``source`` is the frame at the size of the dream. Where nothing was added the frame stays as it is. Left and right
    border of a ``panorama`` meet.
    """
    if source.shape == frame.shape:
        return dream
    full = _resize(dream.astype(np.float32) - source, frame.shape, panorama)
    full += frame  # in place: at 4K each copy has 100 MB
    np.rint(np.clip(full, 0, 255, out=full), out=full)
    return full.astype(np.uint8)


def take_off(dreamed: np.ndarray, frame: np.ndarray, source: np.ndarray, panorama: bool = False) -> np.ndarray:
    """The dream that `lay_on` made ``dreamed`` of, at the size of ``source``; float32 where that is another.

    Sampling by cubics gives back what was added to 0.3 grey levels, and to 8 bits; averaging loses 2 to 4% a frame.
    """
    if source.shape == frame.shape:
        return dreamed
    hallucination = np.subtract(dreamed, frame, dtype=np.float32)
    return source + _resize(hallucination, source.shape, panorama)


def _resize(picture: np.ndarray, shape: tuple[int, ...], panorama: bool) -> np.ndarray:
    """A float picture resized by cubics to the height and width of ``shape``."""
    cv2 = opencv()
    (height, width), before = shape[:2], picture.shape[1]
    if not panorama:
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    # Whole columns from beyond the borders, as many as become whole ones: all others keep their places.
    ratio = Fraction(width, before)
    parts = max(1, math.ceil(SAMPLE_REACH / min(ratio.numerator, ratio.denominator)))
    margin, resized_margin = parts * ratio.denominator, parts * ratio.numerator
    wrapped = wrap_around(picture, margin)
    resized = cv2.resize(wrapped, (width + 2 * resized_margin, height), interpolation=cv2.INTER_CUBIC)
    return resized[:, resized_margin : resized_margin + width]
