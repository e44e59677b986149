"""Videos: what is in one (`probe`), its frames (`extract`), and a video made of frames (`create`).

PyAV reads what a file holds, ffmpeg does the work. Pure functions build ffmpeg's graph with
ffmpeg-python; `_run` alone runs it, from an argument list and never through a shell.
"""

import hashlib
import math
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import ffmpeg
import numpy as np
from av.stream import Disposition

from deepdream.errors import DreamError, UsageError
from deepdream.files import make_directory, part_path
from deepdream.frames import (
    CLIP_NAME, PREVIEW_NAME, Clip, check_sizes, missing_numbers, open_frames, read_clip, read_frame, write_clip,
)
from deepdream.options import DEFAULT_FRAME_RATE, IMAGE_TYPES, NO_AUDIO

# The demuxers of real files. Playlists, scripts and patterns (hls, concat, image2 …) open other
# files than the one that was named, so none of them is here; nor are single pictures (png_pipe …).
DEMUXERS = (
    "mov matroska avi mpegts mpeg mpegvideo flv live_flv asf ogg mxf gxf gif apng wtv nut rm dv ivf h264 hevc vvc av1 "
    "obu m4v mjpeg h261 h263 vc1 yuv4mpegpipe dirac nsv dhav "
    "wav w64 mp3 flac aac loas aiff caf au ac3 eac3 dts truehd amr ape wv tta tak mpc mpc8 voc dsf"
).split()
MUXERS = {  # by the ending of the video's name: ffmpeg's name of the container, and its options
    ".mp4": ("mp4", {"movflags": "+faststart"}),
    ".m4v": ("mp4", {"movflags": "+faststart"}),
    ".mov": ("mov", {"movflags": "+faststart"}),
    ".mkv": ("matroska", {}),
}
NOT_A_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
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


# --- What is in a file -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Sound:
    """A sound track: stream ``index`` of the file ``path``, which the demuxer ``demuxer`` reads.

    ``offset``: seconds of it that come before the file's first frame; negative where it starts after.
    """

    path: Path
    demuxer: str
    index: int
    channels: int
    offset: float


@dataclass(frozen=True)
class VideoInfo:
    """The picture of a video file, and its `Sound` if it has one.

    ``width`` and ``height`` in pixels and ``pixel_aspect`` (width by height of one pixel) are those of
    the upright frame. ``frame_count`` frames at ``frame_rate`` a second are what extracting gives:
    each of the file's where its rate is constant, else as many as keep its duration. ``missing_duration``:
    seconds that the file's header promises and the file does not hold, because it was cut off.
    """

    path: Path
    demuxer: str
    index: int
    width: int
    height: int
    pixel_aspect: Fraction
    interlaced: bool
    frame_rate: Fraction
    constant_rate: bool
    frame_count: int
    missing_duration: float
    sound: Sound | None

    @property
    def has_audio(self):
        return self.sound is not None

    @property
    def audio_offset(self):
        return self.sound.offset if self.sound else 0.0


def probe(path):
    """The `VideoInfo` of a video file. Reads it once from end to end, but decodes only its beginning.

    Raises `UsageError` where there is no such file, or it holds no video: cover art, a picture and a
    playlist are none.
    """
    path = Path(path)
    with _open(path) as container:
        video, audio = _pick(container, "video"), _pick(container, "audio")
        if video is None:
            raise UsageError(f"{path} has no video stream; -i takes a video or a directory of frames")
        index = video.index  # a stream cannot be asked once its file is closed
        frames, sounds = _beginning(container, video, audio)
        if not frames:
            raise UsageError(f"{path}: no frame of its {video.codec_context.name} video can be decoded")
        first = frames[0]
        sideways = round(first.rotation / 90) % 2 == 1
        aspect = Fraction(video.sample_aspect_ratio or 1).limit_denominator(1000)
        demuxer = container.format.name.split(",")[0]
        # Where only the whole file's duration is known, its sound may be what lasts a little longer.
        promised = video.duration * video.time_base if video.duration else (container.duration or 0) / av.time_base - 1
        sound = _sound(path, demuxer, audio, sounds, _seconds_between(audio, sounds, video, frames))
    with _open(path) as container:
        rate, constant, count, seconds = _timing(container, container.streams[index])
    return VideoInfo(
        path=path,
        demuxer=demuxer,
        index=index,
        width=first.height if sideways else first.width,
        height=first.width if sideways else first.height,
        pixel_aspect=1 / aspect if sideways else aspect,
        interlaced=any(frame.interlaced_frame for frame in frames),
        frame_rate=rate,
        constant_rate=constant,
        frame_count=count,
        missing_duration=max(0.0, float(promised - seconds)),
        sound=sound,
    )


