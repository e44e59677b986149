"""What a frame inherits from the dream before it, moved along the optical flow.

Frames are RGB (h, w, 3), source frames uint8 and dreams uint8 or float32, in 0..255. A flow is float32
(h, w, 2): how many pixels right and down each pixel moves.
"""

import numpy as np

from deepdream.errors import DreamError
from deepdream.options import FlowMode

LEAST_MOTION = 0.1  # pixels: a frame whose every pixel moves less is still


def _opencv():
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
    cv2 = _opencv()
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (previous, current)]
    return cv2.calcOpticalFlowFarneback(
        *grey, None, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )


def warp(picture, flow):
    """``picture`` shifted along ``flow``: each pixel shows what lies one flow vector before it. float32 (h, w, c)."""
    rows, columns = np.indices(flow.shape[:2], dtype=np.float32)
    return _opencv().remap(
        np.float32(picture), columns - flow[..., 0], rows - flow[..., 1],
        interpolation=_opencv().INTER_LINEAR, borderMode=_opencv().BORDER_REPLICATE,
    )  # fmt: skip


def moving(flow, threshold):
    """Where it moves, bool (h, w): |flow| exceeds ``threshold`` when scaled so that the fastest pixel has 255."""
    speed = np.hypot(flow[..., 0], flow[..., 1])
    fastest = speed.max()
    if fastest < LEAST_MOTION:
        return np.zeros(speed.shape, bool)
    return speed * (255 / fastest) > threshold


def zoom_in(picture, zoom):
    """``picture`` enlarged by ``zoom`` (>= 1) about its centre and cropped to its size: float32 (h, w, c)."""
    if zoom == 1:
        return np.float32(picture)
    height, width = picture.shape[:2]
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    matrix = np.array([[1 / zoom, 0, centre_x * (1 - 1 / zoom)], [0, 1 / zoom, centre_y * (1 - 1 / zoom)]])
    cv2 = _opencv()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(np.float32(picture), matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def start_picture(previous, current, dream, options, zoom):
    """The picture from which the current frame's dream starts: float32 (h, w, 3) in 0..255.

    ``previous`` and ``current``: source frames; ``dream``: that of the previous. ``options``: `FlowOptions`.
    Where it is still the frame takes ``blend_static`` of the dream; where it moves it takes ``blend_flow`` of
    the hallucination (dream less source), shifted along the flow, on top of itself.
    """
    current = np.float32(current)
    still = current + options.blend_static * (zoom_in(dream, zoom) - current)
    if options.mode == FlowMode.OFF:
        return still
    flow = estimate_flow(previous, np.uint8(current))
    hallucination = zoom_in(np.float32(dream) - previous, zoom)
    moved = np.clip(current + options.blend_flow * warp(hallucination, flow), 0, 255)
    return np.where(moving(flow, options.threshold)[..., None], moved, still)


def inherits(options):
    """Whether a frame depends on the one before it."""
    return options.mode != FlowMode.OFF or options.blend_static > 0
