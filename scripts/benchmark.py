#!/usr/bin/env python
"""Measure how fast it is on this machine's CPU, everything side by side in one run.

Steps: forward, objective and gradient, dreamer.py against plain PyTorch, real Caffe where it is installed, and
neural-dream where there is an environment with it. Frames: whole renders by the command line. Medians and ratios;
networks have random weights, the default network its own.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the project's own modules, and the nets of its tests

import benchmark_frames  # noqa: E402
import benchmark_steps  # noqa: E402
from benchmark_frames import SEED, SEED_DIVISION, SEED_ITERATIONS, FrameCase, ShareCase  # noqa: E402

from deepdream.errors import DreamError, UsageError  # noqa: E402
from deepdream.geometry import divide  # noqa: E402
from deepdream.options import DivideMode, DivideOptions  # noqa: E402

NETWORKS = ("googlenet", "vgg16", "default")
BLOCKS = ("steps", "frames", "share", "start")
SMALL, HD, UHD = (270, 480), (720, 1280), (2160, 3840)
TILES = 1024  # -mw and -mh where tiles are measured
ROUNDS = 5
FEW_ITERATIONS = 2  # at 4K, where sixteen take minutes a frame


def name_of(size):
    """A (h, w) as people write it."""
    return f"{size[1]}x{size[0]}"


@dataclass(frozen=True)
class Plan:
    """What is measured: ``steps`` by network (layers, places), the `FrameCase`s of each network, the `ShareCase`s."""

    steps: dict
    frames: tuple
    shares: tuple
    rounds: int = ROUNDS
    start: tuple = SMALL


def make_plan(full):
    """What is measured by default, or all of it in ``full``: 4K with all iterations and octaves, VGG at 720p."""
    tiles = divide(*UHD, DivideOptions(DivideMode.TILES, TILES, TILES))
    sizes = {name_of(SMALL): SMALL, name_of(HD): HD}
    places = {**sizes, f"{name_of(tiles[0].size)} tile of 4K": tiles[0].size}
    iterations = SEED_ITERATIONS if full else FEW_ITERATIONS
    frames = [FrameCase(SMALL, count=4), FrameCase(HD), FrameCase(UHD, iterations)]
    if not full:
        frames.append(FrameCase(SMALL, iterations, count=6))  # what the few iterations are to be compared with
    for mode in (1, 3):
        frames.append(FrameCase(UHD, iterations, f"-d {mode} -mw {TILES} -mh {TILES}"))
    seed = (*SEED, *SEED_DIVISION.split(), "-itr", str(SEED_ITERATIONS))
    one = () if full else ("-oct", "1")  # at 4K, of whose octaves the largest takes nearly all the time
    shares = [ShareCase(size, settings) for settings in (seed, ("-flow", "2")) for size in (SMALL, HD)]
    shares.append(ShareCase(UHD, (*seed, *one)))
    return Plan(
        {
            "googlenet": (("inception_3b/output", "inception_4c/output", "inception_5b/output"), places),
            "vgg16": (("conv4_2",), sizes if full else {name_of(SMALL): SMALL}),
            "default": (("block_9/output",), places),
        },
        tuple(frames),
        tuple(shares),
    )


def make_quick_plan():
    """The same on tiny pictures: whether it all works, not how fast."""
    size, larger = (64, 96), (96, 128)
    return Plan(
        {
            "googlenet": (("inception_4c/output",), {name_of(larger): larger}),
            "vgg16": (("conv4_2",), {name_of(size): size}),
            "default": (("block_9/output",), {name_of(larger): larger}),
        },
        (FrameCase(size, 2), FrameCase(larger, 2, "-d 3 -mw 64 -mh 64")),
        (ShareCase(size, ("-flow", "2", "-oct", "2", "-itr", "2", "-d", "3", "-mw", "64", "-mh", "64")),),
        rounds=1,
        start=size,
    )


def measure(given, tell):
    """All the figures, as plain data; ``tell`` gets a line before each thing that is measured."""
    plan = make_quick_plan() if given.quick else make_plan(given.full)
    rounds = given.rounds or plan.rounds
    figures = {"machine": benchmark_steps.measure_machine(rounds)}
    print(machine_line(figures["machine"]))
    for block in given.only:
        figures[block] = MEASURES[block](plan, rounds, figures["machine"]["sgemm"], given, tell)
        print("", *TABLES[block](figures[block]), sep="\n", flush=True)
    return figures


def _measure_steps(plan, rounds, peak, given, tell):
    rows = []
    for name in given.networks:
        layers, places = plan.steps[name]
        rows += benchmark_steps.measure_steps(name, layers, places, rounds, peak, given.peer_python, tell)
    return rows


def _dreaming(given):
    """The networks of which whole frames are measured: VGG has no layer that stands for the old settings' own."""
    return [name for name in given.networks if name != "vgg16"]


