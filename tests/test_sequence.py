"""The loop over frames: none lost, none out of order, resumed to the byte, nothing finished destroyed."""

import gc
import json
import os
import shutil
import tracemalloc
from fractions import Fraction
from functools import cache, partial
from threading import Event, active_count, current_thread, main_thread

import helpers
import numpy as np
import pytest
import torch
from helpers import open_small_render, read_dreams, render
from PIL import Image

from deepdream.errors import DreamError, PictureTooSmall, UsageError
from deepdream.files.clip import Clip, read_clip, write_clip
from deepdream.files.frames import read_frame, write_frame
from deepdream.machine import describe
from deepdream.motion.inheritance import estimate_motion, inherit
from deepdream.options import DivideMode, DivideOptions, FlowMode, FlowOptions
from deepdream.render.journal import Records, read_records
from deepdream.render.sequence import dream_frames

BLEND, STABLE = FlowOptions(FlowMode.BLEND), FlowOptions(FlowMode.STABLE)
INDEPENDENT = FlowOptions(FlowMode.OFF, blend_static=0)


@pytest.fixture
def source(footage, tmp_path):
    """A directory of five frames of footage, 48x40."""
    return save_frames(footage, tmp_path / "source")


def save_frames(pictures, directory, size=(48, 40), kind="png"):
    """Save frames under names whose order as text is another."""
    return helpers.save_frames(pictures, directory, size, f"shot-{{}}.{kind}", first=7)


@pytest.fixture(scope="module")
def whole_renders(footage, small_network, tmp_path_factory):
    """A function from a kind and `FlowOptions` to a finished render: (source, output). Tests copy what they change."""

    @cache
    def finished(kind="png", flow=FlowOptions()):
        folder = tmp_path_factory.mktemp("whole")
        source = save_frames(footage, folder / "source", kind=kind)
        render(source, folder / "out", small_network, flow)
        return source, folder / "out"

    return finished


# --- In and out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [FlowOptions(), BLEND, INDEPENDENT], ids=["static", "flow", "independent"])
def test_as_many_frames_come_out_as_went_in(source, tmp_path, small_network, flow):
    reports = render(source, tmp_path / "out", small_network, flow)
    assert list(read_dreams(tmp_path / "out")) == [f"frame_{number:06d}.png" for number in range(5)]
    assert [report.number for report in reports] == list(range(5))
    assert [report.path.name for report in reports] == list(read_dreams(tmp_path / "out"))


def test_frames_come_in_natural_order(source, tmp_path, small_network):
    render(source, tmp_path / "out", small_network, INDEPENDENT, iterations=0)
    for number in range(5):
        dreamed = read_frame(tmp_path / "out" / f"frame_{number:06d}.png")
        np.testing.assert_array_equal(dreamed, read_frame(source / f"shot-{number + 7}.png"))


def test_frame_k_uses_layer_k_mod_n(source, tmp_path, small_network):
    layers = ("conv1", "mixed", "left")
    reports = render(source, tmp_path / "out", small_network, layers=layers)
    assert [report.layer for report in reports] == ["conv1", "mixed", "left", "conv1", "mixed"]


def test_a_resumed_run_takes_up_the_layers_where_it_stopped(source, tmp_path, small_network):
    layers = ("conv1", "mixed", "left")
    render(source, tmp_path / "out", small_network, layers=layers)
    (tmp_path / "out" / "frame_000004.png").unlink()
    assert [report.layer for report in render(source, tmp_path / "out", small_network, layers=layers)] == ["mixed"]


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_frames_are_written_in_the_type_they_came_in(footage, tmp_path, small_network, kind):
    source = save_frames(footage[:2], tmp_path / "source", kind=kind)
    render(source, tmp_path / "out", small_network)
    assert list(read_dreams(tmp_path / "out")) == [f"frame_000000.{kind}", f"frame_000001.{kind}"]
    with Image.open(tmp_path / "out" / f"frame_000001.{kind}") as picture:
        assert picture.format == {"png": "PNG", "jpg": "JPEG"}[kind] and picture.size == (48, 40)


