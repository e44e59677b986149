"""scripts/panorama.py: what it says of panoramas of which the answer is known."""

import sys

import numpy as np
import pytest
from helpers import SCRIPTS, save_frames

from deepdream.files.frames import open_frames, read_frame

sys.path.insert(0, str(SCRIPTS))
import panorama


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cube") / "Input"
    assert panorama.main(["make", "256", str(folder), "--frames", "3"]) == 0
    return folder


def test_it_makes_a_cube_that_turns(source):
    frames = [read_frame(path) for path in open_frames(source).paths]
    assert [frame.shape for frame in frames] == [(128, 256, 3)] * 3
    faces = panorama.see(frames[0])
    assert faces[5].mean() < 50 < faces[0].mean()  # stars are overhead
    assert np.ptp(faces[4], -1).mean() < 8  # the grass is grey
    apart = [np.abs(np.float32(frame) - frames[0]).mean() for frame in frames]
    assert 0 == apart[0] < apart[1] < apart[2] < 30


def test_other_photographs_are_put_where_they_are_named(source, tmp_path):
    others = ["hubble_deep_field.jpg", *panorama.PHOTOGRAPHS[1:5], "chelsea.png"]
    assert panorama.main(["make", "256", str(tmp_path / "o"), "--photographs", *others]) == 0
    ours, other = (panorama.see(read_frame(folder / "frame_000000.png")) for folder in (source, tmp_path / "o"))
    np.testing.assert_allclose(ours[1:5, 5:-5, 5:-5], other[1:5, 5:-5, 5:-5])
    assert other[0].mean() < 50 < other[5].mean()


def test_spokes_and_rings_are_told_apart():
    rows, columns = np.indices((64, 64)) - 31.5
    star, rings = np.cos(12 * np.arctan2(rows, columns)), np.cos(np.hypot(rows, columns))
    assert panorama.spokes(star[..., None]) > 10 and panorama.spokes(rings[..., None]) < 0.1
    assert 0.8 < panorama.spokes(np.random.default_rng(0).normal(size=(64, 64, 1))) < 1.25


def test_it_measures_renders_side_by_side(source, tmp_path, small_folder, capsys):
    frames = [np.int16(read_frame(path)) for path in open_frames(source).paths]
    step = np.where(np.arange(256) < 128, 9, -9)[:, None]  # across the closing border, and in the middle
    save_frames([np.clip(frame + step, 0, 255) for frame in frames], tmp_path / "torn")
    noise = np.random.default_rng(0).normal(scale=9, size=(3, 128, 256, 3))
    save_frames([np.clip(frame + one, 0, 255) for frame, one in zip(frames, noise)], tmp_path / "noisy")
    command = [
        "measure",
        source,
        tmp_path / "torn",
        tmp_path / "noisy",
        "--layer",
        "mixed",
        "--model_path",
        small_folder,
    ]
    assert panorama.main(list(map(str, command))) == 0
    head, torn, noisy = capsys.readouterr().out.splitlines()
    assert head.split() == ["render", "objective", "spokes", "strength", "flicker", "border", "columns"]
    border, flicker = (lambda line: float(line.split()[13])), (lambda line: float(line.split()[10]))
    assert border(torn) > 3 > 1.5 > border(noisy) > 0.5
    assert flicker(noisy) > 5 * abs(flicker(torn))


def test_a_directory_that_is_not_there_is_one_line(source, tmp_path, capsys):
    assert panorama.main(["measure", str(source), str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("panorama.py: ")
