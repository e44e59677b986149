"""The stabilised dream: flow of known motions, what is trusted, where a scene is cut, what a frame takes over."""

import json
import math
import shutil
from dataclasses import replace
from functools import partial

import av
import cv2
import helpers
import numpy as np
import pytest
from clips import real_clip
from helpers import read_dreams, save_frames
from PIL import Image

from deepdream.files.frames import read_frame
from deepdream.motion import cuts, flow, inheritance, loops
from deepdream.options import (
    BLEND_FLOW,
    BLEND_STATIC,
    DivideMode,
    DivideOptions,
    DreamOptions,
    FlowMode,
    FlowOptions,
    RenderOptions,
)
from deepdream.picture.objectives import l2
from deepdream.render.frame import Previous, dream_frame, source_of
from deepdream.render.plan import options_at

STABLE = FlowOptions(FlowMode.STABLE)


def constant(height, width, right, down):
    return np.full((height, width, 2), (right, down), np.float32)


def shifted(scene, right, down, margin=20):
    """A scene's centre, and what is seen of the scene once it has moved."""
    height, width = scene.shape[:2]
    moved = scene[margin - down : height - margin - down, margin - right : width - margin - right]
    return np.ascontiguousarray(scene[margin:-margin, margin:-margin]), np.ascontiguousarray(moved)


# --- Flow ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("right, down", [(0, 0), (3, 0), (0, -5), (-9, 7)])
def test_the_fine_flow_of_a_shifted_photograph_is_its_shift(photograph, right, down):
    previous, current = shifted(photograph("coffee.png", (160, 200)), right, down)
    estimated = flow.estimate_fine_flow(current, previous)
    assert estimated.shape == (*current.shape[:2], 2) and estimated.dtype == np.float32
    inner = estimated[15:-15, 15:-15]
    np.testing.assert_allclose(np.median(inner, (0, 1)), (-right, -down), atol=0.1)
    assert np.quantile(np.hypot(*(inner - (-right, -down)).transpose(2, 0, 1)), 0.9) < 0.5


def test_the_quick_flow_of_a_shifted_photograph_is_its_shift_too(photograph):
    previous, current = shifted(photograph("coffee.png", (320, 480)), 5, -3)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (current, previous)]
    estimated = flow._search_flow(cv2, *grey, quick=True)
    assert np.abs(np.median(estimated, (0, 1)) - (-5, 3)).max() < 0.1


def test_the_flow_follows_the_picture_and_not_its_grain(photograph):
    rng, pair = np.random.default_rng(0), shifted(photograph("rocket.jpg", (260, 400)), 3, 0)
    grain = rng.normal(0, 10, (2, *pair[0].shape[:2], 1))
    previous, current = np.uint8(np.clip(pair + grain, 0, 255))
    back, trust = flow.estimate_fine_motion(current, previous)
    assert np.hypot(*(back - (-3, 0)).transpose(2, 0, 1)).mean() < 0.65
    assert trust.mean() > 0.94  # with patches of 12 pixels 0.93


def test_the_flow_of_a_large_frame_is_found_at_reduced_size(photograph):
    """In its own pixels all the same; no side of this one shrinks by a whole number."""
    previous, current = shifted(photograph("coffee.png", (1100, 1801)), 18, -16)
    assert max(current.shape) > flow.FINE_FLOW_SIDE
    estimated = flow.estimate_fine_flow(current, previous)
    assert estimated.shape == (*current.shape[:2], 2)
    np.testing.assert_allclose(np.median(estimated[40:-40, 40:-40], (0, 1)), (-18, 16), atol=0.1)


def test_sampling_takes_what_lies_at_the_offset():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for sharp in (False, True):
        taken = flow.sample(picture, constant(20, 30, 4, -3), sharp)
        np.testing.assert_allclose(taken[3:, :-4], picture[:-3, 4:], atol=1e-3)


