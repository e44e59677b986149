"""Whole frames: how long they take and how much memory, which part is not the network's, and how soon it starts."""

import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import dreamer
from deepdream.errors import DreamError
from deepdream.files.frames import open_frames
from deepdream.geometry import divide, divide_gradient, octave_sizes
from deepdream.interface import Network
from deepdream.networks import load_network, resolve_layers
from deepdream.options import RenderOptions
from deepdream.picture import ascent
from deepdream.render.plan import open_render, options_at
from deepdream.render.sequence import dream_frames

Size = tuple[int, int]  # (h, w)
Model = Path | None  # the folder of a Caffe model; None for the default network

# The settings of 2-dream, the old suite's script for videos, but for the iterations and the division.
SEED_LAYER = "inception_4d/pool"
SEED = (
    "--octaves 3 --octavescale 1.8 --jitter 32 --stepsize 1.5 --flow 1 --flowthresh 6 --blendflow 0.9 "
    f"--blendstatic 0.1 --layers {SEED_LAYER}"
).split()
SEED_ITERATIONS = 16
SEED_DIVISION = "-d 2 -mw 1500"
MOTION = 3  # pixels a frame to the right
POLL = 0.02  # seconds between two looks at a process's memory


@dataclass(frozen=True)
class FrameCase:
    """A render by the command line: ``count`` frames of ``size`` (h, w), of which all but the first are timed."""

    size: Size
    iterations: int = SEED_ITERATIONS
    division: str = SEED_DIVISION
    count: int = 2


@dataclass(frozen=True)
class ShareCase:
    """A render of frames of ``size`` (h, w) with options of the command line, and what to call them."""

    size: Size
    name: str
    words: tuple[str, ...]

    @property
    def options(self) -> RenderOptions:
        return dreamer.parse(["--image_type", "png", *self.words]).render


def write_frames(folder: Path, size: Size, count: int) -> None:
    """Frames of a smooth scene with fine grain that moves right, as PNG in ``folder``."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(np.float32(rng.uniform(0, 255, (3, size[0] // 16 + 2, size[1] // 16 + 2))))
    scene = ascent.resize(coarse, size).permute(1, 2, 0).numpy() + rng.normal(0, 4, (*size, 1))
    scene = np.uint8(scene.clip(0, 255))
    for number in range(count):
        frame = Image.fromarray(np.roll(scene, MOTION * number, 1))
        frame.save(folder / f"frame_{number:06d}.png", compress_level=1)


def command(*arguments: object) -> tuple[list[str], dict[str, str]]:
    """A command of dreamer.py's on the CPU, and the environment in which it finds no other network by itself."""
    environment = {name: value for name, value in os.environ.items() if name != "CAFFE_ROOT"}
    return [sys.executable, dreamer.__file__, *map(str, arguments)], environment


def measure_frames(model: Model, case: FrameCase, work_dir: Path) -> dict:
    """The row of a render: seconds a frame, and the process's peak memory in bytes (None where no system tells it).

    ``work_dir``: an empty folder. The time is that from the first saved dream to the last, so neither the start nor
    the first frame, which has no flow, counts. The render is of one frame more, which is read while the last one
    dreams, and is stopped when that one is saved.
    """
    write_frames(work_dir / "Input", case.size, case.count + 1)
    line, environment = command(
        *("-i", "Input", "-o", "Output", "--gpu", 0, "-v", 0, "-itr", case.iterations, *SEED, *case.division.split()),
        *(("-t", model) if model else ()),
    )
    first, last = (work_dir / "Output" / f"frame_{number:06d}.png" for number in (0, case.count - 1))
    peak = 0
    with subprocess.Popen(line, cwd=work_dir, env=environment, stderr=subprocess.PIPE, text=True) as child:
        while child.poll() is None and not last.exists():
            peak = max(peak, _peak_memory(child.pid))
            time.sleep(POLL)
        child.terminate()
        said = child.stderr.read().strip()
    if not last.exists():
        raise DreamError(f"dreamer.py failed on frames of {case.size[1]}x{case.size[0]}: {said}")
    seconds = (last.stat().st_mtime_ns - first.stat().st_mtime_ns) / 1e9 / (case.count - 1)
    return {
        "pixels": case.size[0] * case.size[1], "iterations": case.iterations, "division": case.division,
        "seconds": seconds, "memory": peak or None,
    }  # fmt: skip


