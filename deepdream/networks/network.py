"""What the engines share: a model's layers, what each needs, the shapes they give, and why a picture does not fit."""

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import takewhile

import torch
from torch import Tensor

from deepdream import interface
from deepdream.errors import ModelError, OutOfMemory, PictureTooSmall, first_line, is_out_of_memory
from deepdream.networks.caffemodel import DATA_TYPES, Layer, Model
from deepdream.networks.find import ModelFiles
from deepdream.networks.steps import Runnable, Step, trace
from deepdream.networks.torch.layers import LayerFunction
from deepdream.networks.torch.layers.convolution import CONVOLUTIONS
from deepdream.networks.torch.peak import OutOfProportion, PeakMemory, without_compiler

Size = tuple[int, int]  # (h, w)
_Plan = tuple[list[tuple[Runnable, list[int]]], tuple[int, ...]]

DEFAULT_INPUT_SIZE = (224, 224)  # where the prototxt says none
MAX_LEAST_SIZE = 1024  # pixels: no net known needs a larger picture
MAX_ACTIVATION_RATIO = 256  # elements of a layer per element of its picture: VGG, the most lavish, has 21
MAX_SMALL_ACTIVATION = 1 << 24  # elements that a layer may have in any case: fully connected ones of tiny pictures
LUMINANCE = (0.114, 0.587, 0.299)  # of blue, green and red (BT.601), for networks that take grey pictures
# What PyTorch and arithmetic raise where a layer's parameters, weights and inputs do not go together.
_BREAKDOWNS = (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError)


class ShapeMismatch(ModelError):
    """A layer cannot take what the layers before it make of a picture."""


