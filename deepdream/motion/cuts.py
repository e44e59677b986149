"""Where a new scene starts: the content detector of PySceneDetect, on what motion does not explain."""

import numpy as np

from deepdream.motion.flow import estimate_fine_flow, sample
from deepdream.opencv import opencv

CUT_WIDTH = 160  # pixels: motion is looked for at this width
CONTENT_WIDTH = 40  # pixels: what it leaves is compared at this one, at which sensor noise has averaged out …
CUT_CONTENT = 20  # … and the threshold of PySceneDetect's ContentDetector, 27, comes to this
# Grey levels: hue counts in full from so much difference between the channels on, saturation from so much light on. Of
# grey and of dark pixels noise alone decides them.
FULL_HUE, FULL_SATURATION = 4, 16


def is_cut(previous: np.ndarray, current: np.ndarray) -> bool:
    """Whether a new scene starts at ``current``; both source frames, uint8 RGB (h, w, 3), or their `thumbnail`.

    The previous frame is warped to the current one first, so that a fast pan is no cut. The measure is the mean
    difference in hue, saturation and value.
    """
    before, after = thumbnail(previous), thumbnail(current)
    if _content(before, after) < CUT_CONTENT:
        return False  # most frames need no flow
    warped = np.rint(sample(before, estimate_fine_flow(after, before))).astype(np.uint8)
    return _content(warped, after) >= CUT_CONTENT


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """A frame at the size at which `is_cut` compares: all that it needs of one."""
    return _shrink(frame, CUT_WIDTH)


def _shrink(frame: np.ndarray, most: int) -> np.ndarray:
    cv2 = opencv()
    height, width = frame.shape[:2]
    size = (min(width, most), max(1, round(height * min(1, most / width))))
    return frame if size == (width, height) else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _content(before: np.ndarray, after: np.ndarray) -> float:
    """The mean difference in hue, saturation and value."""
    cv2 = opencv()
    small = (_shrink(frame, CONTENT_WIDTH) for frame in (before, after))
    first, second = (cv2.cvtColor(frame, cv2.COLOR_RGB2HSV).astype(np.float32) for frame in small)
    difference = np.abs(first - second)
    chroma = np.minimum(*(picture[..., 1] * picture[..., 2] / 255 for picture in (first, second)))
    difference[..., 0] *= np.minimum(chroma / FULL_HUE, 1)
    difference[..., 1] *= np.minimum(np.minimum(first[..., 2], second[..., 2]) / FULL_SATURATION, 1)
    return float(difference.mean())