def relate_to_smallest(rows: list[dict]) -> None:
    """Add to each row its time a pixel, relative to that of the smallest frames of its network and iterations."""
    for row in rows:
        alike = [one for one in rows if (one["network"], one["iterations"]) == (row["network"], row["iterations"])]
        least = min(alike, key=lambda one: one["pixels"])
        row["of"] = least["size"]
        row["per pixel"] = row["seconds"] / row["pixels"] / (least["seconds"] / least["pixels"])


def _peak_memory(pid: int) -> int:
    """The largest resident set so far of a process, in bytes; 0 where it has ended or there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


class _EnoughError(Exception):
    """The frames that are measured are done."""


class Stopwatch:
    """Stands in for a network's ``gradient``: notes when each call began and ended, and of what it was."""

    def __init__(self, network: Network, enough: int):
        """``enough``: calls after which the next one ends the render."""
        self._compute, self._enough = network.gradient, enough
        self.calls = []
        network.gradient = self

    def __call__(self, picture, layer, objective):
        started = time.perf_counter()
        if len(self.calls) == self._enough:
            self.calls.append((started, started, None))
            raise _EnoughError
        result = self._compute(picture, layer, objective)
        self.calls.append((started, time.perf_counter(), picture.shape))
        return result


def gradient_calls(size: Size, options: RenderOptions, starts_shot: bool = True) -> int:
    """How many gradients a frame of ``size`` (h, w) takes, the first of its shot or another that inherits."""
    dream = options_at(options, 0).dream_options(starts_shot)
    octaves = octave_sizes(*size, dream.octaves, dream.octave_scale)
    tiles = [[tile.size for tile in divide(*octave, options.divide)] for octave in octaves]
    parts = [sum(len(divide_gradient(*tile, options.divide)) for tile in octave) for octave in tiles]
    return sum(steps * count for steps, count in zip(ascent.octave_iterations(dream), parts))


def measure_share(model: Model, case: ShareCase, work_dir: Path) -> dict:
    """The row of how much of a frame's time is not the network's: seconds and shares (0..1).

    A frame, as many that inherit from it as come to its steps (at least one), and the first step of another are
    rendered as the command line does it. The period from the second frame's first step to the last one's has all that
    frames need. ``seconds``: its part for each frame. ``outside``: the share of it in which no gradient is computed.
    ``overhead``: the same where a gradient counts for no more than the lower quartile of its size: what reading, flow
    and encoding meanwhile take from it is not the network's either.
    """
    options = case.options
    first, second = (gradient_calls(case.size, options, starts_shot) for starts_shot in (True, False))
    count = max(1, first // second)
    write_frames(work_dir / "Input", case.size, 2 + count)
    network = load_network(model, gpu=False, on_message=lambda line: None)
    layers = resolve_layers(network, (SEED_LAYER,), on_message=lambda line: None)
    render = open_render(open_frames(work_dir / "Input", "png"), work_dir / "Output", network, layers, options)
    watch = Stopwatch(network, enough=first + count * second)
    with suppress(_EnoughError):
        list(dream_frames(render, network))
    *calls, (end, _, _) = watch.calls[first:]
    period = end - calls[0][0]
    spans = defaultdict(list)
    for started, ended, shape in calls:
        spans[shape].append(ended - started)
    computing = sum(map(sum, spans.values()))
    undisturbed = sum(len(times) * np.quantile(times, 0.25) for times in spans.values())
    shares = {"outside": 1 - computing / period, "overhead": float(1 - undisturbed / period)}
    return {"settings": case.name, "seconds": period / count, **shares}


def measure_start(size: Size, work_dir: Path, runs: int) -> dict:
    """Seconds that ``--help`` takes, and those from the command to the first step with the default network cached."""
    write_frames(work_dir / "Input", size, 1)
    load_network(gpu=False, on_message=lambda line: None)  # into the cache, and the files into the system's
    helps, steps = [], []
    for number in range(runs):
        line, environment = command("--help")
        started = time.perf_counter()
        subprocess.run(line, env=environment, stdout=subprocess.DEVNULL, check=True)
        helps.append(time.perf_counter() - started)
        line, environment = command("-i", "Input", "-o", f"Output{number}", "--gpu", 0, "-v", 2)
        started = time.perf_counter()
        with subprocess.Popen(line, cwd=work_dir, env=environment, stderr=subprocess.PIPE, text=True) as child:
            told = next((said for said in child.stderr if "iteration 1:" in said), None)
            steps.append(time.perf_counter() - started)
            child.terminate()
        if told is None:
            raise DreamError(f"dreamer.py has made no step: exit status {child.returncode}")
    return {"help": statistics.median(helps), "first step": statistics.median(steps)}
