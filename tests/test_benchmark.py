"""The benchmark: what it counts and compares against what is known, and its tables. No time is judged."""

import json
import os
import sys
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import nets
import numpy as np
import pytest
import torch
from helpers import ROOT, SCRIPTS, nightly, run_python
from PIL import Image

sys.path.insert(0, str(SCRIPTS))

from benchmark import command, engines, frames, steps  # noqa: E402

from deepdream.errors import DreamError  # noqa: E402
from deepdream.files.frames import open_frames  # noqa: E402
from deepdream.networks.caffemodel import load_model  # noqa: E402
from deepdream.render.plan import open_render  # noqa: E402
from deepdream.render.sequence import dream_frames  # noqa: E402

INCEPTION = {  # Szegedy et al. 2014, table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip
# The part of pycaffe that the benchmark uses, on this project's own engine, so that its results are known.
PYCAFFE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from collections import defaultdict
import numpy as np
import torch
from deepdream.networks.caffemodel import load_model
from deepdream.networks.torch.network import TorchNetwork

TEST = 1

class Blob:
    def reshape(self, *shape):
        self.data = np.zeros(shape, np.float32)

class Net:
    def __init__(self, prototxt, phase, weights):
        self._network = TorchNetwork(load_model(prototxt, weights), (0, 0, 0), ())
        self.blobs = defaultdict(Blob)

    def forward(self, end):
        print("what Caffe prints does not disturb")
        top = self.blobs[end]
        top.data = FACTOR * self._network.activations(self._picture(), end)[None].numpy()
        top.diff = np.zeros_like(top.data)

    def backward(self, start):
        diff = torch.from_numpy(self.blobs[start].diff[0])
        self.blobs["data"].diff = self._network.gradient(self._picture(), start, lambda top: diff)[None].numpy()

    def _picture(self):
        return torch.from_numpy(self.blobs["data"].data[0])
"""


@pytest.fixture
def cached(monkeypatch, environment):
    """The default network's files are kept in the tests' own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])


@pytest.fixture(scope="module")
def googlenet_model(tmp_path_factory):
    return load_model(*steps.model_files(steps.make_model("googlenet", tmp_path_factory.mktemp("googlenet"))))


def write_pycaffe(folder, factor):
    """A stand-in for Caffe in ``folder``, whose activations are ``factor`` times as large as they should be."""
    (folder / "caffe.py").write_text(PYCAFFE.replace("FACTOR", str(factor)))


# --- Steps -----------------------------------------------------------------------------------------


@pytest.fixture
def open_engines(tmp_path, monkeypatch, cached):
    """A function that opens all engines of the default network, with a stand-in for Caffe that is off by a factor."""
    with ExitStack() as stack:

        def open_all(factor):
            write_pycaffe(tmp_path, factor)
            monkeypatch.setenv("PYTHONPATH", str(tmp_path))
            _, racers = steps.open_engines("default", None, None, stack, tell=print)
            for engine in racers:
                engine.open(nets.picture((64, 96)), "block_1/output")
            return {engine.name: engine for engine in racers}

        yield open_all


def test_all_engines_do_the_same_work(open_engines):
    racers = open_engines(factor=1)
    names = ["dreamer.py", "dreamer.py, bfloat16", "plain torch", "plain torch, ReLU6", "convolutions alone", "Caffe"]
    if "dreamer.py, bfloat16" not in racers:  # few CPUs have it
        names.remove("dreamer.py, bfloat16")
    assert list(racers) == names
    apart = steps.compare(list(racers.values()), "block_1")
    assert set(apart) == {"dreamer.py", "plain torch", "plain torch, ReLU6", "Caffe"}
    assert apart["plain torch"][0] < 1e-5 and apart["plain torch, ReLU6"][0] < 1e-5
    assert apart["Caffe"] == [0, pytest.approx(0, abs=1e-5)]
    assert all(len(engine.steps(2)) == 2 for engine in racers.values())


def test_an_engine_that_computes_something_else_is_not_compared(open_engines):
    racers = open_engines(factor=1.01)
    reason = "block_1: Caffe does other work, so it is not compared: its activations are off by 1.0e-02"
    with pytest.raises(DreamError, match=reason):
        steps.compare([racers["dreamer.py"], racers["Caffe"]], "block_1")