def _measure_frames(plan, rounds, peak, given, tell):
    rows = []
    for name in _dreaming(given):
        with tempfile.TemporaryDirectory() as folder:
            model = benchmark_steps.make_model(name, folder)
            for number, case in enumerate(plan.frames):
                tell(f"frames of {name_of(case.size)}, {case.iterations} iterations, {case.division}, {name}")
                seconds, memory = benchmark_frames.measure_frames(model, case, Path(folder, f"frames {number}"))
                pixels = case.size[0] * case.size[1]
                rows.append(
                    {
                        "network": name, "size": name_of(case.size), "pixels": pixels, "iterations": case.iterations,
                        "division": case.division, "seconds": seconds, "memory": memory,
                    }
                )  # fmt: skip
    for row in rows:
        alike = [one for one in rows if (one["network"], one["iterations"]) == (row["network"], row["iterations"])]
        least = min(alike, key=lambda one: one["pixels"])
        row["of"] = least["size"]
        row["per pixel"] = row["seconds"] / row["pixels"] / (least["seconds"] / least["pixels"])
    return rows


def _measure_share(plan, rounds, peak, given, tell):
    rows = []
    for name in _dreaming(given):
        with tempfile.TemporaryDirectory() as folder:
            model = benchmark_steps.make_model(name, folder)
            for number, case in enumerate(plan.shares):
                settings = " ".join(case.settings)
                tell(f"share of {name_of(case.size)}, {name}, {settings}")
                figures = benchmark_frames.measure_share(model, case, Path(folder, f"frames {number}"))
                rows.append({"network": name, "size": name_of(case.size), "settings": settings, **figures})
    return rows


def _measure_start(plan, rounds, peak, given, tell):
    tell("the start")
    with tempfile.TemporaryDirectory() as folder:
        return benchmark_frames.measure_start(plan.start, Path(folder), rounds)


def machine_line(machine):
    """What was measured on, in a line."""
    return (
        f"{machine['cpu']}, {machine['threads']} threads, PyTorch {machine['torch']}; "
        f"sgemm {machine['sgemm'] / 1e9:.0f} GFLOP/s, a large 3x3 convolution {machine['convolution'] / 1e9:.0f}"
    )


def steps_table(rows):
    """The steps: lines of text."""
    cells = [
        (row["network"], row["layer"], row["size"], row["engine"], f"{row['seconds'] * 1e3:.1f}", f"{row['ratio']:.2f}",
         f"{row['of sgemm']:.0%}", str(row["runs"]))
        for row in rows
    ]  # fmt: skip
    heads = "network", "layer", "size", "engine", "ms a step", "times dreamer.py's", "of sgemm", "runs"
    return ["Steps: forward, objective, gradient", *_aligned(heads, cells, 4)]


def frames_table(rows):
    """The frames: lines of text."""
    cells = [
        (row["network"], row["size"], row["division"], str(row["iterations"]), f"{row['seconds']:.2f}",
         f"{row['memory'] / 2**20:.0f}" if row["memory"] else "-", f"{row['per pixel']:.2f}", row["of"])
        for row in rows
    ]  # fmt: skip
    heads = "network", "size", "division", "iterations", "s a frame", "peak MB", "time per pixel", "relative to"
    return [f"Frames: dreamer.py {' '.join(SEED)}", *_aligned(heads, cells, 3)]


def share_table(rows):
    """What is not the network's: lines of text. Settings that are long stand below."""
    settings = list(dict.fromkeys(row["settings"] for row in rows))
    cells = [
        (row["network"], row["size"], f"({settings.index(row['settings']) + 1})", f"{row['seconds']:.2f}",
         f"{row['outside']:.1%}", f"{row['overhead']:.1%}")
        for row in rows
    ]  # fmt: skip
    heads = "network", "size", "settings", "s a frame", "no gradient at work", "and gradients slowed"
    notes = [f"({number}) dreamer.py {line}" for number, line in enumerate(settings, 1)]
    return ["Share of a frame's time outside the network", *_aligned(heads, cells, 3), *notes]


