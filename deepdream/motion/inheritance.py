"""What a frame inherits from the dream before it: the picture that its own dream starts from.

Frames are RGB (h, w, 3) in 0..255, source frames uint8, dreams uint8 or float32. The hallucination is what a dream
adds: dream less source. `FlowMode` decides:

- OFF and BLEND are the historic scripts' formulas (DeepDreamVideo, DeepDreamVideoOpticalFlow).
- STABLE is what Ruder, Dosovitskiy and Brox (2016) do for style transfer: the dream is warped along the flow from the
  current frame to the previous one, only where the forward flow agrees, and not across a scene cut. What they add to
  the loss is here the start picture and an easing of the finished frame towards the warped dream.
"""

from dataclasses import dataclass, replace

import numpy as np

from deepdream.compiling import use_pytorchs_threads
from deepdream.files.masks import weights
from deepdream.motion import loops
from deepdream.motion.cuts import is_cut, thumbnail
from deepdream.motion.flow import (
    estimate_fine_motion,
    estimate_flow,
    sample,
    warp,
    wrap_around,
)
from deepdream.opencv import opencv
from deepdream.options import FlowMode, FlowOptions

MIN_MOTION = 0.1  # pixels: a frame in which every pixel moves less is still
EASE = 0.1  # how far a finished frame is drawn to the warped dream, as a share of its weight
PANORAMA_EASE = 0.55  # … of a panorama, whose steps see each place in views from several sides
MAX_STRENGTH = 1.6  # mean change of a stabilised frame, in units of that of the first frame of its shot
WRAPPED = 1 / 16  # of a panorama's width: what its flow sees beyond each border
TRUSTED_PARALLEL = 4  # parallels of at least a quarter of the equator, up to 75 degrees, are trusted as it is
MIN_FADE = 0.95  # a frame that is stronger keeps at least this share of its strength: the dream fades, it does not pump


@dataclass(frozen=True)
class Motion:
    """What two successive source frames tell before the earlier one is dreamed; `FlowMode` decides which of it.

    ``flow`` (h, w, 2): under BLEND from the previous frame to the current one, under STABLE from the current one to
    the previous, with ``trust`` (h, w) in 0..1, its `agreement` with the forward flow. Both None at a scene cut.
    """

    flow: np.ndarray | None = None
    trust: np.ndarray | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class Inheritance:
    """What a frame takes over: ``start``, the picture from which its dream starts, float32 (h, w, 3) in 0..255.

    Under STABLE also ``source``, the frame itself, ``warped``, the previous dream as it would look in this frame, and
    ``weight`` (h, w, 1) in 0..1, how much of that is taken over. ``share`` of the frame dreams, the rest is masked.
    ``ease``: how far the finished frame is drawn to the warped dream, as a share of the weight. ``mask`` (h, w) in
    0..1: how far what is taken over had been let dream, where there are masks.
    """

    start: np.ndarray
    source: np.ndarray | None = None
    warped: np.ndarray | None = None
    weight: np.ndarray | None = None
    share: float = 1.0
    ease: float = EASE
    mask: np.ndarray | None = None

    def within(self, mask: np.ndarray, frame: np.ndarray, opened: np.ndarray | None = None) -> "Inheritance":
        """The same where ``mask`` (h, w, 1) is 1, and nothing, but the ``frame`` itself, where it is 0.

        Where it has ``opened``, (h, w), there is no dream to ease to.
        """
        start = self.start * mask + frame * (1 - mask)  # exact at both ends
        weight = None if self.weight is None else self.weight * mask
        if weight is not None and opened is not None:
            weight *= 1 - opened[..., None]
        return replace(self, start=start, weight=weight, share=float(mask.mean(dtype=np.float64)))

    def stabilise(self, dreamed: np.ndarray, shot_strength: float) -> np.ndarray:
        """The frame to be saved: its dream, uint8 (h, w, 3), eased towards the warped dream.

        Where little moves, a dream would grow from frame to frame, so its strength is held near a bound.
        ``shot_strength``: the mean change of the first frame of the shot in grey levels, where it dreams.
        """
        if self.source is None or self.warped is None or self.weight is None:
            return dreamed
        drawn = dreamed, self.warped, self.weight[..., 0], self.ease, self.source
        eased, added = np.empty(dreamed.shape, np.uint8), np.empty(len(dreamed))
        use_pytorchs_threads()
        loops.ease(*drawn, 1.0, eased, added)
        bound, strength = MAX_STRENGTH * shot_strength * self.share, added.sum() / eased.size
        if strength > bound:
            loops.ease(*drawn, max(bound / strength, MIN_FADE), eased, added)
        return eased


