"""What is in a video or sound file: its picture, its timing, its sound. Read by PyAV.

Only real local files are opened: playlists, scripts and patterns open other files than the one that was named.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TypeVar, cast, overload

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.frame import Frame
from av.packet import Packet
from av.sidedata.sidedata import SideData, Type
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deepdream.errors import UsageError
from deepdream.video.hdr import Hdr, find_hdr
from deepdream.video.timing import packets, read_timing

# The demuxers of films and sound, of those that open no other file (as hls, concat and image2 do); none of single
# pictures (png_pipe …).
DEMUXERS = (
    "mov matroska avi mpegts mpeg mpegvideo flv live_flv asf ogg mxf gxf gif apng wtv nut rm dv ivf h264 hevc vvc av1 "
    "obu m4v mjpeg h261 h263 vc1 yuv4mpegpipe dirac nsv dhav "
    "wav w64 mp3 flac aac loas aiff caf au ac3 eac3 dts truehd amr ape wv tta tak mpc mpc8 voc dsf"
).split()
EQUIRECTANGULAR = 0  # in FFmpeg's AVSphericalProjection
BEGINNING = 8  # frames that are decoded to see how a video is coded
NOT_A_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
S = TypeVar("S", bound=Stream)


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

    ``width`` and ``height`` in pixels and ``pixel_aspect`` (width by height of one pixel) are those of the upright
    frame. ``frame_count`` frames at ``frame_rate`` a second are what extracting gives: each of the file's where its
    rate is constant, else as many as keep its duration. ``missing_duration``: seconds that the file's header promises
    and the file does not hold, because it was cut off. ``times``: when each frame is shown, in seconds of the file's
    clock, where that is known of all of them. ``has_repeats``: see `Timing`. ``panorama``: see `Clip`.
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
    hdr: Hdr | None = None
    times: np.ndarray | None = field(default=None, compare=False, repr=False)
    has_repeats: bool = False
    panorama: str | None = None

    @property
    def has_audio(self) -> bool:
        return self.sound is not None

    @property
    def audio_offset(self) -> float:
        return self.sound.offset if self.sound else 0.0


def probe(path: str | Path) -> VideoInfo:
    """The `VideoInfo` of a video file. Reads it once from end to end, but decodes only its beginning.

    Raises `UsageError` where there is no such file, or it holds no video: cover art, a picture and a playlist are none.
    """
    path = Path(path)
    with open_media(path) as container:
        video, audio = _main_streams(container)
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
        if video.duration and video.time_base:
            promised = float(video.duration * video.time_base)
        else:
            promised = (container.duration or 0) / av.time_base - 1
        sound = _sound(path, demuxer, audio, sounds, _seconds_between(audio, sounds, video, frames))
        hdr = find_hdr(container, video, frames)
    with open_media(path) as container:
        timing = read_timing(container, index)
    return VideoInfo(
        path=path,
        demuxer=demuxer,
        index=index,
        width=first.height if sideways else first.width,
        height=first.width if sideways else first.height,
        pixel_aspect=1 / aspect if sideways else aspect,
        interlaced=any(frame.interlaced_frame for frame in frames),
        frame_rate=timing.frame_rate,
        constant_rate=timing.is_constant,
        frame_count=timing.frame_count,
        missing_duration=max(0.0, promised - timing.seconds),
        sound=sound,
        hdr=hdr,
        panorama=_panorama(frames[0]),
        times=timing.times,
        has_repeats=timing.has_repeats,
    )


def _panorama(frame: VideoFrame) -> str | None:
    """How an equirectangular frame is laid out for two eyes; None for any other. See `Clip`."""
    data = cast(Mapping[Type, SideData], frame.side_data)  # PyAV says that its keys are text
    projection, stereo = (_first_number(data.get(kind)) for kind in (Type.SPHERICAL, Type.STEREO3D))
    if projection != EQUIRECTANGULAR:
        return None
    return {None: "mono", 0: "mono", 1: "left-right", 2: "top-bottom"}.get(stereo)


def _first_number(data: SideData | None) -> int | None:
    """What a struct of FFmpeg's starts with: here, its kind."""
    return None if data is None else int.from_bytes(bytes(data)[:4], sys.byteorder)


