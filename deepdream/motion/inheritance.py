"""What a frame inherits."""

from dataclasses import dataclass

import numpy as np

from deepdream.motion.cuts import is_cut
from deepdream.motion.flow import agreement, estimate_fine_flow, estimate_flow, opencv, sample, warp
from deepdream.options import FlowMode

LEAST_MOTION = 0.1  # pixels: a frame whose every pixel moves less is still
EASE = 0.8  # of the share a frame inherits: how far the finished frame is drawn back to the dream carried on to it
STRONGEST = 1.5  # times as strong as what its own steps changed: so strong a stabilised frame may be in the mean
SLOWEST = 0.95  # of its strength a frame keeps that is stronger than that: the dream fades, it does not pump


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
    cv2 = opencv()
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
