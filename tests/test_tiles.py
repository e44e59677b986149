"""Where the divide modes cut: every pixel once, within the limits, near-equal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepdream.geometry import divide, divide_gradient
from deepdream.options import DivideMode, DivideOptions

lengths = st.integers(1, 120)
limits = st.integers(1, 130)
options = st.builds(DivideOptions, mode=st.sampled_from(DivideMode), max_width=limits, max_height=limits)


@given(lengths, lengths, options)
def test_each_pixel_is_in_exactly_one_tile(height, width, options):
    covered = np.zeros((1, height, width), int)
    for tile in divide(height, width, options):
        assert covered[tile.index].shape == (1, *tile.size)
        assert min(tile.size) > 0
        covered[tile.index] += 1
    assert (covered == 1).all()


@given(lengths, lengths, limits, limits)
def test_tiles_are_as_few_as_the_limits_allow_and_near_equal(height, width, max_height, max_width):
    tiles = divide(height, width, DivideOptions(DivideMode.TILES, max_width, max_height))
    assert len(tiles) == int(np.ceil(height / max_height) * np.ceil(width / max_width))
    for sizes, limit in zip(zip(*(tile.size for tile in tiles)), (max_height, max_width)):
        assert max(sizes) <= limit
        assert max(sizes) - min(sizes) <= 1


@given(st.integers(2, 120), st.integers(2, 120), limits, limits)
def test_halves_are_two_by_two_where_the_picture_is_too_wide(height, width, max_height, max_width):
    tiles = divide(height, width, DivideOptions(DivideMode.HALVES, max_width, max_height))
    assert len(tiles) == (4 if width > max_width else 1)
    for sizes in zip(*(tile.size for tile in tiles)):
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("mode", DivideMode)
def test_a_picture_within_the_limits_is_one_tile(mode):
    (tile,) = divide(40, 50, DivideOptions(mode, max_width=50, max_height=40))
    assert tile.size == (40, 50)


def test_off_never_divides():
    assert len(divide(40, 50, DivideOptions(DivideMode.OFF, max_width=1, max_height=1))) == 1


def test_tiles_come_row_by_row():
    tiles = divide(5, 7, DivideOptions(DivideMode.TILES, max_width=4, max_height=3))
    corners = [(tile.top, tile.left) for tile in tiles]
    assert corners == sorted(corners) and len(set(corners)) == 4


@given(lengths, lengths, options)
def test_the_gradient_is_cut_only_where_the_dream_is_not(height, width, options):
    dreams, gradients = divide(height, width, options), divide_gradient(height, width, options)
    if options.mode == DivideMode.SEAMLESS:
        as_tiles = DivideOptions(DivideMode.TILES, options.max_width, options.max_height)
        assert len(dreams) == 1 and gradients == divide(height, width, as_tiles)
    else:
        assert [tile.size for tile in gradients] == [(height, width)]