def first_frames(path: str | Path, count: int) -> list[np.ndarray]:
    """The first pictures of a video file as it stores them: uint8 RGB (h, w, 3), neither turned nor tone-mapped."""
    with open_media(Path(path)) as container:
        stream, _ = _main_streams(container)
        assert stream is not None  # it has been probed
        return [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(stream), count)]


def find_sound(path: str | Path) -> Sound:
    """The `Sound` of a sound or video file. Raises `UsageError` where there is none that can be decoded."""
    path = Path(path)
    with open_media(path) as container:
        video, audio = _main_streams(container)
        frames, sounds = _beginning(container, video, audio) if audio else ([], [])
        demuxer = container.format.name.split(",")[0]
        sound = _sound(path, demuxer, audio, sounds, _seconds_between(audio, sounds, video, frames))
    if sound is None:
        raise UsageError(f"{path} has no sound that can be decoded")
    return sound


def _sound(
    path: Path, demuxer: str, audio: AudioStream | None, sounds: Sequence[AudioFrame], offset: float
) -> Sound | None:
    return Sound(path, demuxer, audio.index, audio.codec_context.channels, offset) if audio and sounds else None


def _seconds_between(
    stream: Stream | None, frames: Sequence[Frame], other_stream: Stream | None, other_frames: Sequence[Frame]
) -> float:
    """From the first frame of one stream to that of the other; 0 where a time is unknown."""
    start, other_start = _start(stream, frames), _start(other_stream, other_frames)
    return 0.0 if start is None or other_start is None else float(other_start - start)


def _start(stream: Stream | None, frames: Sequence[Frame]) -> Fraction | None:
    """When the first of ``frames`` is shown or heard, in seconds of the file's clock."""
    if not stream or not stream.time_base or not frames or frames[0].pts is None:
        return None
    return frames[0].pts * stream.time_base


@contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
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


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a video or sound file says of itself, by keys in lower case."""
    with open_media(Path(path)) as container:
        metadata = {key.lower(): value for key, value in container.metadata.items()}
        if container.format.name == "gif" and "\n" in metadata.get("comment", ""):  # it has room for one text
            metadata["comment"], _, metadata["description"] = metadata["comment"].partition("\n")
        return metadata


def file_url(path: str | Path) -> str:
    """A local file for ffmpeg: no name is then taken for an option, a protocol or a pattern."""
    return f"file:{os.path.abspath(path)}"


def _main_streams(container: InputContainer) -> tuple[VideoStream | None, AudioStream | None]:
    """The streams of picture and sound that ffmpeg would take, but only real ones that have a decoder."""
    streams = container.streams
    return _pick(streams.video, streams.best("video")), _pick(streams.audio, streams.best("audio"))


def _pick(streams: Sequence[S], best: Stream | None) -> S | None:
    real = [stream for stream in streams if stream.codec_context and not stream.disposition & NOT_A_FILM]
    return next((stream for stream in real if best and stream.index == best.index), next(iter(real), None))


def _beginning(
    container: InputContainer, video: VideoStream | None, audio: AudioStream | None
) -> tuple[list[VideoFrame], list[AudioFrame]]:
    """The first decoded frames of the two streams: `BEGINNING` of ``video``, one of ``audio``, or a few more."""
    pictures: list[VideoFrame] = []
    sounds: list[AudioFrame] = []
    for packet in packets(container, *(stream for stream in (video, audio) if stream)):
        if video and packet.stream_index == video.index and len(pictures) < BEGINNING:
            pictures += _decode(video, packet)
        elif audio and packet.stream_index == audio.index and not sounds:
            sounds += _decode(audio, packet)
        if (not video or len(pictures) >= BEGINNING) and (not audio or sounds):
            break
    else:  # a decoder holds back the frames of a very short clip
        pictures += _decode(video, None) if video else []
        sounds += _decode(audio, None) if audio else []
    return pictures, sounds


@overload
def _decode(stream: VideoStream, packet: Packet | None) -> list[VideoFrame]: ...
@overload
def _decode(stream: AudioStream, packet: Packet | None) -> list[AudioFrame]: ...
def _decode(stream: VideoStream | AudioStream, packet: Packet | None) -> Sequence[Frame]:
    """The frames a packet gives; None asks for those that the decoder holds back."""
    try:
        return stream.codec_context.decode(packet)
    except av.FFmpegError:
        return []  # a recording may start between key frames: what comes before the first cannot be decoded
