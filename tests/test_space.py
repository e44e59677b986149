"""What is said where frames will not fit on the disk, and where it turns out that they do not."""

import errno
import os
from collections import namedtuple
from pathlib import Path

import ffmpeg
import numpy as np
import pytest
from clips import cut_clip, make_clip, real_clip, run_ffmpeg
from helpers import ROOT, moving_ramps, render, run_python, save_frames
from PIL import Image

import dreamer
from deepdream.errors import DreamError
from deepdream.files import atomic, space
from deepdream.files.frames import open_frames, read_frame
from deepdream.options import FlowOptions, VideoOptions
from deepdream.video import encode as encoding
from deepdream.video import extract as extracting
from deepdream.video.create import create
from deepdream.video.extract import extract
from deepdream.video.probe import first_frames

Usage = namedtuple("Usage", "total used free")
QUICK = ["-l", "mixed", "-oct", "1", "-itr", "1"]


@pytest.fixture
def free(monkeypatch):
    """Set how many bytes are free on every disk."""
    return lambda count: monkeypatch.setattr(space.shutil, "disk_usage", lambda place: Usage(0, 0, count))


@pytest.mark.parametrize("image_type", ["png", "jpg"])
@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_the_estimate_is_about_what_frames_take(tmp_path, name, image_type):
    extract(cut_clip(tmp_path / "clip.mp4", name, 0.3), tmp_path / "frames", image_type)
    paths = open_frames(tmp_path / "frames").paths
    height, width, _ = read_frame(paths[0]).shape
    taken = np.mean([path.stat().st_size for path in paths])
    assert taken / 1.3 < space.frame_bytes(width * height, image_type) < 10 * taken


def test_frames_that_take_more_than_most_are_counted_by_the_first_ones():
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    black = np.zeros_like(noise)
    assert space.frame_bytes(1000, "png", [black]) == space.frame_bytes(1000, "png") == 2000
    assert 3000 < space.frame_bytes(1000, "png", [black, noise]) < 3300  # noise does not compress


