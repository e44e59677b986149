#!/usr/bin/env python3
"""The command line: three modes, extract, dream and create, and all three in one.

Only this file prints, and only here does an error turn into a line and an exit status. Heavy libraries are
imported once the command line has been understood, so that --help answers at once.
"""

import argparse
import os
import signal
import sys
import time
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

from deepdream.errors import DreamError, UsageError
from deepdream.networks import ENGINES, PRECISIONS
from deepdream.options import (
    BLEND_STATIC,
    CUSTOM_LOOP,
    DEFAULT_FRAME_RATE,
    IMAGE_TYPES,
    NO_AUDIO,
    DivideMode,
    DivideOptions,
    DreamOptions,
    FlowMode,
    FlowOptions,
    RenderOptions,
    VideoOptions,
    parse_frame_rate,
)
from deepdream.show.progress import LivePicture, Screen, one_line
from deepdream.video.formats import MUXERS

DEFAULT_VERBOSE = 1
INTERRUPTED = 130
TERMINATED = 143
DREAM_GROUPS = ("the network", "the dream", "from frame to frame (optical flow)", "dividing large frames")
VIDEO_GROUP = "the video"
EPILOG = """examples:
  %(prog)s -i clip.mov -o Video.mp4              extract, dream and create in one
  %(prog)s -e 1 -i clip.mov -o Input             1 extract the frames of a video
  %(prog)s -i Input -o Output --flow 1           2 dream over them
  %(prog)s -c 1 -i Output -o Video.mp4           3 create the video

A run that was stopped goes on after its last whole frame when the same command is given again."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors take the way of all others: one line, exit status 2."""

    def error(self, message):
        raise UsageError(f"{message} (--help lists the options)")


