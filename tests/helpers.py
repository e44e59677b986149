"""What several test files share: paths, running Python, saving frames, rendering them, and reading what came out."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepdream.files.frames import open_frames
from deepdream.networks import resolve_layers
from deepdream.options import DivideOptions, DreamOptions, FlowOptions, RenderOptions
from deepdream.render.plan import open_render
from deepdream.render.sequence import dream_frames

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
ZOO = ROOT.parent / "shared" / "zoo"  # real Caffe models, where somebody has them beside the checkout
NIGHTLY = bool(os.environ.get("NIGHTLY"))  # where set, what takes long is tested too

nightly = pytest.mark.skipif(not NIGHTLY, reason="takes long: set NIGHTLY to test it")


def run_python(*arguments, **options):
    """Run this Python with ``arguments``; the finished process, with its output as text."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.run([sys.executable, *map(str, arguments)], **(pipes | options))


def moving_ramps(count, size):
    """``count`` frames of a pattern that changes from frame to frame: uint8 RGB (h, w, 3) each."""
    ramp = np.add.outer(np.arange(size[0]), 2 * np.arange(size[1]))
    return [np.stack([(ramp * k + 9 * number) % 256 for k in (1, 2, 3)], 2).astype(np.uint8) for number in range(count)]


def save_frames(pictures, directory, size=None, pattern="{}.png", first=0):
    """Save pictures, resized to ``size`` (w, h) if given, under numbered names in a new directory; returns it.

    The last one is saved first, so that the order in which files are made is not that of their names.
    """
    directory.mkdir(parents=True)
    for number, picture in reversed(list(enumerate(pictures, first))):
        image = Image.fromarray(np.uint8(picture))
        (image.resize(size) if size else image).save(directory / pattern.format(number))
    return directory


def open_small_render(source, output, network, flow=FlowOptions(), divide=DivideOptions(), guide=None, image_type=None,
                      overwrite=False, mask=None, **dream):  # fmt: skip
    """An open `Render` of all frames in ``source``; ``dream``: `DreamOptions`, by default few and small steps."""
    quick = {"octaves": 2, "iterations": 1, "jitter": 4, "layers": ("mixed",)}
    options = RenderOptions(DreamOptions(**(quick | dream)), flow, divide, guide, image_type=image_type, mask=mask)
    frames = open_frames(source, image_type, leave_out=[guide] if guide else ())
    layers = resolve_layers(network, options.dream.layers, on_message=print)
    return open_render(frames, output, network, layers, options, overwrite)


def render(source, output, network, *arguments, **options):
    """Render all of what `open_small_render` opens; returns the reports."""
    return list(dream_frames(open_small_render(source, output, network, *arguments, **options), network))


def read_dreams(directory):
    """The bytes of each dreamed frame in a directory, by name."""
    return {path.name: path.read_bytes() for path in sorted(Path(directory).glob("frame_*"))}
