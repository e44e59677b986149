"""HDR video: how it is coded, and how bright its white is, which no file says.

ITU-R BT.2408 puts the white of SDR at 203 cd/m2 (58 % of PQ's signal, 75 % of HLG's), and phones are taken to do so.
Many converters, ffmpeg's zscale by default, put it at 100 cd/m2 instead, and then nothing is brighter. So where nothing
in a video is, that is taken for its white.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

REFERENCE_WHITE, DIM_WHITE = 203, 100  # cd/m2
# The transfer functions of HDR by their number in ITU-T H.273: what ffmpeg and people call them, and the signal of
# 125 cd/m2: `DIM_WHITE`, and what cameras allow above white.
TRANSFERS = {16: ("smpte2084", "PQ", 0.531), 18: ("arib-std-b67", "HLG", 0.669)}
UNSPECIFIED = 2  # in H.273
SAMPLES = 16  # key frames that are looked at
BRIGHTEST = 99.9  # per cent of the pixels are darker: coding makes a few brighter than they were


@dataclass(frozen=True)
class Hdr:
    """How an HDR video is coded: the ``name`` of its transfer function, ``tags`` for ffmpeg's setparams.

    The tags are that function's and, where the video leaves out the primaries or the matrix, those of BT.2020.
    ``white``: the luminance of SDR's white in it, in cd/m2.
    """

    name: str
    tags: str
    white: int = REFERENCE_WHITE


def find_hdr(container: InputContainer, video: VideoStream, beginning: Sequence[VideoFrame]) -> Hdr | None:
    """How a stream is coded if it is HDR; None for SDR of any depth. ``beginning``: its first frames, at least one.

    Seeks in the container.
    """
    first = beginning[0]
    if first.color_trc not in TRANSFERS:
        return None
    transfer, name, dim_signal = TRANSFERS[first.color_trc]
    primaries = ":color_primaries=bt2020" if first.color_primaries == UNSPECIFIED else ""
    matrix = ":colorspace=bt2020nc" if first.colorspace == UNSPECIFIED else ""
    is_dim = all(_brightness(frame) <= dim_signal for frame in chain(beginning, _samples(container, video)))
    return Hdr(name, f"color_trc={transfer}{primaries}{matrix}", DIM_WHITE if is_dim else REFERENCE_WHITE)


def _brightness(frame: VideoFrame) -> float:
    """The luma (0..1) of a frame's brightest parts."""
    return float(np.percentile(frame.to_ndarray(format="gray16le"), BRIGHTEST)) / 65535


def _samples(container: InputContainer, video: VideoStream) -> Iterator[VideoFrame]:
    """Key frames from all over a video; none where its file cannot be searched."""
    start, duration = video.start_time or 0, video.duration
    if duration is None and container.duration and video.time_base:
        duration = int(container.duration / av.time_base / video.time_base)
    for number in range(SAMPLES if duration else 0):
        try:
            container.seek(start + (duration or 0) * number // SAMPLES, stream=video)
            frame = next(container.decode(video), None)
        except av.FFmpegError:
            continue
        if frame:
            yield frame