def find_sound(path):
    """The `Sound` of a sound or video file. Raises `UsageError` where there is none that can be decoded."""
    path = Path(path)
    with _open(path) as container:
        video, audio = _pick(container, "video"), _pick(container, "audio")
        frames, sounds = _beginning(container, video, audio) if audio else ([], [])
        demuxer = container.format.name.split(",")[0]
        sound = _sound(path, demuxer, audio, sounds, _seconds_between(audio, sounds, video, frames))
    if sound is None:
        raise UsageError(f"{path} has no sound that can be decoded")
    return sound


def _sound(path, demuxer, audio, sounds, offset):
    return Sound(path, demuxer, audio.index, audio.codec_context.channels, offset) if sounds else None


def _seconds_between(stream, frames, other_stream, other_frames):
    """From the first frame of one stream to that of the other; 0 where a time is unknown."""
    if not frames or not other_frames or frames[0].pts is None or other_frames[0].pts is None:
        return 0.0
    return float(other_frames[0].pts * other_stream.time_base - frames[0].pts * stream.time_base)


@contextmanager
def _open(path):
    """An open `av` container of one real file, or a `UsageError`."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory, not a video or sound file")
    if not path.is_file():
        raise UsageError(f"{path} " + ("is not a file" if path.exists() else "does not exist"))
    try:
        container = av.open(_url(path), options={"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise UsageError(
            f"{path} cannot be read as a video or sound file ({error.strerror}); "
            "expected one such as .mp4, .mov, .mkv, .webm or .avi, not a playlist or a picture"
        ) from error
    with container:
        yield container


def _url(path):
    # With the protocol said and the path absolute, no name is taken for an option, a protocol or a pattern.
    return f"file:{os.path.abspath(path)}"


def _pick(container, kind):
    """The stream of ``kind`` that ffmpeg takes for the main one, of those that are real and have a decoder."""
    streams = [
        stream
        for stream in getattr(container.streams, kind)
        if stream.codec_context is not None and not stream.disposition & NOT_A_FILM
    ]
    best = container.streams.best(kind)
    return next((stream for stream in streams if best and stream.index == best.index), next(iter(streams), None))


def _packets(container, *streams):
    """The packets that hold something, up to the end or to where the file is broken off."""
    try:
        yield from (packet for packet in container.demux(*streams) if packet.size)
    except av.FFmpegError:
        return  # ffmpeg stops here too, and says so: extract reports it


def _beginning(container, video, audio):
    """The first decoded frames of the two streams: up to 8 of ``video``, one of ``audio``; each may be None."""
    wanted = {stream.index: count for stream, count in ((video, 8), (audio, 1)) if stream}
    found = {index: [] for index in wanted}
    for packet in _packets(container, *(stream for stream in (video, audio) if stream)):
        frames = found[packet.stream_index]
        if len(frames) < wanted[packet.stream_index]:
            frames += _decode(packet.stream, packet)
        if all(len(found[index]) >= count for index, count in wanted.items()):
            break
    else:
        for index, frames in found.items():  # a decoder holds back the frames of a very short clip
            frames += _decode(container.streams[index], None)
    return [found.get(stream.index, []) if stream else [] for stream in (video, audio)]


def _decode(stream, packet):
    """The frames a packet gives; None asks for those that the decoder holds back."""
    try:
        return stream.codec_context.decode(packet)
    except av.FFmpegError:
        return []  # a recording may start between key frames: what comes before the first cannot be decoded


def _timing(container, video):
    """(frame rate, is it constant, number of frames, seconds) of a stream, from when each of its packets is shown.

    The seconds are those of all packets, shown or not.
    """
    packets = [  # not themselves: they hold the whole video
        (packet.dts if packet.pts is None else packet.pts, packet.duration or 0, packet.is_keyframe, packet.is_discard)
        for packet in _packets(container, video)
    ]
    hints = [rate for rate in (video.average_rate, video.guessed_rate) if rate]
    timed = [packet for packet in packets if packet[0] is not None]
    # What leans on a frame before the first key frame is never decoded; what an edit list discards is never shown.
    start = min((ticks for ticks, _, is_key, _ in timed if is_key), default=-math.inf)
    shown = sorted((ticks, duration) for ticks, duration, _, discard in timed if ticks >= start and not discard)
    if not shown:
        rate = (hints + [DEFAULT_FRAME_RATE])[0]
        return rate, True, len(packets), len(packets) / rate
    ticks, last_duration = np.array([ticks for ticks, _ in shown]), shown[-1][1]
    rate, constant = _frame_rate(ticks, last_duration, video.time_base, hints)
    seconds = (max(ticks + duration for ticks, duration, *_ in timed) - min(timed)[0]) * video.time_base
    if constant:
        return rate, True, len(packets) - len(timed) + len(shown), seconds
    return rate, False, round(int(ticks[-1] - ticks[0] + last_duration) * video.time_base * rate), seconds


def _frame_rate(ticks, last_duration, time_base, hints):
    """(frames a second, is that constant) of frames shown at ``ticks``, sorted, in units of ``time_base`` seconds.

    Constant is a rate that puts each frame at its time, but for the rounding of the time base or, failing that, for a
    jitter of less than half a frame: a dropped frame is a whole one. Else the rate is the one most frames come at.
    """
    if len(ticks) == 1:
        return (hints + [1 / (last_duration * time_base) if last_duration else DEFAULT_FRAME_RATE])[0], True
    mean = Fraction(int(ticks[-1] - ticks[0]), len(ticks) - 1)
    if mean and last_duration < 2 * mean:
        measured = (1 / (mean * time_base)).limit_denominator(100_000)
        for tolerance in (0.001, min(2, mean / 4), mean / 2):  # in ticks: exact, rounded, jittering
            for rate in (*_common_rates(measured), *hints, measured):
                late = ticks - np.arange(len(ticks)) / float(rate * time_base)
                if np.ptp(late) <= tolerance:
                    return rate, True
    intervals = np.sort(np.diff(ticks))
    intervals = intervals[intervals > 0]
    usual = int(intervals[len(intervals) // 2]) if len(intervals) else last_duration or 1
    measured = (1 / (usual * time_base)).limit_denominator(100_000)
    common = (rate for rate in _common_rates(measured) if abs(1 / (rate * time_base) - usual) <= 1)
    return next(common, measured), False


def _common_rates(rate):
    """The rates next to ``rate`` of the kinds 25 and 30000/1001, the nearer one first."""
    ntsc = Fraction(1000, 1001)
    rates = [common for common in (Fraction(round(rate)), round(rate / ntsc) * ntsc) if common > 0]
    return sorted(rates, key=lambda common: abs(common - rate))


# --- Running ffmpeg --------------------------------------------------------------------------------


def ffmpeg_binary():
    """The ffmpeg on PATH, else the one of imageio-ffmpeg. Raises `DreamError` where there is neither."""
    binary = shutil.which("ffmpeg")
    if binary:
        return binary
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise DreamError(
            "no ffmpeg: put one on PATH (https://ffmpeg.org/download.html), or pip install imageio-ffmpeg"
        ) from None


def _run(graph, directory, pictures=None, on_frame=None):
    """Run ffmpeg on ``graph`` in ``directory``; returns what it complained of although it succeeded, often "".

    ``pictures``: iterable of bytes for its standard input. ``on_frame(done)`` hears how many frames are written.
    Raises `DreamError` with ffmpeg's own last words where it fails. It never outlives this call.
    """
    arguments = ["-hide_banner", "-loglevel", "error", "-nostats", "-progress", "pipe:1"]
    arguments += ["-nostdin"] if pictures is None else []
    command = graph.global_args(*arguments).compile(cmd=ffmpeg_binary(), overwrite_output=True)
    with tempfile.TemporaryFile() as log:  # not a pipe: nothing would empty it while frames are fed
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL if pictures is None else subprocess.PIPE,
            stdout=subprocess.PIPE if pictures is None else subprocess.DEVNULL,
            stderr=log,
            bufsize=0,
        )
        try:
            fed = _follow(process.stdout, on_frame) if pictures is None else _feed(process.stdin, pictures)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        log.seek(0)
        words = _last_words(log.read().decode(errors="replace"))
    if status != 0 or not fed:
        raise DreamError(f"ffmpeg failed: {words or f'exit status {status}'}")
    return words


def _follow(pipe, on_frame):
    for line in pipe:
        if on_frame and line.startswith(b"frame="):
            on_frame(int(line.removeprefix(b"frame=")))
    return True


def _feed(pipe, pictures):
    """Write all; False where ffmpeg stopped reading."""
    for picture in pictures:
        rest = memoryview(picture)
        while rest:
            try:
                rest = rest[pipe.write(rest):]
            except OSError:
                return False  # ffmpeg is gone; its status and its words say why
    pipe.close()
    return True


def _last_words(text):
    """The last lines of ffmpeg's log that tell something, as one line."""
    lines = [re.sub(r"^(\[[^]]* @ 0x[0-9a-f]+\] )+", "", line.strip()) for line in text.splitlines()]
    hollow = (
        *("Conversion failed!", "Nothing was written", "Error opening output file"),
        *("Task finished", "Terminating thread", "Last message repeated"),
    )
    lines = [line for line in lines if line and not line.startswith(hollow)]
    return "; ".join(dict.fromkeys(lines[-3:]))


