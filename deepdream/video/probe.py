"""What is in a video or sound file, read by PyAV: its picture, its timing, its sound."""

import math
import os
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from deepdream.errors import UsageError
from deepdream.options import (
    # The demuxers of real files. Playlists, scripts and patterns (hls, concat, image2 …) open other
    DEFAULT_FRAME_RATE,
)

# files than the one that was named, so none of them is here; nor are single pictures (png_pipe …).
DEMUXERS = (
    "mov matroska avi mpegts mpeg mpegvideo flv live_flv asf ogg mxf gxf gif apng wtv nut rm dv ivf h264 hevc vvc av1 "
    "obu m4v mjpeg h261 h263 vc1 yuv4mpegpipe dirac nsv dhav "
    "wav w64 mp3 flac aac loas aiff caf au ac3 eac3 dts truehd amr ape wv tta tak mpc mpc8 voc dsf"
).split()
NOT_A_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


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
    with open_media(path) as container:
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
    with open_media(path) as container:
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
    with open_media(path) as container:
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
def open_media(path):
    """An open `av` container of one real file, or a `UsageError`."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory, not a video or sound file")
    if not path.is_file():
        raise UsageError(f"{path} " + ("is not a file" if path.exists() else "does not exist"))
    try:
        whitelists = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "file"}
        container = av.open(file_url(path), options=whitelists)
    except av.FFmpegError as error:
        raise UsageError(
            f"{path} cannot be read as a video or sound file ({error.strerror}); "
            "expected one such as .mp4, .mov, .mkv, .webm or .avi, not a playlist or a picture"
        ) from error
    with container:
        yield container


def file_url(path):
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


def show_rate(rate):
    return f"{rate.numerator}" if rate.denominator == 1 else f"{float(rate):.3f}"
