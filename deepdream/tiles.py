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
    """The tiles of a picture under `DivideOptions`, row by row: they cover each pixel exactly once.

    A picture within the limits is one tile. TILES cuts a grid of as few near-equal tiles as the limits allow,
    HALVES two by two (one row or column stays whole where there is only one).
    """
    rows = columns = 1
    if options.mode == DivideMode.TILES:
        rows, columns = -(-height // options.max_height), -(-width // options.max_width)
    elif options.mode == DivideMode.HALVES and width > options.max_width:
        rows, columns = min(2, height), min(2, width)
    return [
        Tile(top, bottom, left, right)
        for top, bottom in _cuts(height, rows)
        for left, right in _cuts(width, columns)
    ]


def _cuts(length, parts):
    """(start, end) of ``parts`` near-equal pieces of ``length``, none longer than the first's size rounded up."""
    edges = [length * number // parts for number in range(parts + 1)]
    return list(zip(edges, edges[1:]))
