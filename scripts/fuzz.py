#!/usr/bin/env python
"""Feed the reader of Caffe models with damaged ones: only `DreamError` may come of it, in 1 GB and 10 s a case.

Each case is a prototxt or a caffemodel in which a few words, numbers, bytes or spans have been changed, dropped or
doubled; its layers are then run on a small picture. Cases run in batches, each in a process of its own that has no
more memory than allowed; a batch that dies is run again case by case to find the culprit, which is kept.
"""

import argparse
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the package is not installed

BATCH = 250
MEMORY = 1 << 30  # bytes that a case may take on top of the libraries
SECONDS = 10
SIZE = (40, 48)
NUMBERS = ("0", "-1", "1", "3", "65536", "4294967295", "4000000000", "99999999999999999999", "1e30", "nan")


def changed_text(text, rng):
    """A prototxt with one to four changes."""
    for _ in range(rng.randint(1, 4)):
        words = re.findall(r"\s+|\w[\w.]*|.", text)
        place = rng.randrange(len(words))
        kind = rng.randrange(5)
        if kind == 0:
            numbers = [at for at, word in enumerate(words) if word[0].isdigit()] or [place]
            words[rng.choice(numbers)] = rng.choice(NUMBERS)
        elif kind == 1:
            del words[place]
        elif kind == 2:
            words[place] = rng.choice(words)
        elif kind == 3:
            words[place:place] = words[place : place + rng.randrange(60)]
        else:
            words[place] = chr(rng.choice((0, 10, 34, 123, 125, 0x263A)))
        text = "".join(words)
    return text


def changed_bytes(data, rng):
    """Bytes with one to six changes."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        # The first bytes hold more structure than the numbers further on.
        place = rng.randrange(min(len(data), rng.choice((64, 1024, len(data)))))
        kind = rng.randrange(4)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del data[place : place + rng.randrange(1, 9)]
        else:
            data[place:place] = data[place : place + rng.randrange(1, 200)]
        data = data or bytearray(1)
    return bytes(data)


def seeds():
    """(prototxt, caffemodel) pairs to start from: small nets in the three layouts, and the default network."""
    from nets import SMALL, SMALL_2013, SMALL_SIZE, caffemodel, layout_2014, random_blobs

    from deepdream.networks.default import default_model_files

    blobs = random_blobs(SMALL, SMALL_SIZE)
    pairs = [
        (SMALL, caffemodel(blobs)),
        (layout_2014(SMALL), caffemodel(blobs, "2014")),
        (SMALL_2013, caffemodel(blobs, "2013")),
    ]
    prototxt, weights = default_model_files()
    return pairs * 9 + [(prototxt.read_text(), weights.read_bytes())]


def make_case(number, pairs):
    """The two files, as bytes, of case ``number``: the same each time."""
    rng = random.Random(number)
    text, weights = rng.choice(pairs)
    if rng.random() < 0.6:
        text = changed_text(text, rng)
    else:
        weights = changed_bytes(weights, rng)
    return text.encode("utf-8", "surrogatepass"), weights


def run_case(folder, number, pairs):
    """Run a case: its outcome in a word. Anything but a `DreamError` escapes."""
    import torch

    from deepdream.errors import DreamError
    from deepdream.networks import load_network
    from deepdream.picture.objectives import l2

    files = folder / "deploy.prototxt", folder / "net.caffemodel"
    for path, content in zip(files, make_case(number, pairs)):
        path.write_bytes(content)
    try:
        network = load_network(folder, gpu=False, on_message=lambda line: None)
        if len(network.layers) < 30:  # of a large net that takes seconds
            dict(network.layer_shapes())
        for layer in {network.layers[-1], network.layers[len(network.layers) // 2]}:
            network.check_size(layer, SIZE)
            network.gradient(torch.zeros(3, *SIZE), layer, l2)
    except DreamError as error:
        return type(error).__name__
    return "dreamed"


def run_batch(first, count):
    """The child: run cases, a line each; the memory is limited, so that a case that wants more fails here."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch  # noqa: F401

    pairs = seeds()
    with tempfile.TemporaryDirectory() as folder:
        run_case(Path(folder), 0, pairs[:1])
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for number in range(first, first + count):
            started = time.process_time()  # whatever else the machine does
            outcome = run_case(Path(folder), number, pairs)
            seconds = time.process_time() - started
            if seconds > SECONDS:
                raise SystemExit(f"case {number} took {seconds:.0f} s")
            print(number, outcome, f"{seconds:.2f}", flush=True)


def find_failures(first, count):
    """({outcome: number of cases}, [(case, what went wrong)], seconds of the slowest) of ``count`` cases."""
    outcomes, failures, slowest, number = {}, [], 0.0, first
    while number < first + count:
        size = min(BATCH, first + count - number)
        command = [sys.executable, __file__, "--batch", str(number), str(size)]
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=60 + SECONDS * size)
            output, words = child.stdout, f"exit {child.returncode}: {child.stderr.strip()[-600:]}"
        except subprocess.TimeoutExpired as late:
            output, words = (late.stdout or b"").decode(), "no end"
        lines = [line.split() for line in output.splitlines()]
        for _, outcome, seconds in lines:
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            slowest = max(slowest, float(seconds))
        number += len(lines)
        if len(lines) < size:
            failures.append((number, words))
            print(f"case {number}: {words}", flush=True)
            number += 1
    return outcomes, failures, slowest


def main():
    """Run the command line; exit status 1 where a case fails."""
    parser = argparse.ArgumentParser(prog="fuzz.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=20_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (default: %(default)s)")
    parser.add_argument("--batch", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.batch:
        return run_batch(*options.batch)
    outcomes, failures, slowest = find_failures(options.first, options.cases)
    print(f"{options.cases} cases, {len(failures)} failures, the slowest {slowest:.1f} s: {outcomes}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
