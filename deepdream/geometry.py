"""Where octaves and tiles lie: plain arithmetic of sizes, nothing of pictures or networks.

The divide modes 1 and 2 are those of DeepDreamVideoOpticalFlow; mode 3 is the tiled gradient of the DeepDream notebook
(Mordvintsev, Olah and Tyka 2015). Sizes are (h, w) in pixels, but for `at_width`.
"""

import math
from dataclasses import dataclass

from deepdream.errors import UsageError
from deepdream.options import DivideMode, DivideOptions, DreamOptions

VIEW_ANGLE = 92  # degrees that a view of a panorama spans, of which the middle 90 are used
MIN_VIEW_SIDE = 32  # pixels: the part beyond 90 degrees is then half a pixel, without which nothing is between two
VIEW_REACH = math.tan(math.radians(VIEW_ANGLE / 2))  # from the middle of a view to its border, at distance 1


@dataclass(frozen=True)
class Tile:
    """A sub-image: the rows from ``top`` up to ``bottom`` and the columns from ``left`` up to ``right``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)"""
        return self.bottom - self.top, self.right - self.left

    @property
    def index(self) -> tuple[slice, slice, slice]:
        """The index that takes the tile out of a picture (c, h, w)."""
        return slice(None), slice(self.top, self.bottom), slice(self.left, self.right)


def divide(height: int, width: int, options: DivideOptions) -> list[Tile]:
    """The sub-images of a picture that are dreamed one by one under `DivideOptions`; they cover each pixel once.

    A picture within the limits is one tile. TILES cuts a grid of as few near-equal tiles as the limits allow,
    HALVES two by two (a side of one pixel stays whole). SEAMLESS dreams the picture whole.
    """
    if options.mode == DivideMode.TILES:
        return _grid(height, width, *_smallest_grid(height, width, options))
    if options.mode == DivideMode.HALVES and width > options.max_width:
        return _grid(height, width, min(2, height), min(2, width))
    return _grid(height, width, 1, 1)


def divide_gradient(height: int, width: int, options: DivideOptions) -> list[Tile]:
    """The tiles of a sub-image whose gradients are computed one by one; they cover each pixel once.

    Only SEAMLESS cuts here.
    """
    cut = options.mode == DivideMode.SEAMLESS
    return _grid(height, width, *(_smallest_grid(height, width, options) if cut else (1, 1)))


def octave_sizes(height: int, width: int, octaves: int, scale: float) -> list[tuple[int, int]]:
    """The (h, w) of each octave from the largest down, each rounded from the one before as scipy's zoom does."""
    sizes = [(height, width)]
    for _ in range(octaves - 1):
        height, width = (max(1, round(size * (1 / scale))) for size in sizes[-1])
        sizes.append((height, width))
    return sizes


def seen_sizes(height: int, width: int, options: DreamOptions) -> list[tuple[int, int]]:
    """The (h, w) of what the network sees of each octave, undivided: the octave, or a view of a panorama."""
    sizes = octave_sizes(height, width, options.octaves, options.octave_scale)
    return [(view_side(w), view_side(w)) for _, w in sizes] if options.panorama else sizes


def at_width(size: tuple[int, int], width: int) -> tuple[int, int]:
    """A size (w, h) scaled to ``width``; 0 leaves it as it is."""
    return (width, max(1, round(size[1] * width / size[0]))) if width else size


def dream_size_of(size: tuple[int, int], dream: DreamOptions, which_has: str) -> tuple[int, int]:
    """The (w, h) at which pictures of a size (w, h) are dreamed. Raises `UsageError` for a ``--dreamwidth`` beyond it.

    ``which_has``: in the error's words, "frame, which has".
    """
    if dream.dream_width > size[0]:
        raise UsageError(f"--dreamwidth {dream.dream_width}: wider than the {which_has} {size[0]} pixels")
    return at_width(size, dream.dream_width)


def check_panorama(size: tuple[int, int], where: object) -> None:
    """Raise `UsageError` where frames of a size (w, h), found at ``where``, are no whole panorama."""
    width, height = size
    if width != 2 * height:
        raise UsageError(
            f"{where}: --panorama takes equirectangular frames, twice as wide as high, and these are {width}x{height}; "
            "leave it out, or convert them (ffmpeg's filter v360)"
        )


def view_side(width: int) -> int:
    """The side of a view of a panorama of ``width``: in its middle it is at least as dense as the equator."""
    return fast_length(max(MIN_VIEW_SIDE, math.ceil(width / math.pi * VIEW_REACH)))


def fast_length(length: int) -> int:
    """The least that is not below ``length`` and has no prime factor above 7: Fourier transforms of other lengths take
    longer, of large primes several times as long."""
    while pow(2 * 3 * 5 * 7, length.bit_length(), length):  # 0 where it divides a power of their product
        length += 1
    return length


def _smallest_grid(height: int, width: int, options: DivideOptions) -> tuple[int, int]:
    """(rows, columns) of the coarsest grid within the limits."""
    return -(-height // options.max_height), -(-width // options.max_width)


def _grid(height: int, width: int, rows: int, columns: int) -> list[Tile]:
    """The tiles of a grid, row by row."""
    return [
        Tile(top, bottom, left, right) for top, bottom in _cuts(height, rows) for left, right in _cuts(width, columns)
    ]


def _cuts(length: int, parts: int) -> list[tuple[int, int]]:
    """(start, end) of ``parts`` near-equal pieces of ``length``, none longer than the first's size rounded up."""
    edges = [length * number // parts for number in range(parts + 1)]
    return list(zip(edges, edges[1:]))
