"""Engines that take a step: forward to a layer, objective (half the squared activations), gradient of the picture."""

import json
import math
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepdream.errors import DreamError, ModelError
from deepdream.networks.caffemodel import Layer, Model
from deepdream.networks.torch.layers import Weights
from deepdream.networks.torch.layers.convolution import convolution_parameters
from deepdream.picture import objectives

PEER = Path(__file__).with_name("peer.py")
OURS, OURS_BFLOAT16, CAFFE, NEURAL_DREAM = "dreamer.py", "dreamer.py, bfloat16", "Caffe", "neural-dream"
PLAIN, PLAIN_RELU6, ALONE = "plain torch", "plain torch, ReLU6", "convolutions alone"
OTHER_NUMBERS = (OURS_BFLOAT16, ALONE)  # what these compute is not the same, or nothing


class Engine:
    """Takes steps on demand, by ``step()``: the subclass's, or the given function."""

    def __init__(self, name: str, step: Callable | None = None):
        self.name = name
        if step:
            self.step = step

    def steps(self, count: int) -> list[float]:
        """The seconds of each of ``count`` steps."""
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - started)
        return seconds

    def open(self, picture: Tensor, layer: str) -> None:
        """Set the picture, float32 (3, h, w), and the layer of the next steps."""
        self._asked = picture, layer

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """The activations at the layer and the gradient of the picture."""
        raise NotImplementedError


class Ours(Engine):
    """This project's network, as a dream calls it."""

    def __init__(self, network):
        super().__init__(OURS if network.precision == "float32" else OURS_BFLOAT16)
        self._network = network

    def step(self) -> Tensor:
        return self._network.gradient(*self._asked, objectives.l2)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        return self._network.activations(*self._asked).numpy(), self.step().numpy()


class PlainTorch(Engine):
    """A model in PyTorch's own functions, one a layer, as anyone would write it down: the baseline.

    With ``relu6`` the four layers by which a model says min(max(x, 0), 6) in Caffe's types are one.
    """

    def __init__(self, model: Model, device: str = "cpu", relu6: bool = False):
        super().__init__(PLAIN_RELU6 if relu6 else PLAIN)
        layers = [layer for layer in model.layers if layer.type != "Input"]
        self.layers = list(_with_relu6(layers)) if relu6 else layers
        self._functions = {layer.name: PLAIN_LAYERS[layer.type](layer, Weights(layer, device))
                           for layer in self.layers if layer.type in PLAIN_LAYERS}  # fmt: skip

    def open(self, picture: Tensor, layer: str) -> None:
        super().open(picture[None].requires_grad_(), layer)

    def step(self) -> Tensor:
        top = self._top()
        return torch.autograd.grad(top, self._asked[0], top.detach())[0][0]

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        return self._top().detach()[0].numpy(), self.step().numpy()

    def _top(self) -> Tensor:
        *_, (_, _, top) = self.run(*self._asked)
        return top

    def run(self, picture: Tensor, layer: str) -> Iterator[tuple[Layer, Tensor, Tensor]]:
        """Each layer up to ``layer``, with the first tensor that it takes and the one that it gives."""
        values = {"data": picture}
        for step in self.layers:
            bottoms = [values[name] for name in step.bottoms]
            values[step.tops[0]] = self._functions[step.name](*bottoms)
            yield step, bottoms[0], values[step.tops[0]]
            if step.name == layer:
                return


def _with_relu6(layers: list[Layer]) -> Iterator[Layer]:
    """The layers; the four that say min(max(x, 0), 6) in Caffe's types are one, of type ReLU6."""
    layers = list(layers)
    while layers:
        types = [layer.type for layer in layers[:4]]
        if types == ["ReLU", "Power", "ReLU", "Power"] and layers[1].parameters.power_param.shift == 6:
            yield replace(layers[3], type="ReLU6", bottoms=layers[0].bottoms)
            del layers[:4]
        else:
            yield layers.pop(0)


def _plain_convolution(layer: Layer, weights: Weights) -> Callable:
    weight, bias, (_, stride, pad, dilation, groups) = convolution_parameters(layer, weights)
    return lambda x: F.conv2d(x, weight, bias, stride, pad, dilation, groups)


def _plain_pooling(layer: Layer, weights: Weights) -> Callable:
    p = layer.parameters.pooling_param
    return lambda x: F.max_pool2d(x, p.kernel_size, p.stride, p.pad, ceil_mode=True)


