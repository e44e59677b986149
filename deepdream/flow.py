"""What a frame inherits from the dream before it, moved along the optical flow.

Frames are RGB (h, w, 3), source frames uint8 and dreams uint8 or float32, in 0..255. A flow is float32
(h, w, 2): how many pixels right and down each pixel moves.

Stabilised, a frame inherits as Ruder, Dosovitskiy and Brox (2016) have it for style transfer: along the flow
from the current frame back to the previous one, only where that agrees with the flow forward, and not across a
scene cut. What they write into the loss is here the start picture and an easing of the finished frame.
"""

from dataclasses import dataclass

import numpy as np

from deepdream.errors import DreamError
from deepdream.options import FlowMode

LEAST_MOTION = 0.1  # pixels: a frame whose every pixel moves less is still
EASE = 0.8  # of the share a frame inherits: how far the finished frame is drawn back to the dream carried on to it
STRONGEST = 1.5  # times as strong as what its own steps changed: so strong a stabilised frame may be in the mean
SLOWEST = 0.95  # of its strength a frame keeps that is stronger than that: the dream fades, it does not pump
LARGEST_SIDE = 480  # pixels: larger frames are shrunk for the fine flow, to this …
LEAST_SCALE = 0.25  # … but not by more than this
LEAST_SIDE = 32  # pixels: smaller frames are padded for the fine flow, whose patches at half size must fit
CUT_WIDTH = 160  # pixels: as wide as frames are compared for a scene cut; sensor noise does not survive it
CUT_CONTENT = 27  # the threshold of PySceneDetect's ContentDetector


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
    return sample(picture, -flow)


