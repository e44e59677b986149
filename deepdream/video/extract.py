"""The two ways between a video and a directory of frames: `extract` and `create`.

Pure functions build ffmpeg's graph with ffmpeg-python; `ffmpeg_process` alone runs it.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import ffmpeg

from deepdream.errors import DreamError, UsageError, some_of
from deepdream.files.atomic import lock_directory, make_directory, move, new_directory, sync
from deepdream.files.clip import CLIP_NAME, Clip, read_clip, write_clip
from deepdream.files.frames import PREVIEW_NAME
from deepdream.options import IMAGE_TYPES
from deepdream.video.ffmpeg import SCALE_FLAGS, ffmpeg_binary, run_ffmpeg
from deepdream.video.probe import file_url, probe, show_rate

PART_DIRECTORY = ".extract.part"  # where frames wait, inside their directory, until all are there
FRAME_NAME = re.compile(r"image-\d{6,}\.(png|jpg)")
FRAME_OPTIONS = {
    "png": {"vcodec": "png", "compression_level": 1, "pred": "up"},  # smaller than by default, in a quarter of the time
    "jpg": {"vcodec": "mjpeg", "qscale:v": 2},
}


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
            move(path, directory / path.name)
    part.rmdir()
    return Extracted(clip, tuple(_extract_messages(info, directory, complaints)))


def _extract_messages(info, directory, complaints):
    if complaints:
        yield f"{info.path} may be damaged; ffmpeg says: {complaints}"
    if not info.constant_rate:
        yield f"{info.path} has a variable frame rate; its frames are made {show_rate(info.frame_rate)} a second"
    if info.interlaced:
        yield f"{info.path} is interlaced; its frames are deinterlaced"
    others = [path.name for path in _pictures(directory) if not FRAME_NAME.fullmatch(path.name)]
    if others:
        yield f"{directory} also holds pictures that are not of {info.path}: {some_of(sorted(others))}"


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
                f"{directory} already holds other frames ({some_of(found)}); "
                "choose another directory, or replace them with --overwrite"
            )


def _remove_frames(directory):
    # clip.json goes first: what is half removed must not look whole.
    (directory / CLIP_NAME).unlink(missing_ok=True)
    for path in _our_frames(directory):
        path.unlink()


def _extract_part(info, directory, image_type, on_progress):
    """Make the frames and their clip.json in the part directory. Gives the `Clip` and ffmpeg's complaints."""
    with new_directory(directory / PART_DIRECTORY) as part:
        complaints = run_ffmpeg(
            _extract_graph(info, image_type),
            part,
            on_frame=on_progress and (lambda done: on_progress(done, max(done, info.frame_count))),
        )
        paths = _our_frames(part)
        _check_damage(info, len(paths), complaints)
        for path in paths:  # on the disk before clip.json says so
            sync(path)
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