@pytest.mark.parametrize("sharp, mode", [(False, "edge"), (True, "reflect")])
def test_outside_sampling_repeats_the_edge_or_goes_on_mirrored(sharp, mode):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    around = np.pad(picture, ((9, 9), (9, 9), (0, 0)), mode)
    for right, down in ((7, 0), (-7, 3), (2, -9)):
        taken = flow.sample(picture, constant(20, 30, right, down), sharp)
        np.testing.assert_allclose(taken, around[9 + down : 29 + down, 9 + right : 39 + right], atol=1e-3)


def test_sharp_sampling_keeps_fine_detail():
    stripes = np.float32(127 + 100 * np.cos(np.arange(60) * 2 * np.pi / 5))[None, :, None].repeat(20, 0)
    halfway = constant(20, 60, 0.5, 0)
    soft, sharp = (flow.sample(stripes, halfway, sharp)[5:-5, 5:-5].std() for sharp in (False, True))
    assert soft < 0.85 * stripes.std() and sharp > 0.93 * stripes.std()


@pytest.mark.parametrize("zoom, rotate", [(1.0, 0), (1.05, 0), (2.0, 0), (1.5, 5), (2.0, -20)])
@pytest.mark.parametrize("moved", [(0, 0), (3, -2)])
def test_zoomed_offsets_sample_the_enlarged_picture(zoom, rotate, moved):
    rows, columns = np.indices((40, 60), dtype=np.float32)
    picture = np.stack([columns * 3, rows * 2, columns + rows], -1)
    offsets = constant(40, 60, *moved)
    taken = flow.sample(picture, inheritance._zoom_offsets(offsets, zoom, rotate))
    wanted = flow.sample(inheritance.zoom_in(picture, zoom, rotate), offsets)
    inside = slice(abs(moved[1]), 40 - abs(moved[1])), slice(abs(moved[0]), 60 - abs(moved[0]))
    np.testing.assert_allclose(taken[inside], wanted[inside], atol=0.1)


# --- Agreement -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap, wanted", [(0, 1), (4, 0.5), (400, 4e-4)])
def test_agreement_is_a_half_where_the_gap_is_the_tolerance(gap, wanted):
    # Where nothing moves forward, the tolerance is 4 square pixels and 1 % of the way back's square.
    there, back = constant(8, 8, 0, 0), constant(8, 8, np.sqrt(gap), 0)
    tolerance = 4 + 0.01 * gap
    np.testing.assert_allclose(flow.agreement(there, back), 1 / (1 + (gap / tolerance) ** 2), rtol=1e-4)
    assert abs(flow.agreement(there, back)[0, 0] - wanted) < 0.01


def test_opposite_flows_agree_and_equal_ones_do_not():
    there = constant(20, 20, 5, -2)
    assert (flow.agreement(there, -there) == 1).all()
    assert (flow.agreement(there, there) < 0.01).all()


def test_what_a_moving_thing_uncovers_is_not_trusted(photograph):
    ground, thing = photograph("coffee.png", (120, 160)), photograph("chelsea.png", (50, 50))
    previous, current = ground.copy(), ground.copy()
    previous[35:85, 40:90], current[35:85, 52:102] = thing, thing
    _, trust = flow.estimate_fine_motion(current, previous)
    assert trust[45:75, 42:50].mean() < 0.5  # uncovered by the thing
    assert trust[45:75, 60:95].mean() > 0.9 and trust[:, 120:].mean() > 0.95


def test_how_far_beyond_the_edge_a_flow_ends():
    beyond = flow._beyond_edge(constant(5, 7, 3, -4))
    wanted = np.hypot([0, 0, 0, 0, 1, 2, 3], np.array([4, 3, 2, 1, 0])[:, None])
    np.testing.assert_allclose(beyond, wanted, rtol=1e-6)
    assert flow._beyond_edge(constant(5, 7, -6, 0))[2].tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert flow._beyond_edge(constant(5, 7, 0, 4))[:, 3].tolist() == [0, 1, 2, 3, 4]
    assert not flow._beyond_edge(constant(5, 7, 0, 0)).any()


