#!/usr/bin/env python
"""Load damaged Caffe models and dream with them: each case must end in a gradient or a `DreamError`, in 1 GB and 10 s.

A case is a prototxt or a caffemodel in which a few words, numbers, bytes or spans have been changed, dropped or
doubled; a gradient of it is then computed for a small picture. Cases run in batches, each in a process of its own
whose memory is limited (so this needs Linux); what ends a batch is a failure, and the next case goes on after it.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import common  # noqa: F401 - the way to the package

BATCH = 250
MEMORY = 1 << 30  # bytes that a case may take on top of the libraries
SECONDS = 10
SIZE = (40, 48)
WORDS = ("0", "-1", "1", "3", "65536", "4294967295", "99999999999999999999", "1e30", "nan", "\0", '"', "{", "}", "☺")
BYTES = (0, 1, 0x7F, 0x80, 0xFF)


def damage(items: list | bytearray, replaceable: Sequence[int], values: tuple, rng: random.Random) -> None:
    """One to five changes in place: one of the ``replaceable`` items becomes a value, spans are dropped or doubled."""
    for _ in range(rng.randint(1, 5)):
        # The beginning of a caffemodel holds more structure than the numbers further on.
        place = rng.randrange(min(len(items), rng.choice((64, 1024, len(items)))))
        kind = rng.randrange(4)
        if kind == 0:
            items[min(rng.choice(replaceable), len(items) - 1)] = rng.choice(values)
        elif kind == 1:
            items[place] = rng.choice(items)
        elif kind == 2:
            del items[place : place + rng.randint(1, 8)]
        else:
            items[place:place] = items[place : place + rng.randint(1, 60)]
        if not items:
            items[:] = values[:1]


def make_case(number: int, pairs: list[tuple[str, bytes]]) -> tuple[bytes, bytes]:
    """The two files of case ``number``: the same each time."""
    rng = random.Random(number)
    text, weights = rng.choice(pairs)
    if rng.random() < 0.6:
        words = re.findall(r"\s+|\w[\w.]*|.", text)
        damage(words, [place for place, word in enumerate(words) if word[0].isdigit()], WORDS, rng)
        return "".join(words).encode(), weights
    damaged = bytearray(weights)
    damage(damaged, range(min(len(weights), 1024)), BYTES, rng)
    return text.encode(), bytes(damaged)


def sound_models() -> list[tuple[str, bytes]]:
    """(prototxt, caffemodel) pairs to start from: a small net in the three layouts, and the default network."""
    from caffe_format import SMALL_2013, caffemodel, layout_2014
    from nets import SMALL, random_blobs

    from deepdream.networks.default import default_model_files

    blobs = random_blobs(SMALL)
    layouts = {SMALL: "today", layout_2014(SMALL): "2014", SMALL_2013: "2013"}
    prototxt, weights = default_model_files()
    small = [(text, caffemodel(blobs, layout)) for text, layout in layouts.items()]
    return small * 9 + [(prototxt.read_text(encoding="utf-8"), weights.read_bytes())]


def run_case(folder: Path, files: tuple[bytes, bytes]) -> str:
    """Run a case: its outcome in a word. Anything but a `DreamError` escapes."""
    import torch

    from deepdream.errors import DreamError
    from deepdream.networks import load_network
    from deepdream.picture.objectives import l2

    (folder / "deploy.prototxt").write_bytes(files[0])
    (folder / "net.caffemodel").write_bytes(files[1])
    try:
        network = load_network(folder, gpu=False, on_message=lambda line: None)
        if len(network.layers) < 30:  # of a large net that takes seconds
            dict(network.layer_shapes())
        for layer in {network.layers[-1], network.layers[len(network.layers) // 2]}:
            network.gradient(torch.zeros(3, *SIZE), layer, l2)
    except DreamError as error:
        return type(error).__name__
    return "dreamed"


def run_batch(first: int, count: int) -> None:
    """The child: run cases, a line each; the memory is limited, so that a case that wants more fails here."""
    import resource

    pairs = sound_models()
    with tempfile.TemporaryDirectory() as folder:
        run_case(Path(folder), (pairs[0][0].encode(), pairs[0][1]))  # loads the libraries
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for number in range(first, first + count):
            case, started = make_case(number, pairs), time.process_time()  # whatever else the machine does
            outcome = run_case(Path(folder), case)
            seconds = time.process_time() - started
            if seconds > SECONDS:
                raise SystemExit(f"it took {seconds:.0f} s")
            print(outcome, f"{seconds:.2f}", flush=True)


def main() -> int:
    """Run the command line; exit status 1 where a case fails."""
    parser = argparse.ArgumentParser(
        prog="fuzz.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=20_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (default: %(default)s)")
    parser.add_argument("--batch", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.batch:
        run_batch(*options.batch)
        return 0
    outcomes, failures, slowest = Counter(), 0, 0.0
    number, end = options.first, options.first + options.cases
    while number < end:
        size = min(BATCH, end - number)
        command = [sys.executable, __file__, "--batch", str(number), str(size)]
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            output, errors = child.communicate(timeout=60 + SECONDS * size)
        except subprocess.TimeoutExpired:
            child.kill()
            output, errors = child.communicate()
        lines = [line.split() for line in output.splitlines()]
        outcomes.update(outcome for outcome, _ in lines)
        slowest = max([slowest, *(float(seconds) for _, seconds in lines)])
        number += len(lines)
        if len(lines) < size:
            print(f"case {number}: exit {child.returncode}: {errors.strip()[-600:]}", flush=True)
            failures += 1
            number += 1
    print(f"{options.cases} cases, {failures} failures, the slowest {slowest:.1f} s: {dict(outcomes)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
