"""Parts of a video: exact to the frame, with their sound, and told apart."""

from fractions import Fraction

import numpy as np
import pytest
from clips import decode, duration, flashes_and_beeps, make_clip, make_flash_and_beep, run_ffmpeg

import dreamer
from deepdream.errors import UsageError
from deepdream.files.clip import read_clip
from deepdream.files.frames import open_frames, read_frame
from deepdream.options import PartOptions, VideoOptions, parse_time
from deepdream.video import extract as extracting
from deepdream.video.create import create
from deepdream.video.extract import extract
from deepdream.video.ffmpeg import ffmpeg_binary
from deepdream.video.part import open_part


def take(source, directory, start=None, end=None, **options):
    return extract(open_part(source, PartOptions(start, end)), directory, **options)


def pictures(directory):
    return [path.read_bytes() for path in open_frames(directory).paths]


@pytest.mark.parametrize(
    "text, seconds",
    [("90", 90), ("1:30", 90), ("90:00", 5400), ("0:01:30.250", 90.25), ("01:00:00", 3600), ("0", 0), (".5", None),
     ("1:60", None), ("1:60:00", None), ("-1", None), ("1:2:3:4", None), ("1e9", None), ("", None), ("nan", None),
     ("9" * 400, None)],
)  # fmt: skip
def test_times(text, seconds):
    if seconds is None:
        with pytest.raises(UsageError, match="expected a time"):
            parse_time(text)
    else:
        assert parse_time(text) == seconds


def variable(path):
    times = "geq=lum=20+14*N:cb=128:cr=128,setpts='if(lt(N,10),N,10+2*(N-10))/25/TB'"
    return make_clip(path, "-vf", times, "-fps_mode", "passthrough", frames=15)


def edited(path):
    """An edit list hides the frames before the first that is shown."""
    run_ffmpeg("-ss", "0.2", "-i", make_clip(path.with_name("long.mp4"), frames=40), "-c", "copy", path)
    return path


def late(path):
    """The clock of the picture starts at 3 seconds."""
    return make_clip(path, "-output_ts_offset", 3, "-g", 7, frames=35)


def interlaced(path):
    options = ("-c:v", "mpeg2video", "-q:v", 2, "-flags", "+ildct+ilme", "-vf", "tinterlace=interleave_top")
    return make_clip(path, *options, frames=40, rate=50)


@pytest.mark.parametrize(
    "make, name, rate",
    [
        (lambda path: make_clip(path, "-bf", 3, frames=35), "plain.mp4", 25),
        (lambda path: make_clip(path, frames=35, rate="30000/1001"), "ntsc.mkv", Fraction(30000, 1001)),
        (variable, "variable.mkv", 25),
        (edited, "edited.mp4", 25),
        (late, "late.ts", 25),
        (interlaced, "interlaced.mpg", 25),
    ],
)
def test_a_part_holds_just_those_frames_of_the_whole(tmp_path, make, name, rate):
    source = make(tmp_path / name)
    whole = extract(source, tmp_path / "whole").clip
    every = pictures(tmp_path / "whole")
    assert whole.frame_rate == rate and len(set(every)) > 10
    for first, end in ((0, 7), (5, 12), (11, None)):
        directory = tmp_path / f"{first}"
        # Rounded to milliseconds, as a player shows it.
        times = [None if number is None else round(float(number / rate), 3) for number in (first, end)]
        clip = take(source, directory, *times).clip
        assert pictures(directory) == every[first:end]
        assert (clip.first_frame, clip.end_frame, clip.frame_count) == (first, end, len(every[first:end]))
        assert read_clip(directory) == clip


@pytest.mark.parametrize(
    "name, options",
    [
        ("reordered.mp4", ("-bf", 3)),
        ("plain.mkv", ()),
        ("late.mov", ("-output_ts_offset", 3)),
        ("hevc.mkv", ("-c:v", "libx265")),
        ("open.mp4", ("-x264-params", "open-gop=1")),
        ("edited.mp4", ()),
    ],
)
def test_far_in_it_jumps_to_the_same_frames(tmp_path, monkeypatch, name, options):
    source = make_clip(tmp_path / name, "-g", 12, *options, frames=75)
    if name == "edited.mp4":
        source = tmp_path / "cut.mp4"
        run_ffmpeg("-ss", "0.2", "-i", tmp_path / name, "-c", "copy", source)
    extract(source, tmp_path / "whole")
    monkeypatch.setattr(extracting, "SEEK_AFTER", 20)
    monkeypatch.setattr(extracting, "SEEK_MARGIN", 0.6)
    part = open_part(source, PartOptions(1.8, 2.2))
    assert "-ss" in extracting._extract_graph(part, "png", ffmpeg_binary()).get_args()
    monkeypatch.setattr(extracting, "run_ffmpeg", once(extracting.run_ffmpeg))
    extract(part, tmp_path / "part")
    assert pictures(tmp_path / "part") == pictures(tmp_path / "whole")[45:55]


def test_a_jump_that_lands_wrong_is_undone(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "clip.mp4", "-g", 12, frames=75)
    extract(source, tmp_path / "whole")
    monkeypatch.setattr(extracting, "SEEK_AFTER", 20)
    part = open_part(source, PartOptions(1.8, 2.2))
    monkeypatch.setattr(extracting, "SEEK_MARGIN", -0.2)  # beyond the start of the part
    extract(part, tmp_path / "part")
    assert pictures(tmp_path / "part") == pictures(tmp_path / "whole")[45:55]