def build_parser():
    """The parser. Only options that were given are in its namespace: the defaults live in `deepdream.options`."""
    parser = Parser(
        prog="dreamer.py",
        description="DeepDream videos: dream over the frames of a video with a Caffe network.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    _add_mode_options(parser.add_argument_group("what to do"))
    dream_groups = (_add_network_options, _add_dream_options, _add_flow_options, _add_divide_options)
    for title, add_options in zip(DREAM_GROUPS, dream_groups):
        add_options(parser.add_argument_group(title))
    _add_video_options(parser.add_argument_group(VIDEO_GROUP))
    return parser


def _add_mode_options(group):
    switch = {"type": int, "choices": (0, 1), "nargs": "?", "const": 1}
    group.add_argument("-i", "--input", metavar="PATH", help="directory of frames, or a video to extract or dream")
    group.add_argument("-o", "--output", metavar="PATH", help="directory of frames, or the video to make")
    group.add_argument("-e", "--extract", **switch, help="extract the frames of a video (default: 0)")
    group.add_argument("-c", "--create", **switch, help="create a video from frames (default: 0)")
    group.add_argument(
        "-it", "--image_type", metavar="jpg/png", type=_image_type,
        help="which frames to read and which kind to write (default: the type found; png where frames are extracted)",
    )  # fmt: skip
    group.add_argument("--overwrite", action="store_true", help="start afresh where another render or video is")
    group.add_argument("--list-layers", action="store_true", help="print the network's layers and shapes, then exit")
    group.add_argument(
        "-v", "--verbose", type=int, choices=(0, 1, 2, 3),
        help="0 errors only, 1 progress and summary, 2 a line a frame and an iteration, 3 a live picture too "
        f"(default: {DEFAULT_VERBOSE})",
    )  # fmt: skip


def _add_network_options(group):
    group.add_argument(
        "-t", "--model_path", metavar="DIR",
        help="directory of a Caffe model: a deploy.prototxt and a .caffemodel (default: bvlc_googlenet in "
        "$CAFFE_ROOT/models, ../caffe/models or models; else the embedded EfficientNet-Lite0)",
    )  # fmt: skip
    group.add_argument(
        "-m", "--model_name", metavar="NAME", help="its caffemodel, with or without the ending (default: the only one)"
    )
    group.add_argument("--engine", choices=ENGINES, help=f"what runs the network (default: {ENGINES[0]})")
    group.add_argument(
        "--precision", choices=PRECISIONS,
        help=f"in what the convolutions compute; bfloat16 is faster and rounds more (default: {PRECISIONS[0]})",
    )  # fmt: skip
    group.add_argument("-gpu", "--gpu", type=int, choices=(0, 1), help="0 CPU, 1 GPU (default: 1 where there is a GPU)")


def _add_dream_options(group):
    default = DreamOptions()
    group.add_argument(
        "-l", "--layers", metavar="LAYER", nargs="+",
        help=f"layers, one a frame, in turn; {CUSTOM_LOOP} is the model's own loop (default: {CUSTOM_LOOP})",
    )  # fmt: skip
    group.add_argument(
        "-oct", "--octaves", type=int, metavar="N", help=f"octaves, 1 or more (default: {default.octaves})"
    )
    group.add_argument(
        "-octs", "--octavescale", dest="octave_scale", type=float, metavar="X",
        help=f"ratio between octaves, more than 1 (default: {default.octave_scale})",
    )  # fmt: skip
    group.add_argument(
        "-itr", "--iterations", type=int, metavar="N",
        help=f"steps an octave, 0 or more (default: {default.iterations})",
    )  # fmt: skip
    group.add_argument(
        "-s", "--stepsize", dest="step_size", type=float, metavar="X",
        help=f"mean change of a step in grey levels, 0 or more (default: {default.step_size})",
    )  # fmt: skip
    group.add_argument(
        "-j", "--jitter", type=int, metavar="N",
        help=f"random shift of each step in pixels, 0 or more (default: {default.jitter})",
    )  # fmt: skip
    group.add_argument(
        "-z", "--zoom", type=float, metavar="X",
        help="enlarge what a frame inherits about the centre, 1 (not at all) to 100 "
        f"(default: {default.zoom:g})",
    )  # fmt: skip
    group.add_argument(
        "-p", "--preview", type=int, metavar="WIDTH",
        help=f"dream at this width, height in proportion; 0 is full size (default: {default.preview})",
    )  # fmt: skip
    group.add_argument(
        "-g", "--guide", metavar="IMAGE",
        help="guide image: a path, or a name inside the input directory (default: none)",
    )  # fmt: skip
    group.add_argument("--seed", type=int, metavar="N", help=f"seed of the jitter, 0 or more (default: {default.seed})")


def _add_flow_options(group):
    default = FlowOptions()
    group.add_argument(
        "-flow", "--flow", dest="flow_mode", metavar="0-2",
        type=int, choices=[int(mode) for mode in FlowMode], nargs="?", const=int(FlowMode.BLEND),
        help=f"0 off, 1 blend along the optical flow, 2 stabilised: the calmest (default: {default.mode})",
    )  # fmt: skip
    group.add_argument(
        "-flowthresh", "--flowthresh", dest="threshold", type=float, metavar="X",
        help="what counts as moving: 0 to 255, where 255 is the fastest motion in the frame "
        f"(default: {default.threshold:g})",
    )  # fmt: skip
    group.add_argument(
        "-bm", "--blendflow", dest="blend_flow", type=float, metavar="X",
        help=f"share inherited where the picture moves, 0 to 1 (default: {default.blend_flow})",
    )  # fmt: skip
    group.add_argument(
        "-bs", "--blendstatic", dest="blend_static", type=float, metavar="X",
        help=f"share inherited where it is still, 0 to 1 (default: {default.blend_static}; "
        f"with -flow {FlowMode.STABLE:d} {BLEND_STATIC[FlowMode.STABLE]})",
    )  # fmt: skip


def _add_divide_options(group):
    default = DivideOptions()
    group.add_argument(
        "-d", "--divide", dest="divide_mode", type=int, choices=[int(mode) for mode in DivideMode], metavar="0-3",
        help="0 off, 1 tiles of at most maxWidth x maxHeight, 2 two by two where wider than maxWidth, 3 tiles "
        f"without seams (default: {default.mode})",
    )  # fmt: skip
    group.add_argument(
        "-mw", "--maxWidth", dest="max_width", type=int, metavar="N",
        help=f"largest width of a tile in pixels, 1 or more (default: {default.max_width})",
    )  # fmt: skip
    group.add_argument(
        "-mh", "--maxHeight", dest="max_height", type=int, metavar="N",
        help=f"largest height of a tile in pixels, 1 or more (default: {default.max_height})",
    )  # fmt: skip


def _add_video_options(group):
    group.add_argument(
        "-f", "--framerate", dest="frame_rate", metavar="RATE",
        help="frame rate, such as 24, 29.97 or 30000/1001 "
        f"(default: that of the source video, else {DEFAULT_FRAME_RATE})",
    )  # fmt: skip
    group.add_argument(
        "--audio", metavar="FILE/none",
        help=f"sound track, or {NO_AUDIO} (default: the source video's own, at its own rate)",
    )  # fmt: skip


def _image_type(text):
    kind = {ending[1:]: kind for kind, endings in IMAGE_TYPES.items() for ending in endings}.get(text.lower())
    if kind is None:
        raise argparse.ArgumentTypeError(f"expected jpg or png, not {text}")
    return kind


def _join_paths(arguments, parser):
    """``-i -clip.mov`` as ``--input=-clip.mov``: a name that starts with a dash is still a name."""
    taking_paths = {"-i": "--input", "-o": "--output", "-t": "--model_path", "-m": "--model_name", "-g": "--guide"}
    known = parser._option_string_actions
    joined = []
    for argument in arguments:
        option = joined[-1] if joined else None
        long_name = taking_paths.get(option, option if option in taking_paths.values() else None)
        if long_name and argument.startswith("-") and argument not in known:
            joined[-1] = f"{long_name}={argument}"
        else:
            joined.append(argument)
    return joined


class Given:
    """The options that were given, and the checked option classes made of them."""

    def __init__(self, namespace):
        self._given = vars(namespace)

    def __getattr__(self, name):
        return self._given.get(name)

    def of(self, kind, **values):
        """An option class from the given options that bear its fields' names, and ``values``."""
        given = {field.name: self._given[field.name] for field in fields(kind) if field.name in self._given}
        return kind(**{**given, **{name: value for name, value in values.items() if value is not None}})

    def render(self):
        """`RenderOptions`, without the guide."""
        flow = None if self.flow_mode is None else FlowMode(self.flow_mode)
        divide = None if self.divide_mode is None else DivideMode(self.divide_mode)
        return RenderOptions(
            dream=self.of(DreamOptions, layers=self.layers and tuple(self.layers)),
            flow=self.of(FlowOptions, mode=flow),
            divide=self.of(DivideOptions, mode=divide),
            image_type=self.image_type,
        )

    def video(self):
        """`VideoOptions`"""
        rate = None if self.frame_rate is None else parse_frame_rate(self.frame_rate)
        return VideoOptions(frame_rate=rate, audio=self.audio)


def main(arguments=None):
    """Run a command line; returns the exit status."""
    signal.signal(signal.SIGTERM, Terminated.on_signal)
    try:
        arguments = sys.argv[1:] if arguments is None else arguments
        parser = build_parser()
        given = Given(parser.parse_args(_join_paths(arguments, parser)))
        _run(given, Screen(DEFAULT_VERBOSE if given.verbose is None else given.verbose))
    except (DreamError, OSError, MemoryError) as error:
        print(f"dreamer.py: {one_line(_reason(error))}", file=sys.stderr)
        if os.environ.get("DEEPDREAM_DEBUG"):
            raise
        return getattr(error, "exit_status", DreamError.exit_status)
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to stop
        print(f"dreamer.py: interrupted; {_how_to_go_on(arguments)}", file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    return 0


def _reason(error):
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}); close other programs, or take smaller frames"
    if isinstance(error, OSError):  # what no room of the house has put into words
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error)


