"""The two ways between a video and a directory of frames: `extract` and `create`.

Pure functions build ffmpeg's graph with ffmpeg-python; `ffmpeg_process` alone runs it.
"""

import hashlib
import math
import os
import re
import shutil
import subprocess
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import ffmpeg
import numpy as np

from deepdream.errors import DreamError, UsageError
from deepdream.ffmpeg_process import ffmpeg_binary, run_ffmpeg
from deepdream.files import LOCK_NAME, lock_directory, make_directory, part_path
from deepdream.frames import (
    CLIP_NAME, PREVIEW_NAME, Clip, missing_numbers, open_frames, read_clip, read_frame, write_clip,
)
from deepdream.options import DEFAULT_FRAME_RATE, IMAGE_TYPES, NO_AUDIO
from deepdream.probe import Sound, file_url, find_sound, open_media, probe

MUXERS = {  # by the ending of the video's name: ffmpeg's name of the container, and its options
    ".mp4": ("mp4", {"movflags": "+faststart"}),
    ".m4v": ("mp4", {"movflags": "+faststart"}),
    ".mov": ("mov", {"movflags": "+faststart"}),
    ".mkv": ("matroska", {}),
}
PART_DIRECTORY = ".extract.part"  # where frames wait, inside their directory, until all are there
FRAME_NAME = re.compile(r"image-\d{6,}\.(png|jpg)")
FRAME_OPTIONS = {
    "png": {"vcodec": "png", "compression_level": 1, "pred": "up"},  # smaller than by default, in a quarter of the time
    "jpg": {"vcodec": "mjpeg", "qscale:v": 2},
}
# Without these, swscale rounds down (pictures lose one level in 255) and repeats chroma instead of interpolating it.
SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
CRF = 20
HD_HEIGHT = 720  # pixels; from here on players expect the colours of BT.709
AUDIO_BIT_RATE = 96_000  # bits a second and channel
LONGEST_LIST = 5  # missing frames that a message names


# --- Extract ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extracted:
    """The frames of a video: their `Clip`, and what the user should know of how they were made."""

    clip: Clip
    messages: tuple = ()


def extract(video, directory, image_type="png", overwrite=False, on_progress=None):
    """Write each frame of a video file to ``directory`` as image-000001.png …, and clip.json last. Gives `Extracted`.

    Frames are 8-bit RGB, upright and deinterlaced, with the pixels as they are (their aspect is in clip.json).
    A directory that holds them already is left as it is, unless ``overwrite``. ``on_progress(done, total)`` counts
    frames. Raises `UsageError` for what is no video and for a directory that holds other frames (``overwrite``
    replaces those that are named like ours), `DreamError` where ffmpeg fails or a damaged video loses frames.
    """
    info = probe(video)
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; -o takes the directory for the frames")
    clip = None if overwrite else _whole_clip(directory, info, image_type)
    if clip:
        return Extracted(clip, (f"{directory} already holds the {clip.frame_count} frames of {video}",))
    with lock_directory(make_directory(directory)):
        return _extract(info, directory, image_type, overwrite, on_progress)


def _extract(info, directory, image_type, overwrite, on_progress):
    part = directory / PART_DIRECTORY
    lost = not overwrite and _lacks_frames(directory, info, image_type)
    clip, moved = _ready_to_move(part, directory, info, image_type)
    if not (moved or lost):
        _check_directory(directory, overwrite)
    complaints = ""
    if clip is None:
        clip, complaints = _extract_part(info, directory, image_type, on_progress)
    if not (moved or lost):
        _remove_frames(directory)
    for path in (*_our_frames(part), part / CLIP_NAME):
        if lost and (directory / path.name).exists():
            path.unlink()  # what is there may have been worked on
        else:
            _move(path, directory / path.name)
    part.rmdir()
    return Extracted(clip, tuple(_extract_messages(info, directory, complaints)))


def _extract_messages(info, directory, complaints):
    if complaints:
        yield f"{info.path} may be damaged; ffmpeg says: {complaints}"
    if not info.constant_rate:
        yield f"{info.path} has a variable frame rate; its frames are made {_show(info.frame_rate)} a second"
    if info.interlaced:
        yield f"{info.path} is interlaced; its frames are deinterlaced"
    others = [path.name for path in _pictures(directory) if not FRAME_NAME.fullmatch(path.name)]
    if others:
        yield f"{directory} also holds pictures that are not of {info.path}: {_list(sorted(others))}"


def _show(rate):
    return f"{rate.numerator}" if rate.denominator == 1 else f"{float(rate):.3f}"


def _list(items):
    """Items as text, the first few of them."""
    shown = list(islice(items, LONGEST_LIST + 1))
    return ", ".join(map(str, shown[:LONGEST_LIST])) + (", …" if len(shown) > LONGEST_LIST else "")


