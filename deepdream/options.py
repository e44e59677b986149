"""Every option of the command line, once: its names, default, range and help stand with the field that holds it.

`dreamer.py` builds its parser from these classes, a render's manifest takes its entries from them, and their
constructors raise `UsageError`, so an instance that exists has been checked. A new option is a new field here,
made by `setting`.
"""

import math
import re
from dataclasses import MISSING, dataclass, replace
from enum import IntEnum, StrEnum
from fractions import Fraction

from deepdream.errors import UsageError
from deepdream.schedule import Schedule, values_of
from deepdream.settings import NO_FILE, Options, Setting, setting, settings_of

CUSTOM_LOOP = "customloop"
NO_AUDIO = NO_FILE
IMAGE_TYPES = {"jpg": (".jpg", ".jpeg"), "png": (".png",)}
PICTURE_ENDINGS = (*IMAGE_TYPES["jpg"], *IMAGE_TYPES["png"], ".webp", ".bmp", ".tif", ".tiff")
ENGINES = ("torch", "caffe")
PRECISIONS = ("float32", "bfloat16")
DEFAULT_FRAME_RATE = Fraction(25)
CODECS = ("h264", "h264-10bit", "h265", "h265-10bit", "vp9", "av1", "prores", "gif")


class FlowMode(IntEnum):
    """How a frame inherits from the dream before it."""

    OFF = 0
    BLEND = 1
    STABLE = 2


class Colors(StrEnum):
    """What a dream may change of the picture's colours."""

    DREAM = "dream"
    NATURAL = "natural"
    SOURCE = "source"


class DivideMode(IntEnum):
    """How an octave that is larger than the limits is divided."""

    OFF = 0
    TILES = 1
    HALVES = 2
    SEAMLESS = 3


# A dream that is to keep calm must inherit all it can, where it is still as where it moves: what a frame does not take
# over it dreams anew.
BLEND_FLOW = {FlowMode.OFF: 0.9, FlowMode.BLEND: 0.9, FlowMode.STABLE: 1.0}
BLEND_STATIC = {FlowMode.OFF: 0.1, FlowMode.BLEND: 0.1, FlowMode.STABLE: 1.0}
# Of a shot's first frame's steps, and no fewer than: a frame that inherits is mostly dreamed already.
FLOW_ITERATIONS, MIN_FLOW_ITERATIONS = 0.25, 3
# Ripples flicker and use up steps. The historic modes keep their look.
SMOOTH = {FlowMode.OFF: 0.0, FlowMode.BLEND: 0.0, FlowMode.STABLE: 1.0}


def _by_mode(defaults: dict[FlowMode, float]) -> str:
    return f"{defaults[FlowMode.OFF]:g}; with -flow {FlowMode.STABLE:d} {defaults[FlowMode.STABLE]:g}"


def parse_frame_rate(text: str) -> Fraction:
    """`Fraction` of ``24``, ``29.97`` or ``30000/1001``. 29.97 stays 2997/100: what was said is meant."""
    if not re.fullmatch(r"\d+(\.\d+)?|\d+/\d+", text.strip()):
        raise UsageError(f"--framerate {text}: expected a number such as 24, 29.97 or 30000/1001")
    try:
        return Fraction(text.strip())
    except ZeroDivisionError:
        raise UsageError(f"--framerate {text}: the denominator is zero") from None
    except ValueError:  # thousands of digits
        raise UsageError("--framerate: the number is too long") from None


def parse_time(text: str) -> float:
    """Seconds of ``90``, ``1:30`` or ``0:01:30.250``."""
    found = re.fullmatch(r"(?:(?:(\d{1,4}):)?(\d{1,4}):)?(\d{1,9}(?:\.\d{1,9})?)", text.strip())
    if not found:
        raise UsageError(f"{text}: expected a time such as 90, 1:30 or 0:01:30.250")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    if (found[2] and seconds >= 60) or (found[1] and minutes >= 60):
        raise UsageError(f"{text}: expected a time with less than 60 after each colon")
    return 3600 * hours + 60 * minutes + seconds


def image_type_of(ending: str) -> str | None:
    """``"jpg"`` or ``"png"`` by the ending of a picture's name, such as .jpeg; None for another."""
    return next((image_type for image_type, endings in IMAGE_TYPES.items() if ending.lower() in endings), None)