@contextmanager
def _new_directory(path):
    """A new directory for ffmpeg to work in, deleted if the block fails.

    The one that a killed run left behind makes way. Its ffmpeg may live a moment longer: names relative to a directory
    that is gone lead nowhere, so nothing it still writes gets among the new files.
    """
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
    part = directory / PART_DIRECTORY
    clip, moved = _ready_to_move(part, directory, info, image_type)
    if not moved:
        _check_directory(directory, overwrite)
    complaints = ""
    if clip is None:
        clip, complaints = _extract_part(info, make_directory(directory), image_type, on_progress)
    if not moved:
        _remove_frames(directory)
    for path in (*_our_frames(part), part / CLIP_NAME):
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
    clip = read_clip(part)
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
        complaints = _run(
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
    source = ffmpeg.input(_url(info.path), format=info.demuxer, protocol_whitelist="file,pipe")
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
    muxer = _muxer(video)
    frames = open_frames(directory, image_type)
    _check_numbers(frames)
    plan, messages = _plan(frames, muxer, options)
    comment = f"deepdream {_digest(frames.paths, plan)}"
    created = Created(video, len(frames.paths), plan.frame_rate, tuple(messages))
    if video.exists() and not overwrite:
        if _comment(video) != comment:
            raise UsageError(f"{video} exists and is not the video of {directory}; replace it with --overwrite")
        return replace(created, messages=(*messages, f"{video} is already made of these frames"))
    make_directory(video.parent)
    with _new_directory(part_path(video)) as part:
        pictures = _pictures_to_feed(frames.paths, plan.size, on_progress)
        _run(_create_graph(plan, "video", comment), part, pictures=pictures)
        _sync(part / "video")
        _move(part / "video", video)
    part.rmdir()
    return created


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
    width, height = check_sizes(frames.paths)
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
        state = plan.sound.path.stat()
        digest.update(repr((state.st_size, state.st_mtime_ns)).encode())
    for path in paths:
        data = path.read_bytes()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _comment(video):
    """The comment in a video's metadata; None where it has none or is no video."""
    try:
        with _open(video) as container:
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
    source = ffmpeg.input(_url(sound.path), format=sound.demuxer, protocol_whitelist="file,pipe")
    track = source[str(sound.index)].filter("asetpts", f"PTS-STARTPTS+({plan.sound_shift:.6f})/TB")
    # Silence where the sound starts late or has a gap; what would come before the start is cut.
    track = track.filter("aresample", **{"async": 1, "first_pts": 0})
    return track if plan.sound_end is None else track.filter("atrim", end=f"{plan.sound_end:.6f}")