def _how_to_go_on(arguments):
    if "--overwrite" in arguments:
        return "the same command without --overwrite goes on from here"
    return "the same command goes on from here"


class Terminated(KeyboardInterrupt):
    """SIGTERM: it ends a run as Ctrl-C does."""

    @classmethod
    def on_signal(cls, number, frame):
        """A signal handler that raises it."""
        raise cls


def _run(given, screen):
    options, video = given.render(), given.video()
    if given.list_layers:
        return list_layers(given, screen)
    _check_mode(given)
    from_video = not (given.extract or given.create) and Path(given.input).is_file()
    if not from_video:
        unused = (*DREAM_GROUPS, VIDEO_GROUP) if given.extract else DREAM_GROUPS if given.create else (VIDEO_GROUP,)
        _tell_unused(given, unused, screen)
    if given.extract:
        return run_extract(given, screen, given.input, given.output)
    if given.create:
        return run_create(given, screen, given.input, given.output, video)
    if from_video:
        return run_all(given, screen, options, video)
    return run_dream(given, screen, given.input, given.output, options)


def _check_mode(given):
    if given.extract and given.create:
        raise UsageError("-e and -c are two modes; give one of them")
    for option in ("input", "output"):
        if not getattr(given, option):
            raise UsageError(f"-{option[0]}/--{option} is missing (--help shows examples)")
    dreaming = not (given.extract or given.create or Path(given.input).is_file())
    if dreaming and Path(given.output).suffix.lower() in MUXERS:
        raise UsageError(
            f"{given.input} is no video, and {given.output} is one; dream frames into a directory, "
            "then create the video with -c 1"
        )