def parse_image_type(text: str) -> str:
    """``"jpg"`` or ``"png"`` of an ending without its dot."""
    image_type = image_type_of(f".{text}")
    if image_type is None:
        raise UsageError(f"--image_type {text}: expected jpg or png")
    return image_type


@dataclass(frozen=True)
class RunOptions(Options):
    """What to do, and how much to say meanwhile. ``image_type``: ``"jpg"``, ``"png"`` or None for the type found."""

    input: str = setting(
        "", "-i", "--input", metavar="PATH",
        help="directory of frames, or a video to extract or dream, or a picture to dream",
    )  # fmt: skip
    output: str = setting(
        "", "-o", "--output", metavar="PATH", help="directory of frames, or the video or picture to make"
    )
    extract: int = setting(
        0, "-e", "--extract", choices=(0, 1), nargs="?", const=1, help="extract the frames of a video"
    )
    create: int = setting(0, "-c", "--create", choices=(0, 1), nargs="?", const=1, help="create a video from frames")
    frames: int | None = setting(
        None, "--frames", type=int, low=1, high=1_000_000,
        help="dive into a picture for so many frames, each the last dream, enlarged by --zoom, turned by --rotate, and "
        "dreamed again",
    )  # fmt: skip
    image_type: str | None = setting(
        None, "-it", "--image_type", metavar="jpg/png", type=parse_image_type,
        help="which frames to read and which kind to write",
        default_text="the type found; png where frames are extracted",
    )  # fmt: skip
    overwrite: bool = setting(False, "--overwrite", help="start afresh where another render or video is")
    mix_machines: bool = setting(
        False, "--mix-machines",
        help="go on with a render that was begun on another type of CPU or with other versions, and rounds otherwise",
    )  # fmt: skip
    list_layers: bool = setting(False, "--list-layers", help="print the network's layers and shapes, then exit")
    print_schedule: bool = setting(
        False, "--print-schedule", help="print the values of each frame where they change over time, then exit"
    )
    show_layers: str = setting(
        "", "--show-layers", metavar="SHEET",
        help="dream one frame at each layer of the network, or those of -l, all equally strong, and write a sheet of "
        "them: .jpg, .png, or .html",
    )  # fmt: skip
    frame: int | None = setting(
        None, "--frame", type=int, low=0, default_text="the middle one",
        help="with --show-layers: which frame, counted from 0",
    )  # fmt: skip
    report: bool = setting(
        False, "--report", help="write report.html beside the frames: source and dream, measures by frame, the settings"
    )
    settings: str = setting(
        "", "--settings", metavar="FILE",
        help="print the commands that made a dreamed frame or a created video, then exit",
    )  # fmt: skip
    no_settings: bool = setting(False, "--no-settings", help="leave the command out of the frames and the video")
    verbose: int = setting(
        1, "-v", "--verbose", choices=(0, 1, 2, 3),
        help="0 errors only, 1 progress and summary, 2 a line a frame and an iteration, 3 a live picture too",
    )  # fmt: skip


@dataclass(frozen=True)
class NetworkOptions(Options):
    """The network and what runs it; see `deepdream.networks.load_network`."""

    model_path: str | None = setting(
        None, "-t", "--model_path", metavar="DIR",
        help="directory of a Caffe model: a deploy.prototxt and a .caffemodel",
        default_text="bvlc_googlenet in $CAFFE_ROOT/models, ../caffe/models or models; "
        "else the embedded EfficientNet-Lite0",
    )  # fmt: skip
    model_name: str | None = setting(
        None, "-m", "--model_name", metavar="NAME", default_text="the only one",
        help="its caffemodel, with or without the ending",
    )  # fmt: skip
    engine: str = setting(ENGINES[0], "--engine", choices=ENGINES, help="what runs the network")
    precision: str = setting(
        PRECISIONS[0], "--precision", choices=PRECISIONS,
        help="in what the convolutions compute; bfloat16 is faster and rounds more",
    )  # fmt: skip
    gpu: int | None = setting(
        None, "-gpu", "--gpu", type=int, choices=(0, 1), default_text="1 where there is a GPU", help="0 CPU, 1 GPU"
    )