def sample(picture, offsets, sharp=False):
    """What ``picture`` (h, w, c) shows ``offsets`` (h, w, 2) right and down of each pixel: float32 (h, w, c).

    Beyond the edge the edge goes on. ``sharp`` interpolates by cubics, which blur less and may overshoot.
    """
    cv2 = _opencv()
    rows, columns = np.indices(offsets.shape[:2], dtype=np.float32)
    return cv2.remap(
        np.float32(picture), columns + offsets[..., 0], rows + offsets[..., 1],
        interpolation=cv2.INTER_CUBIC if sharp else cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
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


@dataclass(frozen=True)
class Motion:
    """What two successive source frames tell before the earlier one is dreamed; which of it, the `FlowMode` decides.

    ``flow`` (h, w, 2): blended, from the previous frame to the current one; stabilised, from the current one back,
    with ``trust`` (h, w), its `agreement` with the flow forward. At a scene cut there is neither.
    """

    flow: np.ndarray | None = None
    trust: np.ndarray | None = None
    is_cut: bool = False


def observe(previous, current, options):
    """The `Motion` between two source frames under `FlowOptions`."""
    if options.mode == FlowMode.OFF:
        return Motion()
    if options.mode == FlowMode.BLEND:
        return Motion(estimate_flow(previous, current))
    if is_cut(previous, current):
        return Motion(is_cut=True)
    back, forward = estimate_fine_flow(current, previous), estimate_fine_flow(previous, current)
    return Motion(back, agreement(back, forward))


def start_picture(previous, current, dream, options, zoom, motion=None):
    """The picture from which the current frame's dream starts: float32 (h, w, 3) in 0..255.

    ``previous`` and ``current``: source frames; ``dream``: that of the previous. ``options``: `FlowOptions`.
    ``motion``: what `observe` gave of them, if it has been found. Where it is still the frame takes
    ``blend_static`` of the dream; where it moves it takes ``blend_flow`` of the hallucination (dream less source),
    shifted along the flow, on top of itself.
    """
    motion = motion or observe(previous, current, options)
    current = np.float32(current)
    still = current + options.blend_static * (zoom_in(dream, zoom) - current)
    if options.mode == FlowMode.OFF:
        return still
    hallucination = zoom_in(np.float32(dream) - previous, zoom)
    moved = np.clip(current + options.blend_flow * warp(hallucination, motion.flow), 0, 255)
    return np.where(moving(motion.flow, options.threshold)[..., None], moved, still)


@dataclass(frozen=True)
class Inheritance:
    """What a frame takes over: ``start``, the picture from which its dream starts, float32 (h, w, 3) in 0..255.

    Stabilised also ``source``, the frame itself, ``carried``, the previous dream as it would look in this frame,
    and ``share`` (h, w, 1), how much of that counts where, in 0..1. At a scene cut there is nothing to take over.
    """

    start: np.ndarray
    source: np.ndarray | None = None
    carried: np.ndarray | None = None
    share: np.ndarray | None = None
    is_cut: bool = False

    def settle(self, dreamed):
        """The frame to be saved: its dream, uint8 (h, w, 3), eased towards what is carried on.

        Where little moves a dream would otherwise grow from frame to frame, so its strength is held near a bound.
        """
        if self.carried is None:
            return dreamed
        eased = dreamed + EASE * self.share * (self.carried - dreamed)
        bound = STRONGEST * np.abs(dreamed - self.start).mean()
        strength = np.abs(eased - self.source).mean()
        if strength > bound:
            eased = self.source + max(bound / strength, SLOWEST) * (eased - self.source)
        return np.uint8(np.rint(eased))


def inherit(previous, current, dream, options, zoom, motion=None):
    """The `Inheritance` of the current frame; arguments as of `start_picture`."""
    motion = motion or observe(previous, current, options)
    if options.mode != FlowMode.STABLE:
        return Inheritance(start_picture(previous, current, dream, options, zoom, motion))
    if motion.is_cut:
        return Inheritance(np.float32(current), is_cut=True)
    hallucination = sample(np.float32(dream) - previous, _zoomed(motion.flow, zoom), sharp=True)
    carried = np.clip(current + hallucination, 0, 255)
    share = np.where(moving(motion.flow, options.threshold), options.blend_flow, options.blend_static)
    share = np.float32(share * motion.trust)[..., None]
    return Inheritance(current + share * (carried - current), current, carried, share)


def estimate_fine_flow(frame, other):
    """The flow from one source frame to another, finer than `estimate_flow`: float32 (h, w, 2).

    Dense inverse search (Kroeger et al. 2016) at half size, then one variational refinement (Brox et al. 2004) at
    full size. A little blur keeps both from following the sensor's noise. Frames larger than `LARGEST_SIDE` are
    compared at reduced size: motion is smooth, and the flow at full size would cost more than it brings.
    """
    cv2 = _opencv()
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


def is_cut(previous, current):
    """Whether a new scene starts at ``current``; both source frames, uint8 RGB (h, w, 3).

    PySceneDetect's measure, the mean difference in hue, saturation and value, of what motion does not explain:
    a fast pan is no cut.
    """
    cv2 = _opencv()
    height, width = current.shape[:2]
    size = (min(width, CUT_WIDTH), max(1, round(height * min(1, CUT_WIDTH / width))))
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in (previous, current)]
    moved = np.uint8(np.rint(sample(small[0], estimate_fine_flow(small[1], small[0]))))
    before, after = (np.float32(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)) for frame in (moved, small[1]))
    return bool(np.abs(before - after).mean() >= CUT_CONTENT)


def _zoomed(offsets, zoom):
    """The offsets at which to sample a picture so that it also appears enlarged about its centre, as by `zoom_in`."""
    if zoom == 1:
        return offsets
    height, width = offsets.shape[:2]
    rows, columns = np.indices((height, width), dtype=np.float32)
    from_centre = np.stack([columns - (width - 1) / 2, rows - (height - 1) / 2], -1)
    return (from_centre + offsets) / np.float32(zoom) - from_centre


def inherits(options):
    """Whether a frame depends on the one before it."""
    return options.mode != FlowMode.OFF or options.blend_static > 0
