#!/usr/bin/env python3
"""The command line: three modes, extract, dream and create, and all three in one.

Here an error turns into a line and an exit status. Heavy libraries are imported once the command line has been
understood, so that --help answers at once.
"""

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from deepdream.arguments import parse
from deepdream.errors import DreamError, UsageError
from deepdream.geometry import check_panorama
from deepdream.options import (
    GROUPS,
    IMAGE_TYPES,
    Arguments,
    FlowMode,
    NetworkOptions,
    PartOptions,
    RunOptions,
)
from deepdream.schedule import has_keyframes, keyframes, parse_texts, values_of
from deepdream.settings import NO_FILE, at
from deepdream.show.progress import Screen, one_line, write_log
from deepdream.video.formats import CONTAINERS

if TYPE_CHECKING:
    from deepdream.networks.network import Network
    from deepdream.render.cluster import Team
    from deepdream.render.plan import Render
    from deepdream.schedule import Schedule
    from deepdream.show.report import Reporter
    from deepdream.video.part import Part

INTERRUPTED = 130
TERMINATED = 143
REPLACED_BY_VIEWS = ("--divide", "--maxWidth", "--maxHeight", "--jitter")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    signal.signal(signal.SIGTERM, Terminated.on_signal)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may hold what the terminal cannot show
    words = sys.argv[1:] if words is None else words
    try:
        arguments = parse(words)
        _run(arguments, Screen(arguments.run.verbose))
        with suppress(BrokenPipeError):  # a reader that wanted no more, such as ``head``, is no error
            sys.stdout.flush()
    except (DreamError, OSError, MemoryError) as error:
        write_log(f"dreamer.py: {one_line(_reason(error))}")
        if os.environ.get("DEEPDREAM_DEBUG"):
            raise
        return getattr(error, "exit_status", DreamError.exit_status)
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to stop
        write_log(f"dreamer.py: interrupted; {_how_to_go_on(words)}")
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    finally:
        _drop_output()
    return 0


