"""What changes over time: keyframes as they are typed, the values of each frame, and renders that follow them."""

import json
import shlex
import shutil

import numpy as np
import pytest
from helpers import open_small_render, read_dreams, render, save_frames
from hypothesis import given
from hypothesis import strategies as st

import dreamer
from deepdream import keyframes
from deepdream.errors import UsageError
from deepdream.files.frames import read_frame, read_note
from deepdream.files.note import commands
from deepdream.options import SETTINGS, DreamOptions, FlowMode, FlowOptions, RenderOptions
from deepdream.render.journal import read_records
from deepdream.render.plan import options_at
from deepdream.render.sequence import dream_frames
from deepdream.schedule import Schedule
from deepdream.settings import at, words
from deepdream.target import target_at

INDEPENDENT = FlowOptions(FlowMode.OFF, blend_static=0)
STABLE = FlowOptions(FlowMode.STABLE)


def typed(*words):
    return dreamer.parse(words).render


# --- Values -----------------------------------------------------------------------------------------


@given(st.dictionaries(st.integers(0, 300), st.floats(-100, 100), min_size=1, max_size=5), st.integers(0, 400))
def test_between_keyframes_lies_a_line_and_outside_the_nearest(values, frame):
    schedule = keyframes(values)
    wanted = np.interp(frame, sorted(values), [values[key] for key in sorted(values)])
    assert schedule.at(frame) == pytest.approx(wanted, abs=1e-9)


def test_whole_numbers_round_and_others_do_not():
    options = RenderOptions(DreamOptions(octaves=keyframes({0: 2, 4: 4}), zoom=keyframes({0: 1, 4: 3})))
    assert [at(options, frame).dream.octaves for frame in range(6)] == [2, 3, 3, 4, 4, 4]
    assert [at(options, frame).dream.zoom for frame in range(6)] == [1, 1.5, 2, 2.5, 3, 3]


def test_options_that_do_not_change_are_the_same_object():
    options = RenderOptions()
    assert at(options, 3) is options


def test_layers_change_at_once_and_take_turns_in_between():
    options = typed("-l", "0:a", "b*(0:1, 2:3)+a", "4:c:3,7, 6:d")
    assert [options_at(options, frame).layer for frame in range(8)] == [
        "a", "2*b+a", "a", "3*b+a", "c:3,7", "c:3,7", "d", "d",
    ]  # fmt: skip


def test_the_steps_of_frames_that_inherit_follow_the_iterations():
    options = typed("-itr", "0:10, 48:40", "-flow", "2")
    assert [at(options, frame).flow.iterations for frame in (0, 24, 48)] == [3, 7, 10]


# --- As typed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0:10, 48:16", "0:(10), 48:(16)", " 0 : 10,48 :( 16 )"])
def test_keyframes_are_read(text):
    assert typed("-itr", text).dream.iterations == Schedule((0, 48), (10, 16))


def test_without_quotes_they_mean_the_same():
    quoted = typed("-itr", "0:10, 48:16", "-l", "0:a, 48:b", "-z", "0:1, 9:1.5")
    assert typed(*"-itr 0:10, 48:16 -l 0:a, 48:b -z 0:1, 9:1.5".split()) == quoted


@pytest.mark.parametrize("known", [known for known in SETTINGS if known.keyframes], ids=lambda known: known.name)
def test_the_example_of_each_option_is_what_it_takes(known):
    render = typed(*known.words(known.keyframes), "-flow", "2")
    (value,) = [value for part in (render.dream, render.flow) for value in vars(part).values()
                if isinstance(value, Schedule)]  # fmt: skip
    assert str(value) == known.keyframes and typed(*words(render)) == render


def test_all_numbers_of_dream_and_flow_change_over_time_but_sizes_and_the_seed():
    names = {known.name for known in SETTINGS if known.keyframes}
    assert names == {
        "--layers", "--octaves", "--octavescale", "--iterations", "--stepsize", "--jitter", "--zoom", "--rotate",
        "--smooth", "--flowthresh", "--blendflow", "--blendstatic", "--flowiterations",
    }  # fmt: skip


