"""The program as a user runs it: commands typed in a folder, what comes back on the screen and on the disk."""

import re
import shlex
import signal
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import cut_clip, decode, duration, make_clip
from helpers import ROOT, read_dreams, run_python
from PIL import Image

import deepdream
import dreamer
from deepdream.arguments import build_parser
from deepdream.files.clip import read_clip
from deepdream.options import DivideMode, FlowMode
from deepdream.video.probe import probe

SEED_COMMANDS = {
    "1-extract": "python dreamer.py -e 1 --input RHI-20Sec.mov --output Input",
    "2-dream": "python dreamer.py --input Input --output Output --octaves 3 --octavescale 1.8 --iterations 16 "
    "--jitter 32 --zoom 1 --stepsize 1.5 --flow 1 --flowthresh 6 --blendflow 0.9 --blendstatic 0.1 "
    "--layers inception_4d/pool --gpu 1 -d 2 -mw 1500",
    "3-create": "python dreamer.py -c 1 --input Output --output Video.mp4",
}
QUICK = ["-oct", "1", "-itr", "1"]


def bar_free(text):
    """The lines on the screen that are no progress bar."""
    return [line for line in re.split(r"[\r\n]+", text) if line.strip() and "%|" not in line and " left" not in line]


def test_help_answers_without_heavy_imports():
    code = (
        "import dreamer, sys; from deepdream.arguments import build_parser;"
        "build_parser().format_help(); print(*sys.modules)"
    )
    done = run_python("-c", code, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "numpy", "cv2", "PIL", "av", "ffmpeg", "tqdm", "google.protobuf", "distributed"}


def test_help_tells_every_option_its_default(run):
    text = run("--help").stdout
    without = {"--help", "--version", "--input", "--output", "--overwrite", "--list-layers", "--print-schedule"}
    without |= {"--settings", "--no-settings", "--panorama", "--show-layers", "--report", "--mix-machines"}
    for action in build_parser()._actions:
        assert action.option_strings[-1] in text
        if not without & set(action.option_strings):
            assert "default:" in action.help, action.option_strings


@pytest.mark.parametrize(
    "short, long",
    [
        ("-i a -o b -it jpeg -p 64 -v 2", "--input a --output b --image_type jpg --preview 64 --verbose 2"),
        ("-oct 2 -octs 1.5 -itr 3", "--octaves 2 --octavescale 1.5 --iterations 3"),
        ("-s 2 -j 4 -z 1.1", "--stepsize 2 --jitter 4 --zoom 1.1"),
        ("-t dir -m name -l x y -g pic.png", "--model_path dir --model_name name --layers x y --guide pic.png"),
        ("-flow 1 -flowthresh 9 -bm 0.5 -bs 0.2", "--flow 1 --flowthresh 9 --blendflow 0.5 --blendstatic 0.2"),
        ("-d 2 -mw 100 -mh 90 -gpu 0", "--divide 2 --maxWidth 100 --maxHeight 90 --gpu 0"),
        ("-e 1", "--extract 1"),
        ("-c 1 -f 30000/1001", "--create 1 --framerate 30000/1001"),
        ("-e", "--extract 1"),
        ("-c", "--create 1"),
        ("-flow", "--flow 1"),
    ],
)  # fmt: skip
def test_short_and_long_names_mean_the_same(short, long):
    assert dreamer.parse(short.split()) == dreamer.parse(long.split()) != dreamer.parse([])


def test_options_reach_the_classes_that_hold_their_defaults():
    words = "-oct 2 -octs 1.5 -itr 3 -s 2 -j 4 -z 1.1 -p 64 --seed 7 -l a b".split()
    words += "-flow -flowthresh 9 -bm 0.5 -bs 0.2 -d 2 -mw 9 -mh 8".split()
    render = dreamer.parse(words).render
    dream = render.dream
    assert (dream.octaves, dream.octave_scale, dream.iterations, dream.step_size) == (2, 1.5, 3, 2)
    assert (dream.jitter, dream.zoom, dream.preview, dream.seed, dream.layers) == (4, 1.1, 64, 7, ("a", "b"))
    flow, divide = render.flow, render.divide
    assert (flow.mode, flow.threshold, flow.blend_flow, flow.blend_static) == (FlowMode.BLEND, 9, 0.5, 0.2)
    assert (divide.mode, divide.max_width, divide.max_height) == (DivideMode.HALVES, 9, 8)


