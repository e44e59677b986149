"""A video into a directory of frames and its `clip.json`: `extract`, by ffmpeg.

Frames are made in a directory of their own inside the target and moved when all are there; clip.json moves last. So
the target holds a whole extract or none, and a run that was stopped goes on.
"""

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ffmpeg

from deepdream.errors import DreamError, UsageError, some_of
from deepdream.files.atomic import lock_directory, make_directory, replace, sync, whole_directory
from deepdream.files.clip import CLIP_NAME, Clip, read_clip, write_clip
from deepdream.files.frames import PREVIEW_NAME
from deepdream.options import IMAGE_TYPES
from deepdream.video.ffmpeg import SCALE_FLAGS, ffmpeg_binary, run_ffmpeg
from deepdream.video.probe import VideoInfo, file_url, probe, show_rate

PART_DIRECTORY = ".extract.part"  # where frames wait, inside their directory, until all are there
FRAME_NAME = re.compile(r"image-\d{6,}\.(png|jpg)")
FRAME_OPTIONS: dict[str, dict[str, str | int]] = {
    "png": {"vcodec": "png", "compression_level": 1, "pred": "up"},  # smaller than by default, in a quarter of the time
    "jpg": {"vcodec": "mjpeg", "qscale:v": 2},
}
Progress = Callable[[int, int], None]  # told of (done, total) frames


@dataclass(frozen=True)
class Extracted:
    """The frames of a video: their `Clip`, and what the user should know of how they were made."""

    clip: Clip
    messages: tuple[str, ...] = ()


