"""Directories of frames: which frames there are, reading one, writing one.

Every picture becomes 8-bit RGB (h, w, 3), upright. One that cannot be used is a `UsageError` that names its file.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path
from threading import Lock

import numpy as np
from isal import isal_zlib
from natsort import natsorted, ns
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo, putchunk

from deepdream.errors import UsageError
from deepdream.files.atomic import write_whole
from deepdream.options import IMAGE_TYPES, PICTURE_ENDINGS

PREVIEW_NAME = "preview.jpg"  # the live picture of a run: no frame
JPEG_QUALITY = 95
PNG_SIGNATURE, PNG_AVERAGE = b"\x89PNG\r\n\x1a\n", 3
PNG_COMPRESSION = 1  # of ISA-L's 0 to 3: 2 and 3 take longer for no less space
PNG_STRIP = 1 << 18  # bytes that are filtered and compressed at a time, and stay in the processor's cache
NOTE_KEY = "Comment"  # of a PNG's text
MAX_JPEG_COMMENT = 65_533  # bytes
MAX_FRAME_PIXELS = 2**28  # a 16K panorama fits twice
# Some of Pillow's other readers start programs (EPS) or open further files.
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
END_MARKS = (b"IEND\xaeB`\x82", b"\xff\xd9")  # of PNG and JPEG; cameras may add something after it
END_SPAN = 4096  # bytes at the end in which to look for it
_OPEN_LOCK = Lock()  # to open a picture changes settings of the whole process for as long


class Animated(UsageError):
    """A picture file holds several pictures: a little video."""


@dataclass(frozen=True)
class FrameDirectory:
    """The frames of a directory, ``paths``, in natural order of their names (2 before 10), all of one type."""

    path: Path
    paths: tuple[Path, ...]
    image_type: str

    @cached_property
    def size(self) -> tuple[int, int]:
        """The one (width, height) of all the frames. Raises `UsageError`: see `check_sizes`."""
        return check_sizes(self.paths)


def open_frames(
    directory: str | Path, image_type: str | None = None, leave_out: Iterable[str | Path] = ()
) -> FrameDirectory:
    """The frames in ``directory`` as a `FrameDirectory`.

    ``image_type``: ``"jpg"``, ``"png"``, or None for the one that is there. ``leave_out``: paths that
    are no frames (the guide). Hidden files are none either. Raises `UsageError` where there is no such
    directory, it holds no frame, or it holds both types and ``image_type`` does not choose.
    """
    directory = Path(directory)
    if not directory.is_dir():
        what = "is a file, not a directory of frames" if directory.exists() else "does not exist"
        raise UsageError(f"{directory} {what}; -i takes a directory of frames, a video or a picture")
    unwanted = {Path(path).resolve() for path in leave_out}
    files = [
        path
        for path in directory.iterdir()
        if not path.name.startswith(".")
        and path.name != PREVIEW_NAME
        and path.is_file()
        and path.resolve() not in unwanted
    ]
    by_type = {
        kind: [path for path in files if path.suffix.lower() in endings] for kind, endings in IMAGE_TYPES.items()
    }
    found = [kind for kind, paths in by_type.items() if paths]
    if image_type is None and len(found) > 1:
        raise UsageError(f"{directory} holds both jpg and png frames; say which with -it jpg or -it png")
    image_type = image_type or (found[0] if found else None)
    if image_type not in found:
        instead = f" (it holds {found[0]}; use -it {found[0]})" if found else ""
        raise UsageError(f"{directory} holds no {image_type or 'jpg or png'} frames{instead}")
    paths = natsorted(by_type[image_type], key=lambda path: path.name, alg=ns.PATH)
    return FrameDirectory(directory, tuple(paths), image_type)


def missing_numbers(paths: Iterable[str | Path]) -> list[int]:
    """The numbers missing in names that count (``frame_000001.png`` …), at most 1000; empty where names hold none."""
    numbers = [re.findall(r"\d+", Path(path).stem) for path in paths]
    if not all(numbers):
        return []
    present = sorted({int(found[-1]) for found in numbers})
    gaps = (number for low, high in pairwise(present) for number in range(low + 1, high))
    return list(islice(gaps, 1000))  # names may end in dates, and those lie far apart


@contextmanager
def _pixel_limit() -> Iterator[None]:
    """Let Pillow refuse pictures of more than `MAX_FRAME_PIXELS`: twice its limit."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_FRAME_PIXELS // 2
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