class Network(interface.Network):
    """Of the interface all but `activations` and `gradient_of_sum`, what the layers compute, which an engine adds.

    Pictures are float32 tensors (3, h, w) on ``device``: BGR in 0..255, with ``mean`` subtracted. Only the layers that
    a target needs are run, and the only gradient ever computed is the picture's. A network that takes grey pictures
    gets their luminance.
    """

    precision = "float32"
    labels: tuple[str, ...] = ()  # the names of its classes, where the model brings them
    features: tuple[str, ...] = ()  # the layers in which its blocks end; `load_network` sets them
    digest: str  # of the files and the engine; `load_network` sets it
    files: ModelFiles  # what it was loaded from; `load_network` sets it

    def __init__(
        self, model: Model, mean: Sequence[float], loop: Iterable[str], device: torch.device | str = "cpu"
    ) -> None:
        self.name = model.name
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).reshape(3, 1, 1)
        self.loop = tuple(loop)
        self.device = torch.device(device)
        self._steps, self._first_input = trace(model)
        self._places = {step.layer.name: number for number, step in enumerate(self._steps)}
        self._functions: dict[Hashable, LayerFunction] = {}
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._shapes: dict[tuple[str, Size], tuple[int, ...]] = {}
        self._sizes_exhausted: set[str] = set()  # the errors that no size of picture mends
        self.layers: tuple[str, ...] = tuple(self._places)
        self.input_size = _input_size(model)
        self._channels = self._input_channels(model)
        if self._channels not in (1, 3):
            raise ModelError(
                f"the network {self.name} takes pictures of {self._channels} channels; "
                "only those that take colour (3) or grey (1) can dream"
            )

    def gradient(self, picture: Tensor, layer: str, objective: interface.Objective) -> Tensor:
        return self.gradient_of_sum(picture, {layer: objective})

    def memory(self, layer: str, size: Size) -> int | None:
        return None

    def shape(self, layer: str, size: Size) -> tuple[int, ...]:
        key = layer, (size[0], size[1])
        if key not in self._shapes:
            try:
                shape = self._shape(layer, size)
                if 0 in shape:
                    raise ShapeMismatch(f"layer {layer} puts nothing out")
            except ShapeMismatch as error:
                raise self._explained(error, layer, size) from error
            self._shapes[key] = shape
        return self._shapes[key]

    def layer_shapes(self) -> Iterator[tuple[str, tuple[int, ...] | str]]:
        """(name, shape) of each layer at the prototxt's input size; where it has none, a text says why.

        Each is worked out once and from the ones before it, so a layer that fails fails those that need it.
        """
        values = {self._first_input: self._without_values(self.input_size or DEFAULT_INPUT_SIZE)}
        for step in self._steps:
            name = step.layer.name
            if not values.keys() >= set(step.inputs):
                yield name, "needs a layer that cannot be run"
                continue
            if step.layer.type not in DATA_TYPES:
                try:
                    self.run_step(step, values)
                except ModelError as error:
                    yield name, str(error)
                    continue
            known = [number for number in step.outputs if number in values]
            yield name, tuple(values[known[0]].shape[1:]) if known else "puts nothing out"

    def class_layers(self) -> tuple[str, ...]:
        """Those at the end of a net that makes one vector of a picture, whose channels are as many as it is long."""
        shapes = [(name, shape) for name, shape in self.layer_shapes() if isinstance(shape, tuple)]
        if not shapes or math.prod(shapes[-1][1][1:]) != 1:
            return ()
        tail = takewhile(lambda layer: layer[1][:1] == shapes[-1][1][:1], reversed(shapes))
        return tuple(name for name, _ in tail)[::-1]

    def check_size(self, layer: str, size: Size) -> None:
        self.shape(layer, size)

    def least_size(self, layer: str) -> int | None:
        low, high = 0, 1
        while not self._fits(layer, (high, high)):
            low, high = high, 2 * high
            if low >= MAX_LEAST_SIZE:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._fits(layer, (middle, middle)) else (middle, high)
        return high

    def run_step(self, step: Runnable, values: dict[int, Tensor]) -> None:
        """Run a step on ``values`` by their numbers, and add what it puts out to them. Raises `ModelError`."""
        inputs = [values[number] for number in step.inputs]
        device, dtype = (inputs[0].device, inputs[0].dtype) if inputs else (self.device, torch.float32)
        function = self._function(step, device, dtype)
        try:
            tops = function(*inputs)
        except _BREAKDOWNS as error:
            raise _failure(step.layer, error) from error
        tops = tops if isinstance(tops, tuple) else (tops,)
        if len(tops) < len(step.outputs):
            raise ModelError(f"layer {step.layer.name} ({step.layer.type}) has {len(step.outputs)} tops: too many")
        values.update(zip(step.outputs, tops))

    def _fits(self, layer: str, size: Size) -> bool:
        try:
            return 0 not in self._shape(layer, size)
        except ShapeMismatch:
            return False

    def _shape(self, layer: str, size: Size) -> tuple[int, ...]:
        x = self._without_values(size)
        for step, _ in self._plan(layer)[0]:
            self._function(step, x.device, x.dtype)  # beforehand: weights are as large as their file
        with without_compiler(), PeakMemory(max(MAX_SMALL_ACTIVATION, 3 * MAX_ACTIVATION_RATIO * math.prod(size))):
            shape = tuple(self._forward(x, layer)[0].shape)
        if shape[:1] != (1,):
            raise ModelError(f"layer {layer} puts out {shape}, not the features of one picture; choose another layer")
        return shape[1:]

    def _without_values(self, size: Size) -> Tensor:
        """A picture of ``size`` (h, w) as the first layer takes it, which has a shape and holds nothing."""
        return torch.empty(1, self._channels, *size, device="meta")

    def _forward(self, x: Tensor, *layers: str) -> tuple[Tensor, ...]:
        """What ``layers`` put out; each step is run once."""
        plan, targets = self._plan(*layers)
        values = {self._first_input: x}
        for step, last_use in plan:
            self.run_step(step, values)
            for number in last_use:
                del values[number]
        return tuple(values[target] for target in targets)

    def _function(self, step: Runnable, device: torch.device, dtype: torch.dtype) -> LayerFunction:
        key = step.key, device.type, dtype
        if key not in self._functions:
            try:
                self._functions[key] = step.build(device, dtype)
            except _BREAKDOWNS as error:
                raise _failure(step.layer, error) from error
        return self._functions[key]

    def _plan(self, *layers: str) -> _Plan:
        """The steps that ``layers`` need, each with the values not needed after it, and the numbers of their values."""
        if layers not in self._plans:
            steps, targets = self._select(*layers)
            needed, plan = set(targets), []
            for step in reversed(steps):
                plan.append((step, [number for number in {*step.inputs, *step.outputs} if number not in needed]))
                needed.update(step.inputs)
            self._plans[layers] = plan[::-1], targets
        return self._plans[layers]

    def _select(self, *layers: str) -> tuple[Sequence[Runnable], tuple[int, ...]]:
        """As `_needed`; an engine may fuse steps."""
        return self._needed(*layers)

    def _needed(self, *layers: str) -> tuple[list[Step], tuple[int, ...]]:
        """The steps that ``layers`` need, in order, and the numbers of the values that they put out."""
        targets = tuple(map(self._target, layers))
        needed, steps = set(targets), []
        for step in reversed(self._steps[: 1 + max(self._places[layer] for layer in layers)]):
            if step.layer.type not in DATA_TYPES and needed.intersection(step.outputs):
                needed.update(step.inputs)
                steps.append(step)
        missing = needed.difference({self._first_input}, *(step.outputs for step in steps))
        if missing:
            raise ModelError(
                f"layer {' or '.join(layers)} needs an input that is not the picture; choose another layer"
            )
        return steps[::-1], targets

    def _target(self, layer: str) -> int:
        """The number of the value that a layer puts out."""
        if layer not in self._places:
            raise ModelError(f"the network {self.name} has no layer {layer}")
        step = self._steps[self._places[layer]]
        if not step.outputs:
            raise ModelError(f"layer {layer} ({step.layer.type}) puts nothing out")
        return step.outputs[0]

    def _explained(self, error: ShapeMismatch, layer: str, size: Size) -> ModelError | PictureTooSmall:
        """A mismatch as what the user can mend: a picture of the wrong size, or a net that does not fit together."""
        least = None if str(error) in self._sizes_exhausted else self.least_size(layer)
        if least is None:
            self._sizes_exhausted.add(str(error))  # no need to try all sizes again for each layer that comes after
        elif min(size) < least:
            return PictureTooSmall(
                f"layer {layer} cannot take an octave of {size[1]}x{size[0]} pixels; it needs at least "
                f"{least}x{least}: use fewer --octaves, a smaller --octavescale or larger frames"
            )
        if self.input_size and self._fits(layer, self.input_size):
            height, width = self.input_size
            return PictureTooSmall(
                f"layer {layer} takes pictures of {width}x{height} only, not {size[1]}x{size[0]}; choose a layer "
                "before the first fully connected one with --layers"
            )
        return ModelError(str(error))

    def _input_channels(self, model: Model) -> int:
        """How many channels its pictures have: as many as its first weights, else as its prototxt says, else 3."""
        readers = [step.layer for step in self._steps if step.inputs == (self._first_input,)]
        for layer in readers:
            if layer.type in CONVOLUTIONS and layer.blobs and layer.blobs[0].ndim == 4:
                return layer.blobs[0].shape[1] * layer.parameters.convolution_param.group
        declared = next(iter(model.inputs.values()))
        return declared[1] if declared is not None and len(declared) == 4 else 3

    def _to_channels(self, picture: Tensor) -> Tensor:
        """A picture (3, h, w), or a batch of them, with as many channels as the net takes."""
        return picture if self._channels == 3 else (picture * _luminance(picture)).sum(-3, keepdim=True)

    def _from_channels(self, gradient: Tensor) -> Tensor:
        """The derivative by a picture (3, h, w) from that by what `_to_channels` makes of it."""
        return gradient if self._channels == 3 else gradient * _luminance(gradient)


def _luminance(like: Tensor) -> Tensor:
    return torch.tensor(LUMINANCE, dtype=like.dtype, device=like.device).reshape(3, 1, 1)


def _failure(layer: Layer, error: Exception) -> ModelError | OutOfMemory:
    """The error of a layer's function as one of ours."""
    reason = first_line(error)
    if isinstance(error, OutOfProportion):
        return ModelError(f"layer {layer.name} ({layer.type}) asks for too much: {reason}")
    if is_out_of_memory(error):
        return out_of_memory(layer.name, error)
    return ShapeMismatch(f"layer {layer.name} ({layer.type}) does not fit its input: {reason}")


def out_of_memory(layer: str, error: Exception) -> OutOfMemory:
    """The `OutOfMemory` for an error at ``layer``."""
    return OutOfMemory(f"not enough memory at layer {layer} ({first_line(error)})")


def _input_size(model: Model) -> Size | None:
    """(h, w) that the prototxt gives its input, or None."""
    shape = next(iter(model.inputs.values()))
    return (shape[2], shape[3]) if shape is not None and len(shape) == 4 else None