def _clip(info, frame_count):
    return Clip(
        source=str(info.path.resolve()),
        frame_rate=info.frame_rate,
        pixel_aspect=info.pixel_aspect,
        has_audio=info.has_audio,
        frame_count=frame_count,
        audio_offset=info.audio_offset,
    )


def _our_names(count, image_type):
    return [f"image-{number:06d}.{image_type}" for number in range(1, count + 1)]


def _our_frames(directory):
    return sorted(path for path in directory.iterdir() if FRAME_NAME.fullmatch(path.name))


def _pictures(directory):
    endings = [ending for endings in IMAGE_TYPES.values() for ending in endings]
    return [
        path
        for path in directory.iterdir()
        if path.suffix.lower() in endings and not path.name.startswith(".") and path.name != PREVIEW_NAME
    ]


def _lacks_frames(directory, info, image_type):
    """Whether the frames of this very video were extracted to ``directory``, and some are gone since."""
    clip = read_clip(directory)
    names = {path.name for path in _our_frames(directory)}
    return (
        clip is not None
        and clip == _clip(info, clip.frame_count)
        and names < set(_our_names(clip.frame_count, image_type))
    )


def _whole_clip(directory, info, image_type):
    """The `Clip` of ``directory`` if it holds a whole extract of this very video, else None."""
    clip = read_clip(directory)
    if clip is None or clip != _clip(info, clip.frame_count):
        return None
    whole = {path.name for path in _our_frames(directory)} == set(_our_names(clip.frame_count, image_type))
    return clip if whole else None


def _ready_to_move(part, directory, info, image_type):
    """(clip, moved) of an extract that was killed when only moving was left, else (None, 0).

    ``moved``: how many of the clip's frames are in ``directory`` already.
    """
    clip = None if part.is_symlink() else read_clip(part)
    if clip is None or clip != _clip(info, clip.frame_count):
        return None, 0
    names = _our_names(clip.frame_count, image_type)
    waiting = {path.name for path in _our_frames(part)}
    if not all(name in waiting or (directory / name).is_file() for name in names):
        return None, 0
    return clip, len(names) - len(waiting)


def _check_directory(directory, overwrite):
    if directory.is_dir() and not overwrite:
        found = sorted(path.name for path in _pictures(directory))
        if found:
            raise UsageError(
                f"{directory} already holds other frames ({_list(found)}); "
                "choose another directory, or replace them with --overwrite"
            )


def _remove_frames(directory):
    # clip.json goes first: what is half removed must not look whole.
    (directory / CLIP_NAME).unlink(missing_ok=True)
    for path in _our_frames(directory):
        path.unlink()


def _extract_part(info, directory, image_type, on_progress):
    """Make the frames and their clip.json in the part directory. Gives the `Clip` and ffmpeg's complaints."""
    with _new_directory(directory / PART_DIRECTORY) as part:
        complaints = run_ffmpeg(
            _extract_graph(info, image_type),
            part,
            on_frame=on_progress and (lambda done: on_progress(done, max(done, info.frame_count))),
        )
        paths = _our_frames(part)
        _check_damage(info, len(paths), complaints)
        for path in paths:  # on the disk before clip.json says so
            _sync(path)
        clip = _clip(info, len(paths))
        write_clip(part, clip)
    return clip, complaints


def _check_damage(info, frame_count, complaints):
    """`DreamError` where frames are lost. Numbers alone do not tell: headers may be wrong, packets show nothing."""
    expected = info.frame_count + int(info.missing_duration * info.frame_rate)
    least = expected if info.constant_rate else expected - 1  # resampled, it ends up to a frame earlier
    if not frame_count or (complaints and frame_count < least):
        raise DreamError(
            f"{info.path} is damaged: only {frame_count} of about {expected} frames can be read ({complaints}); "
            "repair it first, for example with: ffmpeg -i damaged.mp4 repaired.mp4"
        )


def _extract_graph(info, image_type):
    """ffmpeg's graph from a video to numbered pictures in the directory it runs in."""
    source = ffmpeg.input(file_url(info.path), format=info.demuxer, protocol_whitelist="file,pipe")
    frames = source[str(info.index)]
    if info.interlaced:
        frames = frames.filter("bwdif", mode="send_frame", deint="interlaced")
    if not info.constant_rate:
        frames = frames.filter("fps", fps=str(info.frame_rate))
    if image_type == "jpg":  # JPEG has one matrix and one range, whatever the video's are
        frames = frames.filter("scale", flags=SCALE_FLAGS, out_color_matrix="bt601", out_range="pc")
        frames = frames.filter("format", "yuvj444p")
    else:
        frames = frames.filter("scale", flags=SCALE_FLAGS).filter("format", "rgb24")
    # A relative name: a % in the directory's would count as part of the pattern.
    return frames.output(f"image-%06d.{image_type}", format="image2", **FRAME_OPTIONS[image_type], **_passthrough())