@contextmanager
def open_picture(path: str | Path, content: bytes | memoryview | None = None) -> Iterator[Image.Image]:
    """Open a picture file, or its ``content``. Whatever goes wrong in the block is a `UsageError` that names it."""
    with _OPEN_LOCK, warnings.catch_warnings(), _pixel_limit():
        # Pillow warns of damage, which is an error here, and of sizes above half the limit, which are allowed.
        warnings.simplefilter("ignore")
        try:
            with Image.open(path if content is None else io.BytesIO(content), formats=PICTURE_FORMATS) as picture:
                # The further pictures of an MPO are previews of the first.
                if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
                    raise Animated(f"{path} is animated; a frame is one picture (extract it with -e 1)")
                yield picture
        except UsageError:
            raise
        except FileNotFoundError:
            raise UsageError(f"{path} does not exist") from None
        except Image.DecompressionBombError:
            raise UsageError(f"{path} has more than {MAX_FRAME_PIXELS:,} pixels; a frame must be smaller") from None
        except Image.UnidentifiedImageError:
            raise UsageError(f"{path} is not a picture that can be read") from None
        except Exception as error:  # Pillow's readers raise whatever the damage makes them stumble over
            raise UsageError(f"{path} is damaged: {error}; make it again") from error


def is_picture(path: str | Path) -> bool:
    """Whether a file is one picture, and no video: by what it holds, or by its ending where it is damaged."""
    try:
        with open_picture(path):
            return True
    except Animated:
        return False
    except UsageError:
        return Path(path).is_file() and Path(path).suffix.lower() in PICTURE_ENDINGS


def read_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of a picture as it will be read, from its header alone."""
    with open_picture(path) as picture:
        sideways = Image.Image.getexif(picture).get(0x0112, 1) >= 5  # PngImageFile's own decodes the whole picture
        return (picture.height, picture.width) if sideways else picture.size


def read_frame(path: str | Path, content: bytes | memoryview | None = None) -> np.ndarray:
    """A picture as uint8 RGB (h, w, 3), upright, whatever its file holds.

    Grey, palette, 16-bit and CMYK are converted, alpha is dropped, EXIF rotation applied. ``content``: the bytes of
    the file, where they have been read. Raises `UsageError` where the file is missing, damaged, animated, or no
    picture.
    """
    with open_picture(path, content) as picture:
        ImageOps.exif_transpose(picture, in_place=True)
        return to_rgb(picture)


def to_rgb(picture: Image.Image) -> np.ndarray:
    """A picture as uint8 RGB (h, w, 3); 16-bit grey by its upper 8."""
    if picture.mode.startswith("I"):
        grey = np.asarray(picture, dtype=np.int64) // 257
        picture = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _check_end(path: Path) -> None:
    """Raise `UsageError` for a frame that is cut off. Only a file without its end mark is decoded."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - END_SPAN))
        tail = file.read()
    if not any(mark in tail for mark in END_MARKS):
        read_frame(path)


def read_note(path: str | Path) -> str | None:
    """The text that `write_frame` was given beside the picture; None where a picture has none."""
    with open_picture(path) as picture:
        note = picture.info.get(NOTE_KEY, picture.info.get("comment"))  # PNG, JPEG
    return note.decode(errors="replace") if isinstance(note, bytes) else note


