"""Masks: where a frame dreams. White dreams, black keeps the source, grey is in between.

A mask is uint8 (h, w).
"""

from pathlib import Path

import numpy as np
from PIL import Image

from deepdream.errors import UsageError
from deepdream.files.frames import open_frames, read_frame, read_size


def find_masks(path: str, count: int) -> tuple[Path, ...]:
    """The mask files of ``count`` frames: one for all, or one each, of a directory. Raises `UsageError`."""
    if not Path(path).is_dir():
        read_frame(path)
        return (Path(path),) * count
    masks = open_frames(path).paths
    check_count(path, len(masks), count)
    for mask in masks:
        read_size(mask)
    return masks


def check_count(path: str, masks: int, count: int) -> None:
    """Raise `UsageError` where there are not as many masks as frames."""
    if masks != count:
        raise UsageError(
            f"--mask {path}: {masks} masks for {count} frames; give a mask a frame, or one picture for all"
        )


def read_mask(path: str | Path, size: tuple[int, int], content: bytes | memoryview | None = None) -> np.ndarray:
    """A mask file as it is for frames of ``size`` (w, h). ``content``: its bytes, where they have been read."""
    return np.asarray(_resized(Image.fromarray(read_frame(path, content)).convert("L"), size))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at another size (w, h), linearly, averaged where it shrinks. Black and white stay what they are."""
    return np.asarray(_resized(Image.fromarray(mask), size))


def weights(mask: np.ndarray) -> np.ndarray:
    """How much of a dream each pixel gets: float32 in 0..1."""
    return mask.astype(np.float32) / 255


def _resized(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)