def _tell_unused(given, titles, screen):
    """Say which of the given options belong to another mode (batch files often share one list of options)."""
    groups = [group for group in build_parser()._action_groups if group.title in titles]
    actions = [action for group in groups for action in group._group_actions]
    unused = [action.option_strings[-1] for action in actions if getattr(given, action.dest) is not None]
    if unused:
        screen.tell(f"{', '.join(unused)}: these change nothing in this mode")


def run_extract(given, screen, source, directory):
    """Mode -e 1: a video into a directory of frames."""
    from deepdream.video.extract import extract

    started = time.monotonic()
    with screen.counter("extract") as on_progress:
        made = extract(source, directory, given.image_type or "png", bool(given.overwrite), on_progress)
    for message in made.messages:
        screen.tell(message)
    screen.tell(f"{made.clip.frame_count} frames extracted in {_duration(started)}: {directory}")


def run_dream(given, screen, source, output, options, network=None):
    """Mode dream: a directory of frames into another. ``network``: what `_load_network` gave, if it is loaded."""
    from deepdream.errors import is_out_of_memory
    from deepdream.files.frames import PREVIEW_NAME, open_frames
    from deepdream.memory import predict as memory
    from deepdream.render.sequence import check_source, dream_frames, open_render

    started = time.monotonic()
    guide = _find_guide(given.guide, source)
    options = RenderOptions(options.dream, options.flow, options.divide, guide, options.image_type)
    frames = open_frames(source, options.image_type, leave_out=[guide] if guide else ())
    check_source(frames, output)  # before the network loads
    network, layers = network or _load_network(given, screen, options)
    render = open_render(frames, output, network, layers, options, bool(given.overwrite))
    live = LivePicture(render.output / PREVIEW_NAME) if screen.level >= 3 else None
    count = len(frames.paths)
    if 0 < len(render.todo) < count:
        screen.tell(f"going on: {count - len(render.todo)} of {count} frames are there")
    dreamed = network, layers, render.size, options
    shortage = render.todo and memory.warning(*dreamed)
    if shortage:
        screen.tell(shortage)
    with screen.bar(render.work, "dream") as bar:

        def on_step(number, report):
            bar.set_postfix_str(f"frame {number + 1}/{count}, octave {report.octave}/{report.octaves}", refresh=False)
            bar.update(report.pixels)
            if screen.level >= 2:
                screen.detail(
                    f"frame {number + 1} octave {report.octave} ({report.size[1]}x{report.size[0]}) "
                    f"iteration {report.iteration}: mean gradient {report.strength():.4g}"
                )
            if live:
                live.show(report)

        try:
            for frame in dream_frames(render, network, on_step):
                if frame.is_cut:
                    screen.detail(f"frame {frame.number + 1}/{count}: scene cut, nothing inherited")
                screen.detail(f"frame {frame.number + 1}/{count}: {frame.layer}, {frame.seconds:.1f} s, {frame.path}")
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise DreamError(memory.explain(error, *dreamed)) from error
    screen.tell(f"{count} frames ({len(render.todo)} dreamed now) in {_duration(started)}: {output}")


