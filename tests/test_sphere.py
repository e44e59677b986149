"""Panoramas: views of the sphere and back, all that wraps round, and the dream on them."""

import json
import math
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import read_dreams, render, save_frames
from judge import border_jumps
from PIL import Image

import deepdream
import dreamer
from deepdream.errors import UsageError
from deepdream.files.frames import read_frame
from deepdream.geometry import VIEW_ANGLE, Tile, view_side
from deepdream.motion import cuts, flow, inheritance
from deepdream.motion.inheritance import estimate_motion, motion_mask, parallels
from deepdream.options import DivideMode, DivideOptions, DreamOptions, FlowMode, FlowOptions, RenderOptions
from deepdream.picture import ascent, look, objectives
from deepdream.picture.sphere import MAX_PITCH, MAX_ROLL, MAX_YAW, VIEWS, Sphere, area_weights, random_turn
from deepdream.render.dream_size import lay_on, take_off
from deepdream.video.ffmpeg import ffmpeg_binary
from tests.nets import picture as random_picture

CPU = torch.device("cpu")
ROUND = np.random.default_rng(5)


def rays(height, width):
    """What lies in the direction of each pixel: the direction itself, (3, h, w), right, down and ahead."""
    latitude = ((np.arange(height) + 0.5) / height - 0.5)[:, None] * np.pi
    longitude = (2 * (np.arange(width) + 0.5) / width - 1) * np.pi
    parts = np.cos(latitude) * np.sin(longitude), np.sin(latitude) + 0 * longitude, np.cos(latitude) * np.cos(longitude)
    return torch.from_numpy(np.stack(parts).astype(np.float32))