@pytest.mark.parametrize(
    "line, said",
    [
        ("-itr '0:10, 48-16'", "--iterations 0:10, 48-16: keyframe 2, 48-16: expected a frame and a value"),
        ("-itr '0:10, 48:'", "--iterations 0:10, 48:: keyframe 2, 48:: expected a frame and a value"),
        ("-itr '0:10,, 48:1'", "keyframe 2, nothing: expected a frame and a value, such as 0:10, 48:16"),
        ("-itr '0:10, 48:many'", "keyframe 2, 48:many: expected a whole number, such as 0:10, 48:16"),
        ("-itr 0:1.5", "keyframe 1, 0:1.5: expected a whole number, such as 0:10, 48:16"),
        ("-itr '48:10, 0:16'", "keyframe 2, 0:16: frame 0 comes after frame 48; they ascend, such as 0:10, 48:16"),
        ("-itr '7:10, 7:16'", "frame 7 comes after frame 7"),
        ("-z '0:1, 48:nan'", "--zoom nan: expected a number, 1 to 100, at frame 48 of 0:1, 48:nan; such as"),
        ("-oct '0:4, 48:65'", "--octaves 65: expected a number, 1 to 64, at frame 48 of 0:4, 48:65; such as"),
        ("-l 0:a 48:", "--layers 0:a 48:: keyframe 2, 48:: expected a frame and a value, such as 0:conv3, 48:conv4"),
        ("--seed '0:1, 5:2'", "--seed 0:1, 5:2: it does not change over time; give one number"),
        ("-p 0:99", "--preview 0:99: it does not change over time; give one number"),
        ("--dreamwidth 0:99", "--dreamwidth 0:99: it does not change over time; give one number"),
        ("-flow 0:1", "--flow 0:1: it does not change over time"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place_and_an_example(line, said):
    with pytest.raises(UsageError) as refusal:
        dreamer.parse(shlex.split(line))
    assert said in str(refusal.value)


@pytest.mark.parametrize("wrong", [{}, {-1: 3}])
def test_keyframes_of_a_program_have_frames_from_0(wrong):
    with pytest.raises(UsageError, match="by frame"):
        keyframes(wrong)


def test_from_python_too_some_options_stay_the_same():
    with pytest.raises(UsageError, match="--seed 0:1, 5:2: it cannot change over time"):
        DreamOptions(seed=keyframes({0: 1, 5: 2}))


@pytest.mark.parametrize("name", ["threshold", "blend_flow", "blend_static", "iterations", "zoom", "rotate"])
def test_what_a_frame_inherits_follows_the_values_of_its_own(name):
    few, many = (1, 5) if name in ("threshold", "iterations", "zoom", "rotate") else (0.2, 0.6)
    changing = {name: keyframes({2: few, 4: many})}
    moves = name in ("zoom", "rotate")
    options = RenderOptions(DreamOptions(**changing if moves else {}), FlowOptions(2, **{} if moves else changing))
    parts = [options_at(options, number) for number in range(6)]
    values = [getattr(part.dream if moves else part.flow, name) for part in parts]
    assert values == pytest.approx([few, few, few, (few + many) / 2, many, many])


# --- Renders ----------------------------------------------------------------------------------------

CHANGES = {
    "octaves": {0: 1, 3: 3}, "octave_scale": {0: 1.3, 3: 1.9}, "iterations": {0: 0, 3: 3}, "step_size": {0: 1, 3: 7},
    "jitter": {0: 0, 3: 6}, "smooth": {0: 0, 3: 2},
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_each_frame_is_dreamed_with_the_values_of_its_own(frames, tmp_path, small_network, name):
    changing = keyframes(CHANGES[name])
    render(frames, tmp_path / "out", small_network, INDEPENDENT, **{name: changing})
    for number, dreamed in enumerate(read_dreams(tmp_path / "out").values()):
        value = getattr(at(DreamOptions(**{name: changing}), number), name)
        render(frames, tmp_path / f"{number}", small_network, INDEPENDENT, **{name: value})
        assert list(read_dreams(tmp_path / f"{number}").values())[number] == dreamed
    assert len(read_dreams(tmp_path / "out")) == 4


def test_each_frame_has_the_weights_of_its_own(frames, tmp_path, small_network):
    target = "mixed*(0:1, 3:0)+conv1*(0:0, 3:1)"
    reports = render(frames, tmp_path / "out", small_network, INDEPENDENT, layers=(target,))
    assert [report.layer for report in reports] == [target_at(target, number) for number in range(4)]
    for number, layer in ((0, "mixed"), (3, "conv1")):
        render(frames, tmp_path / layer, small_network, INDEPENDENT, layers=(layer,))
        name = f"frame_{number:06d}.png"
        assert read_dreams(tmp_path / layer)[name] == read_dreams(tmp_path / "out")[name]


EVERYTHING = ("-oct 0:1, 3:2 -itr 0:2, 3:4 -s 0:1, 3:4 -j 0:2, 3:9 -z 0:1, 3:1.2 -bs 0:0.9, 3:0.4 -bm 0:0.2, 9:1 "
              "-flowthresh 0:2, 3:9 --rotate 0:0, 3:9 --smooth 0:0, 3:1 -octs 0:1.3, 3:1.9 -fitr 0:1, 3:3 "
              "-l 0:mixed, 2:conv1*(0:0, 9:1)+mixed -gpu 0")  # fmt: skip


@pytest.mark.parametrize("flow", [0, 1, 2])
def test_a_render_goes_on_to_the_same_bytes_and_its_note_makes_them_again(run_here, frames, small_folder, flow):
    command = ["-i", "Input", "-t", small_folder, "-flow", str(flow), *EVERYTHING.split()]
    assert run_here(*command, "-o", "Whole").returncode == 0
    whole = read_dreams("Whole")
    shutil.copytree("Whole", "Output")
    for number in (2, 3):
        (frames.parent / f"Output/frame_00000{number}.png").unlink()
    assert "4 frames (2 dreamed now)" in run_here(*command, "-o", "Output").stderr
    assert read_dreams("Output") == whole
    (line,) = commands(read_note("Whole/frame_000000.png"), "Again/frame_000000.png")
    again = shlex.split(line)[1:]
    again[again.index("--model_path") + 1] = str(small_folder)
    assert run_here(*again).returncode == 0
    assert read_dreams("Again") == whole
    manifest = json.loads((frames.parent / "Whole/render.json").read_text())
    assert (manifest["--iterations"], manifest["--zoom"]) == ("0:2, 3:4", "0:1, 3:1.2")
    assert manifest["--layers"] == ["0:mixed", "2:(0:0, 9:1)*conv1+mixed"]
    done = run_here(*command, "-o", "Whole", "-itr", "0:2, 3:5")
    assert done.returncode == 2 and "--iterations is 0:2, 3:5, was 0:2, 3:4" in done.stderr


def test_guides_change_over_time(run_here, frames, small_folder):
    command = ["-i", "Input", "-t", small_folder, *"-l mixed -oct 1 -itr 2 -j 2 -bs 0 -gpu 0 -o".split()]
    for guide, output in (("0:image-000001.png, 2:image-000004.png", "Both"), ("image-000001.png", "1"),
                          ("image-000004.png", "4"), ("0:none, 1:image-000004.png", "Late"), ("", "None")):  # fmt: skip
        assert run_here(*command, output, *(["-g", guide] if guide else [])).returncode == 0
    both, late, one, none = (
        [read_frame(path) for path in sorted((frames.parent / name).glob("frame_*"))]
        for name in ("Both", "Late", "1", "None")
    )
    assert (len(both), len(late), len(one), len(none)) == (2, 3, 3, 4)  # a guide is no frame
    note = read_note("Both/frame_000000.png")
    assert "--guide '0:image-000001.png, 2:image-000004.png'" in note and "0:none" in read_note("Late/frame_000000.png")
    np.testing.assert_array_equal(late[0], none[0])
    for number in (1, 2):
        np.testing.assert_array_equal(late[number], read_frame(f"4/frame_00000{number}.png"))
        assert (late[number] != one[number]).any()
    manifest = json.loads((frames.parent / "Both/render.json").read_text())
    assert manifest["--guide"].count(str(frames)) == 2 and "2:" in manifest["--guide"]


def test_a_guide_that_is_missing_is_named(run_here, frames, small_folder):
    done = run_here("-i", "Input", "-o", "Output", "-t", small_folder, "-g", "0:image-000001.png, 5:lost.png")
    assert done.returncode == 2 and "lost.png: no such file" in done.stderr


def test_progress_counts_the_work_of_each_frame(frames, tmp_path, small_network):
    changes = {"octaves": keyframes({0: 1, 3: 3}), "iterations": keyframes({0: 1, 3: 4})}
    opened = open_small_render(frames, tmp_path / "out", small_network, STABLE, **changes)
    steps, cuts = [], []
    reports = list(dream_frames(opened, small_network, lambda number, step: steps.append(step.pixels), cuts.append))
    cut_work = sum(opened.cut_pixel_steps(report.number) for report in reports if report.is_cut)
    assert sum(steps) == opened.pixel_steps + cut_work and len(steps) > 8


def test_an_octave_that_becomes_too_small_is_an_error_before_work(frames, tmp_path, small_network):
    changes = {"layers": ("narrow",), "octaves": keyframes({0: 1, 3: 9})}
    with pytest.raises(UsageError, match="cannot take an octave"):
        open_small_render(frames, tmp_path / "out", small_network, **changes)
    assert not (tmp_path / "out").exists()
    changes["octaves"] = keyframes({0: 1, 3000: 9})  # beyond the clip
    open_small_render(frames, tmp_path / "out", small_network, **changes).journal.close()


def test_the_strength_to_which_a_shot_is_held_follows_the_steps(footage, tmp_path, small_network):
    source = save_frames([footage[0][:60, :80]] * 5, tmp_path / "still")
    changes = {"step_size": keyframes({0: 1.0, 3: 4.0}), "octaves": keyframes({3: 1, 4: 2}), "iterations": 4}
    render(source, tmp_path / "out", small_network, STABLE, **changes)
    strengths = [entry.shot_strength for entry in read_records(tmp_path / "out").entries.values()]
    # The last one takes 3 steps at the finer of two octaves and 2 at the other.
    assert strengths == pytest.approx([strengths[0] * factor for factor in (1, 2, 3, 4, 4 * 5 / 3)])


def test_a_dream_that_begins_with_no_steps_grows(footage, tmp_path, small_network):
    still = footage[0][:60, :80]
    source, changes = save_frames([still] * 6, tmp_path / "still"), []
    for name, step_size in (("grows", keyframes({1: 0.0, 3: 4.0})), ("strong", 4.0)):
        render(source, tmp_path / name, small_network, STABLE, step_size=step_size, iterations=4)
        changes.append(np.abs(read_frame(tmp_path / name / "frame_000005.png") - np.float32(still)).mean())
    assert changes[0] > 0.75 * changes[1]


def test_the_frame_at_which_the_dream_begins_takes_the_steps_of_a_first_one_and_says_so(run_here, frames, small_folder):
    command = ["-i", "Input", "-o", "Output", "-t", small_folder, "-l", "mixed", "-oct", "1", "-itr", "8", "-v", "2"]
    lines = run_here(*command, "-flow", "2", "-fitr", "3", "-s", "0:0, 1:0, 3:2").stderr.splitlines()
    assert [line for line in lines if "begins" in line] == ["frame 3/4: the dream begins"]
    assert [sum(line.startswith(f"frame {number} octave") for line in lines) for number in (1, 2, 3, 4)] == [8, 3, 8, 3]


# --- Printed ----------------------------------------------------------------------------------------


def test_the_schedule_is_printed(run_here, frames):
    done = run_here("--print-schedule", "-i", "Input", *"-itr 0:10, 3:16 -z 0:1, 6:1.01 -s 0:2, 9:2".split())
    assert done.returncode == 0 and done.stderr == ""
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["frame", "--iterations", "--zoom"], ["0", "10", "1"], ["1", "12", "1.00167"], ["2", "14", "1.00333"],
        ["3", "16", "1.005"],
    ]  # fmt: skip
    done = run_here("--print-schedule", "-i", "Input/image-000001.png", "--frames", "3", "-z", "0:1, 2:1.2")
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["--zoom", "1", "1.1", "1.2"]


def test_without_an_input_it_is_printed_up_to_the_last_keyframe(run_here):
    done = run_here("--print-schedule", "-l", "a*(0:1, 2:0)+b", "-itr", "0:1, 1:2")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["frame", "--layers", "--iterations"], ["0", "a+b", "1"], ["1", "0.5*a+b", "2"], ["2", "b", "2"],
    ]  # fmt: skip
    assert run_here("--print-schedule").stdout == "nothing changes over 1 frames\n"
