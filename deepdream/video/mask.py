"""A video of masks, such as of depth: its frames become a directory of masks inside the output."""

from collections.abc import Callable
from pathlib import Path

from deepdream.files.frames import is_picture
from deepdream.files.masks import check_count, find_masks
from deepdream.video.extract import extract
from deepdream.video.part import Part, open_part

MASK_DIRECTORY = "Mask"


def check_mask(mask: str | None, count: int) -> Part | None:
    """The video of masks for ``count`` frames; None where ``mask`` is no video. Raises `UsageError` for a wrong one."""
    if mask is None:
        return None
    if Path(mask).is_dir() or is_picture(mask):
        find_masks(mask, count)
        return None
    part = open_part(mask)
    check_count(mask, part.frame_count, count)
    return part


def mask_frames(
    part: Part, output: Path, overwrite: bool, on_progress: Callable[[int, int], None] | None = None
) -> str:
    """Extract the masks that `check_mask` found into a directory inside the output; its path."""
    extract(part, output / MASK_DIRECTORY, "png", overwrite, on_progress)
    return str(output / MASK_DIRECTORY)
