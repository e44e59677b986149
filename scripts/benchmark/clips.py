"""A whole clip as people dream it: our command, and other dreamers frame by frame, all with the same settings."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmark import engines, frames, steps
from deepdream.errors import DreamError
from deepdream.networks.caffemodel import load_model

LAYER = "inception_4c/output"
OCTAVES, SCALE, ITERATIONS, JITTER = 3, 1.4, 10, 32
SETTINGS = f"-l {LAYER} -oct {OCTAVES} -octs {SCALE} -itr {ITERATIONS} -j {JITTER}".split()
OURS = {"dreamer.py": (), "dreamer.py -flow 2": ("-flow", "2")}
# torch-dreams knows no octaves: it takes as many steps, at sizes of 0.5 to 1.2 times the frame's, at random.
TORCH_DREAMS = "torch-dreams"
SIZE = (480, 640)  # neural-dream runs the whole net, to which smaller octaves do not reach
PEER_FRAMES = 2  # of a peer, which takes as long for each


def measure_clips(count: int, peer_python: str | None, work_dir: Path) -> Iterator[dict]:
    """A row for each dreamer: a clip of ``count`` frames of `SIZE`, GoogLeNet, from command to last frame.

    ``peer_python``: the Python of an environment that has the peers; None to leave them out. ``work_dir``: an empty
    folder. Raises `DreamError` where one saves no frames.
    """
    frames.write_frames(work_dir / "Input", SIZE, count)
    model = steps.make_model("googlenet", work_dir)
    assert model is not None
    for name, more in OURS.items():
        line, environment = frames.command(
            *("-i", "Input", "-o", name, "-t", model, "--gpu", 0, "-v", 0), *SETTINGS, *more
        )
        seconds = _seconds([line], work_dir, environment)
        yield _row(name, seconds, work_dir / name, count)
    if peer_python:
        torch.save(steps.state_dict(load_model(*steps.model_files(model))), work_dir / "bvlc_googlenet.pth")
        paths = sorted((work_dir / "Input").iterdir())[:PEER_FRAMES]
        for name, lines in (
            (engines.NEURAL_DREAM, [_neural_dream(peer_python, path) for path in paths]),
            (
                TORCH_DREAMS,
                [[peer_python, str(engines.PEER), TORCH_DREAMS, str(OCTAVES * ITERATIONS), *map(str, paths)]],
            ),
        ):
            (work_dir / name).mkdir()
            yield _row(name, _seconds(lines, work_dir, dict(os.environ)), work_dir / name, len(paths))


def _neural_dream(python: str, path: Path) -> list[str]:
    """neural-dream's own command for a frame; it finds out from its name what the model is."""
    options = (
        f"-num_iterations 1 -octave_iter {ITERATIONS} -num_octaves {OCTAVES} -octave_scale {1 / SCALE} -print_iter 0 "
        f"-jitter {JITTER} -dream_layers {LAYER.replace('/', '_')} -image_size {max(SIZE)} -gpu c -disable_check"
    ).split()
    files = ["-model_file", "bvlc_googlenet.pth", "-content_image", str(path)]
    files += ["-output_image", f"{engines.NEURAL_DREAM}/{path.name}"]
    return [python, "-m", "neural_dream.neural_dream", *options, *files]


def _seconds(lines: Sequence[Sequence[str]], folder: Path, environment: dict[str, str]) -> float:
    """The seconds that commands take in a folder, one after the other. Raises `DreamError` where one fails."""
    started = time.monotonic()
    for line in lines:
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise DreamError(f"{' '.join(line[:3])} failed: {done.stderr.strip().splitlines()[-1:]}")
    return time.monotonic() - started


def _row(name: str, seconds: float, output: Path, count: int) -> dict:
    saved = len(list(output.glob("*.png")))
    if saved != count:
        raise DreamError(f"{name} has saved {saved} frames of {count}")
    return {"dreamer": name, "frames": count, "seconds": seconds, "a minute": 60 * count / seconds}
