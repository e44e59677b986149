"""One frame into its dream: a function of plain data and a network, the same wherever it is called.

Pictures are uint8 RGB (h, w, 3).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from deepdream.files.masks import resize_mask, weights
from deepdream.interface import Network, Objective
from deepdream.memory.malloc import TRIM_ABOVE_PIXELS, trim
from deepdream.motion.flow import wrap_around
from deepdream.motion.inheritance import Inheritance, Motion, estimate_motion, inherit, zoom_in
from deepdream.opencv import opencv
from deepdream.options import DivideOptions, DreamOptions, FlowMode, FlowOptions
from deepdream.picture import ascent
from deepdream.picture.objectives import WeightedSum
from deepdream.render.dream_size import lay_on, shrink, take_off

# Of a frame: where more of its mask is new than this, it takes the steps of a shot's first frame there.
MIN_OPENED = 0.05
# Of a step, the size of those of a frame that inherits, times the cube root of how many times fewer they are. Full
# steps, their result drawn back further to the warped dream, give as calm a dream that answers the layer less: what is
# drawn back is worn by the warping.
INHERITED_STEP = 0.55
# How strong what a frame inherits may be, in units of the first frame of its shot, for steps of that size, and from
# where on they are half as large. A dream that grows until its bound is less calm than one that keeps its strength.
FULL_UP_TO, HALF_FROM = 1.1, 1.25


@dataclass(frozen=True)
class FrameOptions:
    """The options of frame ``number`` (from 0), which is dreamed at ``layer``: a network's layer, or a target.

    ``guide``: the path of its guide image, or None. ``dive``: it is the dream before it, moved. ``growth``: how many
    times the steps of the frame before it their size and number are.
    """

    number: int
    layer: str
    dream: DreamOptions
    flow: FlowOptions
    divide: DivideOptions
    guide: str | None = None
    dive: bool = False
    growth: float = 1.0

    def dream_options(self, starts_shot: bool, strength: float = 0.0) -> DreamOptions:
        """Under STABLE a frame that inherits takes fewer and smaller steps than the first of its shot.

        It takes most at the finest octave, whose shapes are what warping wears down. Those of a panorama have full
        size, since each view sees a place from another side, and their result is drawn back. ``strength``: that of what
        it inherits, in units of the first frame of its shot.
        """
        few, dream = self.flow.iterations, self.dream
        if starts_shot or few is None:
            return dream
        size = 1.0
        if not dream.panorama:
            fewer = max(1.0, dream.iterations / max(1, few))
            size = min(1.0, INHERITED_STEP * math.cbrt(fewer))
            size *= float(np.interp(strength, (FULL_UP_TO, HALF_FROM), (1, 0.5)))
        return replace(dream, iterations=few, taper=True, step_size=size * dream.step_size)


@dataclass(frozen=True)
class Source:
    """A source frame: ``full`` at the size that is written, ``small`` at that of the dream.

    ``mask``: uint8 (h, w), of the size that is written, or None; see `deepdream.files.masks`.
    """

    full: np.ndarray
    small: np.ndarray
    mask: np.ndarray | None = None


def source_of(
    picture: np.ndarray,
    size: tuple[int, int],
    dream_size: tuple[int, int],
    mask: np.ndarray | None = None,
    panorama: bool = False,
) -> Source:
    """The `Source` of a picture as it was read; the sizes (w, h) at which it is written and dreamed."""
    height, width = picture.shape[:2]
    if (width, height) != size:
        margin = width // 8 if panorama else 0
        box = margin, 0, margin + width, height
        wrapped = Image.fromarray(wrap_around(picture, margin))
        picture = np.asarray(wrapped.resize(size, Image.Resampling.LANCZOS, box=box))
    return Source(picture, shrink(picture, dream_size), mask)


@dataclass(frozen=True)
class Dream:
    """A finished frame as it is saved. ``is_cut``: a new scene was found to start at it.

    ``shot_strength``: see `Inheritance.stabilise`; only under STABLE.
    """

    picture: np.ndarray
    shot_strength: float | None
    is_cut: bool


@dataclass(frozen=True)
class Previous:
    """What a frame inherits from: the frame before it, all at the size of the dream, uint8, the dream maybe float32.

    ``dream``: what `take_off` gives of it; as it is written, where the frame dives into it. ``mask`` as `Source` has
    it. ``shot_strength`` as `Dream` has it. ``motion``: from that frame to this one, where it is known.
    """

    source: np.ndarray
    dream: np.ndarray
    shot_strength: float | None
    mask: np.ndarray | None = None
    motion: Motion | None = None


def previous_of(options: FrameOptions, source: Source, picture: np.ndarray, shot_strength: float | None) -> Previous:
    """What a frame with ``options`` inherits from the ``source`` before it and its dream, a ``picture`` as written.

    Nothing of it has full size but the picture of a dive: at 4K each would take 25 MB while the frame dreams.
    """
    if not options.dive:
        picture = take_off(picture, source.full, source.small, options.dream.panorama)
    return Previous(source.small, picture, shot_strength, _mask_of(source))


def dream_frame(
    options: FrameOptions,
    network: Network,
    objective: Objective | WeightedSum,
    source: Source,
    previous: Previous | None = None,
    on_step: Callable[[ascent.StepReport], Any] | None = None,
    on_cut: Callable[..., Any] | None = None,
    ascend_tiles: ascent.AscendTiles | None = None,
) -> Dream:
    """Dream a frame. ``objective``: that at the layer of ``options``, or a sum that names its own layers.

    ``previous``: None for a frame that inherits nothing. ``on_step`` is called with each step's report, ``on_cut``
    before the dream of a frame at which a new scene starts, or, with a word of why, of another that takes as many steps
    as a shot's first. ``ascend_tiles``: see `ascent.dream`, which says too what is raised.
    """
    undreamed = source.full
    is_large = math.prod(source.full.shape[:2]) >= TRIM_ABOVE_PIXELS
    if is_large:
        trim()  # the flow of such a frame takes more than a part of its dream
    if options.dive and previous is not None:
        source, previous = _move(options, source, previous.dream), None
    inherited, is_cut = _inherit(options, source, previous)
    mask, opened = _mask_of(source), None
    if mask is not None:
        opened = _opened(options, weights(mask), inherited)
        inherited = inherited.within(weights(mask)[..., None], source.small, opened)
        if opened is not None:
            mask = _share_steps(options, mask, opened)
    anew = "the mask opens" if opened is not None else ""
    if not anew and _begins(options, previous, inherited):
        anew = "the dream begins"
    if on_cut and (is_cut or anew):
        on_cut(*([] if is_cut else [anew]))
    shot_strength = _shot_strength(options, previous, inherited)
    so_far = _strength(inherited.start, source.small, inherited.share) / shot_strength if shot_strength else 0.0
    if is_large:
        trim()  # what reading, saving and the frame before have left, though the dream itself may be small
    dreamed = ascent.dream(
        inherited.start,
        network,
        options.layer,
        options.dream_options(inherited.warped is None or bool(anew), so_far),
        options.divide,
        objective,
        _jitter(options),
        on_step,
        mask,
        ascend_tiles,
    )
    strength = None
    if options.flow.mode == FlowMode.STABLE:
        strength = shot_strength or _strength(dreamed, source.small, inherited.share)
        dreamed = inherited.stabilise(dreamed, strength)
    picture = lay_on(dreamed, source.small, source.full, options.dream.panorama)
    if source.mask is not None:  # octaves and the dream's own size are coarser than the mask
        picture = np.where(source.mask[..., None] > 0, picture, undreamed)
    return Dream(picture, strength, is_cut)


def _mask_of(source: Source) -> np.ndarray | None:
    """The mask at the size of the dream."""
    return None if source.mask is None else resize_mask(source.mask, source.small.shape[1::-1])


def _opened(options: FrameOptions, mask: np.ndarray, inherited: Inheritance) -> np.ndarray | None:
    """How much of a frame's ``mask`` (h, w) in 0..1 is new, where much is: what it takes over was not dreamed there.

    None too where its steps come to no less than those of the first of a shot.
    """
    few, full = _few_and_full_steps(options)
    if inherited.mask is None or few >= full:
        return None
    opened = np.clip(mask - inherited.mask, 0, 1)
    return opened if opened.mean(dtype=np.float64) > MIN_OPENED else None


def _begins(options: FrameOptions, previous: Previous | None, inherited: Inheritance) -> bool:
    """Whether a frame is the first of its shot to dream, as where steps grow from nothing: its strength counts then."""
    if previous is None or inherited.warped is None or previous.shot_strength or not inherited.share:
        return False
    few, full = _few_and_full_steps(options)
    return few < full


def _share_steps(options: FrameOptions, mask: np.ndarray, opened: np.ndarray) -> np.ndarray:
    """The mask under which the steps of a shot's first frame do no more than the few of one that inherits, but where
    the mask ``opened``."""
    few, full = _few_and_full_steps(options)
    share = few / full
    return np.rint(mask * (share + (1 - share) * opened)).astype(np.uint8)


def _few_and_full_steps(options: FrameOptions) -> list[float]:
    """What the steps come to, over all octaves, of a frame that inherits and of a shot's first one: grey levels."""
    both = [options.dream_options(starts_shot) for starts_shot in (False, True)]
    return [dream.step_size * sum(ascent.octave_iterations(dream)) for dream in both]


