"""Flow, warp, motion and start picture against closed forms and plain numpy."""

import sys

import cv2
import numpy as np
import pytest
from scipy import ndimage

from deepdream.errors import DreamError
from deepdream.motion import flow, inheritance
from deepdream.options import FlowMode, FlowOptions

BLEND = FlowOptions(FlowMode.BLEND, threshold=6, blend_flow=0.9, blend_static=0.1)
# OpenCV counts positions in 32nds of a pixel, so smooth pictures agree with exact sampling this well.
GREY_LEVELS = 0.3


def test_equal_frames_have_no_flow():
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert flow.estimate_flow(frame, frame.copy()).tolist() == np.zeros((20, 30, 2)).tolist()


def smooth(height, width, seed=0):
    """A smooth float picture in 0..255."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    waves = ndimage.gaussian_filter(noise, (6, 6, 0), mode="wrap")
    return np.float32(127 + 40 * waves / waves.std()).clip(0, 255)


def sample(picture, rows, columns):
    """``picture`` at fractional positions, linearly, its edges repeated."""
    channels = [ndimage.map_coordinates(channel, (rows, columns), order=1, mode="nearest")
                for channel in np.moveaxis(np.float64(picture), 2, 0)]  # fmt: skip
    return np.stack(channels, 2)


def constant_flow(height, width, right, down):
    return np.broadcast_to(np.float32([right, down]), (height, width, 2)).copy()


def reference_zoom(picture, zoom):
    rows, columns = np.indices(picture.shape[:2], dtype=float)
    middle_y, middle_x = (picture.shape[0] - 1) / 2, (picture.shape[1] - 1) / 2
    return sample(picture, middle_y + (rows - middle_y) / zoom, middle_x + (columns - middle_x) / zoom)


# --- Warp and estimate -----------------------------------------------------------------------------


def test_warp_shifts_along_the_flow():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    warped = flow.warp(picture, constant_flow(20, 30, right=4, down=-3))
    np.testing.assert_array_equal(warped[:-3, 4:], picture[3:, :-4])


def test_warp_repeats_the_edge_where_nothing_comes_from():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    warped = flow.warp(picture, constant_flow(20, 30, right=4, down=0))
    np.testing.assert_array_equal(warped[:, :4], np.repeat(picture[:, :1], 4, 1))


def test_warp_samples_between_pixels_linearly():
    picture, moved = smooth(40, 50), smooth(40, 50, seed=1)[..., :2] / 50
    rows, columns = np.indices((40, 50), dtype=float)
    wanted = sample(picture, rows - moved[..., 1], columns - moved[..., 0])
    np.testing.assert_allclose(flow.warp(picture, moved), wanted, atol=GREY_LEVELS)


def test_warp_keeps_values_below_zero():
    # A hallucination is a difference: half of it is negative.
    picture = np.full((4, 4, 3), -20, np.float32)
    assert (flow.warp(picture, constant_flow(4, 4, 0.5, 0.5)) == -20).all()


@pytest.mark.parametrize("down, right", [(0, 3), (-2, 0), (2, -4)])
def test_the_flow_of_a_shifted_photograph_is_its_shift(photograph, down, right):
    scene = photograph("coffee.png", (160, 200))
    previous, current = scene[20:-20, 20:-20], scene[20 - down : 140 - down, 20 - right : 180 - right]
    estimated = flow.estimate_flow(np.ascontiguousarray(previous), np.ascontiguousarray(current))
    assert estimated.dtype == np.float32 and estimated.shape == (120, 160, 2)
    np.testing.assert_allclose(np.median(estimated[20:-20, 20:-20], (0, 1)), (right, down), atol=0.3)


def test_the_flow_is_farnebacks_with_the_documented_parameters(footage):
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in footage[:2]]
    wanted = cv2.calcOpticalFlowFarneback(*grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    np.testing.assert_allclose(flow.estimate_flow(*footage[:2]), wanted, atol=1e-4)


def test_on_real_footage_the_warped_frame_is_nearer_to_the_next(footage):
    before, after = np.float32(footage[0]), np.float32(footage[4])
    warped = flow.warp(before, flow.estimate_flow(footage[0], footage[4]))
    assert abs(warped - after).mean() < 0.7 * abs(before - after).mean()


# --- Motion ----------------------------------------------------------------------------------------


def test_motion_is_judged_against_the_fastest_pixel():
    vectors = np.zeros((1, 4, 2), np.float32)
    vectors[0, :, 0] = (0, 3, -6, 0)
    vectors[0, :, 1] = (0, 4, 8, 1)  # speeds 0, 5, 10, 1 of 10: 0, 127.5, 255 and 25.5 of 255
    assert inheritance.motion_mask(vectors, 6).tolist() == [[False, True, True, True]]
    assert inheritance.motion_mask(vectors, 26).tolist() == [[False, True, True, False]]
    assert inheritance.motion_mask(vectors, 128).tolist() == [[False, False, True, False]]
    assert not inheritance.motion_mask(vectors, 255).any()


def test_a_frame_is_still_where_no_pixel_moves_a_tenth():
    # Scaled to its fastest pixel even the faintest noise would count as motion.
    assert not inheritance.motion_mask(constant_flow(3, 4, 0.0999, 0), 6).any()
    assert inheritance.motion_mask(constant_flow(3, 4, 0.1001, 0), 6).all()
    assert not inheritance.motion_mask(np.zeros((3, 4, 2), np.float32), 0).any()


# --- Zoom ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zoom", [1.0, 1.02, 1.5, 2.0])
@pytest.mark.parametrize("size", [(41, 61), (40, 60)])
def test_zoom_enlarges_about_the_centre(zoom, size):
    picture = smooth(*size)
    np.testing.assert_allclose(inheritance.zoom_in(picture, zoom), reference_zoom(picture, zoom), atol=GREY_LEVELS)


@pytest.mark.parametrize("zoom", [1.05, 3.0])
def test_zoom_favours_no_side(zoom):
    picture = smooth(32, 48)
    symmetric = picture + picture[::-1, ::-1]
    zoomed = inheritance.zoom_in(symmetric, zoom)
    np.testing.assert_allclose(zoomed, zoomed[::-1, ::-1], atol=2 * GREY_LEVELS)


@pytest.mark.parametrize("size", [(41, 41), (40, 40)])
@pytest.mark.parametrize("cubic", [False, True])
def test_positive_degrees_turn_clockwise(size, cubic):
    picture = smooth(*size)
    for rotate, turns in ((90, -1), (-90, 1), (180, 2)):
        turned = inheritance.zoom_in(picture, 1, rotate, cubic)
        np.testing.assert_allclose(turned, np.rot90(picture, turns), atol=GREY_LEVELS)


@pytest.mark.parametrize("zoom, rotate", [(1.0, 10), (1.02, 0.5), (1.3, -33), (2.0, 120)])
def test_one_resampling_enlarges_and_turns_and_leaves_no_corner_empty(zoom, rotate):
    picture = smooth(41, 61)
    turn = np.radians(rotate)
    back = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / zoom  # (row, column)
    centre = np.array([20, 30])
    wanted = np.stack([
        ndimage.affine_transform(plane, back, centre - back @ centre, order=1, mode="mirror")
        for plane in np.moveaxis(np.float64(picture), -1, 0)
    ], -1)  # fmt: skip
    np.testing.assert_allclose(inheritance.zoom_in(picture, zoom, rotate), wanted, atol=2 * GREY_LEVELS)


# --- Start picture ---------------------------------------------------------------------------------


@pytest.fixture
def frames(footage):
    """Previous and current source frame, and the previous dream."""
    previous, current = footage[0], footage[4]
    height, width = previous.shape[:2]
    return previous, current, np.uint8((np.float32(previous) + smooth(height, width) - 127).clip(0, 255))


def start_picture(previous, current, dream, options, zoom):
    """The picture that the current frame's dream starts from."""
    motion = inheritance.estimate_motion(previous, current, options)
    return inheritance.inherit(previous, current, dream, motion, options, zoom).start