def encode_frame(
    picture: np.ndarray,
    image_type: str,
    note: str | None = None,
    alpha: np.ndarray | None = None,
    profile: bytes | None = None,
) -> bytes:
    """uint8 RGB (h, w, 3) as the bytes of a ``"png"`` or ``"jpg"`` file. PNG keeps every value.

    ``note``: text that the file carries beside the picture, as PNG text or JPEG comment. ``alpha``: uint8 (h, w); a
    JPEG has none, and lies on white. ``profile``: the ICC profile of the picture's colours.
    """
    if image_type == "png":
        return _encode_png(picture if alpha is None else np.dstack((picture, alpha)), note, profile)
    encoded = io.BytesIO()
    image = Image.fromarray(picture)
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), Image.fromarray(alpha))
    comment = (note or "").encode()[:MAX_JPEG_COMMENT]
    image.save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0, comment=comment, icc_profile=profile)
    return encoded.getvalue()


def _encode_png(picture: np.ndarray, note: str | None, profile: bytes | None) -> bytes:
    """RGB or RGBA (h, w, c) as a PNG (W3C, Portable Network Graphics).

    Dreams have grain on every scale, in which a search for the best filter of each row finds little: one filter and
    ISA-L's search for repetitions take a fifteenth of Pillow's time, for 1 to 3 % more space.
    """
    height, width, channels = picture.shape
    text = PngInfo()
    if profile:
        text.add(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    if note:
        text.add_text(NOTE_KEY, note)
    lines, compressor = picture.reshape(height, width * channels), isal_zlib.compressobj(PNG_COMPRESSION)
    count = max(1, PNG_STRIP // lines.shape[1])
    strips = [compressor.compress(_filter(lines, first, count, channels)) for first in range(0, height, count)]
    whole = io.BytesIO()
    whole.write(PNG_SIGNATURE)
    color = 2 if channels == 3 else 6
    putchunk(whole, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0))
    for kind, content, *_ in text.chunks:
        putchunk(whole, kind, content)
    putchunk(whole, b"IDAT", *strips, compressor.flush())
    putchunk(whole, b"IEND")
    return whole.getvalue()


def _filter(lines: np.ndarray, first: int, count: int, channels: int) -> np.ndarray:
    """Some ``lines`` (h, w * c) of a picture as a PNG keeps them by its filter "average": uint8 (h, 1 + w * c).

    Each value less the mean, rounded down, of those to its left and above; beyond the picture they count as 0.
    """
    values = lines[first : first + count]
    above, left = np.zeros_like(values), np.zeros_like(values)
    above[1:] = values[:-1]
    if first:
        above[0] = lines[first - 1]
    left[:, channels:] = values[:, :-channels]
    mean = above & left  # the bits that both have, and half of those that one has
    mean += (above ^ left) >> 1
    filtered = np.full((len(values), 1 + values.shape[1]), PNG_AVERAGE, np.uint8)
    np.subtract(values, mean, out=filtered[:, 1:])
    return filtered


def write_frame(path: str | Path, picture: np.ndarray, image_type: str, note: str | None = None) -> None:
    """Write a uint8 RGB picture (h, w, 3), whole or not at all. Raises `DreamError` where it cannot.

    ``note``: see `encode_frame`.
    """
    write_whole(path, encode_frame(picture, image_type, note))


def check_sizes(paths: Sequence[Path]) -> tuple[int, int]:
    """The one (width, height) of all the pictures; `UsageError` names the first two that differ, or one cut off."""
    sizes = ((path, read_size(path)) for path in paths)
    first_path, first_size = next(sizes)
    for path, size in chain([(first_path, first_size)], sizes):
        _check_end(path)
        if size != first_size:
            raise UsageError(
                f"frames differ in size: {first_path} is {first_size[0]}x{first_size[1]}, "
                f"{path} is {size[0]}x{size[1]}; make them one size"
            )
    return first_size