def _shot_strength(options: FrameOptions, previous: Previous | None, inherited: Inheritance) -> float:
    """The strength to which a frame is held: that of its shot's first frame, for steps like its own; 0 if unknown."""
    if previous is None or inherited.warped is None:
        return 0.0
    assert previous.shot_strength is not None
    return previous.shot_strength * options.growth


def _strength(dreamed: np.ndarray, source: np.ndarray, share: float) -> float:
    """The mean change in grey levels, of the ``share`` of the frame that dreams; 0 where none does."""
    cv2 = opencv()
    added = cv2.subtract(dreamed, source, dtype=cv2.CV_32F)
    return cv2.norm(added, cv2.NORM_L1) / added.size / share if share else 0.0


def _move(options: FrameOptions, source: Source, dream: np.ndarray) -> Source:
    """The source of a frame of a dive: the dream before it, enlarged and turned, in one resampling. float32."""
    full = np.clip(zoom_in(dream, options.dream.zoom, options.dream.rotate, cubic=True), 0, 255)
    if source.mask is not None:
        weight = weights(source.mask)[..., None]
        full = full * weight + source.full * (1 - weight)
    return Source(full, shrink(full, source.small.shape[1::-1]), source.mask)


def _inherit(options: FrameOptions, source: Source, previous: Previous | None) -> tuple[Inheritance, bool]:
    """What a frame takes over from the dream before it, and whether a scene starts at it."""
    if previous is None:
        return Inheritance(source.small.astype(np.float32)), False
    before = previous.source
    motion = previous.motion or estimate_motion(before, source.small, options.flow)
    moved = options.dream.zoom, options.dream.rotate
    return inherit(before, source.small, previous.dream, motion, options.flow, *moved, previous.mask), motion.is_cut


def _jitter(options: FrameOptions) -> np.random.Generator:
    """The generator of a frame's jitter. Under STABLE it is the same for each frame, so that they dream alike."""
    return np.random.default_rng([options.dream.seed, 0 if options.flow.mode == FlowMode.STABLE else options.number])
