"""Frames and videos that carry the commands which made them."""

import shlex
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip
from helpers import ROOT, read_dreams, run_python
from PIL import Image

import deepdream
from deepdream.errors import UsageError
from deepdream.files.frames import read_frame, read_note, write_frame
from deepdream.files.note import commands, create_note, dream_note
from deepdream.options import (
    DivideOptions,
    DreamOptions,
    FlowMode,
    FlowOptions,
    NetworkOptions,
    RenderOptions,
    VideoOptions,
)
from deepdream.settings import words
from deepdream.video.encode import NOTE_KEY
from deepdream.video.probe import read_metadata

PICTURE = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(6, 8, 3)
DREAM = "-oct 1 -itr 2 -j 3 -flow 2 -bs 0.7 -l mixed conv1 -gpu 0".split()


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("note", ["deepdream 1.0.0", "zwei\nZeilen: ä夢", "x" * 60_000])
def test_a_note_travels_beside_the_same_pixels(tmp_path, kind, note):
    write_frame(tmp_path / f"plain.{kind}", PICTURE, kind)
    write_frame(tmp_path / f"noted.{kind}", PICTURE, kind, note)
    assert read_note(tmp_path / f"noted.{kind}") == note and read_note(tmp_path / f"plain.{kind}") is None
    np.testing.assert_array_equal(read_frame(tmp_path / f"noted.{kind}"), read_frame(tmp_path / f"plain.{kind}"))


@pytest.mark.parametrize(
    "options, line",
    [
        (RenderOptions(), ""),
        (DreamOptions(octaves=3, step_size=0.1, layers=("a", "b")), "--layers a b --octaves 3 --stepsize 0.1"),
        (FlowOptions(FlowMode.STABLE), "--flow 2"),
        (FlowOptions(FlowMode.STABLE, blend_static=0.1), "--flow 2 --blendstatic 0.1"),
        (RenderOptions(divide=DivideOptions(max_width=9), guide="/a/b c.png"), "--maxWidth 9 --guide 'b c.png'"),
        (NetworkOptions(model_path="models/net/", gpu=0), "--model_path net --gpu 0"),
        (VideoOptions(audio="none"), "--audio none"),
    ],
)  # fmt: skip
def test_words_say_what_differs_from_the_defaults(options, line):
    assert shlex.join(words(options)) == line


class Net:
    name, digest = "net\x1b", "ab12"


def test_a_note_names_version_network_and_command():
    note = dream_note("/home/ana/In put", Net, NetworkOptions(precision="bfloat16"), RenderOptions(image_type="jpg"))
    command = "dreamer.py --input 'In put' --image_type jpg --precision bfloat16"
    assert note == f"deepdream {deepdream.__version__}, network net\\x1b ab12\n{command}"


def test_each_command_writes_what_the_next_one_reads():
    note = create_note("b", None, VideoOptions(), dream_note("a", Net, NetworkOptions(), RenderOptions()))
    assert commands(note, "v/made.mp4") == [
        "dreamer.py --input a --output b", "dreamer.py --input b --create 1 --output made.mp4",
    ]  # fmt: skip


@pytest.mark.parametrize("note", ["", "a photograph", "dreamer.py", "dreamer.py --octaves 3", "dreamer.py --input 'a"])
def test_what_is_no_note_is_one_error(note):
    with pytest.raises(UsageError, match="settings"):
        commands(note, "made.mp4")


def test_a_note_of_a_strangers_gives_nothing_but_arguments():
    (line,) = commands("rm -rf ~\ndreamer.py --input a; rm -rf $HOME `x`\n", "frames/frame.png")
    assert line == "dreamer.py --input 'a;' rm -rf '$HOME' '`x`' --output frames"


@pytest.fixture
def place(tmp_path, run_here, frames, small_folder):
    """A folder with frames, a model and a guide; a function that runs dreamer.py there."""
    shutil.copytree(small_folder, tmp_path / "model")
    shutil.copy(frames / "image-000002.png", tmp_path / "the guide.png")

    def run(*arguments):
        done = run_here(*arguments)
        assert done.returncode == 0, done.stderr
        return done

    return run


def printed(place, path):
    """The words of the commands that ``--settings`` prints."""
    return [shlex.split(line)[1:] for line in place("--settings", path).stdout.splitlines()]


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_the_printed_command_makes_the_same_bytes(place, frames, kind):
    for path in frames.iterdir():
        write_frame(path.with_suffix(f".{kind}"), read_frame(path), kind)
    place("-i", "Input", "-o", "Output", "-t", "model", "-g", "the guide.png", "-it", kind, *DREAM)
    dreams = read_dreams("Output")
    (command,) = printed(place, Path("Output", f"frame_000003.{kind}"))
    shutil.rmtree("Output")
    place(*command)
    assert read_dreams("Output") == dreams and len(dreams) == 4