def _passthrough():
    """The option that writes each frame once, whatever its time: its name is new in ffmpeg 5.1, the old gone by 9."""
    help_text = subprocess.run([ffmpeg_binary(), "-hide_banner", "-h", "long"], capture_output=True, check=False).stdout
    return {"fps_mode" if b"-fps_mode" in help_text else "vsync": "passthrough"}


# --- Create ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Created:
    """A video: ``frame_count`` frames at ``frame_rate`` a second, and what the user should know of how it was made."""

    path: Path
    frame_count: int
    frame_rate: Fraction
    messages: tuple = ()

    @property
    def duration(self):
        """Seconds of picture."""
        return float(self.frame_count / self.frame_rate)


@dataclass(frozen=True)
class _Plan:
    """All that decides how the video of some frames looks and sounds."""

    size: tuple  # (width, height) in pixels, both even
    frame_rate: Fraction
    pixel_aspect: Fraction
    muxer: tuple
    sound: Sound | None = None
    sound_shift: float = 0.0  # seconds by which the sound is put later than the file's start
    sound_end: float | None = None  # seconds at which it is cut
    lead: int = 0  # frames of time that pass before the first picture


def create(directory, video, options, image_type=None, overwrite=False, on_progress=None):
    """Make the frames of ``directory`` into the H.264 video file ``video``. Gives `Created`.

    Frames are taken in natural order; an odd last row or column is dropped. Frame rate, pixel aspect and sound are
    those of the source video where clip.json knows it and ``options`` (`VideoOptions`) do not say otherwise. A video
    that was made of just these frames and settings is left as it is, unless ``overwrite``. ``on_progress(done, total)``
    counts frames. Raises `UsageError`, before any work, for frames that are missing, damaged or of several sizes, an
    unknown ending, sound that cannot be read, and another file under that name; `DreamError` where ffmpeg fails.
    """
    video = Path(video)
    frames = open_frames(directory, image_type)
    clip = read_clip(directory)
    muxer = check_create(video, options, overwrite, clip and clip.source)
    _check_numbers(frames)
    plan, messages = _plan(frames, muxer, options)
    comment = f"deepdream {_digest(frames.paths, plan)}"
    created = Created(video, len(frames.paths), plan.frame_rate, tuple(messages))
    if video.exists() and not overwrite:
        if _comment(video) != comment:
            raise UsageError(f"{video} exists and is not the video of {directory}; replace it with --overwrite")
        return replace(created, messages=(*messages, f"{video} is already made of these frames"))
    make_directory(video.parent)
    # Frames that are still being made are no video yet.
    lock = lock_directory(directory) if (frames.path / LOCK_NAME).exists() else nullcontext()
    with lock, _new_directory(part_path(video)) as part:
        pictures = _pictures_to_feed(frames.paths, plan.size, on_progress)
        run_ffmpeg(_create_graph(plan, "video", comment), part, pictures=pictures)
        _sync(part / "video")
        _move(part / "video", video)
    part.rmdir()
    return created


def check_create(video, options, overwrite, source=None):
    """Raise `UsageError` for what `create` cannot do whatever the frames are; ``source``: the video they come from.

    Gives ffmpeg's name of the container, and its options.
    """
    video = Path(video)
    muxer = _muxer(video)
    for used in (source, None if options.audio == NO_AUDIO else options.audio):
        if used is not None and video.exists() and Path(used).exists() and video.samefile(used):
            raise UsageError(f"{video} is needed to make the new video; choose another name for that")
    if options.audio not in (None, NO_AUDIO):
        find_sound(options.audio)
    if video.exists() and not overwrite and not (_comment(video) or "").startswith("deepdream "):
        raise UsageError(f"{video} exists and was not made here; replace it with --overwrite, or choose another name")
    return muxer


def _muxer(video):
    if video.suffix.lower() not in MUXERS:
        raise UsageError(f"{video}: a video's name ends in {', '.join(MUXERS)}")
    if video.is_dir():
        raise UsageError(f"{video} is a directory; -o takes the name of the video")
    return MUXERS[video.suffix.lower()]


def _check_numbers(frames):
    missing = missing_numbers(frames.paths)
    if missing:
        raise UsageError(f"{frames.path} lacks the frames numbered {_list(missing)}; a video needs them all")


