"""What makes videos and takes them apart: extract, create, all three in one, and a dive into a picture."""

from pathlib import Path

from deepdream.errors import UsageError
from deepdream.files.frames import open_frames, read_frame, read_note
from deepdream.files.note import create_note, dream_note
from deepdream.files.space import FIRST_FRAMES, frame_bytes, space_warning
from deepdream.geometry import check_panorama
from deepdream.modes.job import Job
from deepdream.options import image_type_of
from deepdream.schedule import values_of
from deepdream.video.create import check_create, create
from deepdream.video.extract import check_extract, extract
from deepdream.video.formats import CONTAINERS
from deepdream.video.mask import check_mask
from deepdream.video.part import Part, open_part
from deepdream.video.probe import first_frames


def extract_frames(job: Job, part: Part | None = None) -> None:
    """Mode -e 1: a video into a directory of frames. ``part``: what `open_part` gave, if it is open."""
    run, image_type = job.arguments.run, job.arguments.run.image_type or "png"
    if part is None:
        part = open_part(job.source, job.arguments.part)
        count = check_extract(part, job.target, image_type, run.overwrite)
        first = first_frames(job.source, FIRST_FRAMES)
        needed = count * frame_bytes(part.info.width * part.info.height, image_type, first)
        job.screen.tell(*space_warning(job.target, needed, "-it jpg, or a part of the video (--start, --end)"))
    with job.screen.counter("extract") as on_progress:
        made = extract(part, job.target, image_type, run.overwrite, on_progress)
    job.screen.tell(*made.messages)
    job.tell_done(f"{made.clip.frame_count} frames extracted")


def create_video(job: Job, note: str | None = None) -> None:
    """Mode -c 1: a directory of frames into a video. ``note``: what it carries, if not that of the frames."""
    run, options = job.arguments.run, job.arguments.video
    if note is None:
        frame_note = read_note(open_frames(job.source, run.image_type).paths[0])
        note = create_note(job.source, run.image_type, options, frame_note)
    kept, panorama = None if run.no_settings else note, "--panorama" in note.split()
    with job.screen.counter("create") as on_progress:
        made = create(job.source, job.target, options, run.image_type, run.overwrite, on_progress, kept, panorama)
    job.screen.tell(*made.messages)
    job.tell_done(f"{made.frame_count} frames, {made.duration:.2f} s of video,")


def dream_video(job: Job) -> None:
    """Extract, dream and create in one."""
    source, video, arguments = job.source, job.target, job.arguments
    if video.suffix.lower() not in CONTAINERS:
        raise UsageError(
            f"{source} is a video, so -o {video} must be one too ({', '.join(CONTAINERS)}); "
            "to extract its frames alone add -e 1"
        )
    work = _work_directory(video)
    part = _check_all(job, work)
    loaded = job.load_network()
    from deepdream.modes.dream import dream_directory, finish_report  # which takes seconds to load

    extract_frames(job.step(source, work / "Input"), part)
    reporter = dream_directory(job.step(work / "Input", work / "Output"), loaded)
    options = job.options(work / "Input")
    note = dream_note(source, loaded[0], arguments.network, options, arguments.part, arguments.video)
    create_video(job.step(work / "Output", video), note)
    finish_report(job, reporter, video)


def dive(job: Job) -> None:
    """A dive into a picture: each frame is the last dream, moved and dreamed again. Into a directory or a video."""
    source, target, arguments = job.source, job.target, job.arguments
    frames = arguments.run.frames
    if image_type_of(target.suffix):
        raise UsageError(f"--frames {frames}: {target} is one picture; -o takes a video, or a directory of frames")
    from deepdream.modes.dream import dream_directory  # which takes seconds to load

    if target.suffix.lower() not in CONTAINERS:
        dream_directory(job, is_dive=True)
        return
    check_create(target, arguments.video, arguments.run.overwrite, source)
    output = _work_directory(target) / "Output"
    loaded = job.load_network()
    dream_directory(job.step(source, output), loaded, is_dive=True)
    options = job.options(source.parent, dive=True)
    note = dream_note(source, loaded[0], arguments.network, options, video=arguments.video, frames=frames)
    create_video(job.step(output, target), note)


def _check_all(job: Job, work: Path) -> Part:
    """The part of the video to take. Raises `UsageError` for what would stop a later step, before the first one."""
    source, arguments, run = job.source, job.arguments, job.arguments.run
    check_create(job.target, arguments.video, run.overwrite, source)
    image_type, part = run.image_type or "png", open_part(source, arguments.part)
    if arguments.render.dream.panorama:
        check_panorama((part.info.width, part.info.height), source)
    count = check_extract(part, work / "Input", image_type, run.overwrite)
    for guide in filter(None, values_of(job.options(work / "Input").guide)):
        read_frame(guide)
    check_mask(arguments.render.mask, part.frame_count)
    pixels = part.info.width * part.info.height
    dreamed = pixels * arguments.render.dream.preview**2 // part.info.width**2 or pixels
    first = first_frames(source, FIRST_FRAMES)
    needed = count * (frame_bytes(pixels, image_type, first) + frame_bytes(dreamed, image_type, first))
    remedy = "-it jpg, a smaller --preview, or a part of the video (--start, --end)"
    job.screen.tell(*space_warning(work, needed, remedy))
    return part


def _work_directory(video: Path) -> Path:
    """Where the frames of a video stay that is made in one go."""
    work = video.with_suffix(".frames")
    for directory in (work, work / "Input", work / "Output"):
        if directory.is_symlink():
            raise UsageError(
                f"{directory} is a link that leads elsewhere; remove it, or take the three steps one by one"
            )
    return work
