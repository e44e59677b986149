"""A directory of frames into a video, with the sound of the video they came from: `create`, by ffmpeg.

The video's metadata hold a digest of the frames and of all that is done with them: so the same command recognises its
own video, and never overwrites another file unasked.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import ffmpeg
import numpy as np

from deepdream.errors import UsageError, some_of
from deepdream.files import atomic
from deepdream.files.clip import Clip, read_clip
from deepdream.files.frames import FrameDirectory, missing_numbers, open_frames, read_frame
from deepdream.options import DEFAULT_FRAME_RATE, NO_AUDIO, VideoOptions
from deepdream.video.ffmpeg import SCALE_FLAGS, run_ffmpeg
from deepdream.video.formats import MUXERS
from deepdream.video.probe import Sound, file_url, find_sound, read_metadata, show_rate

CRF = 20
NOTE_KEY = "description"  # of the metadata
HD_HEIGHT = 720  # pixels; from here on players expect the colours of BT.709
AUDIO_BIT_RATE = 96_000  # bits a second and channel


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


@dataclass(frozen=True)
class _Plan:
    """All that decides how the video of some frames looks and sounds."""

    size: tuple[int, int]  # (width, height) in pixels, both even
    frame_rate: Fraction
    pixel_aspect: Fraction
    muxer: tuple[str, dict[str, str]]
    sound: Sound | None = None
    sound_shift: float = 0.0  # seconds by which the sound is put later than the file's start
    sound_end: float | None = None  # seconds at which it is cut
    lead: int = 0  # frames of time that pass before the first picture


def create(
    directory: str | Path,
    video: str | Path,
    options: VideoOptions,
    image_type: str | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    note: str | None = None,
) -> Created:
    """Make the frames of ``directory`` into the H.264 video file ``video``. Gives `Created`.

    Frames are taken in natural order; an odd last row or column is dropped. Frame rate, pixel aspect and sound are
    those of the source video where clip.json knows it and ``options`` (`VideoOptions`) do not say otherwise. A video
    that was made of just these frames and settings is left as it is, unless ``overwrite``. ``on_progress(done, total)``
    counts frames. ``note``: text that the video carries; where there is none, a video that carries one is made anew.
    Raises `UsageError`, before any work, for frames that are missing, damaged or of several sizes, an
    unknown ending, sound that cannot be read, and another file under that name; `DreamError` where ffmpeg fails.
    """
    video = Path(video)
    frames = open_frames(directory, image_type)
    clip = read_clip(directory)
    muxer = check_create(video, options, overwrite, clip.source if clip else None)
    _check_numbers(frames)
    plan, messages = _plan(frames, muxer, options)
    comment = f"deepdream {_digest(frames.paths, plan)}"
    created = Created(video, len(frames.paths), plan.frame_rate, tuple(messages))
    if video.exists() and not overwrite:
        metadata = _metadata(video)
        if metadata.get("comment") != comment:
            raise UsageError(f"{video} exists and is not the video of {directory}; replace it with --overwrite")
        if note or NOTE_KEY not in metadata:
            return replace(created, messages=(*messages, f"{video} is already made of these frames"))
    atomic.make_directory(video.parent)
    # Frames that are still being made are no video yet.
    lock = atomic.lock_directory(directory) if (frames.path / atomic.LOCK_NAME).exists() else nullcontext()
    with lock, atomic.whole_directory(atomic.part_path(video)) as part:
        pictures = _pictures_to_feed(frames.paths, plan.size, on_progress)
        run_ffmpeg(_create_graph(plan, "video", comment, note), part, pictures=pictures)
        atomic.sync(part / "video")
        atomic.replace(part / "video", video)
    part.rmdir()
    return created


def check_create(
    video: str | Path, options: VideoOptions, overwrite: bool, source: str | Path | None = None
) -> tuple[str, dict[str, str]]:
    """Raise `UsageError` for what `create` refuses whatever the frames are; ``source``: the video they come from.

    Gives ffmpeg's name of the container, and its options.
    """
    video = Path(video)
    muxer = _muxer(video)
    for used in (source, None if options.audio == NO_AUDIO else options.audio):
        if used is not None and video.exists() and Path(used).exists() and video.samefile(used):
            raise UsageError(f"{video} is needed to make the new video; choose another name for that")
    if options.audio not in (None, NO_AUDIO):
        find_sound(options.audio)
    if video.exists() and not overwrite and not _metadata(video).get("comment", "").startswith("deepdream "):
        raise UsageError(f"{video} exists and was not made here; replace it with --overwrite, or choose another name")
    return muxer


def _muxer(video: Path) -> tuple[str, dict[str, str]]:
    if video.suffix.lower() not in MUXERS:
        raise UsageError(f"{video}: a video's name ends in {', '.join(MUXERS)}")
    if video.is_dir():
        raise UsageError(f"{video} is a directory; -o takes the name of the video")
    return MUXERS[video.suffix.lower()]


def _check_numbers(frames: FrameDirectory) -> None:
    missing = missing_numbers(frames.paths)
    if missing:
        raise UsageError(f"{frames.path} lacks the frames numbered {some_of(missing)}; a video needs them all")


def _plan(frames: FrameDirectory, muxer: tuple[str, dict[str, str]], options: VideoOptions) -> tuple[_Plan, list[str]]:
    """The `_Plan` for a video of ``frames``, and messages."""
    messages = []
    width, height = frames.size
    size = (width // 2 * 2, height // 2 * 2)
    if 0 in size:
        raise UsageError(f"{frames.path}: frames of {width}x{height} are too small for a video; 2x2 is the least")
    if size != (width, height):
        messages.append(f"frames of {width}x{height} lose an odd last row or column: the video is {size[0]}x{size[1]}")
    clip = read_clip(frames.path)
    plan = _Plan(
        size=size,
        frame_rate=options.frame_rate or (clip.frame_rate if clip else DEFAULT_FRAME_RATE),
        pixel_aspect=clip.pixel_aspect if clip else Fraction(1),
        muxer=muxer,
    )
    duration = float(len(frames.paths) / plan.frame_rate)
    if options.audio == NO_AUDIO:
        return plan, messages
    if options.audio is not None:
        sound = find_sound(options.audio)
        return replace(plan, sound=sound, sound_shift=-sound.offset, sound_end=duration), messages
    if clip is None or not clip.has_audio:
        return plan, messages
    try:
        sound = _own_sound(clip, plan.frame_rate)
    except UsageError as error:
        return plan, [*messages, f"the video has no sound: {error}"]
    is_whole = len(frames.paths) >= clip.frame_count
    # Sound that starts before the picture does so again. Frames lie on a grid: what is less than one is cut.
    lead = max(0, math.floor(sound.offset * plan.frame_rate)) if is_whole and clip.first_frame == 0 else 0
    shift = float(lead / plan.frame_rate)
    end = None if is_whole and clip.end_frame is None else shift + duration
    return replace(plan, sound=sound, sound_shift=shift - sound.offset, sound_end=end, lead=lead), messages


def _own_sound(clip: Clip, frame_rate: Fraction) -> Sound:
    """The sound of the video that the frames come from. Raises `UsageError` where it cannot be had or does not fit."""
    if frame_rate != clip.frame_rate:
        raise UsageError(
            f"that of {clip.source} belongs to {show_rate(clip.frame_rate)} frames a second, "
            f"not {show_rate(frame_rate)}; choose one with --audio"
        )
    return replace(find_sound(clip.source), offset=clip.audio_offset)


def _digest(paths: tuple[Path, ...], plan: _Plan) -> str:
    """A hash of the frames' bytes and of all that is done with them."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(_create_graph(plan, "", "").get_args()).encode(errors="surrogateescape"))
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