def _drop_output() -> None:
    """Forget what could not be printed: Python would fail for it when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}); close other programs, or take smaller frames"
    if isinstance(error, OSError):  # errors not translated elsewhere
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error)


def _how_to_go_on(words: Sequence[str]) -> str:
    if "--overwrite" in words:
        return "the same command without --overwrite goes on from here"
    return "the same command goes on from here"


class Terminated(KeyboardInterrupt):
    """SIGTERM: it ends a run as Ctrl-C does."""

    @classmethod
    def on_signal(cls, number: int, frame: object) -> NoReturn:
        """A signal handler that raises it."""
        raise cls


def _run(arguments: Arguments, screen: Screen) -> None:
    run = arguments.run
    if run.settings:
        return show_settings(Path(run.settings))
    if run.list_layers:
        return list_layers(arguments, screen)
    if run.print_schedule:
        return print_schedule(arguments)
    if run.show_layers:
        return show_layers(arguments, screen)
    _check_mode(run)
    source, target = Path(run.input), Path(run.output)
    mode = "extract" if run.extract else "create" if run.create else _dream_mode(run, source)
    _tell_unused(arguments, mode, screen)
    runs: dict[str, Callable[[Arguments, Screen, Path, Path], None]]
    runs = {"extract": run_extract, "dream": run_dream_alone, "create": run_create, "all": run_all,
            "picture": run_picture, "dive": run_dive}  # fmt: skip
    runs[mode](arguments, screen, source, target)


def _dream_mode(run: RunOptions, source: Path) -> str:
    from deepdream.files.frames import is_picture

    if not source.is_file():
        return "dream"
    if not is_picture(source):
        return "all"
    return "dive" if run.frames else "picture"


def _check_mode(run: RunOptions) -> None:
    if run.extract and run.create:
        raise UsageError("-e and -c are two modes; give one of them")
    for option in ("input", "output"):
        if not getattr(run, option):
            raise UsageError(f"-{option[0]}/--{option} is missing (--help shows examples)")
    dreaming = not (run.extract or run.create or Path(run.input).is_file())
    if dreaming and Path(run.output).suffix.lower() in CONTAINERS:
        raise UsageError(
            f"{run.input} is no video, and {run.output} is one; dream frames into a directory, "
            "then create the video with -c 1"
        )


def _tell_unused(arguments: Arguments, mode: str, screen: Screen) -> None:
    """Say which of the given options belong to another mode (batch files often share one list of options)."""
    others = [group for group in GROUPS if mode != "all" and mode not in group.modes]
    elsewhere = {setting.name for group in others for setting in group.settings}
    elsewhere.discard("--flow" if mode in ("picture", "dive") else "")  # it says how smooth they are
    if arguments.render.flow.mode != FlowMode.STABLE:
        elsewhere.add("--flowiterations")
    if mode != "dive":
        elsewhere.add("--frames")
    if mode == "picture":
        elsewhere |= {"--zoom", "--rotate", "--image_type"}
    if mode not in ("dream", "all"):
        elsewhere.add("--report")
    elsewhere.add("--frame")  # of --show-layers, which is no mode
    unused = [name for name in arguments.given if name in elsewhere]
    if unused:
        screen.tell(f"{', '.join(unused)}: these change nothing in this mode")
    replaced = [name for name in arguments.given if name in REPLACED_BY_VIEWS and name not in elsewhere]
    if arguments.render.dream.panorama and replaced:
        screen.tell(f"{', '.join(replaced)}: these change nothing, for a panorama is seen in six turned views")


def run_extract(
    arguments: Arguments, screen: Screen, source: Path, directory: Path, part: "Part | None" = None
) -> None:
    """Mode -e 1: a video into a directory of frames. ``part``: what `open_part` gave, if it is open."""
    from deepdream.files.space import FIRST_FRAMES, frame_bytes, space_warning
    from deepdream.video.extract import check_extract, extract
    from deepdream.video.part import open_part
    from deepdream.video.probe import first_frames

    started = time.monotonic()
    run, image_type = arguments.run, arguments.run.image_type or "png"
    if part is None:
        part = open_part(source, arguments.part)
        count = check_extract(part, directory, image_type, run.overwrite)
        first = first_frames(source, FIRST_FRAMES)
        needed = count * frame_bytes(part.info.width * part.info.height, image_type, first)
        screen.tell(*space_warning(directory, needed, "-it jpg, or a part of the video (--start, --end)"))
    with screen.counter("extract") as on_progress:
        made = extract(part, directory, image_type, run.overwrite, on_progress)
    screen.tell(*made.messages)
    screen.tell(f"{made.clip.frame_count} frames extracted in {_duration(started)}: {directory}")


def run_dream_alone(arguments: Arguments, screen: Screen, source: Path, output: Path) -> None:
    """Mode dream: a directory of frames into another."""
    finish_report(screen, run_dream(arguments, screen, source, output))


def run_dream(
    arguments: Arguments,
    screen: Screen,
    source: Path,
    output: Path,
    loaded: "tuple[Network, tuple[str, ...] | Schedule] | None" = None,
    is_dive: bool = False,
) -> "Reporter | None":
    """Dream a directory of frames into another. ``loaded``: what `_load_network` gave, if it is loaded.

    A dive: the picture ``source`` again and again. Gives the writer of the page of ``--report``, which is to be
    finished.
    """
    from deepdream.files.clip import read_clip
    from deepdream.files.frames import PREVIEW_NAME, FrameDirectory, open_frames, read_frame, read_note
    from deepdream.files.note import dream_note
    from deepdream.files.photo import read_photo, write_source
    from deepdream.files.space import FIRST_FRAMES, frame_bytes, space_warning
    from deepdream.memory import predict as memory
    from deepdream.render.plan import check_source, open_render
    from deepdream.render.sequence import dream_frames
    from deepdream.show.live import Shown
    from deepdream.show.report import Reporter
    from deepdream.video.mask import check_mask, mask_frames

    started = time.monotonic()
    guide = _find_guide(arguments.render.guide, source.parent if is_dive else source)
    options = replace(arguments.render, guide=guide, dive=is_dive)
    if is_dive:
        frames = FrameDirectory(source, (source,) * (arguments.run.frames or 1), options.image_type or "png")
    else:
        frames = open_frames(source, options.image_type, leave_out=filter(None, values_of(guide)))
    check_source(frames, output)  # before the network loads
    masks = check_mask(options.mask, len(frames.paths))
    network, layers = loaded or _load_network(arguments, screen)
    run, count, overwrite = arguments.run, len(frames.paths), arguments.run.overwrite
    note = (
        None
        if run.no_settings
        else dream_note(source, network, arguments.network, options, run.frames if is_dive else None)
    )
    if is_dive:
        photo = write_source(read_photo(source), source, output)
        frames = replace(frames, paths=(photo,) * count)
    if masks:
        with screen.counter("extract the masks") as on_progress:
            options = replace(options, mask=mask_frames(masks, output, overwrite, on_progress))
    render = open_render(frames, output, network, layers, options, overwrite, note, arguments.run.mix_machines)
    todo = len(render.todo)
    if 0 < todo < count:
        screen.tell(f"going on: {count - todo} of {count} frames are there")
    whole = sorted(set(range(count)).difference(render.todo))
    if not note and whole and read_note(render.path(whole[0])):
        screen.tell("frames that are there carry their settings; --overwrite makes them anew")
    clip = read_clip(source)
    if todo and clip and clip.panorama == "mono" and not options.dream.panorama:
        screen.tell(f"{clip.source} is a 360-degree video: --panorama would dream on the sphere, without a border")
    if todo and render.faster_width:
        screen.tell(
            f"large frames: --dreamwidth {render.faster_width} would lay a dream of that width onto them, "
            f"in about {1 / render.faster_by:.0%} of the time"
        )
    dreamed = network, render.layers, render.size, memory.heaviest(render.size, render.variants)
    at_once = arguments.cluster.workers if network.device.type == "cpu" else 1  # with GPUs each worker has its own
    warning = memory.warning(*dreamed, max(1, at_once)) if todo and not arguments.cluster.cluster else None
    if warning:
        screen.tell(warning)
    if todo:
        first = [read_frame(path) for path in frames.paths[:FIRST_FRAMES]]
        needed = todo * frame_bytes(render.size[0] * render.size[1], frames.image_type, first)
        screen.tell(*space_warning(output, needed, "a smaller --preview, or fewer frames"))
    shown = Shown(frames.paths, render.dream_size, lambda number: render.options_at(number).layer)
    reporter = Reporter(output) if run.report and not is_dive else None
    with ExitStack() as stack:
        stack.enter_context(memory.explained(*dreamed))
        team = stack.enter_context(_open_team(arguments, screen, render, network)) if todo else None
        if team:
            render = team.render
        work = render.pixel_steps, render.cut_pixel_steps, output / PREVIEW_NAME, shown
        progress = stack.enter_context(screen.dream(*work))
        reports = team.dream_frames() if team else dream_frames(render, network, progress.on_step, progress.on_cut)
        for report in reports:
            progress.on_frame(report)
            if reporter:
                reporter.on_frame(report)
    screen.tell(f"{count} frames ({todo} dreamed now) in {_duration(started)}: {output}")
    return reporter


def finish_report(screen: Screen, reporter: "Reporter | None", video: Path | None = None) -> None:
    """Write the last page of ``--report``. ``video``: what was made of the frames."""
    if reporter:
        with screen.counter("report") as on_progress:
            page = reporter.finish(video, on_progress)
        screen.tell(f"report: {page}")


@contextmanager
def _open_team(arguments: Arguments, screen: Screen, render: "Render", network: "Network") -> "Iterator[Team | None]":
    """The workers that are to dream a render, with its scene cuts found; None where this process is."""
    options = arguments.cluster
    if not (options.workers or options.cluster):
        yield None
        return
    import torch

    from deepdream.machine import describe
    from deepdream.networks.portable import portable
    from deepdream.render.cluster import Team, open_cluster

    files, about = portable(network, arguments.network), describe(network.device)
    gpus = torch.cuda.device_count() if network.device.type == "cuda" else 0
    with (
        render.journal,
        open_cluster(options, screen.tell, gpus) as client,
        Team(client, render, files, about, screen.tell) as team,
    ):
        if render.lacks_cuts:
            with screen.counter("scene cuts") as on_progress:
                team.find_cuts(on_progress)
        yield team


def run_create(arguments: Arguments, screen: Screen, directory: Path, path: Path, note: str | None = None) -> None:
    """Mode -c 1: a directory of frames into a video. ``note``: what it carries, if not that of the frames."""
    from deepdream.files.frames import open_frames, read_note
    from deepdream.files.note import create_note
    from deepdream.video.create import create

    started = time.monotonic()
    run, options = arguments.run, arguments.video
    if note is None:
        frame_note = read_note(open_frames(directory, run.image_type).paths[0])
        note = create_note(directory, run.image_type, options, frame_note)
    kept, panorama = None if run.no_settings else note, "--panorama" in note.split()
    with screen.counter("create") as on_progress:
        made = create(directory, path, options, run.image_type, run.overwrite, on_progress, kept, panorama)
    screen.tell(*made.messages)
    screen.tell(f"{made.frame_count} frames, {made.duration:.2f} s of video, in {_duration(started)}: {path}")


def run_all(arguments: Arguments, screen: Screen, source: Path, video: Path) -> None:
    """Extract, dream and create in one; the frames stay beside the video, in its name with ``.frames``."""
    from deepdream.files.frames import read_frame
    from deepdream.files.note import film_note
    from deepdream.files.space import FIRST_FRAMES, frame_bytes, space_warning
    from deepdream.video.create import check_create
    from deepdream.video.extract import check_extract
    from deepdream.video.mask import check_mask
    from deepdream.video.part import open_part
    from deepdream.video.probe import first_frames

    if video.suffix.lower() not in CONTAINERS:
        raise UsageError(
            f"{source} is a video, so -o {video} must be one too ({', '.join(CONTAINERS)}); "
            "to extract its frames alone add -e 1"
        )
    work = _work_directory(video)
    # What would stop the later steps stops the first one.
    run = arguments.run
    check_create(video, arguments.video, run.overwrite, source)
    image_type, part = run.image_type or "png", open_part(source, arguments.part)
    if arguments.render.dream.panorama:
        check_panorama((part.info.width, part.info.height), source)
    count = check_extract(part, work / "Input", image_type, run.overwrite)
    for guide in filter(None, values_of(_find_guide(arguments.render.guide, work / "Input"))):
        read_frame(guide)
    check_mask(arguments.render.mask, part.frame_count)
    pixels = part.info.width * part.info.height
    dreamed = pixels * arguments.render.dream.preview**2 // part.info.width**2 or pixels
    first = first_frames(source, FIRST_FRAMES)
    needed = count * (frame_bytes(pixels, image_type, first) + frame_bytes(dreamed, image_type, first))
    remedy = "-it jpg, a smaller --preview, or a part of the video (--start, --end)"
    screen.tell(*space_warning(work, needed, remedy))
    loaded = _load_network(arguments, screen)
    run_extract(arguments, screen, source, work / "Input", part)
    reporter = run_dream(arguments, screen, work / "Input", work / "Output", loaded)
    network, _ = loaded
    note = film_note(source, network, arguments.network, arguments.render, arguments.part, arguments.video)
    run_create(arguments, screen, work / "Output", video, note)
    finish_report(screen, reporter, video)


def _work_directory(video: Path) -> Path:
    """Where the frames of a video stay that is made in one go."""
    work = video.with_suffix(".frames")
    for directory in (work, work / "Input", work / "Output"):
        if directory.is_symlink():
            raise UsageError(
                f"{directory} is a link that leads elsewhere; remove it, or take the three steps one by one"
            )
    return work


def run_dive(arguments: Arguments, screen: Screen, source: Path, target: Path) -> None:
    """A dive into a picture: each frame is the last dream, moved and dreamed again. Into a directory or a video."""
    from deepdream.files.note import film_note
    from deepdream.files.photo import photo_type
    from deepdream.video.create import check_create

    run = arguments.run
    if photo_type(target):
        raise UsageError(f"--frames {run.frames}: {target} is one picture; -o takes a video, or a directory of frames")
    if target.suffix.lower() not in CONTAINERS:
        run_dream(arguments, screen, source, target, is_dive=True)
        return
    check_create(target, arguments.video, run.overwrite, source)
    output = _work_directory(target) / "Output"
    loaded = _load_network(arguments, screen)
    run_dream(arguments, screen, source, output, loaded, is_dive=True)
    render = replace(arguments.render, dive=True)
    note = film_note(source, loaded[0], arguments.network, render, PartOptions(), arguments.video, run.frames)
    run_create(arguments, screen, output, target, note)


def run_picture(arguments: Arguments, screen: Screen, source: Path, target: Path) -> None:
    """Dream one picture."""
    from deepdream import api
    from deepdream.files.frames import PREVIEW_NAME
    from deepdream.files.masks import find_masks
    from deepdream.files.note import dream_note
    from deepdream.files.photo import check_photo, read_photo, write_photo
    from deepdream.geometry import at_width
    from deepdream.memory import predict as memory
    from deepdream.picture.ascent import pixel_steps
    from deepdream.render.plan import with_layers
    from deepdream.show.live import Shown

    started = time.monotonic()
    check_photo(target, source, arguments.run.overwrite)
    options = replace(arguments.render, guide=_find_guide(arguments.render.guide, source.parent))
    photo = read_photo(source).at_width(options.dream.preview)
    if options.mask:
        find_masks(options.mask, 1)
    network, layers = _load_network(arguments, screen)
    options = with_layers(options, layers)
    size = photo.pixels.shape[1::-1]
    dreamed = network, values_of(options.dream.layers)[0], size, at(options, 0)
    warning = memory.warning(*dreamed)
    if warning:
        screen.tell(warning)
    work = pixel_steps(*at_width(size, options.dream.dream_width)[::-1], at(options, 0).dream)
    shown = Shown((source,), size, lambda number: dreamed[1][0])
    with (
        screen.dream(work, lambda number: 0, target.with_name(PREVIEW_NAME), shown) as progress,
        memory.explained(*dreamed),
    ):
        pixels = api.dream(photo.pixels, network, options, partial(progress.on_step, 0), screen.tell)
    note = None if arguments.run.no_settings else dream_note(source, network, arguments.network, arguments.render)
    write_photo(target, replace(photo, pixels=pixels), note)
    screen.tell(f"dreamed in {_duration(started)}: {target}")


def _load_network(arguments: Arguments, screen: Screen) -> "tuple[Network, tuple[str, ...] | Schedule]":
    """The network, and its layers that ``--layers`` means."""
    from deepdream.networks import resolve_layers

    network = _load(arguments.network, screen)
    return network, resolve_layers(network, arguments.render.dream.layers, on_message=screen.tell)


def _load(options: NetworkOptions, screen: Screen) -> "Network":
    from deepdream.networks import load_network

    gpu = None if options.gpu is None else bool(options.gpu)
    engine, precision = options.engine, options.precision
    return load_network(
        options.model_path, options.model_name, gpu=gpu, engine=engine, precision=precision, on_message=screen.tell
    )


def show_settings(path: Path) -> None:
    """Print the commands that made a dreamed frame or a created video."""
    from deepdream.files.frames import read_note
    from deepdream.files.note import commands
    from deepdream.video.encode import NOTE_KEY
    from deepdream.video.probe import read_metadata

    is_frame = any(path.suffix.lower() in endings for endings in IMAGE_TYPES.values())
    note = read_note(path) if is_frame else read_metadata(path).get(NOTE_KEY)
    print(*commands(note or "", path), sep="\n")


def list_layers(arguments: Arguments, screen: Screen) -> None:
    """Print the layers of the network, each with the shape of what it puts out at its own input size."""
    network = _load(replace(arguments.network, gpu=0), screen)
    with suppress(BrokenPipeError):  # the reader wanted no more
        classes = network.class_layers()
        for name, shape in network.layer_shapes():
            note = "  classes" if name in classes else ""
            print(f"{name:40} {shape}{note}")
        for number, label in enumerate(network.labels if classes else ()):
            print(f"  class {number}: {label}")


def print_schedule(arguments: Arguments) -> None:
    """Print the values of each frame: of the input's frames, else up to the last keyframe."""
    from deepdream.files.frames import open_frames
    from deepdream.show.table import schedule_lines
    from deepdream.video.part import open_part

    run, source = arguments.run, Path(arguments.run.input)
    guide = _find_guide(arguments.render.guide, source)
    if not run.input:
        count = None
    elif run.frames:
        count = run.frames
    elif source.is_dir():
        count = len(open_frames(source, run.image_type, filter(None, values_of(guide))).paths)
    else:
        count = open_part(source, arguments.part).frame_count
    with suppress(BrokenPipeError):
        for line in schedule_lines(replace(arguments.render, guide=guide), count):
            print(line)