def test_a_noisy_clip_is_estimated_by_its_first_frames(tmp_path, free, capsys):
    free(500_000)  # of 30 frames of 96x72 at 3 bytes a pixel; 415,000 bytes at 2
    noise = np.random.default_rng(0).integers(0, 256, (72, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    run_ffmpeg("-loop", "1", "-r", "10", "-i", tmp_path / "noise.png", "-t", "3", "-c:v", "ffv1", "-pix_fmt", "gbrp",
               tmp_path / "noise.mkv")  # fmt: skip
    (line,) = said(capsys, ["-e", "1", "-i", str(tmp_path / "noise.mkv"), "-o", str(tmp_path / "Input")])
    assert "the frames will take about 0.6 MB, and 0.5 MB are free" in line


def test_the_disk_of_a_directory_to_come_is_asked(tmp_path, free):
    free(2_000_000_000)
    assert space.space_warning(tmp_path / "a" / "b", 2_000_000_000, "less") == []
    (line,) = space.space_warning(tmp_path / "a" / "b", 2_500_000_000, "less")
    assert line == f"the frames will take about 2.5 GB, and 2.0 GB are free in {tmp_path}; make room, or take less"
    free(99_000_000)
    (line,) = space.space_warning(tmp_path, 100_000_000, "less")
    assert "about 0.1 GB, and 99.0 MB are free" in line


def said(capsys, command):
    assert dreamer.main(command) == 0
    return [line for line in capsys.readouterr().err.splitlines() if " are free in " in line]


def test_extract_dream_and_all_in_one_say_it_once_and_go_on(tmp_path, monkeypatch, capsys, free, small_folder):
    monkeypatch.chdir(tmp_path)
    make_clip(Path("clip.mp4"), frames=3)
    network = ["-t", str(small_folder), *QUICK]
    free(1000)
    (line,) = said(capsys, ["-e", "-i", "clip.mp4", "-o", "Input"])
    assert line.endswith("make room, or take -it jpg, or a part of the video (--start, --end)")
    (line,) = said(capsys, ["-i", "Input", "-o", "Output", *network])
    assert line.endswith("make room, or take a smaller --preview, or fewer frames")
    assert said(capsys, ["-e", "-i", "clip.mp4", "-o", "Input"]) == []  # nothing is left to do
    assert said(capsys, ["-i", "Input", "-o", "Output", *network]) == []
    frame = space.frame_bytes(64 * 48, "png", first_frames("clip.mp4", space.FIRST_FRAMES))
    free(4 * frame)  # enough for the frames, not for the dreams too
    (line,) = said(capsys, ["-i", "clip.mp4", "-o", "Video.mp4", *network])
    assert "Video.frames" not in line and str(tmp_path) in line
    free(6 * frame + 10)
    assert said(capsys, ["-i", "clip.mp4", "-o", "Other.mp4", *network]) == []
    free((3 + 3 / 4) * frame + 10)
    assert said(capsys, ["-i", "clip.mp4", "-o", "Small.mp4", *network, "-p", "32"]) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_a_quota_and_a_read_only_disk_read_alike(tmp_path, monkeypatch, capsys, number, small_folder):
    monkeypatch.chdir(tmp_path)
    save_frames(moving_ramps(3, (48, 64)), tmp_path / "Input")
    command = ["-i", "Input", "-o", "Output", "-t", str(small_folder), *QUICK]
    replace = os.replace

    def fail(source, target):
        if Path(target).name == "frame_000001.png":
            raise OSError(number, os.strerror(number), str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    assert dreamer.main(command) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    reason = os.strerror(number)
    again = "when it can be written again, the same command goes on"
    assert line == f"dreamer.py: cannot write {Path('Output/frame_000001.png')}: {reason}; {again}"
    monkeypatch.setattr(os, "replace", replace)
    assert dreamer.main(command) == 0
    assert len(list(Path("Output").glob("frame_*.png"))) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT TESTED: no /dev/full")
def test_ffmpeg_on_a_full_disk_reads_like_that_too(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "clip.mp4", frames=3)
    full = ffmpeg.input(f"file:{source}").output("file:/dev/full", format="rawvideo")
    monkeypatch.setattr(extracting, "_extract_graph", lambda *_: full)
    with pytest.raises(DreamError, match=f"cannot write {tmp_path / 'frames'}: No space left on device; when it can"):
        extract(source, tmp_path / "frames")
    assert not list((tmp_path / "frames").glob("image*"))
    monkeypatch.undo()
    extract(source, tmp_path / "frames")
    full = ffmpeg.input("pipe:", format="rawvideo", pixel_format="rgb24", video_size="64x48")
    monkeypatch.setattr(encoding, "graph", lambda *_: full.output("file:/dev/full", format="rawvideo"))
    with pytest.raises(DreamError, match=f"cannot write {tmp_path / 'made.mkv'}: No space left on device; when it"):
        create(tmp_path / "frames", tmp_path / "made.mkv", VideoOptions())
    assert not list(tmp_path.glob("*made*"))


@pytest.mark.parametrize(
    "said, number",
    [
        ("Disk quota exceeded", errno.EDQUOT),
        ("Disc quota exceeded", errno.EDQUOT),  # macOS
        ("Quota exceeded", errno.EDQUOT),  # musl
        ("Read-only file system", errno.EROFS),
        ("No space left on device", errno.ENOSPC),
    ],
)
def test_ffmpeg_says_it_in_the_systems_words(said, number):
    with pytest.raises(OSError) as caught:
        atomic.check_written(f"image-000007.png: {said}; Could not write frame")
    assert caught.value.errno == number and caught.value.strerror == os.strerror(number)
    atomic.check_written("something else")


def test_frames_on_a_disk_that_cannot_be_written_make_a_video_elsewhere(tmp_path, monkeypatch):
    frames = save_frames(moving_ramps(3, (48, 64)), tmp_path / "frames")
    (frames / atomic.LOCK_NAME).touch()

    def refuse(path):
        raise DreamError("Read-only file system")

    monkeypatch.setattr(atomic, "lock_directory", refuse)
    with pytest.raises(DreamError, match="Read-only"):
        create(frames, tmp_path / "made.mkv", VideoOptions())
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert create(frames, tmp_path / "made.mkv", VideoOptions()).frame_count == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT TESTED: no /dev/full")
def test_a_log_that_takes_no_more_stops_nothing_but_lost_output_is_an_error(tmp_path, environment, small_folder):
    save_frames(moving_ramps(2, (48, 64)), tmp_path / "Input")

    def run(*arguments, **streams):
        return run_python(ROOT / "dreamer.py", "-t", small_folder, *arguments, cwd=tmp_path, env=environment, **streams)

    with open("/dev/full", "w") as full:
        assert run("-i", "Input", "-o", "Output", *QUICK, stderr=full).returncode == 0
        assert run("-i", "Input", "-o", "Output", "-s", "x", stderr=full).returncode == 2
        listed = run("--list-layers", stdout=full)
    assert len(list(tmp_path.glob("Output/frame_*"))) == 2
    assert listed.returncode == 1 and listed.stderr == f"dreamer.py: [Errno {errno.ENOSPC}] No space left on device\n"


def test_jpg_from_start_to_end_looks_the_same(tmp_path, default_network):
    """A frame dreamed by itself (-bs 0), from jpg into jpg and from png into png.

    Pixel by pixel they differ as much as those of two seeds do: half a level of noise in the source, as rounding has,
    turns the waves elsewhere. To the eye they are alike: as strong, and as bright in every part of the picture.
    """
    sources, dreams = [], []
    for image_type in ("png", "jpg"):
        frames = tmp_path / image_type
        extract(make_source(tmp_path), frames, image_type)
        render(frames, tmp_path / f"dream {image_type}", default_network, FlowOptions(blend_static=0),
               image_type=image_type, layers=("block_9/output",), octaves=3, iterations=5)  # fmt: skip
        for pictures, directory in ((sources, frames), (dreams, tmp_path / f"dream {image_type}")):
            (path,) = open_frames(directory).paths
            pictures.append(np.float32(read_frame(path)))
    assert abs(sources[0] - sources[1]).mean() < 2
    assert abs((dreams[0] - dreams[1]).mean(axis=(0, 1))).max() < 2
    assert abs(blocks(dreams[0]) - blocks(dreams[1])).mean() < 2
    strengths = [abs(dream - source).mean() for dream, source in zip(dreams, sources)]
    assert strengths[1] == pytest.approx(strengths[0], rel=0.15)  # with the noise of jpg itself


def make_source(directory):
    run_ffmpeg("-i", real_clip("bikes.mp4"), "-frames:v", 1, "-c:v", "ffv1", directory / "one.mkv")
    return directory / "one.mkv"


def blocks(picture):
    """The means of blocks of 16x16 pixels."""
    height, width = (side // 16 for side in picture.shape[:2])
    return picture[: 16 * height, : 16 * width].reshape(height, 16, width, 16, 3).mean(axis=(1, 3))
