"""Where the divide modes cut a picture: plain geometry, nothing of pictures or networks."""

from dataclasses import dataclass

from deepdream.options import DivideMode


@dataclass(frozen=True)
class Tile:
    """A sub-image: the rows from ``top`` up to ``bottom`` and the columns from ``left`` up to ``right``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self):
        """(h, w)"""
        return self.bottom - self.top, self.right - self.left

    @property
    def of(self):
        """The index that takes the tile out of a picture (c, h, w)."""
        return slice(None), slice(self.top, self.bottom), slice(self.left, self.right)


def divide(height, width, options):
    """The sub-images of a picture that are dreamed each alone under `DivideOptions`: they cover each pixel once.

    A picture within the limits is one tile. TILES cuts a grid of as few near-equal tiles as the limits allow,
    HALVES two by two (one row or column stays whole where there is only one). SEAMLESS dreams the picture whole.
    """
    if options.mode == DivideMode.TILES:
        return _grid(height, width, *_least(height, width, options))
    if options.mode == DivideMode.HALVES and width > options.max_width:
        return _grid(height, width, min(2, height), min(2, width))
    return _grid(height, width, 1, 1)


def divide_gradient(height, width, options):
    """The tiles of a sub-image whose gradient is taken at a time, covering each pixel once: SEAMLESS cuts here."""
    cut = options.mode == DivideMode.SEAMLESS
    return _grid(height, width, *(_least(height, width, options) if cut else (1, 1)))


def _least(height, width, options):
    """(rows, columns) of the coarsest grid within the limits."""
    return -(-height // options.max_height), -(-width // options.max_width)


def _grid(height, width, rows, columns):
    """The tiles of a grid, row by row."""
    return [
        Tile(top, bottom, left, right) for top, bottom in _cuts(height, rows) for left, right in _cuts(width, columns)
    ]


def _cuts(length, parts):
    """(start, end) of ``parts`` near-equal pieces of ``length``, none longer than the first's size rounded up."""
    edges = [length * number // parts for number in range(parts + 1)]
    return list(zip(edges, edges[1:]))


def octave_sizes(height, width, octaves, scale):
    """The (h, w) of each octave from the largest down, each rounded from the one before as scipy's zoom does."""
    sizes = [(height, width)]
    for _ in range(octaves - 1):
        sizes.append(tuple(max(1, round(size * (1 / scale))) for size in sizes[-1]))
    return sizes