def reference_start(previous, current, dream, options, zoom):
    """The start picture in plain numpy, and where it does not hang on a rounding of the motion."""
    previous, current, dream = np.float64(previous), np.float64(current), np.float64(dream)
    still = (1 - options.blend_static) * current + options.blend_static * reference_zoom(dream, zoom)
    if options.mode == FlowMode.OFF:
        return still, np.ones(still.shape[:2], bool)
    vectors = np.float64(flow.estimate_flow(np.uint8(previous), np.uint8(current)))
    rows, columns = np.indices(vectors.shape[:2], dtype=float)
    shifted = sample(reference_zoom(dream - previous, zoom), rows - vectors[..., 1], columns - vectors[..., 0])
    moved = np.clip(current + options.blend_flow * shifted, 0, 255)
    speed = np.sqrt((vectors**2).sum(2))
    scaled = speed / speed.max() * 255
    start = np.where((scaled > options.threshold)[..., None], moved, still)
    return start, abs(scaled - options.threshold) > 1e-3


@pytest.mark.parametrize("zoom", [1.0, 1.1])
@pytest.mark.parametrize(
    "options",
    [
        FlowOptions(FlowMode.OFF, blend_static=0.1),
        FlowOptions(FlowMode.OFF, blend_static=1.0),
        BLEND,
        FlowOptions(FlowMode.BLEND, threshold=60, blend_flow=0.5, blend_static=0.3),
        FlowOptions(FlowMode.BLEND, threshold=0, blend_flow=1.0, blend_static=0.0),
    ],
)
def test_the_start_picture_is_the_documented_formula(frames, options, zoom):
    start = start_picture(*frames, options, zoom)
    wanted, certain = reference_start(*frames, options, zoom)
    assert start.dtype == np.float32 and start.min() >= 0 and start.max() <= 255
    assert certain.mean() > 0.99
    # Footage has edges, and at those a 32nd of a pixel weighs more than in a smooth picture.
    difference = abs(start - wanted)[certain]
    assert difference.mean() < 0.2 and np.quantile(difference, 0.999) < 6