@dataclass(frozen=True)
class DreamOptions(Options):
    """How one picture is dreamed, and how a frame starts from the one before.

    ``octaves`` pictures, each ``octave_scale`` times smaller than the one before, each given ``iterations`` ascent
    steps of ``step_size`` grey levels (mean over the picture) under random shifts of up to ``jitter`` pixels, drawn
    from ``seed``. With ``taper`` coarser octaves take fewer steps. ``zoom`` enlarges what a frame inherits,
    ``rotate`` turns it by degrees; ``preview`` is the width in pixels at which to dream (0: the frames' own).
    ``layers``: names, one a frame, in turn. `deepdream.keyframes` stands in for a value that changes over time.
    """

    layers: tuple[str, ...] = setting(
        (CUSTOM_LOOP,), "-l", "--layers", metavar="LAYER", nargs="+", type=str, keyframes="0:conv3, 48:conv4",
        help=f"layers, one a frame, in turn; LAYER:3,7,9-12 is channels of one (of a classifier's last, classes by "
        f"number or name), LAYER+0.5*LAYER several at once, weighted; {CUSTOM_LOOP} is the model's own loop",
    )  # fmt: skip
    octaves: int = setting(4, "-oct", "--octaves", low=1, high=64, keyframes="0:4, 48:6", help="number of octaves")
    octave_scale: float = setting(
        1.4, "-octs", "--octavescale", low=1, low_included=False, keyframes="0:1.4, 48:1.6",
        help="ratio between octaves",
    )  # fmt: skip
    iterations: int = setting(
        10, "-itr", "--iterations", low=0, high=100_000, keyframes="0:10, 48:16", help="steps an octave"
    )
    step_size: float = setting(
        1.5, "-s", "--stepsize", low=0, high=255, keyframes="0:1.5, 48:3", help="mean change of a step in grey levels"
    )
    jitter: int = setting(
        32, "-j", "--jitter", low=0, high=100_000, keyframes="0:32, 48:8", help="random shift of each step in pixels"
    )
    zoom: float = setting(
        1.0, "-z", "--zoom", low=1, high=100, keyframes="0:1, 48:1.02",
        help="enlarge what a frame inherits about the centre; 1 is not at all",
    )  # fmt: skip
    rotate: float = setting(
        0.0, "--rotate", metavar="DEGREES", low=-180, high=180, historic=0, keyframes="0:0, 48:0.5",
        help="turn what a frame inherits about the centre, clockwise",
    )  # fmt: skip
    preview: int = setting(
        0, "-p", "--preview", metavar="WIDTH", low=0, high=32_768,
        help="dream at this width, height in proportion; 0 is full size",
    )  # fmt: skip
    dream_width: int = setting(
        0, "--dreamwidth", metavar="WIDTH", low=0, high=32_768, historic=0,
        help="dream at this width and lay what the dream adds onto the full frame; 0 is the frame's own",
    )  # fmt: skip
    panorama: bool = setting(
        False, "--panorama", historic=False,
        help="dream 360-degree frames (equirectangular, 2:1) on the sphere: no border, no stretched poles",
    )  # fmt: skip
    seed: int = setting(0, "--seed", low=0, help="seed of the jitter")
    smooth: float | None = setting(
        None, "--smooth", metavar="A", low=0, high=2, type=float, historic=0, keyframes="0:0, 48:1",
        help="smooth each step: weight its waves by frequency to the power of -A; 1 is a painted look without ripples",
        default_text=_by_mode(SMOOTH),
    )  # fmt: skip
    colors: Colors = setting(
        Colors.DREAM, "--colors", historic=Colors.DREAM.value,
        help="dream: the network's own; natural: like those of photographs; source: only brightness changes",
    )  # fmt: skip

    taper: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for layers in values_of(self.layers):
            if not (layers and all(layers)):
                raise UsageError(f"--layers {' '.join(layers)}: expected layer names")
        for name, value, none in (("--zoom", self.zoom, 1), ("--rotate", self.rotate, 0)):
            if self.panorama and set(values_of(value)) != {none}:
                raise UsageError(f"{name} {value}: a --panorama has no centre to move about; leave it out")


