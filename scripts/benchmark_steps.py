"""A step (forward, objective, gradient of the picture) by several engines, which take turns in one run.

Whatever disturbs the machine meanwhile hits all of them alike, so the ratios of the medians hold where the times
themselves do not. Every engine's activations and gradient are compared with dreamer.py's first.
"""

import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import caffe_nets
import numpy as np
import torch
import torch.nn.functional as F

from deepdream.errors import DreamError, ModelError
from deepdream.networks import load_network
from deepdream.networks.caffemodel import load_model
from deepdream.networks.default import default_model_files
from deepdream.networks.torch.layers import Weights
from deepdream.networks.torch.layers.convolution import convolution_parameters
from deepdream.options import PRECISIONS
from deepdream.picture import objectives

PEER = Path(__file__).with_name("benchmark_peer.py")
OURS, OURS_BFLOAT16, CAFFE, NEURAL_DREAM = "dreamer.py", "dreamer.py, bfloat16", "Caffe", "neural-dream"
PLAIN, PLAIN_RELU6, ALONE = "plain torch", "plain torch, ReLU6", "convolutions alone"
OTHER_NUMBERS = OURS_BFLOAT16, ALONE  # what these compute is not the same, or nothing
SGEMM_SIDE = 2048
WINDOW = (256, 256, 128)  # channels in and out, and height and width, of the convolution that shows the peak
WARM_UP = 3, 2.0  # steps that are not counted, and the seconds after which fewer do
TURN = 5, 0.4  # steps of a turn at the most, and the seconds that it may last where there is more than one
PAUSE = 0.1  # seconds before a turn: the threads of the one before, in another process, may still wait busily
LEAST_ROUNDS, LONG_RACE = 3, 8.0  # after so many seconds only the least number of rounds is made
SAME_ACTIVATIONS, SAME_GRADIENT = 1e-3, 5e-2  # relative errors; ties under a maximum part gradients by some percent
# Our test nets name the layers before the inception modules shorter than the model zoo's GoogLeNet does.
ZOO_NAMES = {"conv1": "conv1_7x7_s2", "conv2/reduce": "conv2_3x3_reduce", "conv2": "conv2_3x3"}


class Engine:
    """What takes steps on demand: ``step()``, which is the subclass's or given."""

    def __init__(self, name, step=None):
        self.name = name
        if step:
            self.step = step

    def steps(self, count):
        """The seconds of each of ``count`` steps."""
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - started)
        return seconds


class Ours(Engine):
    """This project's network, as a dream calls it."""

    def __init__(self, network):
        super().__init__(OURS if network.precision == "float32" else OURS_BFLOAT16)
        self._network = network

    def open(self, picture, layer):
        """Set the picture, float32 (3, h, w), and the layer of the next steps."""
        self._asked = picture, layer

    def step(self):
        """The gradient, as the ascent asks for it."""
        return self._network.gradient(*self._asked, objectives.l2)

    def result(self):
        """(activations, gradient) as arrays."""
        return self._network.activations(*self._asked).numpy(), self.step().numpy()


class PlainTorch(Engine):
    """A model in PyTorch's own functions, one a layer, as anyone would write it down: the yardstick.

    With ``relu6`` the four layers by which a model says min(max(x, 0), 6) in Caffe's types are one.
    """

    def __init__(self, model, device="cpu", relu6=False):
        super().__init__(PLAIN_RELU6 if relu6 else PLAIN)
        layers = [layer for layer in model.layers if layer.type != "Input"]
        self.layers, self._device = list(_with_relu6(layers)) if relu6 else layers, device
        self._functions = {}

    def open(self, picture, layer):
        """Set the picture, float32 (3, h, w), and the layer of the next steps."""
        self._picture, self._layer = picture[None].requires_grad_(), layer

    def step(self):
        """Forward, and the gradient of half the squared activations."""
        top = self._top()
        return torch.autograd.grad(top, self._picture, top.detach())[0][0]

    def result(self):
        """(activations, gradient) as arrays."""
        return self._top().detach()[0].numpy(), self.step().numpy()

    def _top(self):
        *_, (_, _, top) = self.run(self._picture, self._layer)
        return top

    def run(self, picture, layer):
        """Each layer up to ``layer``, with the first tensor that it takes and the one that it gives."""
        values = {"data": picture}
        for step in self.layers:
            if step.name not in self._functions:
                self._functions[step.name] = PLAIN_LAYERS[step.type](step, Weights(step, self._device))
            bottoms = [values[name] for name in step.bottoms]
            values[step.tops[0]] = self._functions[step.name](*bottoms)
            yield step, bottoms[0], values[step.tops[0]]
            if step.name == layer:
                return


def _with_relu6(layers):
    """The layers; the four that say min(max(x, 0), 6) in Caffe's types are one, of type ReLU6."""
    layers = list(layers)
    while layers:
        types = [layer.type for layer in layers[:4]]
        if types == ["ReLU", "Power", "ReLU", "Power"] and layers[1].parameters.power_param.shift == 6:
            yield replace(layers[3], type="ReLU6", bottoms=layers[0].bottoms)
            del layers[:4]
        else:
            yield layers.pop(0)