def inherits(options: FlowOptions) -> bool:
    """Whether a frame depends on the one before it."""
    return options.mode != FlowMode.OFF or options.blend_static > 0


def estimate_motion(previous: np.ndarray, current: np.ndarray, options: FlowOptions) -> Motion:
    """The `Motion` between two source frames."""
    if options.panorama:
        return _around(previous, current, options)
    if options.mode == FlowMode.OFF:
        return Motion()
    if options.mode == FlowMode.BLEND:
        return Motion(estimate_flow(previous, current))
    if is_cut(previous, current):
        return Motion(is_cut=True)
    return Motion(*estimate_fine_motion(current, previous))


def cut_thumbnail(frame: np.ndarray, options: FlowOptions) -> np.ndarray:
    """A source frame as `estimate_motion` gives it to `is_cut`."""
    margin = round(frame.shape[1] * WRAPPED) if options.panorama else 0
    return thumbnail(wrap_around(frame, margin))


def _around(previous: np.ndarray, current: np.ndarray, options: FlowOptions) -> Motion:
    """The `Motion` of a panorama, which moves across its borders too. Towards its poles, where a little step goes a
    long way round, it is trusted less."""
    height, width = current.shape[:2]
    margin = round(width * WRAPPED)
    before, after = (wrap_around(frame, margin) for frame in (previous, current))
    motion = estimate_motion(before, after, replace(options, panorama=False))
    inside = slice(margin, margin + width)
    share = np.minimum(TRUSTED_PARALLEL * parallels(height), 1)[:, None]
    return replace(
        motion,
        flow=None if motion.flow is None else motion.flow[:, inside],
        trust=None if motion.trust is None else share * motion.trust[:, inside],
    )


def parallels(height: int) -> np.ndarray:
    """How long the circle of latitude of each row of a panorama is, relative to the equator: float32 (h,)."""
    return np.cos(((np.arange(height) + 0.5) / height - 0.5) * np.pi).astype(np.float32)


def inherit(
    previous: np.ndarray,
    current: np.ndarray,
    dream: np.ndarray,
    motion: Motion,
    options: FlowOptions,
    zoom: float,
    rotate: float = 0.0,
    mask: np.ndarray | None = None,
) -> Inheritance:
    """What the ``current`` source frame takes over from ``dream``, that of the ``previous`` source frame.

    ``mask``: uint8 (h, w), that of the previous frame.
    """
    nothing = options.mode == FlowMode.STABLE and not (options.blend_flow or options.blend_static)
    if motion.is_cut or nothing:
        return Inheritance(current.astype(np.float32))
    if options.mode == FlowMode.STABLE:
        return _inherit_stable(previous, current, dream, motion, options, zoom, rotate, mask)
    return Inheritance(_blend(previous, current, dream, motion, options, zoom, rotate))


def _blend(
    previous: np.ndarray,
    current: np.ndarray,
    dream: np.ndarray,
    motion: Motion,
    options: FlowOptions,
    zoom: float,
    rotate: float,
) -> np.ndarray:
    """Where it is still the frame takes ``blend_static`` of the dream. Where it moves it takes ``blend_flow`` of the
    hallucination, shifted along the flow, on top of itself."""
    start = current.astype(np.float32)
    blended = zoom_in(dream, zoom, rotate)  # all in place: at 4K each copy has 100 MB
    blended -= start
    blended *= options.blend_static
    blended += start
    if motion.flow is None:
        return blended
    hallucination = zoom_in(np.subtract(dream, previous, dtype=np.float32), zoom, rotate)
    moved = warp(hallucination, motion.flow, options.panorama)
    del hallucination
    moved *= options.blend_flow
    moved += start
    np.clip(moved, 0, 255, out=moved)
    moves = motion_mask(motion.flow, options.threshold, options.panorama)
    np.copyto(blended, moved, where=moves[..., None])
    return blended