def test_the_clips_data_are_carried_on(source, tmp_path, small_network):
    clip = Clip("/films/a.mp4", Fraction(30000, 1001), Fraction(128, 117), True, 5)
    write_clip(source, clip)
    render(source, tmp_path / "out", small_network)
    assert read_clip(tmp_path / "out") == clip


def test_nothing_but_the_frames_and_their_records_is_written(source, tmp_path, small_network):
    before = sorted(path.name for path in source.iterdir())
    render(source, tmp_path / "out" / "deep", small_network)
    assert sorted(path.name for path in source.iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]
    names = {path.name for path in (tmp_path / "out" / "deep").iterdir()}
    assert names == {*read_dreams(tmp_path / "out" / "deep"), "render.json", "frames.jsonl", ".lock"}


# --- What a frame starts from ----------------------------------------------------------------------


@pytest.mark.parametrize("zoom", [1.0, 1.2])
@pytest.mark.parametrize("flow", [FlowOptions(blend_static=0.6), BLEND], ids=["static", "flow"])
def test_a_frame_starts_from_the_saved_dream_before_it(source, tmp_path, small_network, flow, zoom):
    # Without steps the dream is its start picture.
    out = tmp_path / "out"
    render(source, out, small_network, flow, iterations=0, zoom=zoom)
    sources = [read_frame(source / f"shot-{number}.png") for number in range(7, 12)]
    dreams = [read_frame(out / f"frame_{number:06d}.png") for number in range(5)]
    np.testing.assert_array_equal(dreams[0], sources[0])
    for number in range(1, 5):
        pair = sources[number - 1], sources[number]
        wanted = inherit(*pair, dreams[number - 1], estimate_motion(*pair, flow), flow, zoom).start
        assert abs(dreams[number] - wanted).max() < 0.51  # rounded to whole grey levels
    assert (dreams[1] != sources[1]).any()


def test_frames_are_independent_without_flow_and_static_share(source, tmp_path, small_network):
    render(source, tmp_path / "all", small_network, INDEPENDENT)
    for name in ("shot-7.png", "shot-8.png"):
        Image.fromarray(255 - read_frame(source / name)).save(source / name)
    render(source, tmp_path / "changed", small_network, INDEPENDENT)
    before, after = read_dreams(tmp_path / "all"), read_dreams(tmp_path / "changed")
    assert [name for name in before if before[name] != after[name]] == ["frame_000000.png", "frame_000001.png"]


def test_frames_that_inherit_are_not_independent(source, tmp_path, small_network):
    render(source, tmp_path / "all", small_network, FlowOptions(blend_static=0.9))
    Image.fromarray(255 - read_frame(source / "shot-7.png")).save(source / "shot-7.png")
    render(source, tmp_path / "changed", small_network, FlowOptions(blend_static=0.9))
    before, after = read_dreams(tmp_path / "all"), read_dreams(tmp_path / "changed")
    assert before["frame_000002.png"] != after["frame_000002.png"]


