"""What dreams: a directory of frames into another, or a dive; one picture; a sheet of layers."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deepdream import api
from deepdream.errors import UsageError
from deepdream.files.clip import read_clip
from deepdream.files.frames import PREVIEW_NAME, open_frames, read_frame, read_note
from deepdream.files.masks import find_masks
from deepdream.files.note import dream_note
from deepdream.files.photo import check_photo, dive_frames, read_photo, write_photo
from deepdream.files.space import FIRST_FRAMES, frame_bytes, space_warning
from deepdream.geometry import at_width, check_panorama
from deepdream.memory import predict as memory
from deepdream.modes.job import Job
from deepdream.networks.network import Network
from deepdream.options import RenderOptions
from deepdream.picture.ascent import pixel_steps
from deepdream.render.frame import Source
from deepdream.render.plan import Render, check_render, check_source, open_render, with_layers
from deepdream.render.sequence import dream_frames
from deepdream.schedule import values_of
from deepdream.settings import at
from deepdream.show import sheet
from deepdream.show.live import Shown
from deepdream.show.report import Reporter
from deepdream.show.still import open_mask, open_still
from deepdream.video.mask import check_mask, mask_frames

if TYPE_CHECKING:
    from deepdream.modes.job import Loaded
    from deepdream.render.team import Team

LARGE_WIDTH = 1500  # pixels: beyond this the shapes of a dream look small, and a frame takes long
ADVISED_WIDTH = 1280
Heaviest = tuple[Network, list[str], tuple[int, int], RenderOptions]  # what `memory.predict` asks of a render


def dream_alone(job: Job) -> None:
    """Mode dream, of which nothing else is part."""
    finish_report(job, dream_directory(job))


def dream_directory(job: Job, loaded: "Loaded | None" = None, is_dive: bool = False) -> Reporter | None:
    """Dream a directory of frames, or dive into a picture. ``loaded``: what `Job.load_network` gave, if it is loaded.

    Gives the writer of the page of ``--report``, which is to be finished.
    """
    source, run = job.source, job.arguments.run
    options = job.options(source.parent if is_dive else source, dive=is_dive)
    if is_dive:
        frames = dive_frames(source, run.frames or 1, options.image_type)
    else:
        frames = open_frames(source, options.image_type, leave_out=filter(None, values_of(options.guide)))
    check_source(frames, job.target, options.dream.panorama)  # before the network loads
    masks = check_mask(options.mask, len(frames.paths))
    network, layers = loaded or job.load_network()
    note = None
    if not run.no_settings:
        note = dream_note(source, network, job.arguments.network, options, frames=run.frames if is_dive else None)
    if masks:
        check_render(frames, job.target, network, layers, options)
        with job.screen.counter("extract the masks") as on_progress:
            options = replace(options, mask=mask_frames(masks, job.target, run.overwrite, on_progress))
    render = open_render(frames, job.target, network, layers, options, run.overwrite, note, run.mix_machines)
    heaviest = network, render.layers, render.size, memory.heaviest(render.size, render.variants)
    _tell_beforehand(job, render, heaviest)
    reporter = Reporter(job.target) if run.report and not is_dive else None
    _dream(job, render, heaviest, reporter)
    job.tell_done(f"{len(frames.paths)} frames ({len(render.todo)} dreamed now)")
    return reporter


def finish_report(job: Job, reporter: Reporter | None, video: Path | None = None) -> None:
    """Write the last page of ``--report``. ``video``: what was made of the frames."""
    if reporter:
        with job.screen.counter("report") as on_progress:
            page = reporter.finish(video, on_progress)
        job.screen.tell(f"report: {page}")


def _tell_beforehand(job: Job, render: Render, heaviest: Heaviest) -> None:
    """Tell what of a render is there already, what would be better, and what it may lack."""
    tell, count, todo = job.screen.tell, len(render.frames.paths), len(render.todo)
    if 0 < todo < count:
        tell(f"going on: {count - todo} of {count} frames are there")
    whole = sorted(set(range(count)).difference(render.todo))
    if not render.note and whole and read_note(render.path(whole[0])):
        tell("frames that are there carry their settings; --overwrite makes them anew")
    if not todo:
        return
    clip = read_clip(job.source)
    if clip and clip.panorama == "mono" and not render.options.dream.panorama:
        tell(f"{clip.source} is a 360-degree video: --panorama would dream on the sphere, without a border")
    if render.size[0] > LARGE_WIDTH and not render.options.dream.dream_width:
        tell(
            f"large frames: --dreamwidth {ADVISED_WIDTH} would lay a dream of that width onto them, "
            f"in about {(ADVISED_WIDTH / render.size[0]) ** 2:.0%} of the time"
        )
    cluster = job.arguments.cluster
    at_once = cluster.workers if heaviest[0].device.type == "cpu" else 1  # with GPUs each worker has its own
    warning = None if cluster.cluster else memory.warning(*heaviest, max(1, at_once))
    if warning:
        tell(warning)
    first = [read_frame(path) for path in render.frames.paths[:FIRST_FRAMES]]
    needed = todo * frame_bytes(render.size[0] * render.size[1], render.frames.image_type, first)
    tell(*space_warning(job.target, needed, "a smaller --preview, or fewer frames"))


def _dream(job: Job, render: Render, heaviest: Heaviest, reporter: Reporter | None) -> None:
    """Dream what is to do of a render, here or on workers, and show how it goes."""
    network = heaviest[0]
    shown = Shown(render.frames.paths, render.dream_size, lambda number: render.options_at(number).layer)
    with ExitStack() as stack:
        stack.enter_context(memory.explained(*heaviest))
        team = stack.enter_context(_open_team(job, render, network)) if render.todo else None
        if team:
            render = team.render
        work = render.pixel_steps, render.cut_pixel_steps, job.target / PREVIEW_NAME, shown
        progress = stack.enter_context(job.screen.dream(*work))
        reports = team.dream_frames() if team else dream_frames(render, network, progress.on_step, progress.on_cut)
        for report in reports:
            progress.on_frame(report)
            if reporter:
                reporter.on_frame(report)


@contextmanager
def _open_team(job: Job, render: Render, network: Network) -> "Iterator[Team | None]":
    """The workers that are to dream a render, with its scene cuts found; None where this process is."""
    options, screen = job.arguments.cluster, job.screen
    if not (options.workers or options.cluster):
        yield None
        return
    import torch

    from deepdream.machine import describe
    from deepdream.networks.portable import portable
    from deepdream.render.cluster import open_cluster
    from deepdream.render.team import Team

    files, about = portable(network, job.arguments.network), describe(network.device)
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


def dream_picture(job: Job) -> None:
    """Dream one picture."""
    arguments, source, target = job.arguments, job.source, job.target
    check_photo(target, source, arguments.run.overwrite)
    options = job.options(source.parent)
    photo = read_photo(source).at_width(options.dream.preview)
    size = photo.pixels.shape[1::-1]
    if options.dream.panorama:
        check_panorama(size, source)
    if options.mask:
        find_masks(options.mask, 1)
    network, layers = job.load_network()
    options = with_layers(options, layers)
    first = at(options, 0)
    names = values_of(options.dream.layers)[0]
    dreamed = network, names, size, first
    warning = memory.warning(*dreamed)
    if warning:
        job.screen.tell(warning)
    work = pixel_steps(*at_width(size, options.dream.dream_width)[::-1], first.dream)
    shown = Shown((source,), size, lambda number: names[0])
    with (
        job.screen.dream(work, lambda number: 0, target.with_name(PREVIEW_NAME), shown) as progress,
        memory.explained(*dreamed),
    ):
        pixels = api.dream(photo.pixels, network, options, partial(progress.on_step, 0), job.screen.tell)
    note = None if arguments.run.no_settings else dream_note(source, network, arguments.network, arguments.render)
    write_photo(target, replace(photo, pixels=pixels), note)
    job.tell_done("dreamed")


def show_layers(job: Job) -> None:
    """Dream one frame at each layer of the network, or at those that ``--layers`` names, and write a sheet of them."""
    arguments, run, source, path = job.arguments, job.arguments.run, job.source, job.target
    if not run.input:
        raise UsageError("-i/--input is missing: the picture, directory or video of which --show-layers takes a frame")
    sheet.check_sheet(path, source, run.overwrite)
    options = job.options(source)
    still = open_still(source, run.frame, arguments.part, run.image_type, filter(None, values_of(options.guide)))
    options = sheet.sheet_options(at(options, still.number), still.picture.shape[1])
    picture = sheet.shrink_still(still, options)
    mask = open_mask(options.mask, still, picture.shape[1::-1]) if options.mask else None
    network, named = job.load_network()
    layers = network.features
    if "--layers" in arguments.given:
        layers = at(with_layers(options, named), still.number).dream.layers
    targets = sheet.sheet_targets(network, layers, still.number)
    with job.screen.progress(sheet.sheet_work(targets, picture, options), "layers") as progress:

        def on_work(work: float, target: str) -> None:
            progress.set_postfix_str(target, refresh=False)
            progress.update(work)

        tiles = sheet.dream_tiles(Source(picture, picture, mask), network, targets, options, on_work)
    sheet.write_sheet(path, sheet.Sheet(still, picture, tiles, network.name, arguments, options))
    job.tell_done(f"{len(tiles)} layer{'s' if len(tiles) > 1 else ''}")
