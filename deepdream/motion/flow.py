"""What a frame inherits from the dream before it, moved along the optical flow.

Frames are RGB (h, w, 3), source frames uint8 and dreams uint8 or float32, in 0..255. A flow is float32
(h, w, 2): how many pixels right and down each pixel moves.

Stabilised, a frame inherits as Ruder, Dosovitskiy and Brox (2016) have it for style transfer: along the flow
from the current frame back to the previous one, only where that agrees with the flow forward, and not across a
scene cut. What they write into the loss is here the start picture and an easing of the finished frame.
"""

import numpy as np

from deepdream.errors import DreamError

LARGEST_SIDE = 480  # pixels: larger frames are shrunk for the fine flow, to this …
LEAST_SCALE = 0.25  # … but not by more than this
LEAST_SIDE = 32  # pixels: smaller frames are padded for the fine flow, whose patches at half size must fit


def opencv():
    try:
        import cv2
    except ImportError as error:
        raise DreamError(
            f"OpenCV does not load ({error}); where libGL is missing: apt-get install libgl1 libglib2.0-0, "
            "or pip install opencv-python-headless in place of opencv-python"
        ) from error
    return cv2


def estimate_flow(previous, current):
    """The flow from the previous source frame to the current one, by Farneback (2003) on grey."""
    if np.array_equal(previous, current):
        return np.zeros((*current.shape[:2], 2), np.float32)  # Farneback sees motion at the edges of equal frames
    cv2 = opencv()
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (previous, current)]
    return cv2.calcOpticalFlowFarneback(
        *grey, None, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )


def warp(picture, flow):
    """``picture`` shifted along ``flow``: each pixel shows what lies one flow vector before it. float32 (h, w, c)."""
    return sample(picture, -flow)


def sample(picture, offsets, sharp=False):
    """What ``picture`` (h, w, c) shows ``offsets`` (h, w, 2) right and down of each pixel: float32 (h, w, c).

    Beyond the edge the edge goes on. ``sharp`` interpolates by cubics, which blur less and may overshoot.
    """
    cv2 = opencv()
    rows, columns = np.indices(offsets.shape[:2], dtype=np.float32)
    return cv2.remap(
        np.float32(picture), columns + offsets[..., 0], rows + offsets[..., 1],
        interpolation=cv2.INTER_CUBIC if sharp else cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def estimate_fine_flow(frame, other):
    """The flow from one source frame to another, finer than `estimate_flow`: float32 (h, w, 2).

    Dense inverse search (Kroeger et al. 2016) at half size, then one variational refinement (Brox et al. 2004) at
    full size. A little blur keeps both from following the sensor's noise. Frames larger than `LARGEST_SIDE` are
    compared at reduced size: motion is smooth, and the flow at full size would cost more than it brings.
    """
    cv2 = opencv()
    height, width = frame.shape[:2]
    scale = min(1, max(LARGEST_SIDE / max(height, width), LEAST_SCALE))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (frame, other)]
    grey = [cv2.GaussianBlur(cv2.resize(one, size, interpolation=cv2.INTER_AREA), (0, 0), 0.7) for one in grey]
    found = _search_flow(cv2, *grey)
    if size == (width, height):
        return found
    return cv2.resize(found, (width, height)) * np.float32([width / size[0], height / size[1]])


def _search_flow(cv2, *grey):
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setPatchSize(12)
    search.setPatchStride(4)
    search.setVariationalRefinementIterations(20)  # with its own 5 still, noisy footage flickers a sixth more
    refinement = cv2.VariationalRefinement.create()
    height, width = grey[0].shape
    missing = max(0, LEAST_SIDE - height), max(0, LEAST_SIDE - width)
    grey = [cv2.copyMakeBorder(one, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE) for one in grey]
    return refinement.calc(*grey, search.calc(*grey, None))[:height, :width]


def agreement(flow, back):
    """How far ``flow`` can be trusted, float32 (h, w) in 0..1: 1 where ``back``, found at its end, undoes it.

    A half stands where Ruder et al. (2016) draw the line between seen and occluded. It is soft, because a mask
    that comes and goes is itself a flicker.
    """
    returned = sample(back, flow)
    gap = _squared_length(flow + returned)
    tolerance = 0.01 * (_squared_length(flow) + _squared_length(returned)) + 0.5
    return 1 / (1 + (gap / tolerance) ** 2)


def _squared_length(vectors):
    return np.einsum("hwk,hwk->hw", vectors, vectors)  # several times as fast as a sum over so short an axis