def _inherit_stable(
    previous: np.ndarray,
    current: np.ndarray,
    dream: np.ndarray,
    motion: Motion,
    options: FlowOptions,
    zoom: float,
    rotate: float,
    mask: np.ndarray | None,
) -> Inheritance:
    assert motion.flow is not None and motion.trust is not None
    offsets = _zoom_offsets(motion.flow, zoom, rotate)
    warped = sample(np.subtract(dream, previous, dtype=np.float32), offsets, cubic=True, panorama=options.panorama)
    weight = (_share(motion.flow, options) * motion.trust).astype(np.float32, copy=False)
    start = np.empty_like(warped)
    use_pytorchs_threads()
    loops.lay_warped(warped, current, weight, start)
    ease = PANORAMA_EASE if options.panorama else EASE
    known = None if mask is None else sample(weights(mask)[..., None], offsets, panorama=options.panorama)[..., 0]
    return Inheritance(start, current, warped, weight[..., None], ease=ease, mask=known)


def _share(flow: np.ndarray, options: FlowOptions) -> np.ndarray | float:
    """What is inherited of the dream, as a share, where it moves and where it is still: (h, w), or one for both."""
    if options.blend_flow == options.blend_static:
        return options.blend_flow
    return np.where(motion_mask(flow, options.threshold, options.panorama), options.blend_flow, options.blend_static)


def motion_mask(flow: np.ndarray, threshold: float, panorama: bool = False) -> np.ndarray:
    """Where it moves, bool (h, w): |flow| exceeds ``threshold`` when scaled so that the fastest pixel has 255.

    Of a ``panorama`` flow is measured on the sphere.
    """
    across = flow[..., 0] * parallels(len(flow))[:, None] if panorama else flow[..., 0]
    speed = np.hypot(across, flow[..., 1])
    fastest = speed.max()
    if fastest < MIN_MOTION:
        return np.zeros(speed.shape, bool)
    return speed * (255 / fastest) > threshold


def zoom_in(picture: np.ndarray, zoom: float, rotate: float = 0.0, cubic: bool = False) -> np.ndarray:
    """``picture`` enlarged by ``zoom`` (>= 1) about its centre, turned clockwise by ``rotate`` degrees, and cropped to
    its size: float32 (h, w, c).

    What comes in at the corners is the picture mirrored at its edge.
    """
    if zoom == 1 and rotate == 0:
        return picture.astype(np.float32)
    height, width = picture.shape[:2]
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    (across, down), _ = _back(zoom, rotate)
    matrix = np.array([
        [across, down, centre_x * (1 - across) - down * centre_y],
        [-down, across, centre_y * (1 - across) + down * centre_x],
    ])  # fmt: skip
    cv2 = opencv()
    flags = (cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(np.float32(picture), matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _back(zoom: float, rotate: float) -> np.ndarray:
    """The matrix (2, 2) from where a point is shown, right and down of the centre, to where it was."""
    turn = np.radians(rotate)
    return np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / zoom


def _zoom_offsets(offsets: np.ndarray, zoom: float, rotate: float) -> np.ndarray:
    """The offsets at which to sample a picture so that it also appears enlarged and turned, as by `zoom_in`."""
    if zoom == 1 and rotate == 0:
        return offsets
    height, width = offsets.shape[:2]
    rows, columns = np.indices((height, width), dtype=np.float32)
    from_centre = np.stack([columns - (width - 1) / 2, rows - (height - 1) / 2], -1)
    if rotate:
        return (from_centre + offsets) @ _back(zoom, rotate).T.astype(np.float32) - from_centre
    return (from_centre + offsets) / np.float32(zoom) - from_centre