def _plain_convolution(layer, weights):
    weight, bias, (_, stride, pad, dilation, groups) = convolution_parameters(layer, weights)
    return lambda x: F.conv2d(x, weight, bias, stride, pad, dilation, groups)


def _plain_pooling(layer, weights):
    p = layer.parameters.pooling_param
    return lambda x: F.max_pool2d(x, p.kernel_size, p.stride, p.pad, ceil_mode=True)


def _plain_lrn(layer, weights):
    p = layer.parameters.lrn_param
    return lambda x: F.local_response_norm(x, p.local_size, p.alpha, p.beta, p.k)


def _plain_power(layer, weights):
    p = layer.parameters.power_param
    if p.power != 1:
        raise ModelError(f"layer {layer.name}: a Power with an exponent is not measured here")
    return lambda x: x * p.scale + p.shift


def _plain_scale(layer, weights):
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
    """All the convolutions of a step, each alone and both ways, in oneDNN's favourite layout: no engine has less."""

    def __init__(self, model):
        super().__init__(ALONE)
        self._model = model

    def open(self, picture, layer):
        """Set the picture, float32 (3, h, w), whose size decides, and the layer of the next steps."""
        self._calls = []
        for step, shape, _ in convolutions(self._model, layer, picture.shape[1:]):
            weight, bias, window = convolution_parameters(step, Weights(step, "cpu"))
            x = torch.rand(shape).contiguous(memory_format=torch.channels_last)
            self._calls.append((x, weight.contiguous(memory_format=torch.channels_last), bias, window[1:]))

    def step(self):
        """Each convolution, and its derivative by what it takes."""
        for x, weight, bias, (stride, pad, dilation, groups) in self._calls:
            y = F.conv2d(x, weight, bias, stride, pad, dilation, groups)
            torch.ops.aten.convolution_backward(
                y, x, weight, None, stride, pad, dilation, False, (0, 0), groups, (True, False, False)
            )


def convolutions(model, layer, size):
    """The convolutions up to a layer for a picture of ``size`` (h, w): (layer, shape taken, shape given) each."""
    picture = torch.empty(1, 3, *size, device="meta")  # shapes only: nothing is computed
    for step, x, top in PlainTorch(model, "meta").run(picture, layer):
        if step.type == "Convolution":
            yield step, tuple(x.shape), tuple(top.shape)


def convolution_work(model, layer, size):
    """Floating point operations of the convolutions of a step, to the layer and back to the picture.

    A multiplication and an addition count as two; biases, pooling, norms and activations do not count.
    """
    forward = (math.prod(top[2:]) * step.blobs[0].size for step, _, top in convolutions(model, layer, size))
    return 2 * 2 * sum(forward)


class Peer(Engine):
    """An engine in a process of its own, which `benchmark_peer.py` tells. Raises `DreamError` where it does not run."""

    def __init__(self, name, python, folder, *arguments):
        super().__init__(name)
        self._python, self._folder = python, Path(folder)
        self._log = self._folder / f"{name}.log"
        with open(self._log, "wb") as log:
            try:
                self._child = subprocess.Popen(
                    [python, PEER, name.lower(), *arguments],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=folder, text=True,
                )  # fmt: skip
            except OSError as error:
                raise DreamError(f"{python} does not run: {error.strerror}") from error
        self._answer()

    def open(self, picture, layer):
        """Set the picture, float32 (3, h, w), and the layer of the next steps."""
        np.save(self._folder / "picture.npy", picture.detach().numpy())
        self._ask(open=["picture.npy", layer])

    def steps(self, count):
        """The seconds of each of ``count`` steps, as the other process has measured them."""
        return self._ask(steps=count)

    def result(self):
        """(activations, gradient) as arrays; the gradient is the last step's, up to its scale."""
        self._ask(result="result.npz")
        with np.load(self._folder / "result.npz", allow_pickle=False) as saved:
            return saved["activations"], saved["gradient"]

    def close(self):
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


def make_model(name, folder):
    """The folder of a model with random weights, without fully connected layers; None for the default network."""
    if name == "default":
        return None
    net = getattr(caffe_nets, name)((224, 224))
    flat = next((number for number, layer in enumerate(net.layer) if layer.type == "InnerProduct"), len(net.layer))
    del net.layer[flat:]  # VGG's would be 500 MB, which Caffe refuses; a dream never gets there
    return caffe_nets.save(Path(folder, name), net)


def model_files(folder):
    """(prototxt, caffemodel) of what `make_model` has made."""
    return default_model_files() if folder is None else (folder / "deploy.prototxt", folder / "net.caffemodel")


def state_dict(model):
    """The convolutions' weights of our GoogLeNet by the names of neural-dream's module for the zoo's."""
    state = {}
    for layer in model.layers:
        if layer.type == "Convolution":
            name = ZOO_NAMES.get(layer.name, layer.name.replace("/", "_"))
            state[f"{name}.weight"], state[f"{name}.bias"] = map(torch.tensor, layer.blobs)
    return state


