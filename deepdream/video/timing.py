"""When the frames of a video are shown: its frame rate, whether that is constant, and how many frames there are."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from deepdream.options import DEFAULT_FRAME_RATE

MAX_SPARSE_RATE = 60  # frames a second: a higher one is that of a clock


class Timing(NamedTuple):
    """When the frames of a stream are shown. ``seconds``: how long all its packets last, shown or not.

    ``has_repeats``: some packets only say that the frame before is shown once more; no decoder gives a frame for them.
    """

    frame_rate: Fraction
    is_constant: bool
    frame_count: int
    seconds: float
    times: np.ndarray | None = None
    has_repeats: bool = False


def packets(container: InputContainer, *streams: Stream) -> Iterator[Packet]:
    """The packets that show something, up to the end or to where the file is broken off."""
    try:
        yield from (packet for packet in container.demux(*streams) if packet.size or is_repeat(packet))
    except av.FFmpegError:
        return  # ffmpeg stops here too, and says so: extract reports it


def is_repeat(packet: Packet) -> bool:
    """Whether it shows the frame before it once more: Theora's way of saying that nothing changes."""
    return not packet.size and packet.pts is not None and packet.stream.codec_context.name == "theora"


def read_timing(container: InputContainer, index: int) -> Timing:
    """The `Timing` of the video stream ``index``, from when each of its packets is shown."""
    video = container.streams[index]
    assert isinstance(video, VideoStream)
    time_base = video.time_base or Fraction(1, av.time_base)
    hints = [rate for rate in (video.average_rate, video.guessed_rate) if rate]
    timed: list[tuple[int, int, bool, bool]] = []  # not the packets themselves: they hold the whole video
    untimed, has_repeats = 0, False
    is_avi = container.format.name == "avi"  # which holds no pts: ffmpeg guesses, and not always well
    for packet in packets(container, video):
        ticks = packet.dts if packet.pts is None or is_avi else packet.pts
        has_repeats = has_repeats or is_repeat(packet)
        if ticks is None:
            untimed += 1
        else:
            timed.append((ticks, packet.duration or 0, packet.is_keyframe, packet.is_discard))
    # What refers to a frame before the first key frame is never decoded; what an edit list discards is never shown.
    start = min((ticks for ticks, _, is_key, _ in timed if is_key), default=-math.inf)
    shown = sorted((ticks, duration) for ticks, duration, _, discard in timed if ticks >= start and not discard)
    if not shown:
        rate, count = (hints + [DEFAULT_FRAME_RATE])[0], untimed + len(timed)
        return Timing(rate, True, count, float(count / rate))
    times, last_duration = np.array([ticks for ticks, _ in shown]), shown[-1][1]
    rate, is_constant = find_rate(times, last_duration, time_base, hints)
    seconds = (max(ticks + duration for ticks, duration, *_ in timed) - min(timed)[0]) * time_base
    if is_constant and not has_repeats:
        known = None if untimed else times * float(time_base)
        return Timing(rate, True, untimed + len(shown), float(seconds), known)
    count = round(int(times[-1] - times[0] + last_duration) * time_base * rate)
    return Timing(rate, False, count, float(seconds), has_repeats=has_repeats)


def find_rate(
    ticks: np.ndarray, last_duration: int, time_base: Fraction, hints: list[Fraction]
) -> tuple[Fraction, bool]:
    """(frames a second, is that constant) of frames shown at ``ticks``, sorted, in units of ``time_base`` seconds.

    Constant is a rate that puts each frame at its time, but for the rounding of the time base or, failing that, for a
    jitter of less than half a frame: a dropped frame is a whole one. Else the rate is the one of which only whole
    frames are dropped, where the file's header names it (screens are recorded so), or the one most frames come at.
    """
    if len(ticks) == 1:
        return (hints + [1 / (last_duration * time_base) if last_duration else DEFAULT_FRAME_RATE])[0], True
    mean = Fraction(int(ticks[-1] - ticks[0]), len(ticks) - 1)
    if mean and last_duration < 2 * mean:
        measured = (1 / (mean * time_base)).limit_denominator(100_000)
        for tolerance in (0.001, min(2.0, float(mean / 4)), float(mean / 2)):  # in ticks: exact, rounded, jittering
            for rate in (*_common_rates(measured), *hints, measured):
                late = ticks - np.arange(len(ticks)) / float(rate * time_base)
                if np.ptp(late) <= tolerance:
                    return rate, True
    for rate in hints:
        frames = (ticks - ticks[0]) * float(rate * time_base)
        if rate <= MAX_SPARSE_RATE and abs(frames - frames.round()).max() <= min(0.25, float(rate * time_base)):
            return rate, False
    intervals = np.sort(np.diff(ticks))
    intervals = intervals[intervals > 0]
    usual = int(intervals[len(intervals) // 2]) if len(intervals) else last_duration or 1
    measured = (1 / (usual * time_base)).limit_denominator(100_000)
    common = (rate for rate in _common_rates(measured) if abs(1 / (rate * time_base) - usual) <= 1)
    return next(common, measured), False


def _common_rates(rate: Fraction) -> list[Fraction]:
    """The rates next to ``rate`` of the kinds 25 and 30000/1001, the nearer one first."""
    ntsc = Fraction(1000, 1001)
    rates = [common for common in (Fraction(round(rate)), round(rate / ntsc) * ntsc) if common > 0]
    return sorted(rates, key=lambda common: abs(common - rate))


def show_rate(rate: Fraction) -> str:
    """A frame rate as people write it: 25, or 29.970."""
    return f"{rate.numerator}" if rate.denominator == 1 else f"{float(rate):.3f}"