def extract(
    video: str | Path,
    directory: str | Path,
    image_type: str = "png",
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Extracted:
    """Write each frame of a video file to ``directory`` as image-000001.png …, and clip.json last.

    Frames are 8-bit RGB, upright and deinterlaced, with the pixels as they are (their aspect is in clip.json).
    A directory that holds them already is left as it is, unless ``overwrite``; frames that are missing are put back.
    ``on_progress(done, total)`` counts frames. Raises `UsageError` for what is no video and for a directory that holds
    other frames (``overwrite`` replaces those that are named like ours), `DreamError` where ffmpeg fails or a damaged
    video loses frames.
    """
    info = probe(video)
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; -o takes the directory for the frames")
    clip, missing = _state(directory, info, image_type)
    if clip and not missing and not overwrite:
        return Extracted(clip, (f"{directory} already holds the {clip.frame_count} frames of {video}",))
    with lock_directory(make_directory(directory)):
        return _extract(info, directory, image_type, overwrite, on_progress)


def _extract(
    info: VideoInfo, directory: Path, image_type: str, overwrite: bool, on_progress: Progress | None
) -> Extracted:
    part = directory / PART_DIRECTORY
    clip, missing = _state(directory, info, image_type)
    fills_gaps = clip is not None and bool(missing) and not overwrite
    # All that a killed run still had to do was to move frames, if those that have left ``part`` are in their place.
    clip, moved = (None, set()) if part.is_symlink() else _state(part, info, image_type)
    if not all((directory / name).is_file() for name in moved):
        clip, moved = None, set()
    complaints = ""
    if not (moved or fills_gaps) and not overwrite:
        _check_no_frames(directory)
    if clip is None:
        clip, complaints = _extract_part(info, directory, image_type, on_progress)
    if not (moved or fills_gaps):
        _remove_frames(directory)
    for path in (*_our_frames(part), part / CLIP_NAME):
        if fills_gaps and (directory / path.name).exists():
            path.unlink()  # what is there may have been worked on
        else:
            replace(path, directory / path.name)
    part.rmdir()
    return Extracted(clip, tuple(_extract_messages(info, directory, complaints)))


def _state(directory: Path, info: VideoInfo, image_type: str) -> tuple[Clip | None, set[str]]:
    """(the clip.json of an extract of this very video, the names of its frames that are not in ``directory``).

    (None, nothing) where ``directory`` holds no such extract, or other frames beside it.
    """
    clip = read_clip(directory)
    if clip is None or clip != _clip(info, clip.frame_count):
        return None, set()
    names = {f"image-{number:06d}.{image_type}" for number in range(1, clip.frame_count + 1)}
    there = {path.name for path in _our_frames(directory)}
    return (clip, names - there) if there <= names else (None, set())


def _clip(info: VideoInfo, frame_count: int) -> Clip:
    return Clip(
        source=str(info.path.resolve()),
        frame_rate=info.frame_rate,
        pixel_aspect=info.pixel_aspect,
        has_audio=info.has_audio,
        frame_count=frame_count,
        audio_offset=info.audio_offset,
    )


def _extract_messages(info: VideoInfo, directory: Path, complaints: str) -> Iterator[str]:
    if complaints:
        yield f"{info.path} may be damaged; ffmpeg says: {complaints}"
    if not info.constant_rate:
        yield f"{info.path} has a variable frame rate; its frames are made {show_rate(info.frame_rate)} a second"
    if info.interlaced:
        yield f"{info.path} is interlaced; its frames are deinterlaced"
    others = [path.name for path in _pictures(directory) if not FRAME_NAME.fullmatch(path.name)]
    if others:
        yield f"{directory} also holds pictures that are not of {info.path}: {some_of(sorted(others))}"


def _our_frames(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if FRAME_NAME.fullmatch(path.name))


def _pictures(directory: Path) -> list[Path]:
    endings = [ending for endings in IMAGE_TYPES.values() for ending in endings]
    return [
        path
        for path in directory.iterdir()
        if path.suffix.lower() in endings and not path.name.startswith(".") and path.name != PREVIEW_NAME
    ]


def _check_no_frames(directory: Path) -> None:
    found = sorted(path.name for path in _pictures(directory))
    if found:
        raise UsageError(
            f"{directory} already holds other frames ({some_of(found)}); "
            "choose another directory, or replace them with --overwrite"
        )


def _remove_frames(directory: Path) -> None:
    # clip.json goes first: what is half removed must not look whole.
    (directory / CLIP_NAME).unlink(missing_ok=True)
    for path in _our_frames(directory):
        path.unlink()


def _extract_part(info: VideoInfo, directory: Path, image_type: str, on_progress: Progress | None) -> tuple[Clip, str]:
    """Make the frames and their clip.json in the part directory. Gives the `Clip` and ffmpeg's complaints."""

    def on_frame(done: int) -> None:
        if on_progress:
            on_progress(done, max(done, info.frame_count))

    with whole_directory(directory / PART_DIRECTORY) as part:
        complaints = run_ffmpeg(_extract_graph(info, image_type), part, on_frame=on_frame)
        paths = _our_frames(part)
        _check_damage(info, len(paths), complaints)
        for path in paths:  # on the disk before clip.json says so
            sync(path)
        clip = _clip(info, len(paths))
        write_clip(part, clip)
    return clip, complaints


def _check_damage(info: VideoInfo, frame_count: int, complaints: str) -> None:
    """`DreamError` where frames are lost. Numbers alone do not tell: headers may be wrong, packets show nothing."""
    expected = info.frame_count + int(info.missing_duration * info.frame_rate)
    least = expected if info.constant_rate else expected - 1  # resampled, it ends up to a frame earlier
    if not frame_count or (complaints and frame_count < least):
        raise DreamError(
            f"{info.path} is damaged: only {frame_count} of about {expected} frames can be read ({complaints}); "
            "repair it first, for example with: ffmpeg -i damaged.mp4 repaired.mp4"
        )


def _extract_graph(info: VideoInfo, image_type: str) -> ffmpeg.nodes.OutputStream:
    """ffmpeg's graph from a video to numbered pictures in the directory it runs in."""
    filters = []
    if info.interlaced:
        filters.append("bwdif=mode=send_frame:deint=interlaced")
    if not info.constant_rate:
        filters.append(f"fps={info.frame_rate}")
    if image_type == "jpg":  # JPEG has one matrix and one range, whatever the video's are
        filters.append(f"scale=flags={SCALE_FLAGS}:out_color_matrix=bt601:out_range=pc,format=yuvj444p")
    else:
        filters.append(f"scale=flags={SCALE_FLAGS},format=rgb24")
    source = ffmpeg.input(file_url(info.path), format=info.demuxer, protocol_whitelist="file,pipe")
    return source[str(info.index)].output(
        f"image-%06d.{image_type}",  # a relative name: a % in the directory's would count as part of the pattern
        format="image2",
        vf=",".join(filters),
        **FRAME_OPTIONS[image_type],
        **_passthrough(),
    )


def _passthrough() -> dict[str, str]:
    """The option that writes each frame once, whatever its time: its name is new in ffmpeg 5.1, the old gone by 9."""
    help_text = subprocess.run([ffmpeg_binary(), "-hide_banner", "-h", "long"], capture_output=True, check=False).stdout
    return {"fps_mode" if b"-fps_mode" in help_text else "vsync": "passthrough"}