def test_both_parts_of_the_formula_are_seen_in_the_footage(frames):
    share = inheritance.motion_mask(flow.estimate_flow(frames[0], frames[1]), 60).mean()
    assert 0.02 < share < 0.98


def test_a_still_scene_inherits_the_static_share_everywhere(frames):
    # Farneback alone sees up to 0.2 pixels of motion at the edges of two equal frames of this footage.
    previous, _, dream = frames
    start = start_picture(previous, previous, dream, BLEND, 1)
    np.testing.assert_allclose(start, 0.9 * previous + 0.1 * np.float32(dream), atol=1e-3)


def test_shares_of_zero_give_the_frame_itself(frames):
    options = FlowOptions(FlowMode.BLEND, blend_flow=0, blend_static=0)
    np.testing.assert_array_equal(start_picture(*frames, options, 1.5), frames[1])


@pytest.mark.parametrize(
    "mode, static, inherits",
    [(FlowMode.OFF, 0, False), (FlowMode.OFF, 0.1, True), (FlowMode.BLEND, 0, True), (FlowMode.BLEND, 0.1, True)],
)
def test_frames_are_independent_only_without_flow_and_static_share(mode, static, inherits):
    assert inheritance.inherits(FlowOptions(mode, blend_static=static)) == inherits


def test_an_opencv_that_does_not_load_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DreamError, match="libgl1") as raised:
        flow.estimate_flow(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("cubic, panorama", [(False, False), (True, False), (True, True)])
def test_what_is_sampled_does_not_depend_on_the_strips(cubic, panorama, monkeypatch):
    rng = np.random.default_rng(0)
    picture, offsets = rng.uniform(0, 255, (40, 50, 3)), np.float32(rng.normal(0, 9, (40, 50, 2)))
    whole = flow.sample(picture, offsets, cubic, panorama)
    monkeypatch.setattr(flow, "STRIP", 7)
    assert np.array_equal(flow.sample(picture, offsets, cubic, panorama), whole) and whole.std() > 10
