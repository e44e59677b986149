"""Networks that fail on a worker as real ones may, so that tests see what becomes of a render."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from deepdream.networks.portable import PortableNetwork


def end(place):
    os._exit(1)


def end_once(place):
    try:
        (place / "ended").touch(exist_ok=False)
    except FileExistsError:
        return
    os._exit(1)


def stop_once(place):
    """As a machine that is never heard of again."""
    try:
        (place / "stopped").write_text(str(os.getpid()))
        (place / "once").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGSTOP)


def run_out_of_memory(place):
    torch.empty(2**60, dtype=torch.uint8)


def break_down(place):
    raise ZeroDivisionError("division by zero")


def slow_down(place):
    time.sleep(0.2)


@dataclass(frozen=True)
class FaultyNetwork:
    """A source of ``network`` that calls a function before each gradient at ``layer``.

    ``place``: a folder, in which each gradient at that layer leaves a file named by time and process.
    """

    network: PortableNetwork
    layer: str
    act: object
    place: Path

    def contents(self):
        return self.network.contents()

    def load(self, fetch):
        network = self.network.load(fetch)
        whole = network.gradient

        def gradient(picture, layer, objective):
            if layer == self.layer:
                (self.place / f"{time.time_ns()}-{os.getpid()}").touch()
                self.act(self.place)
            return whole(picture, layer, objective)

        network.gradient = gradient
        return network
