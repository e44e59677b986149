"""The part of a video that ``--start`` and ``--end`` name, exact to the frame.

Frames are counted as extracting the whole video counts them, so a part's frames are those of the whole, whatever the
rate, edit lists or the first time stamp. A frame belongs to the part if the time at which it is shown, from the first
frame's on, is in it.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from deepdream.errors import UsageError
from deepdream.options import PartOptions
from deepdream.video.probe import VideoInfo, probe

ROUNDING = Fraction(1, 2000)  # seconds: a frame's time rounded to milliseconds still names that frame


@dataclass(frozen=True)
class Part:
    """The frames of a video from number ``first_frame``, from 0, up to ``end_frame``, or its end where that is None."""

    info: VideoInfo
    first_frame: int = 0
    end_frame: int | None = None

    @property
    def frame_count(self) -> int:
        """How many frames extracting it should give."""
        return (self.info.frame_count if self.end_frame is None else self.end_frame) - self.first_frame

    @property
    def audio_offset(self) -> float:
        """Seconds of the video's sound that come before the part's first frame."""
        return self.info.audio_offset + float(self.first_frame / self.info.frame_rate)


def open_part(video: str | Path, options: PartOptions = PartOptions()) -> Part:
    """Find a part of a video file. Raises `UsageError` where it is no video, or the part is not within it."""
    info = probe(video)
    first = 0 if options.start is None else _frame_at(options.start, info)
    end = info.frame_count if options.end is None else _frame_at(options.end, info)
    length = f"{info.path} is {float(info.frame_count / info.frame_rate):.3f} seconds long"
    if options.start is not None and first >= info.frame_count:
        raise UsageError(f"--start {options.start}: {length}")
    if options.end is not None and end > info.frame_count:
        raise UsageError(f"--end {options.end}: {length}")
    if first >= end:
        raise UsageError(f"no frame of {info.path} is shown between --start and --end; choose a longer part")
    return Part(info, first, None if end == info.frame_count else end)


def _frame_at(seconds: float, info: VideoInfo) -> int:
    """The number of the first frame that is shown at a time or after it."""
    return max(0, math.ceil((Fraction(seconds) - ROUNDING) * info.frame_rate))
