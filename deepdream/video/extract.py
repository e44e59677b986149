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
from deepdream.files.atomic import lock_directory, make_directory, replace, sync, whole_directory, write_errors
from deepdream.files.clip import CLIP_NAME, Clip, read_clip, write_clip
from deepdream.files.frames import PREVIEW_NAME
from deepdream.options import image_type_of
from deepdream.video.ffmpeg import SCALE_FLAGS, ffmpeg_binary, run_ffmpeg
from deepdream.video.hdr import DIM_WHITE, REFERENCE_WHITE
from deepdream.video.part import Part, open_part
from deepdream.video.probe import VideoInfo, file_url
from deepdream.video.timing import show_rate

PART_DIRECTORY = ".extract.part"  # where frames wait, inside their directory, until all are there
FRAME_NAME = re.compile(r"image-\d{6,}\.(png|jpg)")
FRAME_OPTIONS: dict[str, dict[str, str | int]] = {
    "png": {"vcodec": "png", "compression_level": 1, "pred": "up"},  # smaller than by default, in a quarter of the time
    "jpg": {"vcodec": "mjpeg", "qscale:v": 2},
}
# From HDR to SDR, white to white. Up to 70 % of it nothing changes (tonemap's "param", linear light), so SDR that was
# put into HDR comes out as it was; highlights up to "peak" times white share the rest. By white: up to 1000 cd/m2, as
# phones film them, or the little that is above it where nothing is bright.
TONE_MAP = (
    "setparams={tags},zscale=t=linear:npl={white},format=gbrpf32le,zscale=p=bt709,"
    "tonemap=mobius:param=0.7:peak={peak}:desat=0,zscale=t=bt709:m=gbr:r=pc,format=gbrp"
)
PEAKS = {REFERENCE_WHITE: 4.93, DIM_WHITE: 1.25}
FRAME_CLOCK = "1/1000"  # any, so long as ffmpeg's filters and its encoder have the same
INDEXED = ("mov", "matroska")  # demuxers that find a key frame by an index
SEEK_AFTER = 500  # frames: so many are decoded faster than it matters
SEEK_MARGIN = 10.0  # seconds: longer than frames are reordered
Progress = Callable[[int, int], None]  # told of (done, total) frames


@dataclass(frozen=True)
class Extracted:
    """The frames of a video: their `Clip`, and what the user should know of how they were made."""

    clip: Clip
    messages: tuple[str, ...] = ()