def open_engines(name, folder, peer_python, stack, tell):
    """The engines that there are for a model, this project's first. ``stack`` ends their processes."""
    prototxt, caffemodel = model_files(folder)
    model = load_model(prototxt, caffemodel)
    networks = [load_network(folder, gpu=False, precision=name, on_message=lambda line: None) for name in PRECISIONS]
    if networks[1].precision == networks[0].precision:
        tell("this CPU has no bfloat16; it is left out")
        del networks[1]
    engines = [*map(Ours, networks), PlainTorch(model), Convolutions(model)]
    relu6 = PlainTorch(model, relu6=True)
    if any(layer.type == "ReLU6" for layer in relu6.layers):
        engines.insert(-1, relu6)
    room = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    # Else Caffe sees no use in the picture's gradient.
    (room / "net.prototxt").write_text(f"force_backward: true\n{Path(prototxt).read_text()}")
    try:
        engines.append(Peer(CAFFE, sys.executable, room, "net.prototxt", str(Path(caffemodel).resolve())))
    except DreamError as error:
        tell(f"{error}; it is left out")
    if peer_python and name == "googlenet":
        torch.save(state_dict(model), room / "bvlc_googlenet.pth")
        # It tells nets by the path, in which a temporary folder's name could say anything.
        engines.append(Peer(NEURAL_DREAM, peer_python, room, "bvlc_googlenet.pth"))
    for engine in engines:
        if isinstance(engine, Peer):
            stack.callback(engine.close)
    return model, engines


def race(engines, rounds):
    """The seconds of each engine's steps, by name; the engines take turns, ``rounds`` times."""
    turns, seconds = {}, {engine.name: [] for engine in engines}
    for engine in engines:
        warm = engine.steps(1)
        while len(warm) < WARM_UP[0] and sum(warm) < WARM_UP[1]:
            warm += engine.steps(1)
        turns[engine.name] = max(1, min(TURN[0], int(TURN[1] / warm[-1])))
    started = time.monotonic()
    for number in range(rounds):
        if number >= LEAST_ROUNDS and time.monotonic() - started > LONG_RACE:
            break
        for engine in engines:
            time.sleep(PAUSE)
            seconds[engine.name] += engine.steps(turns[engine.name])
    return seconds


def measure_machine(rounds):
    """What the machine is, and the floating point operations a second of a matrix product and of a convolution."""
    a, b = torch.rand(2, SGEMM_SIDE, SGEMM_SIDE)
    channels, count, side = WINDOW
    weight = torch.rand(count, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    x = torch.rand(1, channels, side, side).contiguous(memory_format=torch.channels_last)
    work = {"sgemm": 2 * SGEMM_SIDE**3, "convolution": 2 * weight.numel() * side**2}
    product, convolution = lambda: a @ b, lambda: F.conv2d(x, weight, padding=1)
    seconds = race([Engine("sgemm", product), Engine("convolution", convolution)], rounds)
    rates = {name: work[name] / statistics.median(times) for name, times in seconds.items()}
    return {"cpu": _cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__, **rates}


def _cpu_name():
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure_steps(name, layers, places, rounds, peak, peer_python, tell):
    """A row (dict) for each layer, size and engine of a network. ``places``: (h, w) by what to call it.

    ``peak``: floating point operations a second, to which those of the convolutions are compared; ``tell`` gets
    what comes next, and which engine is missing. Raises `DreamError` where an engine computes something else.
    """
    with ExitStack() as stack:
        folder = make_model(name, stack.enter_context(tempfile.TemporaryDirectory()))
        model, engines = open_engines(name, folder, peer_python, stack, tell)
        for layer in layers:
            apart = None
            for place, size in places.items():
                tell(f"steps of {name} to {layer} at {place}")
                picture = caffe_nets.picture(size)
                for engine in engines:
                    engine.open(picture.clone(), layer)
                apart = apart or compare(engines, f"{name} {layer}")
                seconds = race(engines, rounds)
                work = convolution_work(model, layer, size)
                first = statistics.median(seconds[OURS])
                for engine in engines:
                    median = statistics.median(seconds[engine.name])
                    yield {
                        "network": name, "layer": layer, "size": place, "engine": engine.name, "seconds": median,
                        "ratio": median / first, "of sgemm": work / median / peak, "work": work,
                        "runs": len(seconds[engine.name]), "apart": apart.get(engine.name),
                    }  # fmt: skip


def compare(engines, what):
    """How far the engines' (activations, gradient) are from the first one's: relative errors, by engine.

    Gradients are compared by direction, since objectives differ in scale. Raises `DreamError` where it is too far.
    """
    apart, reference = {}, None
    for engine in engines:
        if engine.name in OTHER_NUMBERS:
            continue
        engine.steps(1)
        activations, gradient = engine.result()
        found = activations, gradient / np.linalg.norm(gradient)
        reference = reference or found
        errors = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(found, reference)]
        if errors[0] > SAME_ACTIVATIONS or errors[1] > SAME_GRADIENT:
            raise DreamError(
                f"{what}: {engine.name} does other work, so it is not compared: its activations are off by "
                f"{errors[0]:.1e}, its gradient by {errors[1]:.1e}"
            )
        apart[engine.name] = errors
    return apart