def panorama(photograph, height=64):
    """A photograph whose left and right border are made to meet, uint8 (h, 2 h, 3)."""
    wide = np.float32(photograph("coffee.png", (height, 2 * height + height // 2)))
    share = np.linspace(0, 1, height // 2)[:, None]
    wide[:, : height // 2] = share * wide[:, : height // 2] + (1 - share) * wide[:, 2 * height :]
    return np.uint8(wide[:, : 2 * height])


@pytest.fixture(scope="module")
def source(photograph, tmp_path_factory):
    """Three frames of a panorama that turns round by four pixels a frame."""
    first = panorama(photograph)
    return save_frames([np.roll(first, 4 * k, 1) for k in range(3)], tmp_path_factory.mktemp("round") / "source")


@pytest.mark.parametrize("seed", range(4))
def test_a_turn_is_a_rotation_that_keeps_up_upwards(seed):
    turn = random_turn(np.random.default_rng(seed))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) > 0
    assert np.degrees(np.arccos(turn[1, 1])) <= np.hypot(MAX_PITCH, MAX_ROLL)


def test_each_longitude_is_a_views_border_as_often_and_up_is_not_sideways():
    rng = np.random.default_rng(0)
    turns = np.stack([random_turn(rng) for _ in range(400)])
    ahead, up = turns[:, 2], turns[:, :, 1]
    yaw = np.degrees(np.arctan2(ahead[:, 0], ahead[:, 2]))
    assert abs(yaw).max() < MAX_YAW + 0.1
    assert (np.histogram(yaw, 5, (-MAX_YAW, MAX_YAW))[0] > 50).all()
    pitch, roll = np.degrees(np.arcsin(up[:, 2])), np.degrees(np.arcsin(up[:, 0]))
    assert 0.9 * MAX_PITCH < abs(pitch).max() <= MAX_PITCH and pitch.min() < -2 < 2 < pitch.max()
    assert 0.9 * MAX_ROLL < abs(roll).max() <= MAX_ROLL and roll.min() < -2 < 2 < roll.max()


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_the_middles_of_the_views_look_along_the_axes_of_the_turn(seed):
    turn = np.eye(3) if seed is None else random_turn(np.random.default_rng(seed))
    sphere = Sphere((128, 256), CPU)
    views = sphere.views(rays(128, 256), turn)
    middles = torch.nn.functional.interpolate(views, (1, 1), mode="bilinear")[:, :, 0, 0]
    right, down, ahead = turn
    wanted = np.stack([ahead, right, -ahead, -right, down, -down])
    np.testing.assert_allclose(middles, wanted, atol=0.02)
    rows, columns = np.indices((sphere.side, sphere.side))
    places = 2 * (np.stack([columns, rows]) + 0.5) / sphere.side - 1
    reach = np.tan(np.radians(VIEW_ANGLE / 2))
    seen = ahead[:, None, None] + reach * (places[0] * right[:, None, None] + places[1] * down[:, None, None])
    np.testing.assert_allclose(views[0], seen / np.linalg.norm(seen, axis=0), atol=0.02)


@pytest.mark.parametrize("size", [(64, 128), (60, 121), (33, 67)])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_seen_comes_back_to_its_place(size, seed):
    sphere, turn = Sphere(size, CPU), random_turn(np.random.default_rng(seed))
    back = sphere.fetch(sphere.views(rays(*size), turn), turn)
    away = (back - rays(*size)).norm(dim=0)
    pixel = np.pi / size[0]  # at a pole half a pixel is missing
    assert away[2:-2].max() < pixel / 4 and away.max() < pixel


def test_each_pixel_takes_the_view_that_sees_it_best():
    sphere, turn = Sphere((90, 180), CPU), random_turn(np.random.default_rng(3))
    views = torch.arange(VIEWS).float()[:, None, None, None].expand(VIEWS, 1, sphere.side, sphere.side)
    right, down, ahead = torch.from_numpy(turn).float()
    axes = torch.stack([ahead, right, -ahead, -right, down, -down])
    nearest = torch.einsum("kc,chw->khw", axes, rays(90, 180)).argmax(0)
    assert (sphere.fetch(views.contiguous(), turn)[0].round() == nearest).float().mean() > 0.999


@pytest.mark.parametrize(
    "number, yaw, pitch", [(0, 0, 0), (1, 90, 0), (2, 180, 0), (3, -90, 0), (4, 0, -90), (5, 0, 90)]
)
def test_views_are_those_of_ffmpegs_v360(photograph, tmp_path, number, yaw, pitch):
    picture = panorama(photograph, 128)
    Image.fromarray(picture).save(tmp_path / "e.png")
    side = view_side(256)
    graph = f"format=gbrp,v360=e:flat:h_fov={VIEW_ANGLE}:v_fov={VIEW_ANGLE}:yaw={yaw}:pitch={pitch}:w={side}:h={side}"
    command = [ffmpeg_binary("v360"), "-v", "error", "-i", "e.png", "-vf", f"{graph}:interp=linear", "view.png"]
    subprocess.run(command, cwd=tmp_path, check=True)
    views = Sphere((128, 256), CPU).views(torch.from_numpy(picture).float().permute(2, 0, 1), np.eye(3))
    ours, theirs = views[number].permute(1, 2, 0).numpy(), np.float32(read_frame(tmp_path / "view.png"))
    assert np.abs(ours - theirs).mean() < 4  # it rounds places
    assert min(np.abs(other - theirs).mean() for other in (ours[::-1], ours[:, ::-1], ours.swapaxes(0, 1))) > 10


def test_views_have_sizes_that_are_quickly_transformed():
    for width in range(32, 4097, 61):
        side, dense = view_side(width), width / np.pi * np.tan(np.radians(VIEW_ANGLE / 2))
        assert max(32, dense) <= side < 1.1 * max(32, dense) + 1
        assert math.prod(prime**12 for prime in (2, 3, 5, 7, 11, 13)) % side == 0


def test_rows_weigh_as_much_as_they_cover_of_the_sphere():
    weights = area_weights(180, CPU).numpy()
    edges = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 181))
    np.testing.assert_allclose(weights, np.diff(edges) * 90, rtol=1e-3)


def test_a_step_is_scaled_by_the_mean_over_the_sphere(small_network):
    x = random_picture((64, 128)) / 4
    before, options = x.clone(), DreamOptions(panorama=True, iterations=1, step_size=2.0)
    mean = next(ascent.ascend(x, small_network, "mixed", objectives.l2, options, np.random.default_rng(0)))
    weights = np.cos(((np.arange(64) + 0.5) / 64 - 0.5) * np.pi)
    change = (x - before).abs().numpy()
    np.testing.assert_allclose(np.average(change.mean((0, 2)), weights=weights), 2.0, rtol=1e-4)
    assert abs(change.mean() - 2) > 0.01 and float(mean) > 0


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_a_step_follows_the_gradients_of_the_views(small_network, smooth):
    """Each view's gradient, smoothed there and brought back."""
    x, options = random_picture((64, 128)) / 4, DreamOptions(panorama=True, iterations=1, smooth=smooth)
    before, sphere = x.clone(), Sphere((64, 128), CPU)
    turn = random_turn(np.random.default_rng(7))
    views = sphere.views(x, turn)
    gradients = [small_network.gradient(view, "mixed", objectives.l2) for view in views]
    if smooth:
        rows, columns = np.fft.fftfreq(sphere.side)[:, None], np.fft.fftfreq(sphere.side)
        spectrum = 1 / np.maximum(np.hypot(rows, columns), look.FLOOR)
        spectrum[0, 0] *= look.MEAN_GAIN
        gradients = [torch.from_numpy(np.fft.ifft2(np.fft.fft2(one) * spectrum).real).float() for one in gradients]
    wanted = sphere.fetch(torch.stack(gradients), turn)
    list(ascent.ascend(x, small_network, "mixed", objectives.l2, options, np.random.default_rng(7)))
    step = x - before
    ratio = float((step * wanted).sum() / wanted.square().sum())
    assert float((step - ratio * wanted).norm()) < 1e-3 * float(step.norm())


def test_a_few_steps_raise_the_objective_all_round(small_network, photograph):
    """Of one layer and of a sum, at the horizon and at both poles."""
    picture = ascent.to_network(panorama(photograph), small_network)
    sphere = Sphere((64, 128), CPU)

    def seen(x):
        views = sphere.views(x, np.eye(3))
        return np.array([float(small_network.activations(view, "mixed").square().mean()) for view in views])

    for objective in (objectives.l2, objectives.at("mixed") + 0.5 * objectives.at("pool1")):
        x, options = picture.clone(), DreamOptions(panorama=True, iterations=6)
        list(ascent.ascend(x, small_network, "mixed", objective, options, np.random.default_rng(0)))
        assert (seen(x) > 1.1 * seen(picture)).all()


def test_the_same_bytes_with_any_number_of_threads(default_network, photograph):
    threads, dreams = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            options = DreamOptions(panorama=True, octaves=2, iterations=2, smooth=1.0)
            goal, rng = objectives.l2, np.random.default_rng(0)
            picture = panorama(photograph, 100)
            layer = "block_5/output"
            dreams.append(ascent.dream(picture, default_network, layer, options, DivideOptions(), goal, rng))
    finally:
        torch.set_num_threads(threads)
    assert all(np.array_equal(dream, dreams[0]) for dream in dreams[1:])


def test_octaves_go_on_across_the_border():
    x = random_picture((32, 64))
    small = ascent.resize(x, (16, 32), panorama=True)
    assert torch.equal(ascent.resize(x.roll(10, 2), (16, 32), panorama=True), small.roll(5, 2))
    np.testing.assert_allclose(small, torch.nn.functional.avg_pool2d(x, 2), atol=1e-4)
    large = ascent.resize(small, (32, 64), panorama=True)
    assert torch.equal(ascent.resize(small.roll(5, 2), (32, 64), panorama=True), large.roll(10, 2))
    assert torch.equal(ascent.pyramid(x, 2, 2.0, panorama=True)[1], small)


@pytest.mark.parametrize("width", [64, 60, 40, 37])
def test_what_a_dream_adds_goes_on_across_the_border(photograph, width):
    """Turned by whole pixels of both sizes, dream and frame give the turned frame."""
    frame = np.uint8(panorama(photograph, 60) // 2 + 64)
    source = flow.opencv().resize(frame, (width, 30), interpolation=flow.opencv().INTER_AREA)
    dream = np.uint8(source + ROUND.integers(-20, 20, source.shape))
    full = lay_on(dream, source, frame, panorama=True)
    plain = lay_on(dream, source, frame)
    np.testing.assert_array_equal(full[:, 12:-12], plain[:, 12:-12])
    if 120 % width == 0 or width == 60:
        turned = [np.roll(one, 3 * one.shape[1] // 12, 1) for one in (dream, source, frame)]
        np.testing.assert_array_equal(lay_on(*turned, panorama=True), np.roll(full, 30, 1))
    back, alone = take_off(full, frame, source, panorama=True), take_off(full, frame, source)
    np.testing.assert_allclose(back[:, 4:-4], alone[:, 4:-4], atol=1e-3)
    left, right = np.roll(full, 60, 1), np.roll(frame, 60, 1)
    if width % 2 == 0:
        opposite = take_off(left, right, np.roll(source, width // 2, 1), panorama=True)
        np.testing.assert_allclose(np.roll(opposite, width // 2, 1), back, atol=1e-3)


def test_sampling_goes_on_across_the_border(photograph):
    picture = panorama(photograph)
    offsets = np.full((64, 128, 2), (-37.0, 0.0), np.float32)
    for cubic in (False, True):
        found = flow.sample(picture, offsets, cubic, panorama=True)
        np.testing.assert_array_equal(found, np.roll(picture, 37, 1))
    offsets[..., 0] = -200.0  # more than once round
    np.testing.assert_array_equal(flow.warp(picture, -offsets, panorama=True), np.roll(picture, 200, 1))


def test_a_cut_is_looked_for_in_what_the_flow_of_a_panorama_sees(photograph):
    first = panorama(photograph, 128)
    seen = np.concatenate([first[:, -16:], first, first[:, :16]], 1)
    for wide, frame in ((True, seen), (False, first)):
        found = inheritance.cut_thumbnail(first, FlowOptions(FlowMode.STABLE, panorama=wide))
        np.testing.assert_array_equal(found, cuts.thumbnail(frame))


def test_motion_is_found_across_the_border_and_trusted_less_towards_the_poles(photograph):
    first = panorama(photograph, 128)
    options = FlowOptions(FlowMode.STABLE, panorama=True)
    motion = estimate_motion(first, np.roll(first, 5, 1), options)
    assert motion.flow.shape == (128, 256, 2) and motion.trust.shape == (128, 256)
    border = motion.flow[32:96, [0, 1, 2, -3, -2, -1], 0]
    assert abs(np.median(border) + 5) < 0.5
    trust = motion.trust.mean(1)
    assert trust[54:74].mean() > 0.8 and trust[[0, 1, -2, -1]].max() < 0.2
    assert motion.trust.max() <= 1  # also where the parallels are longest
    blended = estimate_motion(first, np.roll(first, 5, 1), FlowOptions(FlowMode.BLEND, panorama=True))
    assert abs(np.median(blended.flow[32:96, [0, -1], 0]) - 5) < 0.5 and blended.trust is None
    other = np.roll(255 - first, 100, 1)
    assert estimate_motion(first, other, options).is_cut


def test_a_little_way_round_a_pole_is_little_motion():
    around = np.zeros((64, 128, 2), np.float32)
    around[..., 0] = 8 / np.maximum(parallels(64)[:, None], 0.1)  # as far on the sphere, but at the very poles
    moves = motion_mask(around, 200, panorama=True)
    assert moves[8:-8].all() and not motion_mask(around, 200)[16:-16].any()


@pytest.mark.parametrize("mode", FlowMode)
def test_what_is_inherited_goes_on_across_the_border(photograph, mode):
    """A dream that turns with its panorama is taken over whole, wherever the border lies."""
    first = np.uint8(panorama(photograph) // 2 + 64)
    added = np.uint8(ROUND.integers(0, 30, first.shape))
    options = FlowOptions(mode, threshold=0, blend_flow=1.0, panorama=True)
    still = inheritance.Motion(
        None if mode == FlowMode.OFF else np.full((64, 128, 2), (6 if mode == FlowMode.BLEND else -6, 0), np.float32),
        np.ones((64, 128), np.float32),
    )
    previous, current = first, np.roll(first, 6, 1)
    taken = inheritance.inherit(previous, current, previous + added, still, options, 1.0)
    if mode != FlowMode.OFF:
        np.testing.assert_allclose(taken.start, np.roll(previous + added, 6, 1), atol=1e-3)
    if mode == FlowMode.STABLE:
        dreamed = np.uint8(np.clip(taken.warped + 20.0, 0, 255))
        flat = inheritance.inherit(previous, current, previous + added, still, replace(options, panorama=False), 1.0)
        left = [np.abs(one.stabilise(dreamed, 99.0) - taken.warped)[:, 8:-8].mean() for one in (taken, flat)]
        assert left[0] < 0.85 * left[1]  # a panorama is eased more


def test_the_closing_border_is_like_any_column(photograph, tmp_path, small_network):
    """By the measure of seams, wherever in the picture the border lies."""
    source = save_frames([np.roll(panorama(photograph), 11 * k, 1) for k in range(12)], tmp_path / "source")
    options = {"iterations": 8, "octaves": 1, "flow": FlowOptions(blend_static=0)}
    render(source, tmp_path / "out", small_network, panorama=True, **options)
    sides, jumps = (Tile(0, 64, 0, 64), Tile(0, 64, 64, 128)), []
    for number in range(12):
        frame, dream = read_frame(source / f"{number}.png"), read_frame(tmp_path / "out" / f"frame_{number:06d}.png")
        jumps.append(border_jumps(np.roll(dream, 64, 1), np.roll(frame, 64, 1), sides)[0])
    across, beside = np.mean(jumps, 0)
    assert 0.75 < across / beside < 1.25


def test_a_panorama_looks_the_same_wherever_its_border_lies(photograph):
    """Rolled by a quarter, and turned back: views and pixels are those of the first, to the borders."""
    picture = torch.from_numpy(panorama(photograph)).float().permute(2, 0, 1)
    sphere, turn = Sphere((64, 128), CPU), random_turn(np.random.default_rng(1))
    quarter = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    for back in (quarter, quarter.T):
        rolled = sphere.views(picture.roll(32, 2), turn @ back)
        if torch.allclose(rolled, sphere.views(picture, turn), atol=0.1):
            break
    else:
        raise AssertionError("the views differ")
    np.testing.assert_allclose(sphere.fetch(rolled, turn @ back), sphere.fetch(rolled, turn).roll(32, 2), atol=0.1)


@pytest.mark.parametrize("mode", FlowMode)
@pytest.mark.parametrize("width", [0, 96])
def test_a_resumed_run_ends_with_the_same_bytes(source, tmp_path, small_network, mode, width):
    options = {"flow": FlowOptions(mode), "panorama": True, "dream_width": width}
    render(source, tmp_path / "whole", small_network, **options)
    out = shutil.copytree(tmp_path / "whole", tmp_path / "out")
    (out / "frame_000001.png").unlink()
    render(source, out, small_network, **options)
    assert read_dreams(out) == read_dreams(tmp_path / "whole")


@pytest.mark.parametrize("mode", FlowMode)
@pytest.mark.parametrize("width", [0, 96])
def test_black_gives_back_the_source_and_white_the_dream_without_a_mask(source, tmp_path, small_network, mode, width):
    options = {"flow": FlowOptions(mode), "panorama": True, "dream_width": width}
    render(source, tmp_path / "none", small_network, **options)
    for name, value in (("black", 0), ("white", 255)):
        Image.new("L", (50, 40), value).save(tmp_path / f"{name}.png")
        render(source, tmp_path / name, small_network, mask=str(tmp_path / f"{name}.png"), **options)
    assert read_dreams(tmp_path / "white") == read_dreams(tmp_path / "none")
    for number in range(3):
        kept, dreamt = (read_frame(tmp_path / name / f"frame_{number:06d}.png") for name in ("black", "white"))
        np.testing.assert_array_equal(kept, read_frame(source / f"{number}.png"))
        assert (kept != dreamt).mean() > 0.5


def test_a_mask_that_opens_across_the_border(source, tmp_path, small_network):
    """What newly opens, at both borders of the frame, dreams at once; what was open goes on as it was."""
    masks = [np.full((64, 128), 255, np.uint8) for _ in range(3)]
    masks[0][:, :16] = masks[0][:, -16:] = 0
    save_frames(masks, tmp_path / "masks")
    options = {"flow": FlowOptions(FlowMode.STABLE), "panorama": True, "iterations": 10}
    render(source, tmp_path / "out", small_network, mask=str(tmp_path / "masks"), **options)
    dreams, frames = (
        np.float32([read_frame(path) for path in sorted(folder.glob("*.png"))]) for folder in (tmp_path / "out", source)
    )
    added = np.abs(dreams - frames)
    opened = np.concatenate([added[1][:, :16], added[1][:, -12:]], 1).mean()  # it turned by four columns
    assert added[0][:, :16].max() == 0 and opened > 0.7 * added[0][:, 16:-16].mean()


def test_it_is_part_of_the_settings_and_is_not_divided(source, tmp_path, small_folder, capsys):
    command = ["-i", str(source), "-o", str(tmp_path / "Out"), "-t", str(small_folder), "-l", "mixed", "-oct", "1"]
    command += ["-itr", "1", "--panorama"]
    assert dreamer.main(command) == 0
    capsys.readouterr()
    dreams = read_dreams(tmp_path / "Out")
    manifest = json.loads((tmp_path / "Out" / "render.json").read_text())
    assert manifest["--panorama"] is True and manifest["--divide"] == 0
    assert dreamer.main([*command, "-d", "3", "-mw", "40"]) == 0  # the same render: nothing is left to do
    told = capsys.readouterr().err
    assert "--divide" in told and "--maxWidth" in told and "(0 dreamed now)" in told
    assert read_dreams(tmp_path / "Out") == dreams
    assert dreamer.main(["--settings", str(tmp_path / "Out" / "frame_000000.png")]) == 0
    assert "--panorama" in capsys.readouterr().out.split()
    assert dreamer.main(command[:-1]) == 2
    assert "--panorama is False, was True" in capsys.readouterr().err


@pytest.mark.parametrize(
    "size, options, told",
    [
        ((128, 64), ["-z", "1.02"], "--zoom 1.02: a --panorama has no centre"),
        ((128, 64), ["--rotate", "1"], "--rotate 1.0: a --panorama has no centre"),
        ((128, 64), ["-z", "0:1, 9:1.5"], "a --panorama has no centre"),
        ((128, 66), [], "twice as wide as high, and these are 128x66"),
        ((126, 64), [], "twice as wide as high, and these are 126x64"),
        ((128, 64), ["-l", "classes"], "layer classes takes pictures of 48x40 only, not 32x32"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_work(tmp_path, small_folder, capsys, size, options, told):
    save_frames([np.zeros((size[1], size[0], 3), np.uint8)], tmp_path / "in")
    command = ["-i", tmp_path / "in", "-o", tmp_path / "Out", "-t", small_folder, "-l", "mixed", "--panorama"]
    assert dreamer.main([*map(str, command), *options]) == 2
    assert told in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "Out").exists()


@pytest.mark.parametrize("more, target", [([], "dream.png"), (["--frames", "3"], "Out")])
def test_a_picture_of_another_shape_is_named_before_the_network_loads(photograph, tmp_path, capsys, more, target):
    Image.fromarray(photograph("coffee.png", (60, 80))).save(tmp_path / "photo.png")
    command = ["-i", tmp_path / "photo.png", "-o", tmp_path / target, "-t", tmp_path / "none", "--panorama"]
    assert dreamer.main([*map(str, command), *more]) == 2
    assert "photo.png: --panorama takes" in capsys.readouterr().err and not (tmp_path / target).exists()


def test_a_preview_goes_on_across_the_border(source, tmp_path, small_network):
    turned = [np.roll(read_frame(source / f"{number}.png"), 64, 1) for number in range(3)]
    save_frames(turned, tmp_path / "turned")
    options = {"iterations": 0, "preview": 48, "panorama": True, "flow": FlowOptions(blend_static=0)}
    for name, frames in (("a", source), ("b", tmp_path / "turned")):
        render(frames, tmp_path / name, small_network, **options)
    ours, other = (read_frame(tmp_path / name / "frame_000001.png") for name in "ab")
    np.testing.assert_array_equal(np.roll(ours, 24, 1), other)


def test_from_python_too(photograph, small_network, source, tmp_path):
    options = RenderOptions(
        DreamOptions(layers=("mixed",), octaves=1, iterations=2, panorama=True),
        divide=DivideOptions(DivideMode.SEAMLESS, 40, 40),
    )
    assert options.divide == DivideOptions() and options.flow.panorama
    dream = deepdream.dream(read_frame(source / "0.png"), small_network, options)
    deepdream.dream_directory(source, tmp_path / "out", small_network, options)
    np.testing.assert_array_equal(read_frame(tmp_path / "out" / "frame_000000.png"), dream)
    with pytest.raises(UsageError, match="the picture: --panorama takes"):
        deepdream.dream(photograph("coffee.png", (60, 80)), small_network, options)
