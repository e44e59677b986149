"""`import deepdream`: what a Python program uses in place of the command line."""

import logging
import textwrap

import numpy as np
import pytest
from helpers import ROOT, read_dreams, run_python
from PIL import Image

import deepdream
from deepdream.files.frames import read_frame, read_note

QUICK = deepdream.RenderOptions(deepdream.DreamOptions(layers=("mixed", "conv1"), octaves=2, iterations=2, jitter=4))


def test_the_readmes_example_runs_as_it_stands(tmp_path, frames, environment):
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## From Python\n")[2].partition("\n## ")[0]
    code = textwrap.dedent("\n".join(line for line in section.splitlines() if not line or line.startswith("    ")))
    done = run_python("-c", code, cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and [line.split()[0] for line in done.stdout.splitlines()] == ["0", "1", "2", "3"]
    assert len(read_dreams(tmp_path / "Output")) == 4
    np.testing.assert_array_equal(read_frame(tmp_path / "dream.png"), read_frame(tmp_path / "Output/frame_000000.png"))


def test_what_python_dreams_the_command_line_dreams(tmp_path, frames, small_folder, run_here):
    network = deepdream.load_network(small_folder, gpu=False)
    paths = deepdream.dream_directory("Input", "Output", network, QUICK)
    assert list(read_dreams("Output")) == [path.name for path in paths]
    command = "-l mixed conv1 -oct 2 -itr 2 -j 4 -gpu 0".split()
    done = run_here("-i", "Input", "-o", "Output", "-t", small_folder, *command)
    assert "(0 dreamed now)" in done.stderr
    assert run_here("-i", "Input", "-o", "Other", "-t", small_folder, *command).returncode == 0
    for path in paths:
        np.testing.assert_array_equal(read_frame(path), read_frame(f"Other/{path.name}"))


@pytest.mark.parametrize("divide", [deepdream.DivideOptions(), deepdream.DivideOptions(3, 24, 24)])
def test_an_array_is_dreamed_like_a_first_frame(tmp_path, frames, small_network, divide):
    options = deepdream.RenderOptions(QUICK.dream, divide=divide, guide=str(frames / "image-000004.png"))
    steps, reports = [], []
    picture = read_frame(frames / "image-000001.png")
    dream = deepdream.dream(picture, small_network, options, on_step=steps.append)
    (first, *_) = deepdream.dream_directory(frames, tmp_path / "o", small_network, options, on_frame=reports.append)
    np.testing.assert_array_equal(dream, read_frame(first))
    assert dream.shape == picture.shape and dream.dtype == np.uint8 and len(steps) >= 4
    assert [report.number for report in reports] == [0, 1, 2]  # the guide is no frame


def test_callbacks_hear_of_each_step_and_frame(tmp_path, frames, small_network):
    heard = []
    deepdream.dream_directory(
        frames, tmp_path / "o", small_network, QUICK, settings=False,
        on_step=lambda number, step: heard.append((number, step.octave, step.iteration)),
        on_frame=lambda frame: heard.append(frame.path.name),
    )  # fmt: skip
    steps = [(number, octave, iteration) for number in range(4) for octave in (1, 2) for iteration in (1, 2)]
    assert [each for each in heard if isinstance(each, tuple)] == steps
    assert [each for each in heard if isinstance(each, str)] == [f"frame_00000{number}.png" for number in range(4)]
    assert read_note(tmp_path / "o/frame_000000.png") is None


def test_mistakes_are_errors_of_ours_before_any_work(tmp_path, frames, small_network):
    lost = deepdream.RenderOptions(deepdream.DreamOptions(layers=("nope",)))
    with pytest.raises(deepdream.DreamError, match="no layer nope"):
        deepdream.dream_directory(frames, tmp_path / "o", small_network, lost)
    narrow = deepdream.RenderOptions(deepdream.DreamOptions(layers=("narrow",)))
    with pytest.raises(deepdream.DreamError, match="cannot take an octave"):
        deepdream.dream(np.zeros((6, 8, 3), np.uint8), small_network, narrow)
    with pytest.raises(AttributeError, match="nothing"):
        deepdream.nothing  # noqa: B018
    assert not (tmp_path / "o").exists()


def test_messages_are_logged(small_folder, caplog):
    with caplog.at_level(logging.INFO, "deepdream"):
        deepdream.load_network(small_folder, engine="torch", gpu=True)
    assert (
        caplog.records[0].getMessage().startswith("--gpu 1: no GPU")
        or deepdream.load_network(small_folder).device.type != "cpu"
    )


def test_importing_changes_nothing():
    """Neither output, nor signal handlers, nor settings of the process or of libraries."""
    code = """if True:
        import os, signal, sys
        import cv2, PIL.Image, torch
        def settings():
            return ([signal.getsignal(number) for number in signal.valid_signals()], dict(os.environ),
                    PIL.Image.MAX_IMAGE_PIXELS, torch.get_num_threads(), torch.get_default_dtype(),
                    torch.backends.cudnn.benchmark, cv2.getNumThreads(), sys.excepthook, os.getcwd())
        before = settings()
        import deepdream
        assert not [name for name in sys.modules if name.startswith("deepdream.")]
        for name in deepdream.__all__:
            assert name in dir(deepdream) and getattr(deepdream, name).__doc__
        assert settings() == before
    """
    done = run_python("-c", code, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_reading_a_picture_leaves_pillows_limit_alone(frames, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12)
    read_frame(frames / "image-000001.png")
    assert Image.MAX_IMAGE_PIXELS == 12