# --- Seeds and resuming ----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(source, tmp_path, small_network):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        render(source, tmp_path / name, small_network, BLEND, seed=seed)
    first, again, other = (read_dreams(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_each_frame_has_a_jitter_of_its_own(footage, tmp_path, small_network):
    source = save_frames([footage[0]] * 2, tmp_path / "source")
    render(source, tmp_path / "out", small_network, INDEPENDENT)
    first, second = read_dreams(tmp_path / "out").values()
    assert first != second


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("gone", [(3, 4), (0, 1, 2, 3, 4), (2,)], ids=["the last two", "all", "one amid"])
def test_a_resumed_run_ends_with_the_same_bytes(whole_renders, tmp_path, small_network, kind, gone):
    source, whole = whole_renders(kind, BLEND)
    out = shutil.copytree(whole, tmp_path / "out")
    for number in gone:
        (out / f"frame_{number:06d}.{kind}").unlink()
    reports = render(source, out, small_network, BLEND)
    assert read_dreams(out) == read_dreams(whole)
    # What follows a lost frame has inherited from it, so it is dreamed again too.
    assert [report.number for report in reports] == list(range(gone[0], 5))


def test_independent_frames_are_made_again_alone(whole_renders, tmp_path, small_network):
    source, whole = whole_renders(flow=INDEPENDENT)
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "frame_000001.png").unlink()
    assert [report.number for report in render(source, out, small_network, INDEPENDENT)] == [1]
    assert read_dreams(out) == read_dreams(whole)


def test_a_run_that_breaks_off_leaves_whole_frames_and_goes_on(source, tmp_path, small_network):
    render(source, tmp_path / "whole", small_network, BLEND)
    frames = dream_frames(open_small_render(source, tmp_path / "out", small_network, BLEND), small_network)
    next(frames), next(frames)
    frames.close()
    whole = read_dreams(tmp_path / "whole")
    assert read_dreams(tmp_path / "out") == dict(list(whole.items())[:2])
    render(source, tmp_path / "out", small_network, BLEND)
    assert read_dreams(tmp_path / "out") == whole


def test_a_frame_that_was_damaged_is_dreamed_again(source, tmp_path, small_network):
    out = tmp_path / "out"
    render(source, out, small_network, BLEND)
    whole = read_dreams(out)
    (out / "frame_000003.png").write_bytes(whole["frame_000003.png"][:-20])
    assert [report.number for report in render(source, out, small_network, BLEND)] == [3, 4]
    assert read_dreams(out) == whole


def test_a_source_frame_that_has_changed_is_told_and_no_dream_is_lost(source, tmp_path, small_network):
    out = tmp_path / "out"
    render(source, out, small_network, INDEPENDENT)
    whole = read_dreams(out)
    Image.fromarray(255 - read_frame(source / "shot-9.png")).save(source / "shot-9.png")
    with pytest.raises(UsageError, match="shot-9.png has changed"):
        open_small_render(source, out, small_network, INDEPENDENT)
    assert read_dreams(out) == whole
    assert len(render(source, out, small_network, INDEPENDENT, overwrite=True)) == 5


def test_a_note_that_a_crash_cut_off_costs_its_frame_alone(source, tmp_path, small_network):
    out = tmp_path / "out"
    render(source, out, small_network, INDEPENDENT)
    whole = read_dreams(out)
    notes = (out / "frames.jsonl").read_bytes()
    (out / "frames.jsonl").write_bytes(notes[:-30])
    assert [report.number for report in render(source, out, small_network, INDEPENDENT)] == [4]
    assert read_dreams(out) == whole and open_small_render(source, out, small_network, INDEPENDENT).todo == ()


def test_two_runs_never_work_in_one_output(source, tmp_path, small_network):
    first = open_small_render(source, tmp_path / "out", small_network)
    with pytest.raises(UsageError, match="another run is at work"):
        open_small_render(source, tmp_path / "out", small_network)
    list(dream_frames(first, small_network))
    assert open_small_render(source, tmp_path / "out", small_network).todo == ()


def test_a_finished_run_has_nothing_left_to_do(source, tmp_path, small_network):
    render(source, tmp_path / "out", small_network)
    again = open_small_render(source, tmp_path / "out", small_network)
    assert again.todo == () and again.pixel_steps == 0


def test_the_work_is_what_the_steps_report(source, tmp_path, small_network):
    done = []
    again = open_small_render(source, tmp_path / "out", small_network, iterations=2)
    list(dream_frames(again, small_network, lambda number, report: done.append((number, report.pixels))))
    assert sum(pixels for _, pixels in done) == again.pixel_steps > 0
    assert {number for number, _ in done} == set(range(5))


# --- One frame ahead, one behind -------------------------------------------------------------------


def test_the_next_frame_is_read_and_the_one_before_is_saved_while_a_frame_dreams(
    source, tmp_path, small_network, monkeypatch
):
    known, dreaming, saved = [Event() for _ in range(5)], [Event() for _ in range(5)], []

    def read(path):
        if path.parent == source:
            known[int(path.stem[5:]) - 7].set()
        return read_frame(path)

    def save(path, *arguments):
        number = int(path.stem[-6:])
        assert number == 4 or dreaming[number + 1].wait(60), "saved before the next frame dreams"
        write_frame(path, *arguments)
        saved.append(number)

    def on_step(number, report):
        dreaming[number].set()
        assert number == 4 or known[number + 1].wait(60), "not read while the one before dreams"
        assert not any(event.is_set() for event in known[number + 2 :]), "read too far ahead"
        assert number - len(saved) <= 1, "too far behind"

    render = open_small_render(source, tmp_path / "out", small_network, BLEND)
    monkeypatch.setattr("deepdream.render.sequence.read_frame", read)
    monkeypatch.setattr("deepdream.render.sequence.write_frame", save)
    assert [report.number for report in dream_frames(render, small_network, on_step)] == list(range(5)) == saved


@pytest.mark.parametrize("flow", [BLEND, STABLE], ids=["flow", "stable"])
def test_motion_is_estimated_beside_the_dream_which_leaves_it_a_core(
    source, tmp_path, small_network, monkeypatch, request, flow
):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    looking, dreaming = Event(), Event()
    estimated, threads = [], []

    def estimate(*arguments):
        estimated.append(current_thread())
        if len(estimated) == 3:
            looking.set()
            assert dreaming.wait(60)
        return estimate_motion(*arguments)

    def on_step(number, report):
        if number == 2 and not dreaming.is_set():  # the motion from it to the next frame is estimated
            assert looking.wait(60)
            dreaming.set()
            threads.append(torch.get_num_threads())

    monkeypatch.setattr("deepdream.threads._balance.update", lambda: 2)
    monkeypatch.setattr("deepdream.render.sequence.estimate_motion", estimate)
    list(dream_frames(open_small_render(source, tmp_path / "out", small_network, flow), small_network, on_step))
    assert len(estimated) == 4 and main_thread() not in estimated
    assert threads == [1]


# A sum's first step takes the gradient of each part alone.
@pytest.mark.parametrize("layer, looked", [("conv1", [1, 1]), ("conv1+mixed", [1, 1, 2])], ids=["layer", "sum"])
def test_a_core_that_comes_free_is_seen_between_the_passes_of_a_step(
    source, tmp_path, small_network, monkeypatch, layer, looked
):
    looks, seen = [], []

    def watch(name):
        compute = getattr(small_network, name)

        def watched(*arguments, **settings):
            before = len(looks)
            gradient = compute(*arguments, **settings)
            seen.append(len(looks) - before)
            return gradient

        monkeypatch.setattr(small_network, name, watched)

    monkeypatch.setattr("deepdream.threads.Background.leave_cores", lambda background: looks.append(background))
    watch("gradient_of_sum")
    render(source, tmp_path / "out", small_network, INDEPENDENT, layers=(layer,), octaves=1, iterations=2)
    assert seen == looked * 5


@pytest.mark.parametrize("flow", [BLEND, STABLE], ids=["flow", "stable"])
def test_the_motion_of_large_frames_is_not_estimated_ahead_and_changes_no_byte(
    source, tmp_path, small_network, monkeypatch, flow
):
    render(source, tmp_path / "ahead", small_network, flow)
    threads = []

    def estimate(*arguments):
        threads.append(current_thread())
        return estimate_motion(*arguments)

    monkeypatch.setattr("deepdream.render.sequence.TRIM_ABOVE_PIXELS", 0)
    monkeypatch.setattr("deepdream.render.frame.estimate_motion", estimate)
    render(source, tmp_path / "out", small_network, flow)
    assert read_dreams(tmp_path / "out") == read_dreams(tmp_path / "ahead")
    assert threads == [main_thread()] * 4


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_frame_that_cannot_be_read_leaves_those_before_it_saved_and_reported(footage, tmp_path, small_network, kind):
    source = save_frames(footage, tmp_path / "source", kind=kind)
    render = open_small_render(source, tmp_path / "out", small_network, BLEND)
    (source / f"shot-9.{kind}").unlink()
    frames = dream_frames(render, small_network)
    assert [next(frames).number for _ in range(2)] == [0, 1]
    with pytest.raises(UsageError, match=f"shot-9.{kind} does not exist"):
        next(frames)
    assert len(read_dreams(tmp_path / "out")) == 2


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_frame_that_cannot_be_saved_ends_it_with_those_before_reported(
    footage, tmp_path, small_network, monkeypatch, kind
):
    def save(path, *arguments):
        if path.stem == "frame_000002":
            raise DreamError(f"cannot write {path}")
        write_frame(path, *arguments)

    monkeypatch.setattr("deepdream.render.sequence.write_frame", save)
    source = save_frames(footage, tmp_path / "source", kind=kind)
    frames = dream_frames(open_small_render(source, tmp_path / "out", small_network, BLEND), small_network)
    assert [next(frames).number for _ in range(2)] == [0, 1]
    with pytest.raises(DreamError, match=f"frame_000002.{kind}"):
        next(frames)
    assert list(read_dreams(tmp_path / "out")) == [f"frame_000000.{kind}", f"frame_000001.{kind}"]


def test_a_dream_that_fails_does_not_hide_the_frame_before(source, tmp_path, small_network):
    def on_step(number, report):
        if number == 2:
            raise DreamError("out of luck")

    frames = dream_frames(open_small_render(source, tmp_path / "out", small_network, BLEND), small_network, on_step)
    assert [next(frames).number for _ in range(2)] == [0, 1]
    with pytest.raises(DreamError, match="out of luck"):
        next(frames)
    assert open_small_render(source, tmp_path / "out", small_network, BLEND).todo == (2, 3, 4)


def test_a_source_frame_that_changes_while_it_dreams_is_told_afterwards(source, tmp_path, small_network):
    def on_step(number, report):
        if number == 2:
            Image.new("RGB", (48, 40)).save(source / "shot-9.png")

    list(dream_frames(open_small_render(source, tmp_path / "out", small_network, BLEND), small_network, on_step))
    with pytest.raises(UsageError, match="shot-9.png has changed"):
        open_small_render(source, tmp_path / "out", small_network, BLEND)


def test_a_long_run_does_not_grow(footage, tmp_path, small_network):
    source = save_frames(footage * 12, tmp_path / "source", size=(96, 64))
    held = []
    tracemalloc.start()
    try:
        for report in dream_frames(open_small_render(source, tmp_path / "out", small_network, STABLE), small_network):
            if report.number in (19, 59):
                gc.collect()
                tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
                held.append((tensors, len(os.listdir("/dev/fd")), active_count()))
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[0] == held[2]  # tensors, open files, threads
    assert held[3] - held[1] < 40 * 96 * 64  # a byte a pixel: nothing of a frame is kept, only its sums


# --- What must not be mixed or lost ----------------------------------------------------------------


@pytest.mark.parametrize(
    "option, changed",
    [
        ("--octaves", {"octaves": 3}),
        ("--octavescale", {"octave_scale": 1.5}),
        ("--iterations", {"iterations": 2}),
        ("--stepsize", {"step_size": 2.0}),
        ("--jitter", {"jitter": 5}),
        ("--zoom", {"zoom": 1.1}),
        ("--preview", {"preview": 40}),
        ("--seed", {"seed": 1}),
        ("--layers", {"layers": ("left",)}),
        ("--flow", {"flow": BLEND}),
        ("--flowthresh", {"flow": FlowOptions(threshold=7)}),
        ("--blendflow", {"flow": FlowOptions(blend_flow=0.8)}),
        ("--blendstatic", {"flow": FlowOptions(blend_static=0.2)}),
        ("--divide", {"divide": DivideOptions(DivideMode.TILES)}),
        ("--maxWidth", {"divide": DivideOptions(max_width=30)}),
        ("--maxHeight", {"divide": DivideOptions(max_height=30)}),
    ],
)
def test_another_render_is_refused_by_the_name_of_what_differs(whole_renders, small_network, option, changed):
    source, out = whole_renders()
    before = read_dreams(out)
    with pytest.raises(UsageError, match=rf"another render \({option} is [^;]*\)"):
        open_small_render(source, out, small_network, **changed)
    assert read_dreams(out) == before


def test_all_that_differs_is_named(whole_renders, tmp_path, small_network, default_network, footage):
    source, out = whole_renders()
    with pytest.raises(UsageError, match="--jitter.*--seed"):
        open_small_render(source, out, small_network, seed=1, jitter=0)
    with pytest.raises(UsageError, match="network"):
        open_small_render(source, out, default_network, layers=("stem",))
    other = save_frames(footage, tmp_path / "other")
    with pytest.raises(UsageError, match="--input is .*other, was .*source"):
        open_small_render(other, out, small_network)


def test_another_guide_is_another_render(source, tmp_path, small_network):
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(source / "shot-7.png", tmp_path / name)
    render(source, tmp_path / "out", small_network, guide=str(tmp_path / "a.jpg"))
    with pytest.raises(UsageError, match="--guide is .*b.jpg.* was .*a.jpg"):
        open_small_render(source, tmp_path / "out", small_network, guide=str(tmp_path / "b.jpg"))


@pytest.mark.parametrize("content", [None, "", "{", "[]"], ids=["gone", "empty", "cut off", "no settings"])
def test_frames_of_unknown_origin_are_not_touched(whole_renders, tmp_path, small_network, content):
    source, whole = whole_renders()
    out = shutil.copytree(whole, tmp_path / "out")
    before = read_dreams(out)
    (out / "render.json").unlink() if content is None else (out / "render.json").write_text(content)
    with pytest.raises(UsageError, match="--overwrite"):
        open_small_render(source, out, small_network)
    assert read_dreams(out) == before


def test_overwrite_starts_afresh_and_leaves_other_files(source, tmp_path, small_network):
    out = tmp_path / "out"
    render(source, out, small_network)
    (out / "notes.txt").write_text("mine")
    (out / "frame_of_mind.png").write_text("mine")
    render(source, tmp_path / "wanted", small_network, seed=1)
    (source / "shot-11.png").unlink()
    reports = render(source, out, small_network, seed=1, overwrite=True)
    assert [report.number for report in reports] == [0, 1, 2, 3]
    wanted = read_dreams(tmp_path / "wanted")
    wanted.pop("frame_000004.png")
    assert {name: content for name, content in read_dreams(out).items() if name != "frame_of_mind.png"} == wanted
    assert (out / "notes.txt").read_text() == (out / "frame_of_mind.png").read_text() == "mine"


def test_the_output_cannot_be_the_input(source, tmp_path, small_network):
    before = sorted(path.name for path in source.iterdir())
    (tmp_path / "link").symlink_to(source)
    for output in (source, tmp_path / "source" / ".." / "source", tmp_path / "link"):
        with pytest.raises(UsageError, match="the same directory"):
            open_small_render(source, output, small_network)
    assert sorted(path.name for path in source.iterdir()) == before


def test_an_output_that_is_a_file_is_named(source, tmp_path, small_network):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="out is a file"):
        open_small_render(source, tmp_path / "out", small_network)


