"""Every setting of a run: its default stands here and nowhere else, and so does its check.

The command line reads the defaults from these classes. An instance that exists has been checked:
the constructors raise `UsageError`.
"""

import math
import re
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

from deepdream.errors import UsageError

CUSTOM_LOOP = "customloop"
NO_AUDIO = "none"
IMAGE_TYPES = {"jpg": (".jpg", ".jpeg"), "png": (".png",)}
DEFAULT_FRAME_RATE = Fraction(25)


class FlowMode(IntEnum):
    """How a frame inherits from the dream before it."""

    OFF = 0
    BLEND = 1
    STABLE = 2


class DivideMode(IntEnum):
    """How an octave that is larger than the limits is divided."""

    OFF = 0
    TILES = 1
    HALVES = 2
    SEAMLESS = 3


def _check(holds, option, value, expected):
    if not holds:
        raise UsageError(f"{option} {value}: expected {expected}")


def _check_number(option, value, low, high=math.inf, low_included=True):
    above = value >= low if low_included else value > low
    floor = f"at least {low:g}" if low_included else f"greater than {low:g}"
    span = floor if high == math.inf else f"{low:g} to {high:g}"
    # Not isfinite: it fails for whole numbers beyond the range of float. Comparing is False for nan.
    _check(above and value <= high and value < math.inf, option, value, f"a number, {span}")


@dataclass(frozen=True)
class DreamOptions:
    """How one picture is dreamed, and how a frame starts from the one before.

    ``octaves`` pictures, each ``octave_scale`` (> 1) times smaller than the one before, each given
    ``iterations`` ascent steps of ``step_size`` grey levels (mean over the picture) under random
    shifts of up to ``jitter`` pixels, drawn from ``seed``. ``zoom`` enlarges what a frame inherits;
    ``preview`` is the width in pixels at which to dream (0: the frames' own).
    """

    octaves: int = 4
    octave_scale: float = 1.4
    iterations: int = 10
    step_size: float = 1.5
    jitter: int = 32
    zoom: float = 1.0
    preview: int = 0
    layers: tuple = (CUSTOM_LOOP,)
    seed: int = 0

    def __post_init__(self):
        _check_number("--octaves", self.octaves, 1, 64)
        _check_number("--octavescale", self.octave_scale, 1, low_included=False)
        _check_number("--iterations", self.iterations, 0, 100_000)
        _check_number("--stepsize", self.step_size, 0, 255)
        _check_number("--jitter", self.jitter, 0, 100_000)
        _check_number("--zoom", self.zoom, 1, 100)
        _check_number("--preview", self.preview, 0, 32_768)
        _check_number("--seed", self.seed, 0)
        _check(self.layers and all(self.layers), "--layers", " ".join(self.layers), "layer names")


# A dream that is to keep calm must inherit as much where it is still as where it moves.
BLEND_STATIC = {FlowMode.OFF: 0.1, FlowMode.BLEND: 0.1, FlowMode.STABLE: 0.9}


@dataclass(frozen=True)
class FlowOptions:
    """What a frame inherits from the previous dream.

    ``threshold``: motion threshold on the flow's magnitude scaled to 0..255 over the frame.
    ``blend_flow`` and ``blend_static``: shares (0..1) inherited where it moves and where it is still. None for
    the latter means the mode's own, one of `BLEND_STATIC`.
    """

    mode: FlowMode = FlowMode.OFF
    threshold: float = 6.0
    blend_flow: float = 0.9
    blend_static: float | None = None

    def __post_init__(self):
        if self.blend_static is None:
            object.__setattr__(self, "blend_static", BLEND_STATIC[self.mode])  # the class is frozen
        _check_number("--flowthresh", self.threshold, 0, 255)
        _check_number("--blendflow", self.blend_flow, 0, 1)
        _check_number("--blendstatic", self.blend_static, 0, 1)


@dataclass(frozen=True)
class DivideOptions:
    """How large frames are divided: ``max_width`` and ``max_height`` of a tile in pixels."""

    mode: DivideMode = DivideMode.OFF
    max_width: int = 1500
    max_height: int = 1500

    def __post_init__(self):
        _check_number("--maxWidth", self.max_width, 1)
        _check_number("--maxHeight", self.max_height, 1)


@dataclass(frozen=True)
class VideoOptions:
    """How a video is made.

    ``frame_rate``: a `Fraction`, or None for that of the source video, else `DEFAULT_FRAME_RATE`.
    ``audio``: a file, ``"none"``, or None for the source video's own sound.
    """

    frame_rate: Fraction | None = None
    audio: str | None = None

    def __post_init__(self):
        if self.frame_rate is not None:
            _check(Fraction(1, 1000) <= self.frame_rate <= 1000, "--framerate", self.frame_rate, "0.001 to 1000")


@dataclass(frozen=True)
class RenderOptions:
    """All that decides what the dreamed frames look like, besides the network and the source frames.

    ``guide``: the path of a guide image, or None. ``image_type``: ``"jpg"``, ``"png"`` or None for that of the frames.
    """

    dream: DreamOptions = DreamOptions()
    flow: FlowOptions = FlowOptions()
    divide: DivideOptions = DivideOptions()
    guide: str | None = None
    image_type: str | None = None


def parse_frame_rate(text):
    """`Fraction` of ``24``, ``29.97`` or ``30000/1001``. 29.97 stays 2997/100: what was said is meant."""
    if not re.fullmatch(r"\d+(\.\d+)?|\d+/\d+", text.strip()):
        raise UsageError(f"--framerate {text}: expected a number such as 24, 29.97 or 30000/1001")
    try:
        return Fraction(text.strip())
    except ZeroDivisionError:
        raise UsageError(f"--framerate {text}: the part below the line is zero") from None
    except ValueError:  # thousands of digits
        raise UsageError("--framerate: the number is too long") from None
