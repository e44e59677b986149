#!/usr/bin/env python3
"""What each part of the PyTorch engine saves on a CPU: a step with all of them, without one, and without any.

Prints milliseconds a gradient, the median of rounds in which all variants take turns. GoogLeNet has random weights,
which take as long as trained ones.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import common  # noqa: F401 - the way to the package
from tables import table

from deepdream.memory.malloc import tune
from deepdream.networks import load_network
from deepdream.networks.torch import compiled, conv2d
from deepdream.networks.torch import network as torch_network
from deepdream.picture import objectives
from tests import architectures, nets

PARTS = {
    "fusion": (torch_network, "fuse", lambda steps, target: steps),
    "oneDNN's packed weights": (conv2d, "ONEDNN_TYPES", ()),
    "compiled loops": (compiled, "is_supported", lambda x: False),
}
LAYERS = {
    "default": ("block_3/output", "block_9/output"),
    "googlenet": ("inception_3b/output", "inception_4d/output"),
}


@contextmanager
def without(*parts: str) -> Iterator[None]:
    """Within this, these of `PARTS` are switched off, in networks that are loaded and used here."""
    patches = [mock.patch.object(*PARTS[part]) for part in parts]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def measure(folder: Path | None, layer: str, size: tuple[int, int], precision: str, rounds: int) -> dict[str, float]:
    """Milliseconds a gradient by variant, for pictures of ``size`` (h, w)."""
    variants = {"all parts": (), **{f"without {part}": (part,) for part in PARTS}, "without any": tuple(PARTS)}
    networks = {
        name: load_network(folder, gpu=False, precision=precision, on_message=lambda line: None) for name in variants
    }
    picture = nets.picture(size)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 2):
        for name, parts in variants.items():
            with without(*parts):
                started = time.perf_counter()
                networks[name].gradient(picture, layer, objectives.l2)
            if number >= 2:  # the first rounds build and compile
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 270), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, layers in LAYERS.items():
            model = None if name == "default" else nets.save(Path(folder, name), architectures.googlenet((224, 224)))
            for layer in layers:
                found = measure(model, layer, tuple(reversed(given.size)), given.precision, given.rounds)
                rows.append({"network": name, "layer": layer, **found})
    columns = {key: f"{{{key}}}" if key in ("network", "layer") else f"{{{key}:.1f}}" for key in rows[0]}
    print(table(rows, columns, texts=2))


if __name__ == "__main__":
    tune()
    main()