def _create_graph(plan: _Plan, target: str, comment: str, note: str | None = None) -> ffmpeg.nodes.OutputStream:
    """ffmpeg's graph from raw pictures on standard input, and a sound file, to the video ``target``."""
    matrix = "bt709" if plan.size[1] >= HD_HEIGHT else "smpte170m"
    tags = {"colorspace": matrix, "color_primaries": "bt709", "color_trc": "bt709"}
    delay = {"itsoffset": f"{float(plan.lead / plan.frame_rate):.6f}"} if plan.lead else {}
    pictures = ffmpeg.input(
        "pipe:0", format="rawvideo", pixel_format="rgb24", video_size=plan.size, framerate=str(plan.frame_rate), **delay
    )
    filters = (
        f"scale=flags={SCALE_FLAGS}:out_color_matrix={matrix}:out_range=tv,format=yuv420p,"
        f"setparams=range=tv:colorspace={matrix}:color_primaries=bt709:color_trc=bt709,"
        f"setsar=sar={plan.pixel_aspect}:max=65535"
    )
    muxer, muxer_options = plan.muxer
    options = {"format": muxer, "vf": filters, "vcodec": "libx264", "crf": CRF, "metadata": f"comment={comment}"}
    # Older ffmpeg takes the tags from here, newer from the frames. A sound file's chapters are not the picture's.
    options |= {"color_range": "tv", **tags, "map_chapters": -1, **muxer_options}
    if note:
        options["metadata:g"] = f"{NOTE_KEY}={note}"  # "g": global, as "metadata" alone is
    if note and muxer == "mov":  # which has no such field of its own
        options["movflags"] = f"{muxer_options['movflags']}+use_metadata_tags"
    if plan.sound is None:
        return pictures["0"].output(target, **options)
    sound = ffmpeg.input(file_url(plan.sound.path), format=plan.sound.demuxer, protocol_whitelist="file,pipe")
    options |= {"af": _sound_filters(plan), "acodec": "aac", "audio_bitrate": AUDIO_BIT_RATE * plan.sound.channels}
    return ffmpeg.output(pictures["0"], sound[str(plan.sound.index)], target, **options)


def _sound_filters(plan: _Plan) -> str:
    # aresample: silence where the sound starts late or has a gap, and a cut where it would come before the start.
    filters = f"asetpts=PTS-STARTPTS+({plan.sound_shift:.6f})/TB,aresample=async=1:first_pts=0"
    return filters if plan.sound_end is None else f"{filters},atrim=end={plan.sound_end:.6f}"