def test_a_run_that_cannot_start_leaves_no_output(source, tmp_path, small_network):
    with pytest.raises(PictureTooSmall):
        open_small_render(source, tmp_path / "out", small_network, layers=("narrow",), octaves=4)
    assert not (tmp_path / "out").exists()


def test_the_settings_are_kept_in_words_of_the_command_line(source, tmp_path, small_network):
    render(source, tmp_path / "out", small_network, seed=7)
    kept = json.loads((tmp_path / "out" / "render.json").read_text())
    assert kept["--seed"] == 7 and kept["--layers"] == ["mixed"] and kept["network"] == small_network.digest


# --- Guide -----------------------------------------------------------------------------------------


def test_the_guide_is_no_frame(source, tmp_path, small_network):
    guide = source / "shot-9.png"
    reports = render(source, tmp_path / "out", small_network, INDEPENDENT, guide=str(guide), iterations=0)
    assert len(reports) == 4
    third = read_frame(tmp_path / "out" / "frame_000002.png")
    np.testing.assert_array_equal(third, read_frame(source / "shot-10.png"))


def test_the_guide_guides_at_each_layer(source, tmp_path, small_network, photograph):
    guide = tmp_path / "guide.png"
    Image.fromarray(photograph("coffee.png", (60, 80))).save(guide)
    layers = ("conv1", "mixed")
    render(source, tmp_path / "free", small_network, INDEPENDENT, layers=layers)
    render(source, tmp_path / "guided", small_network, INDEPENDENT, layers=layers, guide=str(guide))
    free, guided = read_dreams(tmp_path / "free"), read_dreams(tmp_path / "guided")
    assert all(free[name] != guided[name] for name in free)