def test_what_a_pan_brings_in_is_trusted_the_less_the_farther_it_was(photograph):
    """Half of it three pixels out, whatever the agreement there; of a large frame, pixels of the reduced one."""
    previous, current = shifted(photograph("coffee.png", (320, 440)), -12, 0)
    _, trust = flow.estimate_fine_motion(current, previous)
    middle = np.median(trust[80:-80], 0)
    assert middle[-80:-14].min() > 0.9
    for out in (3, 6, 9):
        assert middle[-13 + out] == pytest.approx(0.5 ** (out / 3), abs=0.06)
    large = [cv2.resize(frame, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC) for frame in (current, previous)]
    _, of_large = flow.estimate_fine_motion(*large)
    np.testing.assert_allclose(np.median(of_large[240:-240], 0)[-35::3], middle[-12:], atol=0.08)


def test_a_large_frame_is_trusted_as_the_same_scene_is_when_small(photograph):
    rng, pair = np.random.default_rng(0), shifted(photograph("rocket.jpg", (260, flow.FINE_FLOW_SIDE + 40)), 3, 0)
    small = np.uint8(np.clip(pair + rng.normal(0, 12, (2, *pair[0].shape[:2], 1)), 0, 255))
    large = [cv2.resize(frame, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST) for frame in small]
    _, of_small = flow.estimate_fine_motion(*small)
    moved, of_large = flow.estimate_fine_motion(*large)
    assert moved.shape == (*large[0].shape[:2], 2) and of_large.shape == large[0].shape[:2]
    assert 0.7 < of_small.mean() < 0.95  # the grain leaves some doubt
    assert abs(of_large.mean() - of_small.mean()) < 0.01


# --- Scene cuts ------------------------------------------------------------------------------------


def cut_numbers(name, first, last):
    """The numbers of the frames of a real clip, from ``first`` up to ``last``, at which a scene starts."""
    found, previous = [], None
    with av.open(str(real_clip(name))) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if first <= number < last:
                current = frame.to_ndarray(format="rgb24", width=320, height=round(frame.height * 320 / frame.width))
                if previous is not None and cuts.is_cut(previous, current):
                    found.append(number)
                previous = current
    return found


@pytest.mark.parametrize("name, wanted", [("bikes.mp4", [30, 76, 137, 187, 242]), ("carphone_pristine.mp4", [])])
def test_the_cuts_of_real_footage_are_found_and_no_others(name, wanted):
    assert cut_numbers(name, 0, 250) == wanted


def test_a_fast_pan_is_no_cut(photograph):
    scene = photograph("chelsea.png", (160, 400))
    views = [np.ascontiguousarray(scene[:, left : left + 240]) for left in (0, 25)]
    assert not cuts.is_cut(*views)


@pytest.mark.parametrize("light", [14, 60])
def test_noise_in_the_dark_is_no_cut(light):
    """The hue of a dark or a grey pixel is noise, and so is the saturation of a dark one."""
    rng = np.random.default_rng(0)
    night = [np.uint8(np.clip(rng.normal(light, 9, (200, 320, 3)), 0, 255)) for _ in range(4)]
    assert not any(map(cuts.is_cut, night, night[1:]))
    day = np.uint8(np.clip(rng.normal(light + 80, 9, (200, 320, 3)), 0, 255))
    assert cuts.is_cut(night[0], day)


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (9, 9)])
def test_any_size_of_frame_can_be_compared(size):
    black = np.zeros((*size, 3), np.uint8)
    assert not cuts.is_cut(black, black) and cuts.is_cut(black, black + 255)


# --- What a frame takes over -----------------------------------------------------------------------


def inherit(previous, current, dream, options, zoom):
    """What the current frame takes over."""
    motion = inheritance.estimate_motion(previous, current, options)
    return inheritance.inherit(previous, current, dream, motion, options, zoom)


@pytest.fixture
def still(footage):
    """A source frame and a dream of it."""
    source = footage[0]
    waves = 20 * np.sin(np.indices(source.shape[:2]).sum(0) / 4)[..., None]
    return source, np.uint8(np.clip(source + waves, 0, 255))


