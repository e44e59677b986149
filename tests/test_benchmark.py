"""benchmark.py as a user runs it, on tiny pictures, and what it counts against what is known. No time is judged."""

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepdream.errors import DreamError
from deepdream.networks.caffemodel import load_model

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "benchmark.py"
INCEPTION = {  # Szegedy et al. 2014, table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip
# Enough of pycaffe for the benchmark, on our own engine, so that what it times is what it should be.
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


@pytest.fixture(scope="module")
def scripts():
    """The folder of the script is on the path, as where Python runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        yield


@pytest.fixture(scope="module")
def steps(scripts):
    import benchmark_steps

    return benchmark_steps


@pytest.fixture
def main(scripts):
    import benchmark

    return benchmark.main


@pytest.fixture(scope="module")
def googlenet_model(steps, tmp_path_factory):
    return load_model(*steps.model_files(steps.make_model("googlenet", tmp_path_factory.mktemp("googlenet"))))


def write_pycaffe(folder, factor):
    """A stand-in for Caffe in ``folder``, whose activations are ``factor`` times as large as they should be."""
    (folder / "caffe.py").write_text(PYCAFFE.replace("FACTOR", str(factor)))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The figures of a quick run with the default network, what it printed, and its picture."""
    room = tmp_path_factory.mktemp("measured")
    write_pycaffe(room, factor=1)
    line = [sys.executable, SCRIPT, "--quick", "--networks", "default", "--json", "a.json", "--plot", "a.png"]
    environment = {**os.environ, "PYTHONPATH": str(room)}
    done = subprocess.run(line, cwd=room, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((room / "a.json").read_text()), done.stdout, Image.open(room / "a.png")


def test_all_engines_do_the_same_work_and_are_set_against_ours(measured):
    figures, printed, _ = measured
    rows = {row["engine"]: row for row in figures["steps"]}
    engines = ["dreamer.py", "dreamer.py, bfloat16", "plain torch", "plain torch, ReLU6", "convolutions alone", "Caffe"]
    if "dreamer.py, bfloat16" not in rows:  # few CPUs have it
        engines.remove("dreamer.py, bfloat16")
    assert list(rows) == engines
    for name, row in rows.items():
        assert row["ratio"] == pytest.approx(row["seconds"] / rows["dreamer.py"]["seconds"])
        assert row["of sgemm"] == pytest.approx(row["work"] / row["seconds"] / figures["machine"]["sgemm"])
        assert row["work"] == rows["dreamer.py"]["work"] > 0 and row["runs"] > 0
        assert (row["apart"] is None) == (name in ("convolutions alone", "dreamer.py, bfloat16"))
        assert name in printed
    assert rows["plain torch"]["apart"][0] < 1e-5 and rows["Caffe"]["apart"] == [0, pytest.approx(0, abs=1e-5)]


def test_frames_are_rendered_whole_and_set_against_the_smallest(measured):
    figures, _, picture = measured
    small, large = figures["frames"]
    assert small["per pixel"] == 1 and large["of"] == small["size"] == "96x64"
    per_pixel = [row["seconds"] / row["pixels"] for row in (small, large)]
    assert large["per pixel"] == pytest.approx(per_pixel[1] / per_pixel[0])
    if Path("/proc/self/status").exists():
        assert 100 << 20 < small["memory"] < 4 << 30  # PyTorch alone has 200 MB
    assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 0


def test_shares_are_shares(measured):
    (row,) = measured[0]["share"]
    assert 0 < row["outside"] < 1 and 0 < row["overhead"] < 1 and row["seconds"] > 0
    assert 0 < measured[0]["start"]["help"] < measured[0]["start"]["first step"]


def test_an_engine_that_computes_something_else_is_not_compared(main, tmp_path, monkeypatch, capsys):
    write_pycaffe(tmp_path, factor=1.01)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert main(["--quick", "--only", "steps", "--networks", "googlenet"]) == 1
    reason = "googlenet inception_4c/output: Caffe does other work, so it is not compared: its activations are off by"
    assert f"{reason} 1.0e-02" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("--peer-python", "no-such-python"), "--peer-python no-such-python: no such program"),
        (("--json", "nowhere/a.json"), "--json nowhere/a.json: there is no directory nowhere"),
        (("--only", "steps", "--plot", "a.png"), "--plot draws the frames"),
        (("--rounds", "0"), "--rounds 0"),
    ],
)
def test_what_would_fail_in_the_end_fails_at_once(main, arguments, reason, capsys):
    assert main(list(arguments)) == 2
    assert capsys.readouterr().err.startswith(f"benchmark.py: {reason}")


def test_a_peer_that_does_not_load_says_why(steps, tmp_path):
    with pytest.raises(DreamError, match="neural-dream does not run in .*No module named 'neural_dream'"):
        steps.Peer(steps.NEURAL_DREAM, sys.executable, tmp_path, "bvlc_googlenet.pth")


def test_the_work_of_a_step_is_that_of_its_convolutions(steps, googlenet_model):
    """GoogLeNet to inception_4c/output at 480x270: the sum over its convolutions by hand, there and back."""
    forward = 240 * 135 * 64 * 3 * 7 * 7 + 120 * 67 * (64 * 64 + 192 * 64 * 3 * 3)
    channels = 192
    for name in ("3a", "3b", "4a", "4b", "4c"):
        one, reduce3, three, reduce5, five, pooled = INCEPTION[name]
        each = channels * (one + reduce3 + reduce5 + pooled) + reduce3 * three * 9 + reduce5 * five * 25
        forward += each * (60 * 33 if name[0] == "3" else 30 * 16)
        channels = one + three + five + pooled
    work = steps.convolution_work(googlenet_model, "inception_4c/output", (270, 480))
    assert work == 2 * 2 * forward
    assert work == pytest.approx(11.8e9, rel=0.01)


def test_the_peer_gets_our_weights_by_its_own_names(steps, googlenet_model):
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


def test_engines_take_turns(steps):
    taken = []
    engines = [steps.Engine(name, lambda name=name: taken.append(name)) for name in "ab"]
    seconds = steps.race(engines, rounds=4)
    turns = [(name, len(list(turn))) for name, turn in groupby(taken)]
    assert [name for name, _ in turns] == ["a", "b"] * 5  # the first are to warm up
    assert {name: len(times) for name, times in seconds.items()} == {
        name: sum(count for one, count in turns[2:] if one == name) for name in "ab"
    }


def test_relu6_is_one_layer_in_plain_pytorch(steps):
    model = load_model(*steps.model_files(None))
    plain = steps.PlainTorch(model, relu6=True)
    types = [step.type for step, _, _ in plain.run(torch.zeros(1, 3, 64, 64), "block_1/output")]
    assert "ReLU6" in types and not {"ReLU", "Power"}.intersection(types)