def once(function):
    """A function that fails when it is called again."""
    calls = iter((function,))
    return lambda *arguments, **more: next(calls)(*arguments, **more)


def test_a_time_between_two_frames_starts_with_the_next(tmp_path):
    source = make_clip(tmp_path / "clip.mp4", frames=10)
    assert open_part(source, PartOptions(0.05, 0.21)) == open_part(source, PartOptions(0.08, 0.24))


@pytest.mark.parametrize(
    "start, end, first_flash", [(0.2, 1.0, 0.2), (0.3, None, 0.1), (None, 0.6, 0.4), (1.0, 1.4, 0.2)]
)
@pytest.mark.parametrize("timing", [{}, {"sound_start": 0.1}, {"picture_start": 0.16}])
def test_the_sound_of_a_part_is_in_step(tmp_path, start, end, first_flash, timing):
    source = make_flash_and_beep(tmp_path / "clip.mkv", **timing)
    moved = timing.get("picture_start", 0)  # times count from the first frame
    start, end = (None if time is None else time - moved if time > moved else time for time in (start, end))
    count = take(source, tmp_path / "frames", start, end).clip.frame_count
    made = create(tmp_path / "frames", tmp_path / "made.mp4", VideoOptions())
    flashes, beeps = flashes_and_beeps(made.path)
    assert len(flashes) == len(beeps) >= 1 and np.allclose(flashes, beeps, atol=0.041)
    assert len(decode(made.path)) == count
    if end is not None:
        lead = moved if start is None else 0
        assert abs(duration(made.path) - lead - count / 25) <= 0.041
    if not moved:
        assert flashes[0] == pytest.approx(first_flash, abs=0.041)


@pytest.mark.parametrize(
    "start, end, message",
    [
        (9, None, r"--start 9: .*clip.mp4 is 0.400 seconds long"),
        (0.4, None, "--start 0.4: .* is 0.400 seconds long"),
        (None, 0.5, "--end 0.5: .* is 0.400 seconds long"),
        (0.21, 0.22, "no frame .* between --start and --end"),
    ],
)
def test_parts_that_are_not_there(tmp_path, start, end, message):
    source = make_clip(tmp_path / "clip.mp4", frames=10)
    with pytest.raises(UsageError, match=message):
        take(source, tmp_path / "frames", start, end)
    assert not (tmp_path / "frames").exists()


@pytest.mark.parametrize("start, end", [(3, 2), (2, 2), (None, 0)])
def test_an_end_before_the_start(start, end):
    with pytest.raises(UsageError, match="must end after its start"):
        PartOptions(start, end)


def test_the_same_part_is_recognised_and_another_is_not(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "clip.mp4", frames=10)
    take(source, tmp_path / "frames", 0.1, 0.3)
    before = pictures(tmp_path / "frames")
    for start, end in ((None, None), (0.1, None), (0.1, 0.28), (0.2, 0.4)):
        with pytest.raises(UsageError, match="already holds other frames.*--overwrite"):
            take(source, tmp_path / "frames", start, end)
    (tmp_path / "frames" / "image-000002.png").unlink()
    take(source, tmp_path / "frames", 0.1, 0.3)
    assert pictures(tmp_path / "frames") == before
    monkeypatch.setattr(extracting, "run_ffmpeg", None)
    assert "already holds the 5 frames" in take(source, tmp_path / "frames", 0.1, 0.3).messages[0]


def test_an_end_at_the_end_is_the_whole(tmp_path):
    source = make_clip(tmp_path / "clip.mp4", frames=10)
    assert open_part(source, PartOptions(0, 0.4)) == open_part(source)


def test_a_damaged_rest_does_not_matter(tmp_path):
    whole = make_clip(tmp_path / "whole.mkv", "-g", 10, frames=100, size="160x120").read_bytes()
    source = tmp_path / "cut.mkv"
    source.write_bytes(whole[: len(whole) * 6 // 10])
    assert take(source, tmp_path / "frames", 0.4, 0.8).clip.frame_count == 10


def test_from_the_command_line(tmp_path, monkeypatch, capsys, small_folder):
    monkeypatch.chdir(tmp_path)
    make_flash_and_beep(tmp_path / "clip.mp4")
    command = ["-i", "clip.mp4", "-o", "Video.mp4", "--start", "0:00.2", "--end", "0:01", "-oct", "1", "-itr", "1"]
    command += ["-t", str(small_folder), "-l", "mixed"]
    assert dreamer.main(command) == 0
    assert dreamer.main(command) == 0  # and knows its own work again
    assert len(decode("Video.mp4")) == len(list((tmp_path / "Video.frames" / "Output").glob("*.png"))) == 20
    flashes, beeps = flashes_and_beeps("Video.mp4")
    assert np.allclose(flashes, beeps, atol=0.041) and len(flashes) == 1
    assert dreamer.main(["--settings", "Video.mp4"]) == 0
    assert "--start 0.2 --end 1.0" in capsys.readouterr().out
    for more in (["--start", "7"], ["--start", "2", "--end", "1"], ["--end", "x"], ["--end", "0.5"]):
        other = [word for word in command if word not in ("--start", "0:00.2", "--end", "0:01")]
        assert dreamer.main([*other, *more]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert read_frame("Video.frames/Input/image-000001.png").shape == (48, 64, 3)