def test_a_still_frame_takes_the_static_share_of_the_dream(still):
    source, dream = still
    taken = inherit(source, source, dream, FlowOptions(FlowMode.STABLE, blend_static=0.6), 1)
    np.testing.assert_allclose(taken.start, source + 0.6 * (np.float32(dream) - source), atol=0.5)


def test_shares_of_zero_give_an_independent_frame(still, footage):
    source, dream = still
    taken = inherit(source, footage[4], dream, FlowOptions(FlowMode.STABLE, blend_flow=0, blend_static=0), 1)
    np.testing.assert_array_equal(taken.start, footage[4])
    other = np.uint8(footage[4] // 2)
    settled = taken.stabilise(other, 10)
    np.testing.assert_array_equal(settled, other)


def test_nothing_is_taken_over_across_a_cut(photograph, still):
    source, dream = still
    other = photograph("chelsea.png", source.shape[:2])
    taken = inherit(source, other, dream, STABLE, 1)
    assert inheritance.estimate_motion(source, other, STABLE).is_cut
    np.testing.assert_array_equal(taken.start, other)
    assert taken.stabilise(dream, 10) is dream


def test_the_dream_moves_with_the_scene(photograph):
    scene = photograph("coffee.png", (160, 200))
    waves = np.float32(15 * np.sin(np.indices(scene.shape[:2]).sum(0) / 5))[..., None]
    (previous, current), (dream, wanted) = shifted(scene, 6, -4), shifted(np.clip(scene + waves, 0, 255), 6, -4)
    taken = inherit(previous, current, np.uint8(np.rint(dream)), STABLE, 1)
    assert np.median(np.abs(taken.warped - wanted)[15:-15, 15:-15]) < 1.5
    assert taken.weight[15:-15, 15:-15].mean() > 0.85


def test_a_settled_frame_is_eased_by_the_documented_share():
    source, dreamed = np.full((4, 4, 3), 100, np.float32), np.full((4, 4, 3), 140, np.uint8)
    share = np.float32([0, 0.5, 1, 1]).reshape(1, 4, 1).repeat(4, 0)
    taken = inheritance.Inheritance(source, source, source + 20, share)
    wanted = [140 - inheritance.EASE * weight * 20 for weight in (0, 0.5, 1, 1)]
    assert taken.stabilise(dreamed, 100)[0, :, 0].tolist() == np.rint(wanted).tolist()


def test_a_dream_that_grows_beyond_its_bound_fades_slowly():
    source, start = np.full((4, 4, 3), 100, np.float32), np.full((4, 4, 3), 138, np.float32)
    taken = inheritance.Inheritance(start, source, source + 40, np.ones((4, 4, 1), np.float32))
    settled = taken.stabilise(np.full((4, 4, 3), 140, np.uint8), 10)  # its shot began 10 strong, it is 40 strong
    assert (settled == 138).all()


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_warped_dream_is_laid_onto_its_frame(kind):
    rng = np.random.default_rng(0)
    hallucination, weight = np.float32(rng.normal(0, 90, (9, 14, 3))), np.float32(rng.uniform(0, 1, (9, 14)))
    frame = rng.integers(0, 256, (9, 14, 3)).astype(kind)
    wanted = np.clip(np.float64(frame) + hallucination, 0, 255)
    warped, start = hallucination.copy(), np.empty_like(hallucination)
    loops.lay_warped(warped, frame, weight, start)
    np.testing.assert_allclose(warped, wanted, rtol=1e-6)
    assert (wanted == 0).any() and (wanted == 255).any()
    np.testing.assert_allclose(start, frame + (wanted - frame) * weight[..., None], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("fade", [1, 0.96, 0.5])
def test_a_dreamed_frame_is_eased_and_faded(kind, fade):
    rng = np.random.default_rng(1)
    dreamed = rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)
    warped, weight = np.float32(rng.uniform(0, 255, (9, 14, 3))), np.float32(rng.uniform(0, 1, (9, 14)))
    frame = rng.integers(0, 256, (9, 14, 3)).astype(kind)
    weight[0], frame[0] = 0, dreamed[0]  # here nothing changes
    change = dreamed + 0.3 * weight[..., None] * (np.float64(warped) - dreamed) - frame
    eased, added = np.empty_like(dreamed), np.empty(9)
    loops.ease(dreamed, warped, weight, 0.3, frame, fade, eased, added)
    np.testing.assert_allclose(added, np.abs(change).sum((1, 2)), rtol=1e-5)
    assert added[0] == 0
    assert np.abs(eased - (frame + fade * change)).max() < 0.501


def test_the_default_shares_are_the_modes_own():
    for mode in FlowMode:
        assert FlowOptions(mode).blend_flow == BLEND_FLOW[mode]
        assert FlowOptions(mode).blend_static == BLEND_STATIC[mode]
        given = FlowOptions(mode, blend_flow=0.4, blend_static=0.3)
        assert (given.blend_flow, given.blend_static) == (0.4, 0.3)
    assert (FlowOptions(FlowMode.BLEND).blend_flow, FlowOptions(FlowMode.BLEND).blend_static) == (0.9, 0.1)


# --- Over frames -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(footage, photograph, tmp_path_factory):
    """Three frames of footage, then two of another scene."""
    other = photograph("chelsea.png", (40, 48))
    return save_frames([*footage[:3], other, other], tmp_path_factory.mktemp("cut") / "source", size=(48, 40))


render = partial(helpers.render, flow=STABLE, iterations=2)


def test_the_reports_tell_the_cut(source, tmp_path, small_network):
    reports = render(source, tmp_path / "out", small_network)
    assert [report.is_cut for report in reports] == [False, False, False, True, False]


def test_a_new_scene_dreams_as_if_nothing_had_been_before(source, tmp_path, small_network):
    reports = render(source, tmp_path / "stable", small_network)
    alone = tmp_path / "alone"
    alone.mkdir()
    Image.open(source / "3.png").save(alone / "0.png")
    first = render(alone, tmp_path / "fresh", small_network)[0]
    np.testing.assert_array_equal(read_frame(reports[3].path), read_frame(first.path))


@pytest.fixture(
    scope="module",
    params=[
        {"zoom": 1.1},
        {"preview": 32},
        {"dream_width": 30},
        {"preview": 40, "dream_width": 30},
        {"divide": DivideOptions(DivideMode.SEAMLESS, 20, 20)},
        {"flow": FlowOptions(FlowMode.STABLE, blend_flow=0.5, blend_static=0.2)},
    ],
    ids=["zoom", "preview", "width", "preview and width", "seamless", "shares"],
)
def whole_render(source, small_network, tmp_path_factory, request):
    """A finished render with other options than the default: (options, directory)."""
    directory = tmp_path_factory.mktemp("whole") / "out"
    assert len(render(source, directory, small_network, **request.param)) == 5
    return request.param, directory


@pytest.mark.parametrize("gone", [0, 2, 4])
def test_a_resumed_run_ends_with_the_same_bytes(source, tmp_path, small_network, whole_render, gone):
    options, whole = whole_render
    out = shutil.copytree(whole, tmp_path / "out")
    (out / f"frame_{gone:06d}.png").unlink()
    assert render(source, out, small_network, **options)[0].number == gone
    assert read_dreams(out) == read_dreams(whole)


def test_a_guided_dream_is_stabilised_too(source, tmp_path, small_network, photograph):
    guide = tmp_path / "guide.png"
    Image.fromarray(photograph("coffee.png", (64, 64))).save(guide)
    render(source, tmp_path / "guided", small_network, guide=str(guide))
    render(source, tmp_path / "plain", small_network)
    assert len(read_dreams(tmp_path / "guided")) == 5
    assert read_dreams(tmp_path / "guided") != read_dreams(tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "render.json").read_text())["--blendstatic"] == 1