def extract(
    video: str | Path | Part,
    directory: str | Path,
    image_type: str = "png",
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Extracted:
    """Write each frame of a video file, or of a `Part`, to ``directory`` as image-000001.png …, and clip.json last.

    Frames are 8-bit RGB, upright and deinterlaced, with the pixels as they are (their aspect is in clip.json). HDR is
    tone-mapped to BT.709. A directory that holds them already is left as it is, unless ``overwrite``; frames that are
    missing are put back. ``on_progress(done, total)`` counts frames. Raises `UsageError` for what is no video and for a
    directory that holds other frames (``overwrite`` replaces those that are named like ours), `DreamError` where ffmpeg
    fails or a damaged video loses frames.
    """
    part = video if isinstance(video, Part) else open_part(video)
    directory = Path(directory)
    if not check_extract(part, directory, image_type, overwrite):
        clip, _ = _state(directory, part, image_type)
        assert clip is not None
        return Extracted(clip, (f"{directory} already holds the {clip.frame_count} frames of {part.info.path}",))
    with lock_directory(make_directory(directory)):
        return _extract(part, directory, image_type, overwrite, on_progress)


def check_extract(part: Part, directory: str | Path, image_type: str, overwrite: bool) -> int:
    """How many frames `extract` has still to make. Raises `UsageError` for what it would refuse."""
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; -o takes the directory for the frames")
    _find_binary(part)
    clip, missing = _state(directory, part, image_type)
    if clip is None or overwrite:
        if not overwrite and not _to_be_moved(directory, part, image_type)[1]:
            _check_no_frames(directory)
        return part.frame_count
    return len(missing)


def _extract(part: Part, directory: Path, image_type: str, overwrite: bool, on_progress: Progress | None) -> Extracted:
    work = directory / PART_DIRECTORY
    clip, missing = _state(directory, part, image_type)
    fills_gaps = clip is not None and bool(missing) and not overwrite
    clip, moved = _to_be_moved(directory, part, image_type)
    complaints = ""
    if not (moved or fills_gaps) and not overwrite:
        _check_no_frames(directory)
    if clip is None:
        clip, complaints = _make_frames(part, work, image_type, on_progress)
    if not (moved or fills_gaps):
        _remove_frames(directory)
    for path in (*_our_frames(work), work / CLIP_NAME):
        if fills_gaps and (directory / path.name).exists():
            path.unlink()  # what is there may have been worked on
        else:
            replace(path, directory / path.name)
    work.rmdir()
    return Extracted(clip, tuple(_extract_messages(part.info, directory, complaints)))


def _to_be_moved(directory: Path, part: Part, image_type: str) -> tuple[Clip | None, set[str]]:
    """`_state` of the frames of a run that was killed when all it still had to do was to move them, else (None, none).

    So those that have left its work directory must be in their place.
    """
    work = directory / PART_DIRECTORY
    clip, moved = (None, set()) if work.is_symlink() else _state(work, part, image_type)
    return (clip, moved) if all((directory / name).is_file() for name in moved) else (None, set())


def _state(directory: Path, part: Part, image_type: str) -> tuple[Clip | None, set[str]]:
    """(the clip.json of an extract of this very part, the names of its frames that are not in ``directory``).

    (None, nothing) where ``directory`` holds no such extract, or other frames beside it.
    """
    clip = read_clip(directory)
    if clip is None or clip != _clip(part, clip.frame_count):
        return None, set()
    names = {f"image-{number:06d}.{image_type}" for number in range(1, clip.frame_count + 1)}
    there = {path.name for path in _our_frames(directory)}
    return (clip, names - there) if there <= names else (None, set())


def _clip(part: Part, frame_count: int) -> Clip:
    info = part.info
    return Clip(
        source=str(info.path.resolve()),
        frame_rate=info.frame_rate,
        pixel_aspect=info.pixel_aspect,
        has_audio=info.has_audio,
        frame_count=frame_count,
        audio_offset=part.audio_offset,
        first_frame=part.first_frame,
        end_frame=part.end_frame,
        panorama=info.panorama,
    )


def _extract_messages(info: VideoInfo, directory: Path, complaints: str) -> Iterator[str]:
    if complaints:
        yield f"{info.path} may be damaged; ffmpeg says: {complaints}"
    if not info.constant_rate:
        yield f"{info.path} has a variable frame rate; its frames are made {show_rate(info.frame_rate)} a second"
    if info.hdr:
        white = f"white at {info.hdr.white} cd/m2"
        yield f"{info.path} is HDR ({info.hdr.name}, {white}); its frames are tone-mapped to BT.709"
    if info.interlaced:
        yield f"{info.path} is interlaced; its frames are deinterlaced"
    others = [path.name for path in _pictures(directory) if not FRAME_NAME.fullmatch(path.name)]
    if others:
        yield f"{directory} also holds pictures that are not of {info.path}: {some_of(sorted(others))}"


def _our_frames(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if FRAME_NAME.fullmatch(path.name))


def _pictures(directory: Path) -> list[Path]:
    return [
        path
        for path in directory.iterdir()
        if image_type_of(path.suffix) and not path.name.startswith(".") and path.name != PREVIEW_NAME
    ]


def _check_no_frames(directory: Path) -> None:
    found = sorted(path.name for path in _pictures(directory)) if directory.is_dir() else []
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


def _make_frames(part: Part, work: Path, image_type: str, on_progress: Progress | None) -> tuple[Clip, str]:
    """Make the frames and their clip.json in the new directory ``work``. Gives the `Clip` and ffmpeg's complaints."""
    binary = _find_binary(part)

    def on_frame(done: int) -> None:
        if on_progress:
            on_progress(done, max(done, part.frame_count))

    with write_errors(work.parent), whole_directory(work):
        complaints = run_ffmpeg(_extract_graph(part, image_type, binary), work, binary, on_frame=on_frame)
        paths = _our_frames(work)
        if _can_seek(part) and len(paths) != part.frame_count:  # the file's index is wrong: read it from the start
            for path in paths:
                path.unlink()
            graph = _extract_graph(part, image_type, binary, seek=False)
            complaints = run_ffmpeg(graph, work, binary, on_frame=on_frame)
            paths = _our_frames(work)
        _check_damage(part, len(paths), complaints)
        for path in paths:  # on the disk before clip.json says so
            sync(path)
        clip = _clip(part, len(paths))
        write_clip(work, clip)
    return clip, complaints


def _check_damage(part: Part, frame_count: int, complaints: str) -> None:
    """`DreamError` where frames are lost. Numbers alone do not tell: headers may be wrong, packets show nothing."""
    info = part.info
    expected = part.frame_count + (int(info.missing_duration * info.frame_rate) if part.end_frame is None else 0)
    least = expected if info.constant_rate else expected - 1  # resampled, it ends up to a frame earlier
    if not frame_count or (complaints and frame_count < least):
        raise DreamError(
            f"{info.path} is damaged: only {frame_count} of about {expected} frames can be read ({complaints}); "
            "repair it first, for example with: ffmpeg -i damaged.mp4 repaired.mp4"
        )


def _find_binary(part: Part) -> str:
    """An ffmpeg that can extract a part. Raises `UsageError` where there is none that can tone-map."""
    return ffmpeg_binary(*(("zscale", "tonemap") if part.info.hdr else ()))


def _can_seek(part: Part) -> bool:
    """Whether to jump to a part instead of decoding all before it: far in, in a file with an index and known times."""
    info = part.info
    return part.first_frame > SEEK_AFTER and info.times is not None and info.demuxer in INDEXED and not info.interlaced


def _extract_graph(part: Part, image_type: str, binary: str, seek: bool = True) -> ffmpeg.nodes.OutputStream:
    """ffmpeg's graph from a video to numbered pictures in the directory it runs in."""
    info, filters = part.info, []
    jump: dict[str, str | int | None] = {}
    if info.interlaced:
        filters.append("bwdif=mode=send_frame:deint=interlaced")
    if not info.constant_rate:
        filters.append(f"fps={info.frame_rate}")
    if info.has_repeats:  # ffmpeg guesses how long the last frame is shown
        filters.append(f"tpad=stop_mode=clone:stop=-1,trim=end_frame={info.frame_count}")
    if seek and _can_seek(part) and info.times is not None:
        # With the file's own clock (copyts), and cut half way between two frames.
        edges = (info.times[1:] + info.times[:-1]) / 2
        start = edges[part.first_frame - 1]
        jump = {"ss": f"{start - SEEK_MARGIN:.6f}", "seek_timestamp": 1, "noaccurate_seek": None, "copyts": None}
        end = "" if part.end_frame is None else f":end={edges[part.end_frame - 1]:.6f}"
        filters.append(f"trim=start={start:.6f}{end}")
    elif part.first_frame or part.end_frame is not None:
        end = "" if part.end_frame is None else f":end_frame={part.end_frame}"
        filters.append(f"trim=start_frame={part.first_frame}{end}")
    if info.hdr:
        filters.append(TONE_MAP.format(tags=info.hdr.tags, white=info.hdr.white, peak=PEAKS[info.hdr.white]))
    # Frames count from here on: where two are shown at nearly the same time, ffmpeg's encoders complain or fail.
    filters.append(f"settb={FRAME_CLOCK},setpts=N")
    if image_type == "jpg":  # JPEG has one matrix and one range, whatever the video's are
        filters.append(f"scale=flags={SCALE_FLAGS}:out_color_matrix=bt601:out_range=pc,format=yuvj444p")
    else:
        filters.append(f"scale=flags={SCALE_FLAGS},format=rgb24")
    source = ffmpeg.input(file_url(info.path), format=info.demuxer, protocol_whitelist="file,pipe", **jump)
    return source[str(info.index)].output(
        f"image-%06d.{image_type}",  # a relative name: a % in the directory's would count as part of the pattern
        format="image2",
        vf=",".join(filters),
        enc_time_base=FRAME_CLOCK,
        **FRAME_OPTIONS[image_type],
        **_passthrough(binary),
    )


def _passthrough(binary: str) -> dict[str, str]:
    """The option that writes each frame once, whatever its time: its name is new in ffmpeg 5.1, the old gone by 9."""
    help_text = subprocess.run([binary, "-hide_banner", "-h", "long"], capture_output=True, check=False).stdout
    return {"fps_mode" if b"-fps_mode" in help_text else "vsync": "passthrough"}