def test_the_commands_of_a_created_video_make_it_again(place):
    place("-i", "Input", "-o", "Output", "-t", "model", *DREAM)
    place("-c", "-i", "Output", "-o", "Video.mp4", "-f", "12.5")
    video = Path("Video.mp4").read_bytes()
    steps = printed(place, "Video.mp4")
    shutil.rmtree("Output")
    Path("Video.mp4").unlink()
    for command in steps:
        place(*command)
    assert Path("Video.mp4").read_bytes() == video and len(steps) == 2


@pytest.mark.parametrize("ending", ["mp4", "m4v", "mov", "mkv", "webm", "gif"])
def test_the_command_of_a_video_made_in_one_go_makes_it_again(place, tmp_path, ending):
    make_clip(tmp_path / "clip.mp4", frames=2, size="48x40")
    name = f"Video.{ending}"
    place("-i", tmp_path / "clip.mp4", "-o", name, "-t", tmp_path / "model", "--audio", "none", *DREAM)
    video, comment = Path(name).read_bytes(), read_metadata(name)["comment"]
    (command,) = printed(place, name)
    (of_frames,) = printed(place, "Video.frames/Output/frame_000000.png")
    assert of_frames[:2] == ["--input", "Input"] and of_frames[-2:] == ["--output", "Output"]
    shutil.rmtree("Video.frames")
    Path(name).unlink()
    place(*command)
    assert read_metadata(name)["comment"] == comment  # of all that makes the video
    assert ending in ("mkv", "webm") or Path(name).read_bytes() == video  # Matroska's segments have random names


def test_guides_over_time_are_told_by_their_names(place, tmp_path):
    make_clip(tmp_path / "clip.mp4", frames=2, size="48x40")
    guides = "0:Input/image-000001.png, 1:Input/image-000002.png"
    place("-i", "clip.mp4", "-o", "Video.mp4", "-t", "model", "-g", guides, "--audio", "none", *DREAM)
    for made in ("Video.mp4", "Video.frames/Output/frame_000000.png"):
        (command,) = printed(place, made)
        assert command[command.index("--guide") + 1] == "0:image-000001.png, 1:image-000002.png"


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path, environment):
    note = dream_note("Träume", Net, NetworkOptions(), RenderOptions())
    write_frame(tmp_path / "frame.png", PICTURE, "png", note)
    narrow = environment | {"PYTHONIOENCODING": "ascii"}
    done = run_python(ROOT / "dreamer.py", "--settings", tmp_path / "frame.png", env=narrow)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(r"dreamer.py --input 'Tr\xe4ume'")


def test_no_path_and_no_machine_is_named(place, tmp_path):
    place("-i", tmp_path / "Input", "-o", tmp_path / "Output", "-t", tmp_path / "model", "-g",
          tmp_path / "the guide.png", *DREAM)  # fmt: skip
    place("-c", "-i", tmp_path / "Output", "-o", tmp_path / "Video.mkv")
    notes = [read_note("Output/frame_000000.png"), read_metadata("Video.mkv")[NOTE_KEY]]
    for note in notes:
        assert "Input" in note and "/" not in note and socket.gethostname() not in note


def test_without_settings_nothing_is_carried_and_the_pixels_are_the_same(place):
    command = ["-i", "Input", "-t", "model", *DREAM]
    place(*command, "-o", "With")
    place(*command, "-o", "Without", "--no-settings")
    for path in Path("Without").glob("frame_*"):
        assert read_note(path) is None and not Image.open(path).info
        np.testing.assert_array_equal(read_frame(path), read_frame(Path("With", path.name)))
    place("-c", "-i", "Without", "-o", "Video.mp4", "--no-settings")
    assert NOTE_KEY not in read_metadata("Video.mp4")


def test_settings_make_no_other_render(place):
    """A render goes on with or without them, and says which frames carry them already."""
    command = ["-i", "Input", "-o", "Output", "-t", "model", *DREAM]
    place(*command)
    whole = read_dreams("Output")
    Path("Output/frame_000003.png").unlink()
    done = place(*command, "--no-settings")
    assert "4 frames (1 dreamed now)" in done.stderr and "carry their settings" in done.stderr
    dreams = read_dreams("Output")
    assert [name for name in whole if dreams[name] != whole[name]] == ["frame_000003.png"]
    assert "(0 dreamed now)" in place(*command).stderr and read_dreams("Output") == dreams


def test_a_video_sheds_its_settings_when_asked_and_does_not_take_them_on(place):
    create = ["-c", "-i", "Input", "-o", "Video.mp4"]
    place(*create)
    assert "already made" in place(*create).stderr
    assert "already made" not in place(*create, "--no-settings").stderr
    assert NOTE_KEY not in read_metadata("Video.mp4")
    assert "already made" in place(*create, "--no-settings").stderr and "already made" in place(*create).stderr


@pytest.mark.parametrize(
    "path, said",
    [
        ("Input/image-000001.png", "carries no settings"),
        ("nowhere.png", "nowhere.png does not exist"),
        ("nowhere.mp4", "nowhere.mp4 does not exist"),
        ("model/deploy.prototxt", "cannot be read as a video"),
        ("Input", "is a directory"),
    ],
)
def test_a_file_without_settings_is_one_error(run_here, place, path, said):
    done = run_here("--settings", path)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