@dataclass(frozen=True)
class FlowOptions(Options):
    """What a frame inherits from the previous dream.

    ``threshold``: motion threshold on the flow's magnitude scaled to 0..255 over the frame.
    ``blend_flow`` and ``blend_static``: shares (0..1) inherited where it moves and where it is still. None means the
    mode's own, of `BLEND_FLOW` and `BLEND_STATIC`, which takes its place. ``iterations``: steps at the finest octave of
    a frame that inherits under STABLE; the two below it take one fewer, coarser ones two, but at least one.
    ``panorama``: that of `DreamOptions`, once both are in `RenderOptions`.
    """

    mode: FlowMode = setting(
        FlowMode.OFF, "-flow", "--flow", metavar="0-2", nargs="?", const=int(FlowMode.BLEND),
        help="0 off, 1 blend along the optical flow, 2 stabilised: the calmest",
    )  # fmt: skip
    threshold: float = setting(
        6.0, "-flowthresh", "--flowthresh", low=0, high=255, keyframes="0:6, 48:12",
        help="what counts as moving, where 255 is the fastest motion in the frame",
    )  # fmt: skip
    blend_flow: float = setting(  # type: ignore[assignment]  # None until it is checked
        None, "-bm", "--blendflow", low=0, high=1, type=float, keyframes="0:0.9, 48:0.5",
        help="share inherited where the picture moves", default_text=_by_mode(BLEND_FLOW),
    )  # fmt: skip
    blend_static: float = setting(  # type: ignore[assignment]  # None until it is checked
        None, "-bs", "--blendstatic", low=0, high=1, type=float, keyframes="0:0.1, 48:0.9",
        help="share inherited where it is still",
        default_text=_by_mode(BLEND_STATIC),
    )  # fmt: skip

    iterations: int | None = setting(
        None, "-fitr", "--flowiterations", low=0, high=100_000, type=int, historic=None,
        keyframes="0:3, 48:6",
        help=f"with -flow {FlowMode.STABLE:d}: steps of a frame that inherits at the finest octave, one fewer at the "
        "two below it and two at coarser ones, smaller than --stepsize (not of panoramas); a shot's first frame takes "
        "--iterations at each",
        default_text=f"a quarter of --iterations, at least {MIN_FLOW_ITERATIONS}",
    )  # fmt: skip
    panorama: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blend_flow is None:
            self._take(blend_flow=BLEND_FLOW[self.mode])
        if self.blend_static is None:
            self._take(blend_static=BLEND_STATIC[self.mode])


@dataclass(frozen=True)
class DivideOptions(Options):
    """How large frames are divided: ``max_width`` and ``max_height`` of a tile in pixels."""

    mode: DivideMode = setting(
        DivideMode.OFF, "-d", "--divide", metavar="0-3",
        help="0 off, 1 tiles of at most maxWidth x maxHeight, 2 two by two where wider than maxWidth, 3 tiles "
        "without seams",
    )  # fmt: skip
    max_width: int = setting(1500, "-mw", "--maxWidth", low=1, help="largest width of a tile in pixels")
    max_height: int = setting(1500, "-mh", "--maxHeight", low=1, help="largest height of a tile in pixels")


@dataclass(frozen=True)
class RenderOptions(Options):
    """All that decides what the dreamed frames look like, besides the network and the source frames.

    ``guide``: the path of a guide image, or None. ``mask``: that of a picture, a directory of them or a video, or None.
    ``image_type``: ``"jpg"``, ``"png"`` or None for that of the frames. What depends on the flow mode and was not given
    takes its default here. A panorama is not divided. ``dive``: each frame is the last dream, moved; no others come in.
    """

    dream: DreamOptions = DreamOptions()
    flow: FlowOptions = FlowOptions()
    divide: DivideOptions = DivideOptions()
    guide: str | None = setting(
        None, "-g", "--guide", metavar="IMAGE", help="guide image: a path, or a name inside the input directory"
    )
    mask: str | None = setting(
        None, "--mask", metavar="PATH", historic=None,
        help="where to dream: a picture, a directory of pictures or a video, a mask a frame; white dreams, black keeps "
        "the source",
    )  # fmt: skip
    image_type: str | None = None
    dive: bool = False

    def __post_init__(self) -> None:  # its own options are any text
        dream, flow = self.dream, FlowOptions(blend_static=1.0) if self.dive else self.flow
        few = flow.iterations if flow.mode == FlowMode.STABLE else None
        if flow.mode == FlowMode.STABLE and few is None and not isinstance(dream.iterations, Schedule):
            few = min(dream.iterations, max(MIN_FLOW_ITERATIONS, math.ceil(FLOW_ITERATIONS * dream.iterations)))
        smooth = SMOOTH[flow.mode] if dream.smooth is None else dream.smooth
        self._take(
            dream=replace(dream, smooth=smooth),
            flow=replace(flow, panorama=dream.panorama, iterations=few),
            divide=DivideOptions() if dream.panorama else self.divide,
        )


