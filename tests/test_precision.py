"""--precision: what bfloat16 changes, and where it is not to be had."""

import json

import numpy as np
import pytest
import torch
from helpers import moving_ramps, save_frames

import dreamer
from deepdream.networks import load_network
from deepdream.networks.caffemodel import load_model
from deepdream.networks.default import default_model_files
from deepdream.networks.torch.network import TorchNetwork
from deepdream.options import PRECISIONS, DivideOptions, DreamOptions
from deepdream.picture import ascent, objectives

LAYER = "block_9/output"
HAS = any(able for feature, able in torch.cpu.get_capabilities().items() if feature.endswith("bf16"))


@pytest.fixture(scope="module")
def rounded_network(default_network, tmp_path_factory):
    """The default network in bfloat16, whether this machine is fast at it or not."""
    model = load_model(*default_model_files(tmp_path_factory.mktemp("default")))
    return TorchNetwork(model, default_network.mean.tolist(), default_network.loop, precision="bfloat16")


def test_dreams_in_bfloat16_are_as_strong_and_move_the_layer_as_much(default_network, rounded_network, photograph):
    """In the mean over four: one dream moves it some percent more or less than the next of another seed."""
    options = DreamOptions(octaves=3, iterations=8)
    values, strengths = ([], []), ([], [])
    for name, seed in (("chelsea.png", 0), ("chelsea.png", 1), ("coffee.png", 0), ("coffee.png", 1)):
        picture = np.uint8(photograph(name, (160, 240)))
        for kind, network in enumerate((default_network, rounded_network)):
            rng = np.random.default_rng(seed)
            dream = ascent.dream(picture, network, LAYER, options, DivideOptions(), objectives.l2, rng)
            seen = default_network.activations(ascent.to_network(dream, default_network), LAYER)
            values[kind].append(float(seen.square().mean()))
            strengths[kind].append(np.abs(np.float32(dream) - picture).mean())
    assert values[0] != values[1]
    assert np.mean(values[1]) == pytest.approx(np.mean(values[0]), rel=0.05)
    assert np.mean(strengths[1]) == pytest.approx(np.mean(strengths[0]), rel=0.02)


def test_grey_levels_are_not_rounded_before_the_first_convolution(default_network, rounded_network, photograph):
    """In bfloat16 a level near 130 would be one of every half or whole number only."""
    picture = ascent.to_network(photograph("chelsea.png", (96, 64)), default_network)
    exact, close = (net.activations(picture, "stem") for net in (default_network, rounded_network))
    assert torch.equal(exact, close)


def test_the_manifest_keeps_the_precision_apart(small_folder, tmp_path, capsys):
    source, output = save_frames(moving_ramps(1, (40, 48)), tmp_path / "Input"), tmp_path / "Output"
    command = ["-i", source, "-o", output, "-t", small_folder, "-l", "mixed", "-oct", "1", "-itr", "1"]
    assert dreamer.main([*map(str, command), "--precision", "bfloat16"]) == 0
    assert json.loads((output / "render.json").read_text())["--precision"] == ("bfloat16" if HAS else "float32")
    capsys.readouterr()
    assert dreamer.main([*map(str, command)]) == (2 if HAS else 0)
    assert ("--precision" in capsys.readouterr().err) == HAS


@pytest.mark.parametrize("able, precision, lines", [(True, "bfloat16", 0), (False, "float32", 1)])
def test_a_cpu_without_bfloat16_is_told(small_folder, monkeypatch, able, precision, lines):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": able})
    told = []
    network = load_network(small_folder, gpu=False, on_message=told.append, precision="bfloat16")
    assert network.precision == precision
    assert len(told) == lines and all("--precision bfloat16" in line for line in told)


def test_caffe_computes_in_float32_and_says_so(small_folder):
    pytest.importorskip("caffe.proto", reason="NO REAL CAFFE HERE; scripts/build_caffe.sh builds it")
    told = []
    network = load_network(small_folder, engine="caffe", on_message=told.append, precision="bfloat16")
    assert network.precision == "float32" and len(told) == 1


def test_float32_is_what_is_taken(small_network):
    assert small_network.precision == PRECISIONS[0] == "float32"
