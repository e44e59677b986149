"""How fast a step is, side by side in one run: the machine's peak, PyTorch layer by layer, PyTorch fused, real Caffe.

Prints a table of medians: milliseconds of a step (forward, objective, backward), how many times as fast as the
slowest engine of its row group, and which part of the machine's sgemm rate the convolutions' own arithmetic
reaches. Last, where the time of a whole frame goes. Networks have random weights, the default network its own.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the project's own modules, and the nets of its tests

import caffe_nets  # noqa: E402
from deepdream import ascent, flow, objectives  # noqa: E402
from deepdream.errors import DreamError  # noqa: E402
from deepdream.frames import encode_frame  # noqa: E402
from deepdream.networks import load_network, network  # noqa: E402
from deepdream.networks.torch_layers import CONVOLUTIONS  # noqa: E402
from deepdream.options import DivideOptions, DreamOptions, FlowMode, FlowOptions  # noqa: E402

SGEMM_SIDE = 2048
SIZES = {"480x270": (270, 480), "1280x720": (720, 1280)}
CASES = (
    ("googlenet", ("inception_3b/output", "inception_4c/output", "inception_5b/output")),
    ("vgg16", ("conv4_2",)),
    ("default", ("block_9/output",)),
)


def median_seconds(function, runs):
    """The median time of ``runs`` calls, after one that is not counted."""
    function()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def sgemm_rate(runs):
    """Floating point operations a second of a large float32 matrix product."""
    a = torch.rand(SGEMM_SIDE, SGEMM_SIDE)
    return 2 * SGEMM_SIDE**3 / median_seconds(lambda: a @ a, runs)


def convolution_work(net, layer, size):
    """Floating point operations of a step's convolutions, forward and back to the picture."""
    total = 0
    for step in network.Network._select(net, layer)[0]:
        if step.layer.type in CONVOLUTIONS:
            channels, height, width = net.shape(step.layer.name, size)
            total += 2 * height * width * step.layer.blobs[0].size
    return 2 * total


def engines(folder):
    """(name, network) of each engine there is for a model's folder (None: the default network)."""

    def load(engine):
        return load_network(folder, gpu=False, engine=engine, tell=lambda line: None)

    alone = load("torch")
    alone._select = lambda layer: network.Network._select(alone, layer)  # the steps as they are, not fused
    yield "torch, layer by layer", alone
    yield "torch", load("torch")
    try:
        yield "caffe", load("caffe")
    except DreamError as error:
        print(f"caffe is left out: {error}", file=sys.stderr)


def measure_steps(runs, peak):
    """Rows (dicts) of the steps' times."""
    for name, layers in CASES:
        with tempfile.TemporaryDirectory() as folder:
            if name != "default":
                caffe_nets.save(Path(folder), getattr(caffe_nets, name)((224, 224)))
            for engine, net in engines(None if name == "default" else folder):
                for layer in layers:
                    for label, size in SIZES.items():
                        picture = torch.rand(3, *size) * 255 - net.mean
                        seconds = median_seconds(lambda: net.gradient(picture, layer, objectives.l2), runs)
                        share = convolution_work(net, layer, size) / seconds / peak
                        yield {"network": name, "layer": layer, "size": label, "engine": engine,
                               "seconds": seconds, "of sgemm": share}  # fmt: skip


def measure_frame(size):
    """Seconds of the parts of one stabilised frame at default settings, by name."""
    net = load_network(gpu=False, tell=lambda line: None)
    rng = np.random.default_rng(0)
    small = torch.from_numpy(np.float32(rng.integers(0, 256, (3, size[0] // 16, size[1] // 16))))
    scene = np.uint8(ascent.resize(small, size).permute(1, 2, 0).numpy())
    parts = {}

    def timed(part, function):
        started = time.perf_counter()
        result = function()
        parts[part] = time.perf_counter() - started
        return result

    options = FlowOptions(FlowMode.STABLE)
    inheritance = timed("flow", lambda: flow.inherit(scene, np.roll(scene, 3, 1), scene, options, 1.0))
    spent = [0.0]

    def gradient(*arguments, compute=net.gradient):
        started = time.perf_counter()
        result = compute(*arguments)
        spent[0] += time.perf_counter() - started
        return result

    net.gradient = gradient
    arguments = (net, "block_9/output", DreamOptions(), DivideOptions(), objectives.l2, rng)
    dreamed = timed("octaves and jitter", lambda: ascent.dream(inheritance.start, *arguments))
    parts["octaves and jitter"] -= spent[0]
    parts["network"] = spent[0]
    settled = timed("settling", lambda: inheritance.settle(dreamed))
    timed("PNG", lambda: encode_frame(settled, "png"))
    return parts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each step (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file as well")
    given = parser.parse_args()
    peak = sgemm_rate(given.runs)
    print(f"{torch.get_num_threads()} threads, sgemm {peak / 1e9:.0f} GFLOP/s")
    rows = list(measure_steps(given.runs, peak))
    slowest = {}
    for row in rows:
        case = row["network"], row["layer"], row["size"]
        slowest[case] = max(slowest.get(case, 0), row["seconds"])
    for row in rows:
        row["times as fast"] = slowest[row["network"], row["layer"], row["size"]] / row["seconds"]
        print(
            f"{row['network']:10} {row['layer']:20} {row['size']:9} {row['engine']:22} {row['seconds'] * 1e3:8.1f} ms "
            f"{row['times as fast']:5.2f} x  {row['of sgemm']:4.0%} of sgemm"
        )
    frames = {}
    for label, size in SIZES.items():
        frames[label] = measure_frame(size)
        whole = sum(frames[label].values())
        shares = ", ".join(f"{part} {seconds / whole:.1%}" for part, seconds in frames[label].items())
        print(f"a frame of {label} at default settings, -flow 2: {whole:.1f} s: {shares}")
    if given.json:
        Path(given.json).write_text(json.dumps({"sgemm": peak, "steps": rows, "frames": frames}, indent=2) + "\n")


if __name__ == "__main__":
    main()
