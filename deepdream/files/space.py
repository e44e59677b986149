"""Whether frames will fit on the disk: an estimate before any work, for one line to the user."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepdream.files.frames import encode_frame

# Measured: extracted frames of real clips take 0.8 to 1.9 bytes a pixel as PNG and 0.2 to 0.4 as JPEG, dreams of them
# 1.7 to 2.2 and 0.5.
BYTES_A_PIXEL = {"png": 2.0, "jpg": 0.5}

FIRST_FRAMES = 2  # are looked at


def frame_bytes(pixels: int, image_type: str, first: Sequence[np.ndarray] = ()) -> int:
    """About how many bytes a frame of so many pixels takes as ``"png"`` or ``"jpg"``.

    As many a pixel as the ``first`` frames, uint8 RGB (h, w, 3), where those take more than most: clips start black.
    """
    rates = [len(encode_frame(frame, image_type)) / (frame.size / 3) for frame in first]
    return int(max([BYTES_A_PIXEL[image_type], *rates]) * pixels)


def space_warning(directory: str | Path, needed: int, remedy: str) -> list[str]:
    """A line where ``needed`` bytes of frames will hardly fit on the disk of a directory, which may not exist yet.

    ``remedy``: what the user may take instead.
    """
    place = Path(directory).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed <= free:
        return []
    return [
        f"the frames will take about {_show(needed)}, and {_show(free)} are free in {place}; "
        f"make room, or take {remedy}"
    ]


def _show(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