def show_layers(arguments: Arguments, screen: Screen) -> None:
    """Dream one frame at each layer of the network, or at those that ``--layers`` names, and write a sheet of them."""
    from deepdream.render.frame import Source
    from deepdream.render.plan import with_layers
    from deepdream.show import sheet
    from deepdream.show.still import open_mask, open_still

    started = time.monotonic()
    run, source, path = arguments.run, Path(arguments.run.input), Path(arguments.run.show_layers)
    if not run.input:
        raise UsageError("-i/--input is missing: the picture, directory or video of which --show-layers takes a frame")
    sheet.check_sheet(path, source, run.overwrite)
    guide = _find_guide(arguments.render.guide, source)
    still = open_still(source, run.frame, arguments.part, run.image_type, filter(None, values_of(guide)))
    options = sheet.sheet_options(at(replace(arguments.render, guide=guide), still.number), still.picture.shape[1])
    picture = sheet.shrink_still(still, options)
    mask = open_mask(options.mask, still, picture.shape[1::-1]) if options.mask else None
    network, named = _load_network(arguments, screen)
    layers = network.features
    if "--layers" in arguments.given:
        layers = at(with_layers(options, named), still.number).dream.layers
    targets = sheet.sheet_targets(network, layers, still.number)
    with screen.progress(sheet.sheet_work(targets, picture, options), "layers") as progress:

        def on_work(work: float, target: str) -> None:
            progress.set_postfix_str(target, refresh=False)
            progress.update(work)

        tiles = sheet.dream_tiles(Source(picture, picture, mask), network, targets, options, on_work)
    sheet.write_sheet(path, sheet.Sheet(still, picture, tiles, network.name, arguments, options))
    screen.tell(f"{len(tiles)} layer{'s' if len(tiles) > 1 else ''} in {_duration(started)}: {path}")


def _find_guide(name: str | None, directory: Path) -> str | None:
    """The path of the guide: as given, else of that name inside the input directory; None where none is given.

    A `Schedule` of paths where guides change over time; ``none`` is none there.
    """
    if name is None:
        return None
    if has_keyframes(name) and not Path(name).exists():
        guides = parse_texts("--guide", name, "0:cats.jpg, 48:dogs.jpg")
        return keyframes(
            {
                frame: None if guide == NO_FILE else _find_guide(guide, directory)
                for frame, guide in zip(guides.frames, guides.values)
            }
        )
    for path in (Path(name), directory / name):
        if path.is_file():
            return str(path)
    raise UsageError(f"-g {name}: no such file, neither here nor inside {directory}")


def _duration(started: float) -> timedelta:
    return timedelta(seconds=round(time.monotonic() - started))


if __name__ == "__main__":
    sys.exit(main())
