"""Dives into a picture: each frame is the dream before it, enlarged, turned, and dreamed again."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import read_dreams
from PIL import Image

import deepdream
from deepdream.files.atomic import make_directory
from deepdream.files.frames import read_frame, read_note, write_frame
from deepdream.motion.inheritance import zoom_in
from deepdream.options import VideoOptions
from deepdream.picture import ascent, objectives
from deepdream.render.dream_size import lay_on, shrink
from deepdream.video.create import create
from deepdream.video.probe import probe

QUICK = "-l mixed -oct 2 -itr 2 -j 4 -gpu 0".split()
MOVE = "-z 1.05 --rotate 2".split()
RAMP = np.add.outer(4 * np.arange(40), 2 * np.arange(60)) % 256
PIXELS = np.stack([RAMP, 255 - RAMP, RAMP // 2], -1).astype(np.uint8)


@pytest.fixture
def dive(run_here, small_folder, tmp_path):
    """A function that dives into photo.png for four frames; the finished process."""
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")

    def dive(output, *arguments):
        return run_here("-i", "photo.png", "-o", output, "-t", small_folder, "--frames", "4", *QUICK, *MOVE, *arguments)

    return dive


def frames_of(directory):
    return [read_frame(path) for path in sorted(Path(directory).glob("frame_*"))]


def test_each_frame_is_the_dream_before_it_moved(dive):
    assert dive("Output", "-itr", "0").returncode == 0
    frames = frames_of("Output")
    np.testing.assert_array_equal(frames[0], PIXELS)
    for before, after in zip(frames, frames[1:]):
        assert np.abs(after - np.clip(zoom_in(before, 1.05, 2, cubic=True), 0, 255)).max() < 0.51


@pytest.mark.parametrize(
    "more, size", [("", (60, 40)), ("--dreamwidth 45", (45, 30)), ("-d 3 -mw 32 -mh 32", (60, 40))]
)
def test_and_is_dreamed_again(dive, small_network, more, size):
    assert dive("Output", *more.split()).returncode == 0
    options = deepdream.DreamOptions(("mixed",), 2, iterations=2, jitter=4, smooth=0)
    divide = deepdream.DivideOptions(3, 32, 32) if "-d" in more.split() else deepdream.DivideOptions()
    picture = PIXELS
    for number, frame in enumerate(frames_of("Output")):
        small, rng = shrink(picture, size), np.random.default_rng([0, number])
        dreamed = ascent.dream(small, small_network, "mixed", options, divide, objectives.l2, rng)
        np.testing.assert_array_equal(frame, lay_on(dreamed, small, picture))
        picture = np.clip(zoom_in(frame, 1.05, 2, cubic=True), 0, 255)


def test_zoom_and_angle_change_over_time(dive):
    assert dive("Output", "-itr", "0", "-z", "1:1.2, 2:1", "--rotate", "0:0, 3:90").returncode == 0
    frames = frames_of("Output")
    for number, moved in ((1, (1.2, 30)), (2, (1, 60)), (3, (1, 90))):
        wanted = np.clip(zoom_in(frames[number - 1], *moved, cubic=True), 0, 255)
        assert np.abs(frames[number] - wanted).max() < 0.51


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_dive_goes_on_to_the_same_bytes_and_further(dive, kind):
    assert dive("Whole", "-it", kind).returncode == 0
    whole = read_dreams("Whole")
    shutil.copytree("Whole", "Output")
    for number in (2, 3):
        Path(f"Output/frame_00000{number}.{kind}").unlink()
    assert "4 frames (2 dreamed now)" in dive("Output", "-it", kind).stderr
    assert {name: read_frame(f"Output/{name}").tobytes() for name in whole} == {
        name: read_frame(f"Whole/{name}").tobytes() for name in whole
    }
    assert "6 frames (2 dreamed now)" in dive("Output", "-it", kind, "--frames", "6").stderr
    assert dive("Again", "-it", kind, "--frames", "6").returncode == 0
    np.testing.assert_array_equal(frames_of("Output"), frames_of("Again"))
    assert dive("Output", "-it", kind, "--frames", "3").returncode == 2
    assert dive("Output", "-it", kind, "--frames", "6", "--seed", "9").returncode == 2


def test_the_seed_makes_another(dive):
    assert dive("Zero").returncode == dive("One", "--seed", "1").returncode == 0
    assert all((one != two).any() for one, two in zip(frames_of("Zero"), frames_of("One")))


def test_a_video_keeps_its_frames_beside_it_and_its_command(dive, run_here, small_folder):
    options = "-f", "10", "-bm", "0.3"
    done = dive("dive.mp4", *options)
    assert done.returncode == 0, done.stderr
    info = probe("dive.mp4")
    assert (info.frame_count, info.frame_rate, info.width, info.height) == (4, 10, 60, 40)
    frames = frames_of("dive.frames/Output")
    assert "already made" in dive("dive.mp4", *options).stderr
    command = shlex.split(run_here("--settings", "dive.mp4").stdout)[1:]
    assert "--frames" in command and "--rotate" in command and command[-2:] == ["--output", "dive.mp4"]
    assert "--blendflow" not in command  # a dive has none
    command[command.index("--model_path") + 1] = str(small_folder)
    shutil.rmtree("dive.frames")
    Path("dive.mp4").unlink()
    assert run_here(*command).returncode == 0
    np.testing.assert_array_equal(frames_of("dive.frames/Output"), frames)
    assert "--frames 4" in read_note("dive.frames/Output/frame_000002.png")


def test_black_keeps_the_picture_and_white_dives(dive, tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 30:] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    for width in ([], ["--dreamwidth", "40"]):
        assert dive("Output", "--mask", "m.png", "--overwrite", *width).returncode == 0
        for frame in frames_of("Output"):
            np.testing.assert_array_equal(frame[:, :30], PIXELS[:, :30])
            assert (frame[:, 30:] != PIXELS[:, 30:]).mean() > 0.5


def test_grey_mixes_the_dive_with_the_picture(dive, tmp_path):
    mask = np.uint8(np.tile(np.linspace(0, 255, 60), (40, 1)))
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert dive("Output", "--mask", "m.png", "-itr", "0").returncode == 0
    frames, weight = frames_of("Output"), mask[..., None] / 255
    for before, after in zip(frames, frames[1:]):
        moved = np.clip(zoom_in(before, 1.05, 2, cubic=True), 0, 255)
        assert np.abs(after - (moved * weight + PIXELS * (1 - weight))).max() < 0.51


def test_a_guide_may_lie_beside_the_picture(run_here, small_folder, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name, pixels in (("photo.png", PIXELS), ("guide.png", PIXELS[::-1])):
        Image.fromarray(pixels).save(tmp_path / "pictures" / name)
    command = ["-t", small_folder, "--frames", "2", *QUICK]
    done = run_here("-i", "pictures/photo.png", "-o", "Output", "-g", "guide.png", *command)
    assert done.returncode == 0, done.stderr
    assert len(frames_of("Output")) == 2


def test_a_dive_has_no_flow(dive):
    done = dive("Output", "-bm", "0.3", "-bs", "0.3")
    assert "--blendflow, --blendstatic: these change nothing" in done.stderr
    assert dive("Plain").returncode == 0
    np.testing.assert_array_equal(frames_of("Output"), frames_of("Plain"))
    assert json.loads(Path("Output/render.json").read_text())["--blendstatic"] == 1


def files_in(directory):
    """Names and contents of all that lies in a directory, but for the lock."""
    return {path: path.read_bytes() for path in Path(directory).rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_another_picture_under_the_same_name_is_noticed(dive, tmp_path):
    assert dive("Output").returncode == 0
    before = files_in("Output")
    Image.fromarray(PIXELS[::-1]).save(tmp_path / "photo.png")
    done = dive("Output")
    assert done.returncode == 2 and "photo.png has changed since it was dreamed" in done.stderr
    assert files_in("Output") == before
    assert dive("Output", "--overwrite").returncode == 0
    np.testing.assert_array_equal(read_frame("Output/Source/photo.png"), PIXELS[::-1])


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(
    "more, said",
    [
        ("--dreamwidth 61", "wider than the frames, which have 60"),
        ("-l nope", "no layer nope"),
        ("-l narrow -oct 4 -octs 2", "cannot take an octave"),
        ("-p 60 --panorama -z 1 --rotate 0", "twice as wide as high"),
        ("--guide text", "text is not a picture"),
    ],
)
def test_a_dive_that_is_refused_writes_nothing(dive, more, said, mask):
    Path("text").write_text("precious")
    if mask:
        for number in range(4):
            write_frame(make_directory("Masks") / f"{number}.png", PIXELS, "png")
        create("Masks", "masks.mp4", VideoOptions())
    before = files_in(".")
    done = dive("Output", *more.split(), *(["--mask", "masks.mp4"] if mask else []))
    assert done.returncode == 2 and said in done.stderr
    assert not Path("Output").exists() and files_in(".") == before


def test_a_dive_into_another_render_leaves_it_as_it_is(dive):
    assert dive("Output").returncode == 0
    shutil.rmtree("Output/Source")
    before = files_in("Output")
    done = dive("Output", "--seed", "9")
    assert done.returncode == 2 and "another render" in done.stderr and files_in("Output") == before


def test_python_dives_as_the_command_line(dive, small_network, tmp_path):
    options = deepdream.RenderOptions(
        deepdream.DreamOptions(("mixed",), 2, iterations=2, jitter=4, zoom=1.05, rotate=2)
    )
    reports = []
    paths = deepdream.dive("photo.png", "Python", small_network, 4, options, on_frame=reports.append)
    assert [report.path for report in reports] == paths and [path.parent.name for path in paths] == ["Python"] * 4
    assert "(0 dreamed now)" in dive("Python").stderr
    assert dive("Output").returncode == 0
    np.testing.assert_array_equal(frames_of("Output"), frames_of("Python"))
    assert "--frames 4" in read_note(paths[0])
    with pytest.raises(deepdream.DreamError, match="--frames 0"):
        deepdream.dive("photo.png", "Other", small_network, 0)
    with pytest.raises(deepdream.DreamError, match="gone.png does not exist"):
        deepdream.dive("gone.png", "Other", small_network, 2)
    with pytest.raises(deepdream.DreamError, match="Python is a directory"):
        deepdream.dive("Python", "Other", small_network, 2)
    assert not Path("Other").exists()


def test_frames_of_a_directory_are_not_counted(run_here, frames, small_folder):
    done = run_here("-i", "Input", "-o", "Output", "-t", small_folder, *QUICK, "--frames", "2")
    assert "--frames: these change nothing" in done.stderr and len(read_dreams("Output")) == 4


@pytest.mark.parametrize(
    "output, more, said",
    [
        ("photo.png", [], "is one picture"),
        ("text", [], "text is a file"),
        ("Output", ["--frames", "0"], "--frames 0: expected a number, 1 to"),
        ("Output", ["--rotate", "181"], "--rotate 181.0: expected a number, -180 to 180"),
        ("text.mp4", [], "exists and was not made here"),
    ],
)
def test_what_cannot_be_is_one_line(dive, output, more, said):
    Path("text").write_text("precious")
    Path("text.mp4").write_text("precious")
    done = dive(output, *more)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not Path("Output").exists() and Path("text").read_text() == "precious"


def detail(picture):
    """The mean step from pixel to pixel of its brightness."""
    return np.abs(np.diff(np.float32(picture).mean(-1), axis=1)).mean()


def test_a_dive_stays_sharp_and_does_not_fade(run_here, tmp_path, photograph):
    Image.fromarray(photograph("coffee.png", (72, 108))).save(tmp_path / "photo.png")
    command = "-i photo.png -o Output --frames 60 -z 1.02 -l block_5/output -oct 2 -itr 2 -gpu 0".split()
    assert run_here(*command).returncode == 0
    sharpness = [detail(frame) for frame in frames_of("Output")]
    assert np.mean(sharpness[-12:]) > np.mean(sharpness[:12]) > 5
