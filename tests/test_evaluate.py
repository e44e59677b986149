"""The measures of dreamed frames where the answer is known, and evaluate.py as a user runs it."""

import json

import evaluate as script
import judge
import numpy as np
import pytest
from helpers import SCRIPTS, run_python, save_frames
from PIL import Image

from deepdream.errors import UsageError
from deepdream.geometry import Tile
from deepdream.show import measures


def pan(scene, count, step=2, size=(64, 80)):
    """A camera that moves left over a scene: what it shows moves right by ``step`` pixels a frame."""
    lefts = range((count - 1) * step, -1, -step)
    return [np.ascontiguousarray(scene[: size[0], left : left + size[1]]) for left in lefts]


def evaluate(*arguments):
    """Run the command line within this process; its exit status."""
    return script.main(list(map(str, arguments)))


@pytest.fixture(scope="module")
def scene(photograph):
    return photograph("coffee.png", (64, 100))


@pytest.mark.parametrize("estimate", judge.JUDGES.values(), ids=judge.JUDGES)
def test_the_flow_of_a_pan_leads_back_to_the_frame_before(scene, estimate):
    previous, current = pan(scene, 2)
    back = estimate(current, previous)
    np.testing.assert_allclose(np.median(back, (0, 1)), (-2, 0), atol=0.1)


def test_what_comes_from_beyond_the_edge_is_not_compared():
    back = np.full((6, 9, 2), (-3, 0), np.float32)
    seen = measures.visible(back, -back)
    assert not seen[:, :3].any() and seen[:, 3:].all()


def test_occluded_pixels_and_motion_boundaries_are_not_compared():
    still = np.zeros((8, 8, 2), np.float32)
    assert measures.visible(still, still).all()
    assert not measures.visible(still, still + 1).any()  # 2 square pixels apart; 0.52 are allowed
    assert measures.visible(still, still + 0.5).all()  # 0.5 apart
    torn = still.copy()
    torn[:, 4:, 0] = 0.4
    assert measures.visible(torn, -torn)[0].tolist() == [True] * 3 + [False] * 2 + [True] * 2 + [False]


def test_the_warping_error_of_a_known_change():
    # A tenth more in each of three channels: 3 * 0.1 ** 2, but none where it is not seen.
    previous, current = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 51, np.uint8)
    current[:, 3:] = 255
    seen = np.arange(6)[None] < 3
    pair = measures.FramePair(1, 0, np.zeros((4, 6, 2), np.float32), seen.repeat(4, 0))
    assert measures.warping_error(previous, current, pair) == pytest.approx(3 * 0.2**2)


def test_the_warping_error_follows_the_motion(scene):
    previous, current = pan(scene, 2)
    seen = np.ones((64, 80), bool)
    seen[:, :2] = False
    moving = measures.FramePair(1, 0, np.full((64, 80, 2), (-2, 0), np.float32), seen)
    still = measures.FramePair(1, 0, np.zeros((64, 80, 2), np.float32), seen)
    assert measures.warping_error(previous, current, moving) < 1e-8
    assert measures.warping_error(previous, current, still) > 1e-3


def test_a_scene_cut_is_no_pair(scene, photograph):
    other = photograph("chelsea.png", (64, 80))
    pairs = judge.match_frames([*pan(scene, 2), other, other], "farneback")
    assert [(pair.number, pair.other) for pair in pairs] == [(1, 0), (3, 2)]


def test_frames_further_apart_are_compared_within_a_scene(scene, photograph):
    other = [photograph("chelsea.png", (64, 80))] * 4
    pairs = list(judge.match_frames([*pan(scene, 3), *other], "farneback", apart=2))
    assert [(pair.number, pair.other) for pair in pairs] == [(2, 0), (5, 3), (6, 4)]
    np.testing.assert_allclose(np.median(pairs[0].flow, (0, 1)), (-4, 0), atol=0.1)


SIZE = (240, 320)
TILES = [Tile(0, 240, 0, 160), Tile(0, 240, 160, 320)]
BLACK = np.zeros((*SIZE, 3), np.uint8)