def _plain_lrn(layer: Layer, weights: Weights) -> Callable:
    p = layer.parameters.lrn_param
    return lambda x: F.local_response_norm(x, p.local_size, p.alpha, p.beta, p.k)


def _plain_power(layer: Layer, weights: Weights) -> Callable:
    p = layer.parameters.power_param
    if p.power != 1:
        raise ModelError(f"layer {layer.name}: a Power with an exponent is not measured here")
    return lambda x: x * p.scale + p.shift


def _plain_scale(layer: Layer, weights: Weights) -> Callable:
    factor, bias = (weights.take(number, (-1, 1, 1)) for number in (0, 1))
    return lambda x: x * factor + bias


# What the nets here have before the layers that are measured; a function of a layer and its `Weights`.
PLAIN_LAYERS = {
    "Convolution": _plain_convolution,
    "Pooling": _plain_pooling,
    "LRN": _plain_lrn,
    "Scale": _plain_scale,
    "Power": _plain_power,
    "ReLU": lambda layer, weights: F.relu,
    "ReLU6": lambda layer, weights: F.relu6,
    "Concat": lambda layer, weights: lambda *parts: torch.cat(parts, 1),
    "Eltwise": lambda layer, weights: torch.add,
}


class Convolutions(Engine):
    """All the convolutions of a step and their derivatives, each alone, in oneDNN's favourite layout: a lower bound."""

    def __init__(self, model: Model):
        super().__init__(ALONE)
        self._model = model

    def open(self, picture: Tensor, layer: str) -> None:
        self._calls = []
        for step, shape, _ in convolutions(self._model, layer, picture.shape[1:]):
            weight, bias, window = convolution_parameters(step, Weights(step, "cpu"))
            x = torch.rand(shape).contiguous(memory_format=torch.channels_last)
            self._calls.append((x, weight.contiguous(memory_format=torch.channels_last), bias, window[1:]))

    def step(self) -> None:
        for x, weight, bias, (stride, pad, dilation, groups) in self._calls:
            y = F.conv2d(x, weight, bias, stride, pad, dilation, groups)
            torch.ops.aten.convolution_backward(
                y, x, weight, None, stride, pad, dilation, False, (0, 0), groups, (True, False, False)
            )


def convolutions(model: Model, layer: str, size: tuple[int, int]) -> Iterator[tuple[Layer, tuple, tuple]]:
    """The convolutions up to a layer for a picture of ``size`` (h, w): (layer, shape taken, shape given) each."""
    picture = torch.empty(1, 3, *size, device="meta")  # shapes only: nothing is computed
    for step, x, top in PlainTorch(model, "meta").run(picture, layer):
        if step.type == "Convolution":
            yield step, tuple(x.shape), tuple(top.shape)


def convolution_flops(model: Model, layer: str, size: tuple[int, int]) -> int:
    """Floating point operations of the convolutions of a step, to the layer and back to the picture.

    A multiplication and an addition count as two; biases, pooling, norms and activations do not count.
    """
    forward = (math.prod(top[2:]) * step.blobs[0].size for step, _, top in convolutions(model, layer, size))
    return 2 * 2 * sum(forward)


class Peer(Engine):
    """An engine in a process of its own, by `peer.py`. Raises `DreamError` where it does not run."""

    def __init__(self, name: str, python: str, folder: str | Path, *arguments: str):
        super().__init__(name)
        self._python, self._folder = python, Path(folder)
        self._log = self._folder / f"{name}.log"
        command = [python, PEER, name.lower(), *arguments]
        with open(self._log, "wb") as log:
            try:
                self._child = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=folder, text=True
                )
            except OSError as error:
                raise DreamError(f"{python} does not run: {error.strerror}") from error
        self._answer()

    def open(self, picture: Tensor, layer: str) -> None:
        np.save(self._folder / "picture.npy", picture.detach().numpy())
        self._ask(open=["picture.npy", layer])

    def steps(self, count: int) -> list[float]:
        """The seconds of each of ``count`` steps, as the other process has measured them."""
        return self._ask(steps=count)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """The activations, and the gradient of the last step up to its scale."""
        self._ask(result="result.npz")
        with np.load(self._folder / "result.npz", allow_pickle=False) as saved:
            return saved["activations"], saved["gradient"]

    def close(self) -> None:
        """End the process."""
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait()

    def _ask(self, **asked):
        print(json.dumps(asked), file=self._child.stdin, flush=True)
        return self._answer()

    def _answer(self):
        line = self._child.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
            raise DreamError(f"{self.name} does not run in {self._python}: {said[-1]}")
        return json.loads(line)
