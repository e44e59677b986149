"""One frame of whatever can be dreamed over: a picture, a directory of frames or a video."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from deepdream.errors import UsageError
from deepdream.files.frames import is_picture, open_frames, read_frame
from deepdream.files.masks import check_count, resize_mask
from deepdream.options import PartOptions
from deepdream.video.extract import extract
from deepdream.video.part import Part, open_part


@dataclass(frozen=True)
class Still:
    """A frame, uint8 RGB (h, w, 3): its ``number`` among the ``count`` of its source, from 0, and its ``name``."""

    name: str
    picture: np.ndarray
    number: int = 0
    count: int = 1


def open_still(
    source: Path,
    number: int | None = None,
    part: PartOptions = PartOptions(),
    image_type: str | None = None,
    leave_out: Iterable[str] = (),
) -> Still:
    """Frame ``number`` of a source, or the middle one for None. ``part``: of a video; the others as for `open_frames`.

    Raises `UsageError` where there is no such frame, or the source is none.
    """
    if source.is_dir():
        paths = open_frames(source, image_type, leave_out).paths
        number = _choose(number, len(paths), source)
        return Still(paths[number].name, read_frame(paths[number]), number, len(paths))
    if is_picture(source):
        return Still(source.name, read_frame(source), _choose(number, 1, source))
    whole = open_part(source, part)
    number = _choose(number, whole.frame_count, source)
    place = whole.first_frame + number
    with TemporaryDirectory(prefix="deepdream-") as directory:
        extract(Part(whole.info, place, place + 1), directory)
        return Still(source.name, read_frame(open_frames(directory).paths[0]), number, whole.frame_count)


def open_mask(path: str, still: Still, size: tuple[int, int]) -> np.ndarray:
    """The mask of a frame, of ``size`` (w, h): see `deepdream.files.masks`. ``path``: a picture, directory or video."""
    is_one = is_picture(path)
    mask = open_still(Path(path), 0 if is_one else still.number)
    if not is_one:
        check_count(path, mask.count, still.count)
    return resize_mask(np.asarray(Image.fromarray(mask.picture).convert("L")), size)


def _choose(number: int | None, count: int, source: Path) -> int:
    if number is not None and number >= count:
        raise UsageError(f"--frame {number}: {source} has frames 0 to {count - 1}")
    return count // 2 if number is None else number