def start_lines(figures):
    """How soon it starts: lines of text."""
    return [f"--help {figures['help']:.2f} s, from the command to the first step {figures['first step']:.2f} s"]


def _aligned(heads, rows, texts):
    """Lines of a table; its first ``texts`` columns are to the left, those of numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows)]
    sides = ["<"] * texts + [">"] * (len(heads) - texts)
    formats = [f"{side}{width}" for side, width in zip(sides, widths)]
    return ["  ".join(map(format, row, formats)).rstrip() for row in (heads, *rows)]


MEASURES = dict(zip(BLOCKS, (_measure_steps, _measure_frames, _measure_share, _measure_start)))
TABLES = dict(zip(BLOCKS, (steps_table, frames_table, share_table, start_lines)))


def plot(rows, path):
    """Draw the frames' time and peak memory against their pixels into a PNG."""
    pyplot = _pyplot()
    figure, (time_axes, memory_axes) = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    networks, divisions = (list(dict.fromkeys(row[key] for row in rows)) for key in ("network", "division"))
    for network, division in dict.fromkeys((row["network"], row["division"]) for row in rows):
        alike = [row for row in rows if row["network"] == network and row["division"] == division]
        by_pixels = {row["pixels"]: row for row in reversed(alike)}  # the first where a size is there twice
        mine = [by_pixels[pixels] for pixels in sorted(by_pixels)]
        million = [row["pixels"] / 1e6 for row in mine]
        colour, marker = f"C{networks.index(network)}", "ov^s"[divisions.index(division)]
        style = dict(color=colour, marker=marker, label=f"{network}, {division}")
        time_axes.plot(million, [row["seconds"] / row["iterations"] for row in mine], **style)
        memory_axes.plot(million, [(row["memory"] or float("nan")) / 2**30 for row in mine], **style)
    time_axes.set(title="time", ylabel="seconds a frame and iteration", yscale="log")
    memory_axes.set(title="peak memory", ylabel="GB")
    memory_axes.set_yscale("log", base=2)
    for axes in (time_axes, memory_axes):
        axes.set(xscale="log", xlabel="million pixels a frame")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.grid(which="both", alpha=0.3)
    memory_axes.legend(fontsize="small")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _pyplot():
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise UsageError(f"--plot: {error}; pip install -r scripts/requirements.txt") from error
    return pyplot


def parse(arguments):
    """Read the command line; what would fail only after minutes fails here."""
    parser = argparse.ArgumentParser(
        prog="benchmark.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=BLOCKS,
        default=BLOCKS,
        metavar="BLOCK",
        help=f"measure these alone: {', '.join(BLOCKS)}",
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        default=NETWORKS,
        metavar="NAME",
        help=f"all but the start for these alone: {', '.join(NETWORKS)}",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="tiny pictures: whether it works, not how fast it is")
    size.add_argument(
        "--full",
        action="store_true",
        help=f"4K with all {SEED_ITERATIONS} iterations (else {FEW_ITERATIONS}), and VGG at 720p too",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help=f"turns of each engine (default: {ROUNDS})")
    parser.add_argument(
        "--peer-python",
        metavar="PYTHON",
        help="a Python whose environment has neural-dream 0.0.4, torch 2.14.1 and torchvision 0.29.1",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures to a file as well")
    parser.add_argument("--plot", metavar="PNG", help="draw time and memory of the frames against their pixels")
    given = parser.parse_args(arguments)
    for option, path in (("--json", given.json), ("--plot", given.plot)):
        if path and not Path(path).absolute().parent.is_dir():
            raise UsageError(f"{option} {path}: there is no directory {Path(path).parent}")
    if given.plot and "frames" not in given.only:
        raise UsageError("--plot draws the frames; measure them too (--only frames)")
    if given.plot:
        _pyplot()
    if given.rounds is not None and given.rounds < 1:
        raise UsageError(f"--rounds {given.rounds}: expected at least 1")
    if given.peer_python:
        found = shutil.which(given.peer_python)
        if not found:
            raise UsageError(f"--peer-python {given.peer_python}: no such program")
        given.peer_python = os.path.abspath(found)  # it runs in another folder
    return given


def main(arguments=None):
    """Run the command line and return its exit status."""
    try:
        given = parse(arguments)
        figures = measure(given, tell=lambda line: print(f"… {line}", file=sys.stderr, flush=True))
        if given.json:
            Path(given.json).write_text(json.dumps(figures, indent=2) + "\n")
        if given.plot:
            plot(figures["frames"], given.plot)
    except DreamError as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
