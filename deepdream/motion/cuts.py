"""Where a new scene starts: the content detector of PySceneDetect, on what motion does not explain."""

import numpy as np

from deepdream.motion.flow import estimate_fine_flow, sample
from deepdream.opencv import opencv

CUT_WIDTH = 160  # pixels: frames are compared at this width, at which sensor noise has averaged out
CUT_CONTENT = 27  # the threshold of PySceneDetect's ContentDetector


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
    cv2 = opencv()
    height, width = frame.shape[:2]
    size = (min(width, CUT_WIDTH), max(1, round(height * min(1, CUT_WIDTH / width))))
    return frame if size == (width, height) else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _content(before: np.ndarray, after: np.ndarray) -> float:
    """The mean difference in hue, saturation and value."""
    cv2 = opencv()
    first, second = (cv2.cvtColor(frame, cv2.COLOR_RGB2HSV).astype(np.float32) for frame in (before, after))
    return float(np.abs(first - second).mean())