def ramp(jump=1):
    """A hallucination that rises by 1 grey level a column, and by ``jump`` at the border of `TILES`."""
    columns = np.arange(SIZE[1]) + (jump - 1) * (np.arange(SIZE[1]) >= 160)
    return np.broadcast_to(np.float32(columns)[:, None], (*SIZE, 3))


def noise(seed):
    return np.random.default_rng(seed).normal(0, 10, (*SIZE, 3)).astype(np.float32)


def visibility(hallucination, undivided, source=BLACK, tiles=TILES):
    pictures = source + hallucination, source + undivided
    return judge.seam_visibility(*(judge.border_jumps(picture, source, tiles) for picture in pictures))


def test_a_seam_shows_by_as_much_as_it_jumps():
    assert visibility(ramp(3), ramp()) == (3, 3)
    assert visibility(ramp(), ramp()) == (1, 1)
    assert visibility(ramp(3), ramp(3)) == (1, 1)  # what the undivided dream has there is no seam
    turned = [Tile(tile.left, tile.right, tile.top, tile.bottom) for tile in TILES]
    jumps = judge.border_jumps(ramp(3).swapaxes(0, 1), 0, turned)
    np.testing.assert_allclose(jumps, [(3, 1)])


def test_each_border_counts_and_the_worst_is_told():
    tiles = [*TILES, Tile(0, 240, 80, 320), Tile(120, 240, 0, 320)]
    slope = np.arange(240, dtype=np.float32)[:, None, None]
    assert visibility(ramp(4) + slope, ramp() + slope, tiles=tiles) == ((4 + 1 + 1) / 3, 4)


def test_an_edge_of_the_source_is_no_seam():
    source = BLACK.copy()
    source[:, 160:] = 100
    assert visibility(ramp(), ramp(), source) == (1, 1)
    assert visibility(ramp(3), ramp(), source) == (3, 3)


def test_a_border_in_a_dull_band_is_judged_by_the_band():
    # Around it the dream has half its strength: compared with the whole picture the seam would hide.
    band = np.where(abs(np.arange(320) - 159.5) < 24, 0.5, 1)[:, None]
    assert visibility(noise(0) * band, noise(0))[1] == pytest.approx(1, abs=1e-5)
    assert visibility(ramp(3) * 0.5, ramp()) == (3, 3)


def pooled(step, seeds):
    """The jumps of frames of noise, higher by ``step`` right of the border, averaged as `measure_render` does."""
    right = (np.arange(320) >= 160)[:, None] * step
    return np.mean([judge.border_jumps(noise(seed) + right, BLACK, TILES) for seed in seeds], 0)


def test_a_texture_of_another_seed_has_no_seam():
    mean, worst = judge.seam_visibility(pooled(0, range(24, 48)), pooled(0, range(24)))
    assert mean == worst == pytest.approx(1, abs=0.05)


def test_jumps_that_agree_along_the_border_outweigh_the_texture():
    # A step as high as the noise's deviation s. Runs of 8 jump by N(s, s/2), and without it by N(0, s/2): their mean
    # absolute values are 1.009 s and 0.399 s. Pixel by pixel it would be N(s, 1.41 s), 1.24 times N(0, 1.41 s).
    _, worst = judge.seam_visibility(pooled(10, range(24, 48)), pooled(0, range(24)))
    assert worst == pytest.approx(1.009 / 0.399, rel=0.05)


def test_a_render_without_tiles_or_without_a_dream_has_no_seam_to_measure():
    with pytest.raises(UsageError, match="no tile border"):
        judge.border_jumps(ramp(), BLACK, TILES[:1])
    for pair in ((BLACK, ramp()), (ramp(), BLACK)):
        with pytest.raises(UsageError, match="nothing is dreamed"):
            visibility(*pair)


def test_drift_is_the_last_fifth_over_the_second():
    measured = judge.Measures("x", {}, np.arange(1.0, 11), np.zeros(10))
    assert measured.drift == pytest.approx(9.5 / 3.5)


