"""Dreams at another width than that of the frames: what they add, its way onto the frame and back."""

import json
import shutil
import time
import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest
from clips import make_clip
from helpers import open_small_render, read_dreams, render, save_frames
from PIL import Image

import deepdream
import dreamer
from deepdream.errors import UsageError
from deepdream.files.frames import read_frame, write_frame
from deepdream.options import DivideMode, DivideOptions, DreamOptions, FlowMode, FlowOptions, RenderOptions
from deepdream.render.dream_size import lay_on, shrink, take_off
from deepdream.render.sequence import dream_frames


@pytest.fixture(scope="module")
def source(footage, tmp_path_factory):
    return save_frames(footage[:3], tmp_path_factory.mktemp("wide") / "source", size=(96, 80))


def smooth_noise(height, width, strength, seed=0):
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    blurred = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return blurred * strength / np.abs(blurred).mean()


@pytest.mark.parametrize("factor", [1.5, 2, 3])
def test_what_is_laid_onto_a_frame_is_taken_off_again(photograph, factor):
    frame = np.uint8(photograph("coffee.png", (240, 360)) // 2 + 64)
    small = shrink(frame, (round(360 / factor), round(240 / factor)))
    dream = np.uint8(np.rint(small + smooth_noise(*small.shape[:2], 8)))
    full = lay_on(dream, small, frame)
    assert full.dtype == np.uint8 and full.shape == frame.shape
    back = take_off(full, frame, small)
    added, returned = np.float32(dream) - small, back - small
    assert np.abs(returned - added).mean() < 0.5
    assert np.corrcoef(returned.ravel(), added.ravel())[0, 1] > 0.995
    assert abs(np.abs(returned).mean() / np.abs(added).mean() - 1) < 0.02  # nothing is lost from frame to frame


def test_where_nothing_is_added_the_frame_stays_as_it_is(photograph):
    frame = photograph("chelsea.png", (121, 163))
    small = shrink(frame, (70, 52))
    np.testing.assert_array_equal(lay_on(small, small, frame), frame)


def test_shrinking_averages_over_areas(photograph):
    frame = photograph("coffee.png", (80, 120))
    wanted = frame.reshape(40, 2, 60, 2, 3).mean((1, 3))
    np.testing.assert_allclose(shrink(frame, (60, 40)), wanted, atol=0.5001)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_while_a_frame_dreams_nothing_before_it_has_full_size(footage, tmp_path, small_network, monkeypatch, kind):
    source = save_frames(footage[:3], tmp_path / "source", size=(96, 80), pattern="{:06}." + kind)
    pictures = []  # by the numbers of their frames: the sources, the dreams and what is read of them again

    def read(path):
        picture = read_frame(path)
        pictures.append((int(path.stem[-6:]), weakref.ref(picture)))
        return picture

    def save(path, picture, *arguments):
        pictures.append((int(path.stem[-6:]), weakref.ref(picture)))
        write_frame(path, picture, *arguments)

    def on_step(number, report):
        end = time.monotonic() + 60  # the frame before may still be in a thread's hands
        while any(of < number and picture() is not None for of, picture in pictures):
            assert time.monotonic() < end, "the frame before is kept"
            time.sleep(0.01)

    monkeypatch.setattr("deepdream.render.sequence.read_frame", read)
    monkeypatch.setattr("deepdream.render.sequence.write_frame", save)
    flow = FlowOptions(FlowMode.STABLE)
    opened = open_small_render(source, tmp_path / "out", small_network, flow, dream_width=48)
    assert len(list(dream_frames(opened, small_network, on_step))) == 3
    assert len(pictures) == (6 if kind == "png" else 8)


def test_at_the_width_of_the_frames_nothing_changes(source, tmp_path, small_network):
    render(source, tmp_path / "plain", small_network)
    render(source, tmp_path / "wide", small_network, dream_width=96)
    assert read_dreams(tmp_path / "plain") == read_dreams(tmp_path / "wide")


@pytest.mark.parametrize("mode", FlowMode)
@pytest.mark.parametrize("divide", [DivideMode.OFF, DivideMode.TILES, DivideMode.SEAMLESS])
def test_a_dream_of_no_steps_is_the_source_exactly(source, tmp_path, small_network, mode, divide):
    options = {"flow": FlowOptions(mode, blend_static=0.5), "divide": DivideOptions(divide, 30, 30)}
    reports = render(source, tmp_path / "out", small_network, dream_width=48, iterations=0, **options)
    for report in reports if mode == FlowMode.STABLE else reports[:1]:  # the others blend the old picture in
        np.testing.assert_array_equal(read_frame(report.path), read_frame(source / f"{report.number}.png"))


@pytest.mark.parametrize("mode", [FlowMode.OFF, FlowMode.BLEND])
def test_frames_keep_their_size_and_take_what_the_small_dream_adds(source, tmp_path, small_network, mode):
    flow = FlowOptions(mode, blend_flow=0, blend_static=0)
    reports = render(source, tmp_path / "out", small_network, dream_width=48, flow=flow, iterations=3)
    small = [shrink(read_frame(source / f"{number}.png"), (48, 40)) for number in range(3)]
    render(save_frames(small, tmp_path / "small"), tmp_path / "alone", small_network, flow=flow, iterations=3)
    for number, report in enumerate(reports):
        frame, alone = read_frame(source / f"{number}.png"), read_frame(tmp_path / "alone" / report.path.name)
        np.testing.assert_array_equal(read_frame(report.path), lay_on(alone, small[number], frame))


@pytest.mark.parametrize("mode", [FlowMode.OFF, FlowMode.BLEND])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_resumed_run_ends_with_the_same_bytes(source, tmp_path, small_network, mode, kind):
    frames = source
    if kind == "jpg":
        frames = tmp_path / "jpg"
        frames.mkdir()
        for path in source.iterdir():
            Image.open(path).save(frames / f"{path.stem}.jpg", quality=95)
    options = {"flow": FlowOptions(mode), "dream_width": 48, "iterations": 2, "zoom": 1.1}
    render(frames, tmp_path / "whole", small_network, **options)
    out = shutil.copytree(tmp_path / "whole", tmp_path / "out")
    (out / f"frame_000001.{kind}").unlink()
    assert [report.number for report in render(frames, out, small_network, **options)] == [1, 2]
    assert read_dreams(out) == read_dreams(tmp_path / "whole")


def test_it_works_as_typed_with_a_guide_and_is_part_of_the_settings(
    source, tmp_path, small_folder, photograph, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photograph("coffee.png", (64, 64))).save("guide.png")
    command = [
        "-i",
        str(source),
        "-o",
        "Out",
        "-t",
        str(small_folder),
        "-l",
        "mixed",
        "-oct",
        "1",
        "-itr",
        "1",
        "-j",
        "4",
    ]
    assert dreamer.main([*command, "--dreamwidth", "48", "-g", "guide.png"]) == 0
    assert json.loads((tmp_path / "Out" / "render.json").read_text())["--dreamwidth"] == 48
    assert read_frame("Out/frame_000000.png").shape == (80, 96, 3)


@pytest.mark.parametrize(
    "options, told",
    [
        (["--dreamwidth", "97"], "--dreamwidth 97: wider than the frames, which have 96 pixels"),
        (["--dreamwidth", "60", "-p", "50"], "--dreamwidth 60: wider than the frames, which have 50 pixels"),
        (["--dreamwidth", "-1"], "--dreamwidth -1: expected a number, 0 to 32768"),
        (["--smooth", "3"], "--smooth 3.0: expected a number, 0 to 2"),
        (["-fitr", "-1"], "--flowiterations -1: expected a number"),
        (["--colors", "blue"], "blue"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_work(source, tmp_path, small_folder, capsys, options, told):
    command = ["-i", str(source), "-o", str(tmp_path / "Out"), "-t", str(small_folder), "-l", "mixed", "-oct", "1"]
    assert dreamer.main([*command, *options]) == 2
    error = capsys.readouterr().err.splitlines()
    assert told in error[-1] and not (tmp_path / "Out").exists()


def test_large_frames_are_told_of_it_once(tmp_path, small_folder, capsys):
    save_frames([np.zeros((20, 1600, 3), np.uint8)] * 2, tmp_path / "in")
    command = ["-i", str(tmp_path / "in"), "-t", str(small_folder), "-l", "mixed", "-oct", "1", "-itr", "0", "-j", "0"]
    assert dreamer.main([*command, "-o", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().err.count("--dreamwidth 1280") == 1
    assert dreamer.main([*command, "-o", str(tmp_path / "b"), "--dreamwidth", "1000"]) == 0
    assert "--dreamwidth" not in capsys.readouterr().err


def test_from_python_a_picture_is_dreamed_at_that_width_too(photograph, small_network):
    picture = photograph("coffee.png", (80, 96))
    options = RenderOptions(DreamOptions(layers=("mixed",), octaves=1, iterations=2, jitter=4, dream_width=48))
    small = shrink(picture, (48, 40))
    alone = deepdream.dream(small, small_network, replace(options, dream=replace(options.dream, dream_width=0)))
    np.testing.assert_array_equal(deepdream.dream(picture, small_network, options), lay_on(alone, small, picture))
    with pytest.raises(UsageError, match="--dreamwidth 48: wider than the picture"):
        deepdream.dream(small[:, :40], small_network, options)


def test_steps_of_frames_that_inherit_are_told_to_mean_nothing_without_the_stabilised_dream(
    source, tmp_path, small_folder, capsys
):
    command = ["-i", str(source), "-t", str(small_folder), "-l", "mixed", "-oct", "1", "-itr", "1", "-fitr", "1"]
    assert dreamer.main([*command, "-o", str(tmp_path / "a")]) == 0
    assert "--flowiterations: these change nothing" in capsys.readouterr().err
    clip = make_clip(tmp_path / "clip.mp4", frames=1)
    assert dreamer.main([*command, "-i", str(clip), "-o", str(tmp_path / "v.mp4"), "--start", "0", "-f", "9"]) == 0
    assert "\n--flowiterations: these change nothing" in "\n" + capsys.readouterr().err
    assert dreamer.main([*command, "-o", str(tmp_path / "b"), "-flow", "2"]) == 0
    assert "--flowiterations" not in capsys.readouterr().err