def test_engines_are_set_against_ours_and_the_machine():
    seconds = {"dreamer.py": [0.2, 0.9, 0.1], "Caffe": [0.6, 0.6], "plain torch": [0.3]}
    ours, caffe, plain = steps.step_rows(seconds, flops=4e9, peak_flops=1e11)
    assert (ours["engine"], ours["seconds"], ours["ratio"], ours["runs"]) == ("dreamer.py", 0.2, 1, 3)
    assert ours["of sgemm"] == pytest.approx(0.2) and ours["flops"] == 4e9
    assert (caffe["ratio"], plain["ratio"]) == (pytest.approx(3), pytest.approx(1.5)) and caffe["runs"] == 2


def test_engines_take_turns():
    taken = []
    racers = [engines.Engine(name, lambda name=name: taken.append(name)) for name in "ab"]
    seconds = steps.race(racers, rounds=4)
    turns = [(name, len(list(turn))) for name, turn in groupby(taken)]
    assert [name for name, _ in turns] == ["a", "b"] * 5  # the first are to warm up
    assert {name: len(times) for name, times in seconds.items()} == {
        name: sum(count for one, count in turns[2:] if one == name) for name in "ab"
    }


def test_a_peer_that_does_not_load_says_why(tmp_path):
    with pytest.raises(DreamError, match="neural-dream does not run in .*No module named 'neural_dream'"):
        engines.Peer(engines.NEURAL_DREAM, sys.executable, tmp_path, "bvlc_googlenet.pth")


def test_the_work_of_a_step_is_that_of_its_convolutions(googlenet_model):
    """GoogLeNet to inception_4c/output at 480x270: the sum over its convolutions by hand, forward and backward."""
    forward = 240 * 135 * 64 * 3 * 7 * 7 + 120 * 67 * (64 * 64 + 192 * 64 * 3 * 3)
    channels = 192
    for name in ("3a", "3b", "4a", "4b", "4c"):
        one, reduce3, three, reduce5, five, pooled = INCEPTION[name]
        each = channels * (one + reduce3 + reduce5 + pooled) + reduce3 * three * 9 + reduce5 * five * 25
        forward += each * (60 * 33 if name[0] == "3" else 30 * 16)
        channels = one + three + five + pooled
    flops = engines.convolution_flops(googlenet_model, "inception_4c/output", (270, 480))
    assert flops == 2 * 2 * forward
    assert flops == pytest.approx(11.8e9, rel=0.01)


def test_the_peer_gets_our_weights_by_its_own_names(googlenet_model):
    """The names are those of the convolutions in neural-dream's module BVLC_GOOGLENET, but for the classifiers."""
    parts = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
    convolutions = ["conv1_7x7_s2", "conv2_3x3_reduce", "conv2_3x3"]
    convolutions += [f"inception_{module}_{part}" for module in INCEPTION for part in parts]
    state = steps.state_dict(googlenet_model)
    assert set(state) == {f"{name}.{what}" for name in convolutions for what in ("weight", "bias")}
    for module, counts in INCEPTION.items():
        for part, count in zip(parts, counts):
            assert len(state[f"inception_{module}_{part}.weight"]) == len(state[f"inception_{module}_{part}.bias"])
            assert len(state[f"inception_{module}_{part}.bias"]) == count
    blobs = {layer.name: layer.blobs for layer in googlenet_model.layers}
    np.testing.assert_array_equal(state["inception_5b_5x5.weight"], blobs["inception_5b/5x5"][0])


def test_relu6_is_one_layer_in_plain_pytorch(cached):
    model = load_model(*steps.model_files(None))
    plain = engines.PlainTorch(model, relu6=True)
    types = [step.type for step, _, _ in plain.run(torch.zeros(1, 3, 64, 64), "block_1/output")]
    assert "ReLU6" in types and not {"ReLU", "Power"}.intersection(types)


# --- Frames ----------------------------------------------------------------------------------------


def frame_rows():
    """Rows as two renders of a network give them, of which the larger one's pixels cost half as much."""
    shared = {"network": "default", "iterations": 2, "memory": 3 << 20}
    small = {"size": "96x64", "pixels": 6144, "division": "-d 2", "seconds": 3.0}
    large = {"size": "192x128", "pixels": 4 * 6144, "division": "-d 1", "seconds": 6.0}
    rows = [shared | large, shared | small, shared | large | {"iterations": 16, "seconds": 8.0, "memory": None}]
    frames.relate_to_smallest(rows)
    return rows