def test_a_still_noisy_scene_changes_less_than_with_plain_flow_and_does_not_grow(tmp_path, footage, default_network):
    source = tmp_path / "still"
    source.mkdir()
    small = np.asarray(Image.fromarray(footage[0]).resize((64, 48), Image.Resampling.BOX), np.float32)
    for number in range(16):
        noise = np.random.default_rng(number).normal(0, 2, small.shape)
        Image.fromarray(np.uint8(np.clip(small + noise, 0, 255))).save(source / f"{number}.png")
    change = {}
    for mode in (FlowMode.BLEND, FlowMode.STABLE):
        options = {"layers": ("block_7/output",), "iterations": 6}
        reports = render(source, tmp_path / mode.name, default_network, flow=FlowOptions(mode), **options)
        dreams = np.stack([np.float32(read_frame(report.path)) for report in reports])
        strength = np.abs(dreams - small).mean((1, 2, 3))
        change[mode] = np.abs(np.diff(dreams[8:], axis=0)).mean() / strength[8:].mean()
    assert change[FlowMode.STABLE] < 0.6 * change[FlowMode.BLEND]
    assert strength[-4:].mean() < 1.15 * strength[6:10].mean()


@pytest.mark.parametrize(
    "mode, panorama, full, few, share",
    [
        (FlowMode.STABLE, False, 10, None, 0.55 * math.cbrt(10 / 3)),
        (FlowMode.STABLE, False, 10, 8, 0.55 * math.cbrt(10 / 8)),
        (FlowMode.STABLE, False, 10, 20, 0.55),
        (FlowMode.STABLE, False, 10, 2, 0.55 * math.cbrt(5)),
        (FlowMode.STABLE, False, 10, 1, 1),
        (FlowMode.STABLE, False, 20, 1, 1),
        (FlowMode.STABLE, False, 10, 0, 1),
        (FlowMode.STABLE, False, 5, 0, 0.55 * math.cbrt(5)),  # of no step
        (FlowMode.STABLE, True, 10, None, 1),
        (FlowMode.BLEND, False, 10, None, 1),
    ],
)
def test_the_fewer_steps_a_frame_that_inherits_takes_the_larger_they_are_but_of_panoramas(
    mode, panorama, full, few, share
):
    dream = DreamOptions(("a",), iterations=full, step_size=2, panorama=panorama)
    options = RenderOptions(dream, FlowOptions(mode, iterations=few))
    sizes = [options_at(options, 1).dream_options(starts_shot).step_size for starts_shot in (True, False)]
    assert sizes == pytest.approx([2, 2 * share])