@pytest.fixture
def calm_and_wild(scene, tmp_path):
    """Directories of six source frames and of two dreams, of which one flickers; and the strength of the calm one."""
    sources = pan(scene, 6)
    calm = [frame // 2 + 60 for frame in sources]
    noise = np.random.default_rng(0).integers(-20, 21, (6, 64, 80, 3))
    pictures = {"source": sources, "calm": calm, "wild": np.clip(calm + noise, 0, 255)}
    directories = [save_frames(frames, tmp_path / name) for name, frames in pictures.items()]
    return directories, np.abs(np.float32(calm) - sources).mean()


def test_flicker_strength_and_luminance_are_told_in_a_table_and_drawn(calm_and_wild, tmp_path):
    directories, strength = calm_and_wild
    done = run_python(SCRIPTS / "evaluate.py", *directories, "--plot", tmp_path / "made" / "plot.png")
    assert done.returncode == 0, done.stderr
    head, calm_row, wild_row = (line.split() for line in done.stdout.splitlines())
    assert calm_row[0] == "calm" and calm_row[2] == "1.000" and wild_row[0] == "wild"
    assert float(wild_row[1]) > float(calm_row[1]) + 0.005
    assert float(calm_row[3]) == pytest.approx(strength, abs=0.01)
    with Image.open(tmp_path / "made" / "plot.png") as drawn:
        assert drawn.format == "PNG" and drawn.width > 600


@pytest.mark.parametrize("apart", [1, 3])
def test_all_figures_are_written(calm_and_wild, tmp_path, apart):
    directories, strength = calm_and_wild
    assert evaluate(*directories, "--judge", "farneback", "--apart", apart, "--json", tmp_path / "a.json") == 0
    figures = json.loads((tmp_path / "a.json").read_text())
    assert figures["judge"] == "farneback" and figures["apart"] == apart
    calm, wild = figures["renders"]
    assert calm["render"] == "calm" and calm["strength"] == pytest.approx(strength) and calm["seams"] is None
    assert list(map(int, wild["frames"]["warping error"])) == list(range(apart, 6))
    assert wild["warping error"] == pytest.approx(np.mean(list(wild["frames"]["warping error"].values())))
    assert wild["warping error"] > calm["warping error"] + 0.005
    assert np.mean(wild["frames"]["strength"]) == pytest.approx(wild["strength"])


def test_seams_are_measured_against_the_undivided_dream_over_all_frames(tmp_path, capsys):
    sources = [BLACK + 50] * 2
    torn = [BLACK + 50 + np.uint8(ramp(jump) / 2) for jump in (9, 1)]  # by columns 0, 0, 1, 1, 2, 2 ...
    source, torn = save_frames(sources, tmp_path / "source"), save_frames(torn, tmp_path / "torn")
    whole = save_frames([BLACK + 50 + np.uint8(ramp() / 2)] * 2, tmp_path / "whole")
    options = "--undivided", whole, "-mw", 160, "-mh", 240, "--judge", "farneback"
    assert evaluate(source, torn, whole, *options) == 0
    _, torn_row, whole_row = (line.split() for line in capsys.readouterr().out.splitlines())
    # Across the border 5 and 1 in place of 1 and 1: on average 3 times, and so is the worst of the one border.
    assert torn_row[-2:] == ["3.000", "3.000"] and whole_row[-2:] == ["1.000", "1.000"]


def test_mistakes_are_told_in_one_line(scene, tmp_path, capsys):
    source = save_frames(pan(scene, 3), tmp_path / "source")
    fewer = save_frames(pan(scene, 2), tmp_path / "fewer")
    smaller = save_frames(pan(scene, 3, size=(40, 40)), tmp_path / "smaller")
    for arguments, told in (
        ((source, tmp_path / "gone"), "does not exist"),
        ((source, fewer), "compare whole renders"),
        ((source, source, smaller), "one size"),
        ((source, source, "--undivided", fewer), "another number of frames"),
        ((source, source, "--undivided", source), "no tile border"),
        ((source, source, "--apart", "0"), "--apart 0: expected at least 1"),
    ):
        assert evaluate(*arguments, "--judge", "farneback") == 2
        error = capsys.readouterr().err
        assert error.startswith("evaluate.py: ") and told in error and error.count("\n") == 1