def _plan(frames, muxer, options):
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
    sound, reason = _own_sound(clip, plan.frame_rate)
    if reason:
        messages.append(f"the video has no sound: {reason}")
    if sound is None:
        return plan, messages
    if len(frames.paths) < clip.frame_count:
        return replace(plan, sound=sound, sound_shift=-sound.offset, sound_end=duration), messages
    # Sound that starts before the picture does so again. Frames lie on a grid: what is less than one is cut.
    lead = max(0, math.floor(sound.offset * plan.frame_rate))
    return replace(plan, sound=sound, sound_shift=float(lead / plan.frame_rate) - sound.offset, lead=lead), messages


def _own_sound(clip, frame_rate):
    """(`Sound` of the video that the frames come from, or None; why it cannot be had although there is one)."""
    if clip is None or not clip.has_audio:
        return None, None
    if frame_rate != clip.frame_rate:
        return None, (
            f"that of {clip.source} belongs to {_show(clip.frame_rate)} frames a second, not {_show(frame_rate)}; "
            "choose one with --audio"
        )
    try:
        return replace(find_sound(clip.source), offset=clip.audio_offset), None
    except UsageError as error:
        return None, str(error)


def _digest(paths, plan):
    """What tells one video from another: a hash of the frames' bytes and of all that is done with them."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(_create_graph(plan, "", "").get_args()).encode(errors="surrogateescape"))
    if plan.sound:
        with open(plan.sound.path, "rb") as sound:  # its bytes, for the times of files may be anything
            digest.update(hashlib.file_digest(sound, "sha256").digest())
    for path in paths:
        data = path.read_bytes()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _comment(video):
    """The comment in a video's metadata; None where it has none or is no video."""
    try:
        with open_media(video) as container:
            return {key.lower(): value for key, value in container.metadata.items()}.get("comment")
    except UsageError:
        return None


def _pictures_to_feed(paths, size, on_progress):
    """The frames' bytes, row by row, RGB, cut to ``size`` (width, height)."""
    width, height = size
    for done, path in enumerate(paths, 1):
        yield np.ascontiguousarray(read_frame(path)[:height, :width]).data.cast("B")
        if on_progress:
            on_progress(done, len(paths))


def _create_graph(plan, target, comment):
    """ffmpeg's graph from raw pictures on standard input, and a sound file, to the video ``target``."""
    matrix = "bt709" if plan.size[1] >= HD_HEIGHT else "smpte170m"
    tags = {"colorspace": matrix, "color_primaries": "bt709", "color_trc": "bt709"}
    delay = {"itsoffset": f"{float(plan.lead / plan.frame_rate):.6f}"} if plan.lead else {}
    source = ffmpeg.input(
        "pipe:0", format="rawvideo", pixel_format="rgb24", video_size=plan.size, framerate=str(plan.frame_rate), **delay
    )
    picture = (
        source.filter("scale", flags=SCALE_FLAGS, out_color_matrix=matrix, out_range="tv")
        .filter("format", "yuv420p")
        .filter("setparams", range="tv", **tags)
        .filter("setsar", sar=str(plan.pixel_aspect), max=65535)
    )
    muxer, muxer_options = plan.muxer
    options = {"format": muxer, "vcodec": "libx264", "crf": CRF, "metadata": f"comment={comment}", **muxer_options}
    # Older ffmpeg takes the tags from here, newer from the frames. A sound file's chapters are none of the picture's.
    options |= {"color_range": "tv", **tags, "map_chapters": -1}
    if plan.sound is None:
        return picture.output(target, **options)
    options |= {"acodec": "aac", "audio_bitrate": AUDIO_BIT_RATE * plan.sound.channels}
    return ffmpeg.output(picture, _sound_graph(plan), target, **options)


def _sound_graph(plan):
    sound = plan.sound
    source = ffmpeg.input(file_url(sound.path), format=sound.demuxer, protocol_whitelist="file,pipe")
    track = source[str(sound.index)].filter("asetpts", f"PTS-STARTPTS+({plan.sound_shift:.6f})/TB")
    # Silence where the sound starts late or has a gap; what would come before the start is cut.
    track = track.filter("aresample", **{"async": 1, "first_pts": 0})
    return track if plan.sound_end is None else track.filter("atrim", end=f"{plan.sound_end:.6f}")


# --- Directories that appear whole -----------------------------------------------------------------


@contextmanager
def _new_directory(path):
    """A new directory for ffmpeg to work in, deleted if the block fails.

    The one that a killed run left behind makes way. Its ffmpeg may live a moment longer: names relative to a directory
    that is gone lead nowhere, so nothing it still writes gets among the new files.
    """
    if path.is_symlink() or path.is_file():
        path.unlink()  # a link would lead elsewhere
    shutil.rmtree(path, ignore_errors=True)
    make_directory(path)
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _sync(path):
    with open(path, "r+b") as written:
        os.fsync(written.fileno())


def _move(source, target):
    try:
        os.replace(source, target)
    except OSError as error:
        raise DreamError(f"cannot write {target}: {error.strerror}") from error
