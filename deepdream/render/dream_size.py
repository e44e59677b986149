"""Dreaming at another width than the frames have: what a dream adds is laid onto the full frame, and taken off again.

Pictures are RGB (h, w, 3) in 0..255; sizes are (w, h). The hallucination is what a dream adds: dream less source.
"""

import numpy as np

from deepdream.motion.flow import opencv


def shrink(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A source frame, uint8, at the size of its dream: averaged over areas."""
    if picture.shape[1::-1] == size:
        return picture
    cv2 = opencv()
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def lay_on(dream: np.ndarray, source: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The full ``frame`` with the hallucination of its dream, enlarged by cubics. All uint8.

    ``source`` is the frame at the size of the dream. Where nothing was added the frame stays as it is.
    """
    if source.shape == frame.shape:
        return dream
    cv2 = opencv()
    hallucination = dream.astype(np.float32) - source
    enlarged = cv2.resize(hallucination, frame.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.rint(np.clip(frame + enlarged, 0, 255)).astype(np.uint8)


def take_off(dreamed: np.ndarray, frame: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The dream that `lay_on` made ``dreamed`` of, at the size of ``source``; float32 where that is another.

    Sampling by cubics gives back what was added to 0.3 grey levels, and to 8 bits; averaging loses 2 to 4% a frame.
    """
    if source.shape == frame.shape:
        return dreamed
    cv2 = opencv()
    hallucination = dreamed.astype(np.float32) - frame
    return source + cv2.resize(hallucination, source.shape[1::-1], interpolation=cv2.INTER_CUBIC)