def test_a_pixel_is_set_against_one_of_the_smallest_frames_of_as_many_iterations():
    large, small, more = frame_rows()
    assert (large["of"], small["of"], more["of"]) == ("96x64", "96x64", "192x128")
    assert (large["per pixel"], small["per pixel"], more["per pixel"]) == (0.5, 1, 1)


def test_a_table_has_a_row_each_and_tells_what_is_unknown():
    title, heads, *lines = command.show("frames", frame_rows()).splitlines()
    assert title.startswith("Frames: dreamer.py --octaves 3") and heads.endswith("time per pixel  relative to")
    assert [line.split()[-5:] for line in lines] == [
        ["2", "6.00", "3", "0.50", "96x64"], ["2", "3.00", "3", "1.00", "96x64"],
        ["16", "8.00", "-", "1.00", "192x128"],
    ]  # fmt: skip


def test_time_and_memory_are_drawn(tmp_path):
    command.plot(frame_rows(), tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 0


def test_how_near_workers_come_to_their_bound_is_drawn(tmp_path):
    cases = ((True, 1, 0.9), (True, 8, 0.8), (False, 64, 0.7))
    keys = "in_shots", "workers", "bound", "seconds a frame"
    rows = [dict(zip(keys, (*case, 2.0))) for case in cases]
    command.plot_workers(rows, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 0


@pytest.mark.parametrize("mode", "0123")
def test_the_gradients_of_a_frame_are_those_that_it_takes(small_network, tmp_path, monkeypatch, mode):
    words = ("-oct", "2", "-itr", "4", "-flow", "2", "-d", mode, "-mw", "40", "-mh", "30")
    options = frames.ShareCase((64, 96), "", words).options
    frames.write_frames(tmp_path / "Input", (64, 96), 2)
    monkeypatch.setattr(small_network, "gradient", small_network.gradient)  # put back in the end
    watch = frames.Stopwatch(small_network, enough=1000)
    render = open_render(open_frames(tmp_path / "Input"), tmp_path / "Output", small_network, ("mixed",), options)
    list(dream_frames(render, small_network))
    first, second = (frames.gradient_calls((64, 96), options, starts_shot) for starts_shot in (True, False))
    assert len(watch.calls) == first + second and first >= 8 and first > second >= 5


# --- The command line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("--peer-python", "no-such-python"), "--peer-python no-such-python: no such program"),
        (("--json", "nowhere/a.json"), "--json nowhere/a.json: there is no directory nowhere"),
        (("--only", "steps", "--plot", "a.png"), "--plot draws frames"),
        (("--only", "frames", "--plot-workers", "a.png"), "--plot-workers draws many"),
        (("--rounds", "0"), "--rounds 0"),
    ],
)
def test_what_would_fail_in_the_end_fails_at_once(arguments, reason, capsys):
    assert command.main(list(arguments)) == 2
    assert capsys.readouterr().err.startswith(f"benchmark: {reason}")


def test_help_says_what_is_measured_and_how():
    done = run_python(SCRIPTS / "benchmark", "--help")
    assert done.returncode == 0, done.stderr
    for block in command.BLOCKS:
        assert f"\n{block}  " in done.stdout
    assert "neural-dream==" in done.stdout and "Engines take turns" in done.stdout


@nightly
def test_all_is_measured(tmp_path):
    write_pycaffe(tmp_path, factor=1)
    options = "--quick", "--networks", "default", "--json", "a.json", "--plot", "a.png"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run_python(SCRIPTS / "benchmark", *options, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "a.json").read_text())
    assert all(figures[block] for block in command.BLOCKS) and figures["machine"]["sgemm"] > 0
    for row in figures["steps"]:
        assert row["engine"] in done.stdout and row["flops"] == figures["steps"][0]["flops"] > 0 and row["runs"] > 0
    if Path("/proc/self/status").exists():
        assert 100 << 20 < figures["frames"][0]["memory"] < 4 << 30  # PyTorch alone has 200 MB
    (share,), (start,) = figures["share"], figures["start"]
    assert 0 < share["outside"] < 1 and 0 < share["overhead"] < 1 and share["seconds"] > 0
    assert 0 < start["help"] < start["first step"]
    assert Image.open(tmp_path / "a.png").format == "PNG"
