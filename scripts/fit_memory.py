#!/usr/bin/env python
"""Measure again what memory/predict.py estimates by constants: SET_ASIDE, SPACING and FRAME_COPIES.

Each row is a process of its own, on the CPU, and says how large the constant must be to cover that process's peak. The
constants cover most rows, not all: tiles are advised for four fifths of the free memory. Only Linux tells the peak.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import common  # noqa: F401 - the way to the package
import numpy as np
import torch
from PIL import Image

from deepdream.errors import UsageError
from deepdream.files.frames import open_frames
from deepdream.memory import malloc, predict
from deepdream.networks import load_network
from deepdream.options import DivideMode, DivideOptions, DreamOptions, FlowMode, FlowOptions, RenderOptions
from deepdream.picture import ascent, objectives
from deepdream.render.plan import open_render
from deepdream.render.sequence import dream_frames

TILES = DivideOptions(DivideMode.SEAMLESS, 400, 400)  # pixels: most that a dream in these holds is copies of the frame
SMALL = torch.zeros(3, 64, 64)  # a picture whose gradient itself takes next to nothing
OCTAVES = DreamOptions(octaves=3, iterations=1)
COPIES = tuple(f"FRAME_COPIES[{mode.name}]" for mode in FlowMode)
# By the constant, the (w, h) to measure it at: large enough that memory may be short.
SIZES = {"SET_ASIDE": (64, 64), "SPACING": (1920, 1080)}
SIZES |= dict.fromkeys(COPIES, (3840, 2160))


def resident(what):
    """VmRSS or VmHWM, what this process holds or the most that it has held, in bytes."""
    return 1024 * int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


class Peak:
    """The most that the block holds more than there was before it, in ``bytes``."""

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
        self._before = resident("VmRSS")
        return self

    def __exit__(self, *error):
        self.bytes = resident("VmHWM") - self._before


def measure(constant, layer, network, size):
    """What the constant would have to be for a dream of frames of ``size`` (h, w) at ``layer``."""
    pixels = size[0] * size[1]
    with Peak() as first:
        network.gradient(SMALL, layer, objectives.l2)
    if constant == "SET_ASIDE":
        return first.bytes
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    if constant == "SPACING":
        with Peak() as peak:
            rng = np.random.default_rng(0)
            ascent.dream(picture, network, layer, OCTAVES, DivideOptions(), objectives.l2, rng)
        return (peak.bytes - predict.FRAME_COPIES[FlowMode.OFF] * 12 * pixels) / network.memory(layer, size)
    options = RenderOptions(OCTAVES, FlowOptions(list(FlowMode)[COPIES.index(constant)]), TILES)
    # What grows with the frame: threads, libraries and tiles take the same at either size.
    small, large = (render_peak(network, layer, picture[: size[0] // part], options) for part in (2, 1))
    return (large - small) / (12 * pixels / 2)


def render_peak(network, layer, picture, options):
    """The most that a render of three frames holds in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "Input")
        source.mkdir()
        for number in range(3):
            Image.fromarray(np.roll(picture, 3 * number, 1)).save(source / f"{number}.png", compress_level=1)
        render = open_render(open_frames(source), Path(folder, "Output"), network, [layer], options)
        malloc.trim()
        with Peak() as peak:
            list(dream_frames(render, network))
    return peak.bytes


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="fit_memory.py", description=__doc__)
    parser.add_argument("-t", "--model_path", action="append", help="a Caffe model; may be given several times")
    parser.add_argument("--only", choices=SIZES, nargs="+", default=list(SIZES), help="constants (default: all)")
    parser.add_argument("--shrink", type=int, default=1, metavar="N", help="take sides N times smaller, as a trial")
    parser.add_argument("--one", nargs=2, metavar=("CONSTANT", "LAYER"), help=argparse.SUPPRESS)  # a row, in a child
    options = parser.parse_args()
    if not Path("/proc/self/clear_refs").exists():
        parser.error("only Linux tells the most memory that a process has held")
    for folder in options.model_path or [None]:
        network = load_network(folder, gpu=False, on_message=lambda line: None)
        if options.one:
            width, height = (side // options.shrink for side in SIZES[options.one[0]])
            print(measure(*options.one, network, (height, width)))
            return
        for layer in dict.fromkeys(sorted(network.loop or network.layers[-1:], key=network.layers.index)):
            for constant in options.only:
                more = ["--shrink", str(options.shrink), *(["-t", folder] if folder else [])]
                row(constant, network.name, layer, more)


def row(constant, name, layer, more):
    """Measure and print one row, in a process of its own."""
    command = [sys.executable, __file__, *more, "--one", constant, layer]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UsageError(done.stderr)
    value = float(done.stdout.split()[-1])
    shown = f"{value / 1e6:8.0f} MB" if constant == "SET_ASIDE" else f"{value:8.2f}   "
    print(f"{name:24} {layer:24} {constant:22} {shown}", flush=True)


if __name__ == "__main__":
    malloc.tune()
    main()