def run_create(given, screen, directory, path, options):
    """Mode -c 1: a directory of frames into a video."""
    from deepdream.video.create import create

    started = time.monotonic()
    with screen.counter("create") as on_progress:
        made = create(directory, path, options, given.image_type, bool(given.overwrite), on_progress)
    for message in made.messages:
        screen.tell(message)
    screen.tell(f"{made.frame_count} frames, {made.duration:.2f} s of video, in {_duration(started)}: {path}")


def run_all(given, screen, options, video):
    """Extract, dream and create in one; the frames stay beside the video, in its name with ``.frames``."""
    from deepdream.files.frames import read_frame
    from deepdream.video.create import check_create

    output = Path(given.output)
    if output.suffix.lower() not in MUXERS:
        raise UsageError(
            f"{given.input} is a video, so -o {output} must be one too ({', '.join(MUXERS)}); "
            "to extract its frames alone add -e 1"
        )
    room = output.with_suffix(".frames")
    for place in (room, room / "Input", room / "Output"):
        if place.is_symlink():
            raise UsageError(f"{place} is a link that leads elsewhere; remove it, or take the three steps one by one")
    # What would stop the later steps stops the first one.
    check_create(output, video, bool(given.overwrite), given.input)
    if given.guide:
        read_frame(_find_guide(given.guide, room / "Input"))
    network = _load_network(given, screen, options)
    run_extract(given, screen, given.input, room / "Input")
    run_dream(given, screen, room / "Input", room / "Output", options, network)
    run_create(given, screen, room / "Output", output, video)


def _load_network(given, screen, options):
    from deepdream.networks import load_network, resolve_layers

    gpu = given.gpu and bool(given.gpu)
    engine, precision = given.engine or ENGINES[0], given.precision or PRECISIONS[0]
    network = load_network(
        given.model_path, given.model_name, gpu=gpu, engine=engine, precision=precision, on_message=screen.tell
    )
    return network, resolve_layers(network, options.dream.layers, on_message=screen.tell)


def list_layers(given, screen):
    """Print the layers of the network, each with the shape of what it puts out at its own input size."""
    from deepdream.networks import load_network

    network = load_network(
        given.model_path, given.model_name, gpu=False, engine=given.engine or ENGINES[0], on_message=screen.tell
    )
    for name, shape in network.layer_shapes():
        print(f"{name:40} {shape}")


def _find_guide(name, directory):
    """The path of the guide: as given, else of that name inside the input directory; None where none is given."""
    if name is None:
        return None
    for path in (Path(name), Path(directory, name)):
        if path.is_file():
            return str(path)
    raise UsageError(f"-g {name}: no such file, neither here nor inside {directory}")


def _duration(started):
    return timedelta(seconds=round(time.monotonic() - started))


if __name__ == "__main__":
    sys.exit(main())