def test_a_guide_that_is_no_picture_is_named_before_anything_is_made(source, tmp_path, small_network):
    (tmp_path / "guide.png").write_text("words")
    with pytest.raises(UsageError, match="guide.png"):
        open_small_render(source, tmp_path / "out", small_network, guide=str(tmp_path / "guide.png"))
    assert not (tmp_path / "out").exists()


# --- Sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [FlowOptions(), BLEND], ids=["static", "flow"])
def test_preview_is_the_width_and_the_height_follows(footage, tmp_path, small_network, flow):
    source = save_frames(footage[:3], tmp_path / "source", size=(176, 144))
    render(source, tmp_path / "out", small_network, flow, preview=50)
    for number in range(3):
        assert read_frame(tmp_path / "out" / f"frame_{number:06d}.png").shape == (41, 50, 3)  # 50 * 144 / 176


def test_tiny_frames_dream(footage, tmp_path, default_network):
    source = save_frames(footage[:2], tmp_path / "source", size=(32, 32))
    reports = render(source, tmp_path / "out", default_network, BLEND, octaves=4, layers=default_network.loop[:1])
    assert len(reports) == len(read_dreams(tmp_path / "out")) == 2


def test_frames_too_small_for_a_layer_of_the_loop_are_refused_before_the_first(footage, tmp_path, small_network):
    source = save_frames(footage[:2], tmp_path / "source", size=(32, 32))
    with pytest.raises(PictureTooSmall, match="layer narrow .* 11x11 .* at least 19x19: use fewer --octaves"):
        open_small_render(source, tmp_path / "out", small_network, octaves=4, layers=("mixed", "narrow"))