@dataclass(frozen=True)
class ClusterOptions(Options):
    """What dreams beside this process, or in its place; see `deepdream.render.team`."""

    workers: int = setting(
        0, "--workers", low=0, high=4096,
        help="dream in so many worker processes, each with its share of the cores; 0 is in this process",
    )  # fmt: skip
    cluster: str | None = setting(
        None, "--cluster", metavar="ADDRESS",
        help="dream on a Dask cluster: tcp://host:8786, tls://host:8786 or a scheduler file",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers and self.cluster:
            raise UsageError("--workers starts workers here, and --cluster uses those of a cluster; give one of them")


@dataclass(frozen=True)
class PartOptions(Options):
    """The part of a video to take: the frames shown from ``start`` up to ``end``, in seconds; None for the video's."""

    start: float | None = setting(
        None, "--start", metavar="T", type=parse_time, default_text="the video's",
        help="where the part of the video to take starts: seconds, mm:ss or hh:mm:ss.ms",
    )  # fmt: skip
    end: float | None = setting(
        None, "--end", metavar="T", type=parse_time, default_text="the video's", help="where it ends"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end is not None and (self.start or 0) >= self.end:
            raise UsageError(f"--end {self.end}: the part must end after its start, {self.start or 0}")


@dataclass(frozen=True)
class VideoOptions(Options):
    """How a video is made.

    ``frame_rate``: a `Fraction`, or None for that of the source video, else `DEFAULT_FRAME_RATE`.
    ``audio``: a file, ``"none"``, or None for the source video's own sound. ``codec``: one of `CODECS`, or None for
    the one of the video's ending; ``crf``: its quality, less is better, or None for the codec's default.
    """

    frame_rate: Fraction | None = setting(
        None, "-f", "--framerate", metavar="RATE", type=parse_frame_rate, low=Fraction(1, 1000), high=1000,
        help="frame rate, such as 24, 29.97 or 30000/1001",
        default_text=f"that of the source video, else {DEFAULT_FRAME_RATE}",
    )  # fmt: skip
    audio: str | None = setting(
        None, "--audio", metavar="FILE/none", help=f"sound track, or {NO_AUDIO}",
        default_text="the source video's own, at its own rate",
    )  # fmt: skip
    codec: str | None = setting(
        None, "--codec", choices=CODECS, help="how to code the video",
        default_text="h264; vp9 in a .webm, gif in a .gif",
    )  # fmt: skip
    crf: int | None = setting(
        None, "--crf", type=int, low=0, high=63, help="quality, less is better and larger",
        default_text="20 for h264, 22 for h265, 24 for vp9 and av1",
    )  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """A parsed command line; ``given``: the long names of the options that stand in it."""

    run: RunOptions = RunOptions()
    network: NetworkOptions = NetworkOptions()
    render: RenderOptions = RenderOptions()
    cluster: ClusterOptions = ClusterOptions()
    part: PartOptions = PartOptions()
    video: VideoOptions = VideoOptions()
    given: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Options that stand together in ``--help``, and the modes in which they mean something."""

    title: str
    kinds: tuple[type, ...]
    modes: tuple[str, ...]

    @property
    def settings(self) -> list[Setting]:
        """Each `Setting` of the options."""
        return [known for kind in self.kinds for _, known in settings_of(kind)]


GROUPS = (
    Group("what to do", (RunOptions,), ("extract", "dream", "create", "picture", "dive")),
    Group("the part of a video", (PartOptions,), ("extract",)),
    Group("the network", (NetworkOptions,), ("dream", "picture", "dive")),
    Group("the dream", (DreamOptions, RenderOptions), ("dream", "picture", "dive")),
    Group("from frame to frame (optical flow)", (FlowOptions,), ("dream",)),
    Group("dividing large frames", (DivideOptions,), ("dream", "picture", "dive")),
    Group("many workers", (ClusterOptions,), ("dream", "dive")),
    Group("the video", (VideoOptions,), ("create", "dive")),
)


SETTINGS = tuple(known for group in GROUPS for known in group.settings)
# What renders did before there was an option, for manifests that do not name it.
HISTORIC = {known.name: known.historic for known in SETTINGS if known.historic is not MISSING}