def test_the_three_commands_of_old_run_as_written(run, tmp_path):
    make_clip(tmp_path / "RHI-20Sec.mov", frames=2, size="64x48", rate="30000/1001")
    for command in SEED_COMMANDS.values():
        done = run(*shlex.split(command)[2:])
        assert done.returncode == 0, done.stderr
    assert len(read_dreams(tmp_path / "Output")) == 2
    info = probe(tmp_path / "Video.mp4")
    assert (info.frame_count, info.frame_rate) == (2, Fraction(30000, 1001))


@pytest.mark.parametrize("name", SEED_COMMANDS)
@pytest.mark.parametrize("ending", ["sh", "bat"])
def test_step_scripts_hold_the_commands_of_old(name, ending):
    """With the names of input and output as the arguments' defaults."""
    text = (ROOT / "scripts" / f"{name}.{ending}").read_text()
    words = set(re.split(r"[\s\"'={}:\-]+", text))
    for word in shlex.split(SEED_COMMANDS[name])[2:]:
        assert word.strip("-") in words or word in re.split(r"[\s\"={}]+|:-", text), word


def test_step_scripts_run_with_other_names(tmp_path, environment):
    make_clip(tmp_path / "my clip.mp4", frames=2)
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    path = f"{python.parent}:{environment['PATH']}"
    steps = {"1-extract": ("my clip.mp4", "In 1"), "2-dream": ("In 1", "Out"), "3-create": ("Out", "-v.mp4")}
    for script, names in steps.items():
        command = [str(ROOT / "scripts" / f"{script}.sh"), *names]
        subprocess.run(command, cwd=tmp_path, env={**environment, "PATH": path}, check=True, capture_output=True)
    assert probe(tmp_path / "-v.mp4").frame_count == 2


def test_twelve_frames_of_footage_give_twelve_dreams(run, tmp_path):
    clip = cut_clip(tmp_path / "clip.mp4", "bigbuckbunny.mp4", 0.6)
    assert run("-e", "-i", clip, "-o", "All").returncode == 0
    extracted = sorted((tmp_path / "All").glob("image-*.png"))
    assert len(extracted) == len(decode(clip)) == read_clip(tmp_path / "All").frame_count > 12
    (tmp_path / "Input").mkdir()
    for path in extracted[:12]:
        path.rename(tmp_path / "Input" / path.name)
    done = run("-i", "Input", "-o", "Output", "--preview", 320, "--flow", 1, "-itr", 4, "-oct", 3)
    assert done.returncode == 0, done.stderr
    dreams = read_dreams(tmp_path / "Output")
    assert list(dreams) == [f"frame_{number:06d}.png" for number in range(12)]
    assert {Image.open(tmp_path / "Output" / name).size for name in dreams} == {(320, 180)}
    source = Image.open(extracted[0].parent.parent / "Input" / extracted[0].name).resize((320, 180))
    strength = np.abs(np.float32(source) - np.float32(Image.open(tmp_path / "Output" / "frame_000000.png"))).mean()
    assert 3 < strength < 30


@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_a_video_becomes_a_video_of_the_same_frames_rate_duration_and_sound(run, tmp_path, name):
    clip = cut_clip(tmp_path / "clip.mp4", name, 0.3)
    done = run("-i", clip, "-o", "Video.mp4", "-p", 64, *QUICK)
    assert done.returncode == 0, done.stderr
    source, video = probe(clip), probe(tmp_path / "Video.mp4")
    assert (video.frame_count, video.frame_rate) == (source.frame_count, source.frame_rate)
    assert video.pixel_aspect == source.pixel_aspect
    assert video.has_audio == source.has_audio
    assert abs(duration(tmp_path / "Video.mp4") - duration(clip)) <= 1 / source.frame_rate
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "Video.mp4", "Video.frames"}