@pytest.mark.parametrize("mode", [DivideMode.TILES, DivideMode.HALVES])
@pytest.mark.parametrize("size", [(49, 41), (48, 40), (77, 33)])
def test_divided_frames_lose_no_row_or_column(footage, tmp_path, small_network, mode, size):
    source = save_frames(footage[:2], tmp_path / "source", size=size)
    render(source, tmp_path / "out", small_network, BLEND, DivideOptions(mode, 32, 32), octaves=2)
    for number, name in enumerate(("shot-7.png", "shot-8.png")):
        dreamed = np.float32(read_frame(tmp_path / "out" / f"frame_{number:06d}.png"))
        assert dreamed.shape[1::-1] == size
        changed = dreamed != read_frame(source / name)
        assert changed.any((1, 2)).all() and changed.any((0, 2)).all()  # the dream reaches each row and column
    whole = tmp_path / "whole"
    render(source, whole, small_network, BLEND, octaves=2)
    assert read_dreams(whole) != read_dreams(tmp_path / "out")


def test_frames_of_two_sizes_are_refused_by_name(source, tmp_path, small_network):
    Image.new("RGB", (50, 40)).save(source / "shot-12.png")
    with pytest.raises(UsageError, match="shot-7.png is 48x40, .*shot-12.png is 50x40"):
        open_small_render(source, tmp_path / "out", small_network)


