"""A Caffe model run and differentiated by Caffe itself, on the CPU.

The net lives in a process of its own (`caffe.child`), because Caffe ends the process where a check fails.
"""

import re
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from deepdream.errors import DreamError, ModelError, OutOfMemory
from deepdream.interface import Objective
from deepdream.networks.caffe import child
from deepdream.networks.caffemodel import Model
from deepdream.networks.network import DEFAULT_INPUT_SIZE, Network, Size
from deepdream.networks.steps import UnknownType

# What Caffe says before it ends; before that, protobuf tells which line of the prototxt it does not like.
_FATAL = re.compile(r"^F\d+ \d\d:\d\d:\d\d\.\d+ +\d+ [\w.]+:\d+\] (.*)", re.MULTILINE)
_PROTOBUF = re.compile(r"^\[libprotobuf ERROR [^]]*\] (.*)", re.MULTILINE)
_SECONDS_TO_END = 5


class CaffeNetwork(Network):
    """The network interface on Caffe. Raises `ModelError` where Caffe is missing or refuses the model."""

    def __init__(
        self,
        model: Model,
        prototxt: Path,
        caffemodel: Path,
        mean: Sequence[float],
        loop: Iterable[str],
    ) -> None:
        if sys.platform != "linux":
            raise ModelError("--engine caffe needs Linux; --engine torch runs the same models")
        super().__init__(model, mean, loop)
        blob = next(iter(model.inputs))
        self._process = _Process(prototxt, caffemodel, blob, (self._channels, *(self.input_size or DEFAULT_INPUT_SIZE)))

    def activations(self, picture: torch.Tensor, layer: str) -> torch.Tensor:
        return self._run(picture, layer)[0][0]

    def gradient_of_sum(self, picture: torch.Tensor, objectives: Mapping[str, Objective]) -> torch.Tensor:
        if picture.ndim == 4:
            return torch.stack([self.gradient_of_sum(one, objectives) for one in picture])
        layers = sorted(objectives, key=self.layers.index)
        tops = self._run(picture, *layers)
        diffs = [objectives[layer](top[0])[None].numpy() for layer, top in zip(layers, tops)]
        gradient = torch.from_numpy(self._process.ask(f"layer {'+'.join(layers)}", "backward", layers, diffs))
        return self._from_channels(gradient)

    def _run(self, picture: torch.Tensor, *layers: str) -> list[torch.Tensor]:
        # Caffe does not notice every size that is too small, so the shapes are worked out before it starts.
        for layer in layers:
            self.check_size(layer, (picture.shape[1], picture.shape[2]))
        return self._ask_forward(self._to_channels(picture), *layers)

    def _shape(self, layer: str, size: Size) -> tuple[int, ...]:
        try:
            return super()._shape(layer, size)
        except UnknownType:  # a type that only Caffe knows
            return tuple(self._ask_forward(torch.zeros(self._channels, *size), layer)[0].shape[1:])

    def _ask_forward(self, x: torch.Tensor, *layers: str) -> list[torch.Tensor]:
        tops = self._process.ask(f"layer {'+'.join(layers)}", "forward", layers, x.numpy())
        return [torch.from_numpy(top) for top in tops]


class _Process:
    """The child process: started with the net, asked, and ended with its owner or at exit, whichever is first."""

    def __init__(self, prototxt: Path, caffemodel: Path, blob: str, shape: tuple[int, int, int]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="deepdream-caffe-", ignore_cleanup_errors=True)
        self._log = Path(self._directory.name, "log.txt")
        self._connection, other_end = Pipe()
        prepared = Path(self._directory.name, "net.prototxt")
        arguments = (other_end.fileno(), prototxt, caffemodel, blob, *shape, prepared)
        with open(self._log, "wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, child.__file__, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[other_end.fileno()],
                start_new_session=True,  # Ctrl-C is for the parent, which ends the child
            )
        other_end.close()
        self.end = weakref.finalize(self, _end, self._child, self._connection, self._directory)
        self._receive(str(prototxt))

    def ask(self, what: str, *message: Any) -> Any:
        """Send a command and its arguments; the answer. ``what`` names the work in an error."""
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._death(what) from error
        return self._receive(what)

    def _receive(self, what: str) -> Any:
        try:
            done, result = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._death(what) from error
        except BaseException:
            self.end()  # an answer that nobody waits for any more would be taken for the next one
            raise
        if done:
            return result
        self.end()
        if re.match("(ModuleNotFound|Import|Attribute)Error", result):
            raise ModelError(
                f"Caffe is not installed ({result}): scripts/build_caffe.sh builds it, and --engine torch does without"
            )
        raise (OutOfMemory if result.startswith("MemoryError") else ModelError)(f"Caffe failed at {what}: {result}")

    def _death(self, what: str) -> DreamError:
        """The error to raise once the child is found dead."""
        if not self.end.alive:
            return DreamError(f"Caffe failed at {what}: its process has ended before")
        status = self._child.wait(_SECONDS_TO_END)
        log = self._log.read_text(encoding="utf-8", errors="replace")
        self.end()
        fatal = _FATAL.search(log)
        if fatal is None:
            reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            return DreamError(f"Caffe failed at {what}: its process ended with {reason}")
        reason = (_PROTOBUF.search(log) or fatal)[1]
        kind = OutOfMemory if "allocation" in reason else ModelError
        return kind(f"Caffe refuses {what}: {reason}")


def _end(process: subprocess.Popen, connection: Connection, directory: tempfile.TemporaryDirectory) -> None:
    connection.close()  # the child ends when it next listens
    process.kill()
    process.wait()
    directory.cleanup()
