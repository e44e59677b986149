"""Masks: white dreams, black keeps the source, and in between lies what is in between."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import moving_ramps, read_dreams, save_frames
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import deepdream
from deepdream.errors import UsageError
from deepdream.files.frames import read_frame, read_note
from deepdream.files.masks import find_masks, read_mask, resize_mask, weights
from deepdream.motion.inheritance import MAX_STRENGTH, Inheritance
from deepdream.options import DreamOptions, VideoOptions
from deepdream.picture import ascent, objectives
from deepdream.render.journal import read_records
from deepdream.video.create import create

SIZE = (60, 40)  # of the frames
QUICK = "-l mixed -oct 2 -itr 2 -j 4 -gpu 0".split()
MODES = {
    "static": "-bs 0.6", "flow": "-flow 1", "stable": "-flow 2", "tiles": "-flow 2 -d 1 -mw 32 -mh 32",
    "seamless": "-d 3 -mw 32 -mh 32", "own width": "-flow 2 --dreamwidth 45", "zoom": "-bs 0.9 -z 1.1",
    "source's colours": "-bs 0.5 --colors source --smooth 1", "preview": "-flow 2 -p 48",
    "seamless, own width": "-flow 1 -d 3 -mw 32 -mh 32 --dreamwidth 45",
    "sharpened": "-flow 2 --dreamwidth 24 --smooth 0 -oct 3",
}  # fmt: skip


def save_mask(path, values):
    Image.fromarray(np.uint8(values)).save(path)
    return path


@pytest.fixture
def dream(run_here, small_folder, frames):
    """A function that dreams the four frames in ``Input`` by the command line; gives their pixels."""

    def dream(output, *arguments):
        done = run_here("-i", "Input", "-o", output, "-t", small_folder, *QUICK, *arguments)
        assert done.returncode == 0, done.stderr
        return [read_frame(path) for path in sorted(Path(output).glob("frame_*"))]

    return dream


# --- Parts ------------------------------------------------------------------------------------------

SIDES = st.integers(1, 90)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([0, 255]))
def test_black_and_white_stay_what_they_are_at_any_size(height, width, new_height, new_width, value):
    resized = resize_mask(np.full((height, width), value, np.uint8), (new_width, new_height))
    assert resized.shape == (new_height, new_width) and (weights(resized) == value / 255).all()


def test_an_edge_becomes_soft_where_it_shrinks():
    mask = np.zeros((30, 30), np.uint8)
    mask[:, 15:] = 255
    assert 0 < resize_mask(mask, (10, 10))[5, 5] < 255 and resize_mask(mask, (30, 30)) is not None
    np.testing.assert_array_equal(resize_mask(mask, (30, 30)), mask)


def test_a_coloured_mask_counts_by_its_brightness(tmp_path):
    Image.fromarray(np.uint8([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]])).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", (3, 1)).tolist() == [[255, 0, 76]]


def test_a_step_is_weighted(small_network):
    rng = np.random.default_rng(0)
    picture = rng.uniform(60, 190, (24, 32, 3))
    weight = torch.from_numpy(rng.choice([0, 0.25, 1], (1, 24, 32)).astype(np.float32))
    options, moved = DreamOptions(octaves=1, iterations=1, jitter=9), []
    for one in (None, weight):
        x = ascent.to_network(picture, small_network)
        before = x.clone()
        list(ascent.ascend(x, small_network, "mixed", objectives.l2, options, np.random.default_rng(1), weight=one))
        moved.append(x - before)
    torch.testing.assert_close(moved[1], weight * moved[0], atol=1e-4, rtol=1e-4)
    assert (moved[1][:, weight[0] == 1] == moved[0][:, weight[0] == 1]).all()


@pytest.mark.parametrize("value, kept", [(0.0, 0), (1.0, 1), (0.25, 0.25)])
def test_what_is_taken_over_is_weighted(value, kept):
    rng = np.random.default_rng(0)
    source, start, warped = (rng.uniform(0, 255, (5, 7, 3)).astype(np.float32) for _ in range(3))
    weight = rng.uniform(0, 1, (5, 7, 1)).astype(np.float32)
    within = Inheritance(start, source, warped, weight).within(np.full((5, 7, 1), value, np.float32), source)
    np.testing.assert_allclose(within.start, source + kept * (start - source), rtol=1e-5)
    np.testing.assert_array_equal(within.weight, np.float32(kept) * weight)
    if value in (0, 1):
        np.testing.assert_array_equal(within.start, start if value else source)
    assert within.share == value


def test_the_bound_of_the_strength_is_that_of_the_share_that_dreams():
    source = np.full((4, 4, 3), 100, np.uint8)
    dreamed = source + np.uint8([[[0]], [[0]], [[0]], [[40]]])  # a quarter dreams, by 40 grey levels
    mask = (np.arange(4) == 3)[:, None, None] * np.ones((1, 4, 1), np.float32)
    inherited = Inheritance(np.float32(source), source, np.float32(source), np.zeros((4, 4, 1), np.float32))
    within = inherited.within(mask, source)
    np.testing.assert_array_equal(within.stabilise(dreamed, 41 / MAX_STRENGTH), dreamed)
    assert within.stabilise(dreamed, 39 / MAX_STRENGTH)[3, 0, 0] == 139


# --- Renders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_black_gives_back_the_source_and_white_the_dream_without_a_mask(dream, tmp_path, mode):
    save_mask(tmp_path / "black.png", np.zeros((9, 7)))
    save_mask(tmp_path / "white.png", np.full((50, 70), 255))
    none, black, white = (
        dream(name, *mode.split(), *mask.split())
        for name, mask in (("N", ""), ("B", "--mask black.png"), ("W", "--mask white.png"))
    )
    sources = [Image.open(path) for path in sorted(Path("Input").iterdir())]
    for one, two, dreamed, source in zip(black, white, none, sources):
        wanted = source if one.shape[1::-1] == SIZE else source.resize((48, 32), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(one, np.asarray(wanted))
        np.testing.assert_array_equal(two, dreamed)
        assert (one != two).mean() > 0.5
    assert len(none) == 4


@pytest.mark.parametrize("mode", ["-bs 0.6", "-flow 1", "-flow 2", "-flow 2 --dreamwidth 45", "-flow 2 -oct 3 -octs 2"])
def test_to_the_left_of_an_edge_nothing_changes_and_to_the_right_it_dreams(dream, tmp_path, mode):
    mask = np.zeros(SIZE[::-1])
    mask[:, 33:] = 255
    save_mask(tmp_path / "m.png", mask)
    for number, dreamed in enumerate(dream("Output", *mode.split(), "--mask", "m.png"), 1):
        source = read_frame(f"Input/image-00000{number}.png")
        np.testing.assert_array_equal(dreamed[:, :33], source[:, :33])
        change = np.abs(np.float32(dreamed) - source)[:, 33:]
        assert change.mean(axis=(0, 2)).min() > 0.5


def test_grey_dreams_by_its_share(dream, tmp_path):
    save_mask(tmp_path / "grey.png", np.full((40, 60), 128))
    change = []
    for name, more in (("Whole", []), ("Half", ["--mask", "grey.png"])):
        first = dream(name, "-bs", "0", "-oct", "1", "-itr", "1", "-s", "20", *more)[0]
        change.append(np.abs(np.float32(first) - read_frame("Input/image-000001.png")).mean())
    assert change[1] == pytest.approx(change[0] * 128 / 255, rel=0.1)  # some is clipped


@pytest.fixture
def moving_masks(tmp_path):
    """A directory of four masks, each of which is white in another quarter of the width."""
    masks = []
    for number in range(4):
        mask = np.zeros((*SIZE[::-1], 3))
        mask[:, 15 * number : 15 * number + 15] = 255
        masks.append(mask)
    return save_frames(masks, tmp_path / "Masks")


def changed_quarters(dreams):
    """Of each dream, the mean change in each quarter of the width."""
    sources = [np.float32(read_frame(f"Input/image-00000{number}.png")) for number in range(1, 5)]
    return np.array([
        np.abs(dream - source).mean(axis=(0, 2)).reshape(4, 15).mean(1) for dream, source in zip(dreams, sources)
    ])  # fmt: skip


@pytest.mark.parametrize("mode", ["-bs 0.6", "-flow 2"])
def test_a_directory_gives_each_frame_its_mask(dream, moving_masks, mode):
    change = changed_quarters(dream("Output", *mode.split(), "--mask", "Masks"))
    assert (change[~np.eye(4, dtype=bool)] == 0).all() and np.diag(change).min() > 1


def test_a_video_gives_each_frame_its_mask(dream, moving_masks):
    create(moving_masks, "masks.mp4", VideoOptions(crf=1))
    dreams = dream("Output", "-flow", "2", "--mask", "masks.mp4")
    change = changed_quarters(dreams)
    assert change[~np.eye(4, dtype=bool)].max() < 0.5 and np.diag(change).min() > 1
    assert len(list(Path("Output/Mask").glob("*.png"))) == 4 and "--mask masks.mp4" in read_note(
        "Output/frame_000000.png"
    )
    Path("Output/frame_000003.png").unlink()
    for again, first in zip(dream("Output", "-flow", "2", "--mask", "masks.mp4"), dreams):
        np.testing.assert_array_equal(again, first)


def test_all_in_one_takes_a_mask(dream, run_here, frames, moving_masks, small_folder):
    create(frames, "clip.mp4", VideoOptions())
    command = ["-i", "clip.mp4", "-o", "Video.mp4", "-t", small_folder, *QUICK]
    done = run_here(*command, "--mask", "Masks")
    assert done.returncode == 0, done.stderr
    assert len(list(Path("Video.frames/Output").glob("frame_*"))) == 4
    (moving_masks / "3.png").unlink()
    done = run_here(*command, "--mask", "Masks", "-o", "Other.mp4")
    assert done.returncode == 2 and "3 masks for 4 frames" in done.stderr
    assert not Path("Other.frames").exists()


@pytest.fixture
def opening_masks(frames, moving_masks, tmp_path):
    """Masks of a still picture, the right half of which is white from frame 1 on."""
    for number in range(4):
        mask = np.full(SIZE[::-1], 255 if number else 0)
        mask[:, :30] = 255
        save_mask(moving_masks / f"{number}.png", mask)
    shutil.rmtree("Input")
    save_frames([moving_ramps(1, (40, 60))[0]] * 4, tmp_path / "Input", pattern="image-{:06d}.png", first=1)
    return moving_masks


def test_what_newly_opens_dreams_at_once_and_the_rest_as_ever(dream, opening_masks):
    many = ["-flow", "2", "-itr", "12"]
    change = changed_quarters(dream("Output", *many, "--mask", "Masks"))
    without = changed_quarters(dream("Whole", *many))
    assert (change[0, 2:] == 0).all()
    assert change[1, 2:].mean() > 0.7 * without[0, 2:].mean()
    np.testing.assert_allclose(change[1, :2].mean(), without[1, :2].mean(), rtol=0.2)


@pytest.mark.parametrize(
    "few, opens, steps",
    [
        ("3", ["frame 2/4: the mask opens"], [8, 8, 3, 3]),
        ("9", ["frame 2/4: the mask opens"], [8, 8, 9, 9]),  # more steps, but smaller: they come to less
        ("18", [], [8, 18, 18, 18]),
    ],
)
def test_a_frame_whose_mask_opens_takes_the_steps_of_a_first_one_and_says_so(
    run_here, opening_masks, small_folder, few, opens, steps
):
    command = ["-i", "Input", "-o", "Output", "-t", small_folder, *QUICK, "-oct", "1", "-itr", "8", "-flow", "2"]
    lines = run_here(*command, "-v", "2", "-fitr", few, "--mask", "Masks").stderr.splitlines()
    assert [line for line in lines if "opens" in line] == opens
    assert [sum(line.startswith(f"frame {number} octave") for line in lines) for number in (1, 2, 3, 4)] == steps


def test_frames_that_are_all_black_take_few_steps(run_here, opening_masks, small_folder):
    for number in range(4):
        save_mask(opening_masks / f"{number}.png", np.zeros(SIZE[::-1]))
    command = ["-i", "Input", "-o", "Output", "-t", small_folder, *QUICK, "-oct", "1", "-itr", "8", "-flow", "2"]
    lines = run_here(*command, "-v", "2", "-fitr", "3", "--mask", "Masks").stderr.splitlines()
    assert [sum(line.startswith(f"frame {number} octave") for line in lines) for number in (1, 2, 3, 4)] == [8, 3, 3, 3]


@pytest.mark.parametrize("opened, said", [(3, False), (4, True)])
def test_a_rim_that_opens_costs_nothing(run_here, opening_masks, small_folder, opened, said):
    """Up to a twentieth of the frame: three of its sixty columns."""
    for number in range(4):
        mask = np.zeros(SIZE[::-1])
        mask[:, : 20 + (opened if number else 0)] = 255
        save_mask(opening_masks / f"{number}.png", mask)
    command = ["-i", "Input", "-o", "Output", "-t", small_folder, *QUICK, "-flow", "2", "-v", "2", "--mask", "Masks"]
    assert ("the mask opens" in run_here(*command).stderr) == said


def test_where_a_scene_begins_in_the_dark_it_dreams_later(dream, opening_masks):
    """The strength to which a shot is held is that of the first frame that dreams at all."""
    for number in range(4):
        save_mask(opening_masks / f"{number}.png", np.full((40, 60), 255 if number else 0))
    change = changed_quarters(dream("Output", "-flow", "2", "--mask", "Masks")).mean(1)
    assert change[0] == 0 and change[3] > change[2] > change[1] > 1
    strengths = [entry.shot_strength for entry in read_records("Output").entries.values()]
    assert strengths[0] == 0 and strengths[1] == strengths[2] == strengths[3] > 1


def test_a_shot_is_held_to_the_strength_of_what_dreams(dream, opening_masks):
    first = dream("Output", "-flow", "2", "--mask", "Masks")[0]
    change = np.abs(np.float32(first) - read_frame("Input/image-000001.png"))
    assert read_records("Output").entries[0].shot_strength == pytest.approx(change[:, :30].mean(), rel=0.05)


@pytest.mark.parametrize("lost", [1, 2])
def test_a_render_goes_on_with_its_mask_alone(dream, run_here, small_folder, tmp_path, moving_masks, lost):
    command = ["-flow", "2", "--mask", "Masks"]
    dream("Whole", *command)
    whole = read_dreams("Whole")
    shutil.copytree("Whole", "Output")
    Path(f"Output/frame_00000{lost}.png").unlink()
    dream("Output", *command)
    assert read_dreams("Output") == whole
    assert str(tmp_path / "Masks") in json.loads(Path("Output/render.json").read_text())["--mask"]
    save_mask(moving_masks / "1.png", np.full((40, 60), 255))
    done = run_here("-i", "Input", "-o", "Output", "-t", small_folder, *QUICK, *command)
    assert done.returncode == 2 and "--mask is" in done.stderr and read_dreams("Output") == whole


def test_an_array_is_dreamed_within_a_mask_like_a_first_frame(dream, small_network, tmp_path):
    mask = save_mask(tmp_path / "m.png", np.linspace(0, 255, 60) * np.ones((40, 1)))
    options = deepdream.RenderOptions(deepdream.DreamOptions(("mixed",), 2, iterations=2, jitter=4), mask=str(mask))
    picture = read_frame("Input/image-000001.png")
    (first, *_) = dream("Output", "--mask", "m.png")
    np.testing.assert_array_equal(deepdream.dream(picture, small_network, options), first)
    (path, *_) = deepdream.dream_directory("Input", "Python", small_network, options)
    np.testing.assert_array_equal(read_frame(path), first)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: None, "m does not exist"),
        (lambda: Path("m").write_text("no picture"), "m cannot be read as a video"),
        (lambda: shutil.copytree("Input", "m") and Path("m/image-000001.png").unlink(), "3 masks for 4 frames"),
        (lambda: Path("m").mkdir(), "m holds no jpg or png frames"),
        (lambda: shutil.copytree("Input", "m") and Path("m/image-000002.png").write_text("x"), "is not a picture"),
        (lambda: create("Input", "m.mp4", VideoOptions(frame_rate=5)) and Path("m.mp4").rename("m") and
         Path("Input/image-000004.png").unlink(), "4 masks for 3 frames"),
    ],
)  # fmt: skip
def test_masks_that_cannot_be_are_one_line_before_any_work(run_here, frames, small_folder, make, said):
    make()
    done = run_here("-i", "Input", "-o", "Output", "-t", small_folder, *QUICK, "--mask", "m")
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not Path("Output").exists()


def test_one_mask_serves_all_frames_and_a_directory_of_one_does_not(tmp_path):
    mask = save_mask(tmp_path / "m.png", np.zeros((4, 4)))
    assert find_masks(str(mask), 3) == (mask,) * 3
    with pytest.raises(UsageError, match="1 masks for 3 frames"):
        find_masks(str(tmp_path), 3)
