"""A directory of frames into a video, with the sound of the video they came from: `create`, by ffmpeg.

The video's metadata hold a digest of the frames and of all that is done with them: so the same command recognises its
own video, and never overwrites another file unasked.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from deepdream.errors import UsageError, some_of
from deepdream.files import atomic
from deepdream.files.clip import Clip, read_clip
from deepdream.files.frames import FrameDirectory, missing_numbers, open_frames, read_frame
from deepdream.options import DEFAULT_FRAME_RATE, NO_AUDIO, VideoOptions
from deepdream.video import spherical
from deepdream.video.encode import MAX_GIF_RATE, NOTE_KEY, Plan, encode, graph
from deepdream.video.formats import Format, find_format
from deepdream.video.probe import Sound, find_sound, read_metadata
from deepdream.video.timing import show_rate


@dataclass(frozen=True)
class Created:
    """A video: ``frame_count`` frames at ``frame_rate`` a second, and what the user should know of how it was made."""

    path: Path
    frame_count: int
    frame_rate: Fraction
    messages: tuple[str, ...] = ()

    @property
    def duration(self) -> float:
        """Seconds of picture."""
        return float(self.frame_count / self.frame_rate)


def create(
    directory: str | Path,
    video: str | Path,
    options: VideoOptions,
    image_type: str | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    note: str | None = None,
    panorama: bool = False,
) -> Created:
    """Make the frames of ``directory`` into the video file ``video``. Gives `Created`.

    Frames are taken in natural order; an odd last row or column is dropped but in a GIF. Frame rate, pixel aspect and
    sound are those of the source video where clip.json knows it and ``options`` (`VideoOptions`) do not say otherwise.
    A video that was made of just these frames and settings is left as it is, unless ``overwrite``.
    ``on_progress(done, total)`` counts frames. ``note``: text that the video carries; where there is none, a video that
    carries one is made anew. ``panorama``: mark the video as one of 360 degrees though nothing is known of its source.
    Raises `UsageError`, before any work, for frames that are missing, damaged or of several
    sizes, an unknown ending, a codec that it does not take or ffmpeg lacks, sound that cannot be read, and another file
    under that name; `DreamError` where ffmpeg fails.
    """
    video = Path(video)
    frames = open_frames(directory, image_type)
    clip = read_clip(directory)
    video_format = check_create(video, options, overwrite, clip.source if clip else None)
    missing = missing_numbers(frames.paths)
    if missing:
        raise UsageError(f"{frames.path} lacks the frames numbered {some_of(missing)}; a video needs them all")
    plan, messages = _plan(frames, clip, video_format, options)
    stereo = (clip.panorama if clip else None) or ("mono" if panorama else None)
    if video_format.container.muxer in spherical.MUXERS:
        plan = replace(plan, panorama=stereo)
    elif stereo:
        messages.append(f"{video} does not tell players that it is a panorama; an .mp4 or .mov would")
    comment = f"deepdream {_digest(frames.paths, plan)}"
    rate = min(plan.frame_rate, Fraction(MAX_GIF_RATE)) if plan.format.is_gif else plan.frame_rate
    created = Created(video, round(len(frames.paths) * rate / plan.frame_rate), rate, tuple(messages))
    if video.exists() and not overwrite:
        metadata = _metadata(video)
        if metadata.get("comment") != comment:
            raise UsageError(f"{video} exists and is not the video of {directory}; replace it with --overwrite")
        if note or NOTE_KEY not in metadata:
            return replace(created, messages=(*messages, f"{video} is already made of these frames"))
    atomic.make_directory(video.parent)
    # Frames that are still being made are no video yet. Where they cannot be written, nobody makes them.
    is_locked = os.access(frames.path / atomic.LOCK_NAME, os.W_OK)
    lock = atomic.lock_directory(directory) if is_locked else nullcontext()
    with lock, atomic.write_errors(video), atomic.whole_directory(atomic.part_path(video)) as part:
        feed = partial(_pictures_to_feed, frames.paths, plan.size)
        made = encode(plan, feed, part, comment, note, on_progress)
        atomic.sync(made)
        atomic.replace(made, video)
    part.rmdir()
    return created


def check_create(video: str | Path, options: VideoOptions, overwrite: bool, source: str | Path | None = None) -> Format:
    """The `Format` of a video. Raises `UsageError` for what `create` refuses whatever the frames are.

    ``source``: the video that the frames come from.
    """
    video = Path(video)
    video_format = find_format(video, options)
    if video.is_dir():
        raise UsageError(f"{video} is a directory; -o takes the name of the video")
    for used in (source, None if options.audio == NO_AUDIO else options.audio):
        if used is not None and video.exists() and Path(used).exists() and video.samefile(used):
            raise UsageError(f"{video} is needed to make the new video; choose another name for that")
    if options.audio not in (None, NO_AUDIO):
        find_sound(options.audio)
    if video.exists() and not overwrite and not _metadata(video).get("comment", "").startswith("deepdream "):
        raise UsageError(f"{video} exists and was not made here; replace it with --overwrite, or choose another name")
    return video_format


def _plan(
    frames: FrameDirectory, clip: Clip | None, video_format: Format, options: VideoOptions
) -> tuple[Plan, list[str]]:
    """The `Plan` for a video of ``frames``, and messages."""
    messages = []
    width, height = frames.size
    size = (width, height) if video_format.is_gif else (width // 2 * 2, height // 2 * 2)
    if 0 in size:
        raise UsageError(f"{frames.path}: frames of {width}x{height} are too small for a video; 2x2 is the least")
    if size != (width, height):
        messages.append(f"frames of {width}x{height} lose an odd last row or column: the video is {size[0]}x{size[1]}")
    plan = Plan(
        size=size,
        frame_rate=options.frame_rate or (clip.frame_rate if clip else DEFAULT_FRAME_RATE),
        pixel_aspect=clip.pixel_aspect if clip else Fraction(1),
        format=video_format,
    )
    if video_format.is_gif and plan.frame_rate > MAX_GIF_RATE:
        messages.append(f"a GIF shows at most {MAX_GIF_RATE} frames a second: some of the frames are left out")
    plan, told = _with_sound(plan, len(frames.paths), clip, options)
    return plan, messages + told


def _with_sound(plan: Plan, count: int, clip: Clip | None, options: VideoOptions) -> tuple[Plan, list[str]]:
    """The `Plan` of ``count`` frames with the sound that the video is to have, and messages."""
    if options.audio == NO_AUDIO or (options.audio is None and not (clip and clip.has_audio)):
        return plan, []
    if plan.format.container.sound is None:
        return plan, ["a GIF has no sound"]
    duration = float(count / plan.frame_rate)
    if options.audio is not None:
        sound = find_sound(options.audio)
        return replace(plan, sound=sound, sound_shift=-sound.offset, sound_end=duration), []
    assert clip is not None, "it has sound"
    try:
        sound = _own_sound(clip, plan.frame_rate)
    except UsageError as error:
        return plan, [f"the video has no sound: {error}"]
    is_whole = count >= clip.frame_count
    # Sound that starts before the picture does so again. Frames lie on a grid: what is less than one is cut.
    lead = max(0, math.floor(sound.offset * plan.frame_rate)) if is_whole and clip.first_frame == 0 else 0
    shift = float(lead / plan.frame_rate)
    end = None if is_whole and clip.end_frame is None else shift + duration
    return replace(plan, sound=sound, sound_shift=shift - sound.offset, sound_end=end, lead=lead), []


def _own_sound(clip: Clip, frame_rate: Fraction) -> Sound:
    """The sound of the video that the frames come from. Raises `UsageError` where it cannot be had or does not fit."""
    if frame_rate != clip.frame_rate:
        raise UsageError(
            f"that of {clip.source} belongs to {show_rate(clip.frame_rate)} frames a second, "
            f"not {show_rate(frame_rate)}; choose one with --audio"
        )
    return replace(find_sound(clip.source), offset=clip.audio_offset)


def _digest(paths: tuple[Path, ...], plan: Plan) -> str:
    """A hash of the frames' bytes and of all that is done with them."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(graph(plan, "", "").get_args()).encode(errors="surrogateescape"))
    if plan.panorama:
        digest.update(plan.panorama.encode())
    if plan.sound:
        with open(plan.sound.path, "rb") as sound:  # its bytes, for the times of files may be anything
            digest.update(hashlib.file_digest(sound, "sha256").digest())
    for path in paths:
        data = path.read_bytes()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _metadata(video: Path) -> dict[str, str]:
    """A video's metadata; empty where it has none or is no video."""
    try:
        return read_metadata(video)
    except UsageError:
        return {}


def _pictures_to_feed(
    paths: tuple[Path, ...], size: tuple[int, int], on_progress: Callable[[int, int], None] | None
) -> Iterator[memoryview]:
    """The frames' bytes, row by row, RGB, cut to ``size`` (width, height)."""
    width, height = size
    for done, path in enumerate(paths, 1):
        yield np.ascontiguousarray(read_frame(path)[:height, :width]).data.cast("B")
        if on_progress:
            on_progress(done, len(paths))