def test_the_same_command_again_changes_nothing(run_here, tmp_path):
    make_clip(tmp_path / "clip.mp4", frames=2)
    command = ["-i", "clip.mp4", "-o", "Video.mp4", *QUICK]
    assert run_here(*command).returncode == 0
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in (".png", ".mp4")}
    again = run_here(*command)
    assert again.returncode == 0, again.stderr
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_an_interrupted_run_says_so_and_goes_on_to_the_same_bytes(run, frames, tmp_path, environment):
    options = ["-i", "Input", "-flow", "-itr", "15", "-oct", "2"]  # long enough to be stopped in its midst
    assert run(*options, "-o", "Whole").returncode == 0
    command = [sys.executable, str(ROOT / "dreamer.py"), *options, "-o", "Output"]
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "Output" / "frame_000000.png").exists() and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, screen = running.communicate()
    assert running.returncode == 130, screen
    assert "interrupted" in screen and "Traceback" not in screen
    done = len(read_dreams(tmp_path / "Output"))
    assert 0 < done < 4
    again = run(*options, "-o", "Output")
    assert again.returncode == 0 and f"going on: {done} of 4 frames are there" in again.stderr
    assert read_dreams(tmp_path / "Output") == read_dreams(tmp_path / "Whole")


def test_seed_decides_the_bytes(run_here, frames, tmp_path):
    for output, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run_here("-i", "Input", "-o", output, *QUICK, "--seed", seed).returncode == 0
    assert read_dreams(tmp_path / "a") == read_dreams(tmp_path / "b")
    assert not set(read_dreams(tmp_path / "a").values()) & set(read_dreams(tmp_path / "c").values())


def test_verbose_levels(run_here, frames, tmp_path):
    screens = {level: run_here("-i", "Input", "-o", f"v{level}", *QUICK, "-v", level).stderr for level in range(4)}
    assert screens[0] == "" and "going on" not in screens[1]
    assert "dream 100%" in screens[1] and "left" in screens[1]
    assert "4 frames (4 dreamed now)" in bar_free(screens[1])[-1] and "v1" in bar_free(screens[1])[-1]
    lines = bar_free(screens[2])
    assert sum("iteration 1: mean gradient" in line for line in lines) == 4
    assert sum("frame_00000" in line for line in lines) == 4
    assert (tmp_path / "v3" / "preview.jpg").exists()
    assert not (tmp_path / "v2" / "preview.jpg").exists()


def test_a_scene_cut_is_told(run_here, frames):
    for number in (3, 4):
        path = frames / f"image-{number:06d}.png"
        Image.fromarray(255 - np.asarray(Image.open(path)) // 4).save(path)
    lines = bar_free(run_here("-i", "Input", "-o", "Output", *QUICK, "-flow", 2, "-v", 2).stderr)
    assert [line for line in lines if "cut" in line] == ["frame 3/4: scene cut, nothing inherited"]


def test_the_live_picture_is_no_frame(run_here, frames, tmp_path):
    assert run_here("-i", "Input", "-o", "Output", *QUICK, "-v", 3).returncode == 0
    assert run_here("-c", 1, "-i", "Output", "-o", "Video.mp4").returncode == 0
    assert probe(tmp_path / "Video.mp4").frame_count == 4


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(run_here, frames):
    done = run_here("-i", "Input", "-o", "Output", *QUICK, "--gpu", 1)
    assert done.returncode == 0
    assert sum("no GPU" in line for line in bar_free(done.stderr)) == 1


def test_googlenet_layers_find_their_stand_ins(run_here, frames):
    done = run_here("-i", "Input", "-o", "Output", *QUICK, "--layers", "inception_4d/pool")
    assert done.returncode == 0
    assert sum("stands in" in line for line in bar_free(done.stderr)) == 1


def test_list_layers_needs_no_input(run_here):
    done = run_here("--list-layers")
    assert done.returncode == 0 and "--gpu" not in done.stderr
    shapes = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert shapes["block_10/output"] == "(112, 14, 14)"
    assert shapes["prob"] == "(1000,)  classes"


def test_a_guide_inside_the_input_is_no_frame(run_here, frames, tmp_path):
    (frames / "image-000004.png").rename(frames / "guide.png")
    assert run_here("-i", "Input", "-o", "Output", *QUICK, "-g", "guide.png").returncode == 0
    assert len(read_dreams(tmp_path / "Output")) == 3


def test_names_that_look_like_options_are_names(run_here, tmp_path):
    make_clip(tmp_path / "clip.mp4", frames=2)
    (tmp_path / "clip.mp4").rename(tmp_path / "-e 1%d:.mp4")
    done = run_here("-e", "-i", "-e 1%d:.mp4", "-o", "-f%d")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "-f%d").glob("*.png"))) == 2