@pytest.mark.parametrize("half", [False, True], ids=["whole", "half masked"])
@pytest.mark.parametrize("strength, share", [(0.5, 1), (1.1, 1), (1.175, 0.75), (1.25, 0.5), (3, 0.5)])
def test_what_is_strong_already_takes_smaller_steps(small_network, strength, share, half):
    """The first frame of the shot changed by 4 grey levels; steps have doubled since, so this one may by 8."""
    frame = np.full((30, 40, 3), 100, np.uint8)
    mask = np.full((30, 40), 255, np.uint8)
    if half:
        mask[:, 20:] = 0
    still = inheritance.Motion(constant(30, 40, 0, 0), np.ones((30, 40), np.float32))
    before = Previous(frame, frame + np.float32(8 * strength), 4.0, mask, still)
    dream, sizes = DreamOptions(("mixed",), iterations=6, step_size=2), []
    options = replace(options_at(RenderOptions(dream, STABLE), 1), growth=2)

    def record(tiles):
        sizes.extend(tile.options.step_size for tile in tiles)
        return [tile.x for tile in tiles]

    source = source_of(frame, (40, 30), (40, 30), mask)
    dream_frame(options, small_network, l2, source, before, ascend_tiles=record)
    size = 2 * share * 0.55 * math.cbrt(6 / options.flow.iterations)
    assert sizes == pytest.approx([size] * dream.octaves, rel=1e-4)
