"""Where a new scene starts: the content detector of PySceneDetect, on what motion does not explain."""

import numpy as np

from deepdream.motion.flow import estimate_fine_flow, opencv, sample

CUT_WIDTH = 160  # pixels: frames are compared at this width, at which sensor noise has averaged out
CUT_CONTENT = 27  # the threshold of PySceneDetect's ContentDetector


def is_cut(previous: np.ndarray, current: np.ndarray) -> bool:
    """Whether a new scene starts at ``current``; both source frames, uint8 RGB (h, w, 3).

    The previous frame is warped to the current one first, so that a fast pan is no cut. The measure is the mean
    difference in hue, saturation and value.
    """
    cv2 = opencv()
    height, width = current.shape[:2]
    size = (min(width, CUT_WIDTH), max(1, round(height * min(1, CUT_WIDTH / width))))
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in (previous, current)]
    if _content(*small) < CUT_CONTENT:
        return False  # most frames need no flow
    warped = np.rint(sample(small[0], estimate_fine_flow(small[1], small[0]))).astype(np.uint8)
    return _content(warped, small[1]) >= CUT_CONTENT


def _content(before: np.ndarray, after: np.ndarray) -> float:
    """The mean difference in hue, saturation and value."""
    cv2 = opencv()
    first, second = (cv2.cvtColor(frame, cv2.COLOR_RGB2HSV).astype(np.float32) for frame in (before, after))
    return float(np.abs(first - second).mean())