@pytest.mark.parametrize(
    "words, said",
    [
        ("", "--input is missing"),
        ("-i Input", "--output is missing"),
        ("-e 1 -c 1 -i a -o b", "two modes"),
        ("-i nowhere -o Output", "nowhere does not exist"),
        ("-i Empty -o Output", "holds no jpg or png frames"),
        ("-i Input -o Input", "same directory"),
        ("-i Input -o Output -it jpg", "holds no jpg frames (it holds png"),
        ("-i Input -o Output --layers nope", "no layer nope"),
        ("-i Input -o Output --layers block_9/outputs", "near it: block_9/output"),
        ("-i Input -o Output -g nope.png", "nope.png: no such file"),
        ("-i Input -o Output -g notes.txt", "is not a picture"),
        ("-i Input -o Output -t nowhere", "nowhere is not a directory"),
        ("-i Input -o Video.mp4", "create the video with -c 1"),
        ("-i Input/image-000001.png -o Video.mp4", "image-000001.png"),
        ("-c 1 -i Input -o Video.avi", ".mp4"),
        ("-e 1 -i notes.txt -o Frames", "notes.txt"),
        ("-i Input -o Output --frob", "--frob"),
    ],
)
def test_mistakes_get_one_clear_line_and_status_2(run_here, frames, tmp_path, words, said):
    (tmp_path / "Empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    done = run_here(*words.split())
    lines = [line for line in bar_free(done.stderr) if "EfficientNet" not in line]
    assert done.returncode == 2
    assert len(lines) == 1 and said in lines[0], done.stderr
    assert not list(tmp_path.glob("Output/frame_*"))


def test_a_mistake_is_the_exit_status_of_the_process(run):
    done = run("-i", "Input", "-o", "Output", "--octaves", "two")
    assert done.returncode == 2 and "--octaves two: expected a whole number" in done.stderr
    assert run("--version").stdout == f"dreamer.py {deepdream.__version__}\n"


def test_an_octave_too_small_names_layer_size_and_what_would_do(run_here, tmp_path, small_folder):
    (tmp_path / "Input").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "Input" / "1.png")
    done = run_here("-i", "Input", "-o", "Output", "-t", small_folder, "-l", "narrow", "-oct", 4)
    assert done.returncode == 2
    assert re.search(r"layer narrow cannot take an octave of \dx\d pixels; it needs at least \d+x\d+", done.stderr)


def test_options_of_another_mode_are_named(run_here, tmp_path):
    make_clip(tmp_path / "clip.mp4", frames=1)
    done = run_here("-e", "-i", "clip.mp4", "-o", "Frames", "--octaves", 3, "-flow")
    assert done.returncode == 0
    assert "--octaves" in done.stderr and "--flow" in done.stderr and "change nothing" in done.stderr