def test_the_journal_keeps_what_a_person_asks_of_a_frame(source, tmp_path, small_network):
    out = tmp_path / "out"
    reports = render(source, out, small_network, INDEPENDENT, layers=("mixed", "conv1:2"))
    kept = read_records(out)
    assert [kept.entries[number].target for number in range(5)] == ["mixed", "conv1:2"] * 2 + ["mixed"]
    assert [kept.entries[report.number].seconds for report in reports] == pytest.approx(
        [report.seconds for report in reports], abs=1e-3
    )
    assert kept.runs == [describe(small_network.device)] and {"deepdream", "PyTorch", "processor"} <= set(kept.runs[0])
    render(source, out, small_network, INDEPENDENT, layers=("mixed", "conv1:2"))  # has nothing left to do
    (out / "frame_000001.png").unlink()
    render(source, out, small_network, INDEPENDENT, layers=("mixed", "conv1:2"))
    assert read_records(out).runs == kept.runs  # once for all runs of a kind
    with open(out / "frames.jsonl", "a") as journal:
        journal.write('{"run": {"processor": "another"}}\n{"run": 3}\n["run"]\n')
    (out / "frame_000001.png").unlink()
    render(source, out, small_network, INDEPENDENT, layers=("mixed", "conv1:2"))
    assert [run.get("processor") for run in read_records(out).runs[1:]] == ["another", kept.runs[0]["processor"]]
    assert read_records(tmp_path) == Records({}, [])
