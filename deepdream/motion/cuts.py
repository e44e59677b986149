"""Where a new scene starts."""

import numpy as np

from deepdream.motion.flow import estimate_fine_flow, opencv, sample

CUT_WIDTH = 160  # pixels: as wide as frames are compared for a scene cut; sensor noise does not survive it
CUT_CONTENT = 27  # the threshold of PySceneDetect's ContentDetector


def is_cut(previous, current):
    """Whether a new scene starts at ``current``; both source frames, uint8 RGB (h, w, 3).

    PySceneDetect's measure, the mean difference in hue, saturation and value, of what motion does not explain:
    a fast pan is no cut.
    """
    cv2 = opencv()
    height, width = current.shape[:2]
    size = (min(width, CUT_WIDTH), max(1, round(height * min(1, CUT_WIDTH / width))))
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in (previous, current)]
    moved = np.uint8(np.rint(sample(small[0], estimate_fine_flow(small[1], small[0]))))
    before, after = (np.float32(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)) for frame in (moved, small[1]))
    return bool(np.abs(before - after).mean() >= CUT_CONTENT)
