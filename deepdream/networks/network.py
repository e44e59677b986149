"""What the engines share: a model's layers, what each needs, the shapes they give, and why a picture does not fit."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch.overrides import TorchFunctionMode

from deepdream.errors import ModelError, OutOfMemory, PictureTooSmall, first_line, is_out_of_memory
from deepdream.networks.caffemodel import DATA_TYPES, Layer
from deepdream.networks.torch.layers import LAYER_TYPES, Weights

DEFAULT_INPUT_SIZE = (224, 224)  # where the prototxt says none
LARGEST_LEAST_SIZE = 1024  # pixels: no net known needs a larger picture
LARGEST_BLOW_UP = 256  # numbers that a layer may hold for each of its picture's: VGG, the most lavish, holds 21
LARGEST_SMALL = 1 << 24  # numbers that it may hold in any case: fully connected layers of tiny pictures
# What PyTorch and arithmetic raise where a layer's parameters, weights and inputs do not go together.
_BREAKDOWNS = (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError)


class UnknownType(ModelError):
    """A layer's type is not in the table of `torch_layers`."""


class _Measured(TorchFunctionMode):
    """While this is entered, a tensor that is out of proportion to the picture is a `ModelError`, not gigabytes."""

    def __init__(self, limit):
        super().__init__()
        self._limit = limit

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, torch.Tensor) and made.numel() > self._limit:
                raise _OutOfProportion(f"{tuple(made.shape)} is out of all proportion to its picture")
        return result


class _OutOfProportion(ValueError):
    """What a layer wants to hold is no net's."""


class Misfit(ModelError):
    """A layer cannot take what the layers before it make of a picture."""


@dataclass(frozen=True, eq=False)
class Step:
    """A layer in the order of running. Values are numbered, so that an in-place layer makes a new one."""

    layer: Layer
    inputs: tuple
    outputs: tuple

    @property
    def key(self):
        """What tells it from the other steps of a net, fused ones included."""
        return self.outputs

    def build(self, device, dtype):
        """What computes the layer on ``device`` in ``dtype``: a function of its inputs to its output or outputs."""
        if self.layer.type not in LAYER_TYPES:
            raise UnknownType(
                f"layer {self.layer.name} has the type {self.layer.type}, which is not known here; "
                "choose a layer before it with --layers"
            )
        return LAYER_TYPES[self.layer.type](self.layer, Weights(self.layer, device, dtype))


class Network(ABC):
    """A model's layers and their shapes; an engine adds what they compute.

    ``mean`` is that of each channel (BGR, in 0..255) which pictures are less when they get here, ``loop``
    the layers of the model's own loop. Only the layers that a target needs are run, and the only gradient
    ever computed is the picture's.
    """

    precision = "float32"
    digest: str  # of the files and the engine; `load_network` sets it

    def __init__(self, model, mean, loop, device="cpu"):
        self.name = model.name
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).reshape(3, 1, 1)
        self.loop = tuple(loop)
        self.device = torch.device(device)
        self._steps, self._first_input = _trace(model)
        self._places = {step.layer.name: number for number, step in enumerate(self._steps)}
        self._built = {}
        self._plans = {}
        self._shapes = {}
        self._hopeless = set()
        self.layers = tuple(self._places)
        self.input_size = _input_size(model)

    @abstractmethod
    def activations(self, picture, layer):
        """What ``layer`` puts out for ``picture``, a float32 tensor (3, h, w): a tensor (c, h', w').

        The run stops right after the layer, before an in-place one that follows. Raises `ModelError`
        for a layer that the net does not have, `PictureTooSmall` for a picture it cannot take.
        """

    @abstractmethod
    def gradient(self, picture, layer, objective):
        """The derivative of an objective at ``layer`` by the picture: float32 (3, h, w) to (3, h, w).

        ``objective`` maps the activations (c, h', w') to the objective's gradient there.
        """

    def memory(self, layer, size):
        """How many bytes `gradient` holds at its peak for a picture of ``size`` (h, w), beside the weights.

        None where the engine cannot tell. Raises as `activations` does.
        """
        return None

    def shape(self, layer, size):
        """The shape (c, h', w') of a layer's activations for a picture of ``size`` (h, w); nothing is computed.

        Raises as `activations` does.
        """
        key = layer, tuple(size)
        if key not in self._shapes:
            try:
                shape = self._shape(layer, size)
            except Misfit as error:
                raise self._explained(error, layer, size) from error
            if 0 in shape:
                raise self._explained(Misfit(f"layer {layer} puts nothing out"), layer, size)
            self._shapes[key] = shape
        return self._shapes[key]

    def layer_shapes(self):
        """(name, shape) of each layer at the prototxt's input size; where it has none, a text says why.

        Each is worked out once and from the ones before it, so a layer that fails fails those that need it.
        """
        x = torch.empty(1, 3, *(self.input_size or DEFAULT_INPUT_SIZE), device="meta")
        values = {self._first_input: x}
        for step in self._steps:
            name = step.layer.name
            if not values.keys() >= set(step.inputs):
                yield name, "needs a layer that cannot be run"
                continue
            if step.layer.type not in DATA_TYPES:
                try:
                    tops = self._function(step, x.device, x.dtype)(*(values[number] for number in step.inputs))
                except (ModelError, *_BREAKDOWNS) as error:
                    yield name, str(error)
                    continue
                values.update(zip(step.outputs, tops if isinstance(tops, tuple) else (tops,)))
            known = [number for number in step.outputs if number in values]
            yield name, tuple(values[known[0]].shape[1:]) if known else "puts nothing out"

    def check_size(self, layer, size):
        """Raise `PictureTooSmall` if a picture of ``size`` (h, w) cannot reach ``layer``."""
        self.shape(layer, size)

    def least_size(self, layer):
        """The least n for which n x n pictures reach ``layer``; None where there is no such n."""
        low, high = 0, 1
        while not self._fits(layer, (high, high)):
            low, high = high, 2 * high
            if low >= LARGEST_LEAST_SIZE:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._fits(layer, (middle, middle)) else (middle, high)
        return high

    def _fits(self, layer, size):
        try:
            return 0 not in self._shape(layer, size)
        except Misfit:
            return False

    def _shape(self, layer, size):
        limit = max(LARGEST_SMALL, 3 * LARGEST_BLOW_UP * math.prod(size))
        x = torch.empty(1, 3, *size, device="meta")  # has a shape and holds nothing
        for step, _ in self._plan(layer)[0]:
            self._function(step, x.device, x.dtype)  # beforehand: weights are as large as their file
        with _Measured(limit):
            shape = tuple(self._forward(x, layer).shape)
        if shape[:1] != (1,):
            raise ModelError(f"layer {layer} puts out {shape}, not the features of one picture; choose another layer")
        return shape[1:]

    def _forward(self, x, layer):
        plan, target = self._plan(layer)
        values = {self._first_input: x}
        for step, last_use in plan:
            inputs = [values[number] for number in step.inputs]
            function = self._function(step, x.device, inputs[0].dtype if inputs else x.dtype)
            try:
                tops = function(*inputs)
            except _BREAKDOWNS as error:
                raise _failure(step.layer, error) from error
            tops = tops if isinstance(tops, tuple) else (tops,)
            if len(tops) < len(step.outputs):
                raise ModelError(f"layer {step.layer.name} ({step.layer.type}) has {len(step.outputs)} tops: too many")
            values.update(zip(step.outputs, tops))
            for number in last_use:
                del values[number]
        return values[target]

    def _function(self, step, device, dtype):
        key = step.key, device.type, dtype
        if key not in self._built:
            try:
                self._built[key] = step.build(device, dtype)
            except _BREAKDOWNS as error:
                raise _failure(step.layer, error) from error
        return self._built[key]

    def _plan(self, layer):
        """The steps that ``layer`` needs, each with the values not needed after it, and the target's number."""
        if layer not in self._plans:
            steps, target = self._select(layer)
            needed, plan = {target}, []
            for step in reversed(steps):
                plan.append((step, [number for number in {*step.inputs, *step.outputs} if number not in needed]))
                needed.update(step.inputs)
            self._plans[layer] = plan[::-1], target
        return self._plans[layer]

    def _select(self, layer):
        """The steps that ``layer`` needs, in order, and the number of the value that it puts out."""
        if layer not in self._places:
            raise ModelError(f"the network {self.name} has no layer {layer}")
        place = self._places[layer]
        if not self._steps[place].outputs:
            raise ModelError(f"layer {layer} ({self._steps[place].layer.type}) puts nothing out")
        target = self._steps[place].outputs[0]
        needed, steps = {target}, []
        for step in reversed(self._steps[: place + 1]):
            if step.layer.type not in DATA_TYPES and needed.intersection(step.outputs):
                needed.update(step.inputs)
                steps.append(step)
        missing = needed.difference({self._first_input}, *(step.outputs for step in steps))
        if missing:
            raise ModelError(f"layer {layer} needs an input that is not the picture; choose another layer")
        return steps[::-1], target

    def _explained(self, error, layer, size):
        """A `Misfit` as what the user can mend: a picture of the wrong size, or a net that does not fit together."""
        least = None if str(error) in self._hopeless else self.least_size(layer)
        if least is None:
            self._hopeless.add(str(error))  # no need to try all sizes again for each layer that comes after
        if least is not None and min(size) < least:
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


def _failure(layer, error):
    """The error of a layer's function as one of ours."""
    reason = first_line(error)
    if isinstance(error, _OutOfProportion):
        return ModelError(f"layer {layer.name} ({layer.type}) asks for too much: {reason}")
    if is_out_of_memory(error):
        return out_of_memory(layer.name, error)
    return Misfit(f"layer {layer.name} ({layer.type}) does not fit its input: {reason}")


def out_of_memory(layer, error):
    """The `OutOfMemory` for that."""
    return OutOfMemory(f"not enough memory at layer {layer} ({first_line(error)})")


def _trace(model):
    """The steps of a net and the number of its (first) input value. Raises `ModelError` for a dangling bottom."""
    numbers = {}
    fresh = iter(range(1 << 62))
    for name in model.inputs:
        numbers[name] = next(fresh)
    first_input = numbers[next(iter(model.inputs))]
    steps = []
    for layer in model.layers:
        missing = [name for name in layer.bottoms if name not in numbers]
        if missing:
            raise ModelError(f"layer {layer.name} ({layer.type}) needs {missing[0]}, which no layer before it puts out")
        inputs = tuple(numbers[name] for name in layer.bottoms)
        if layer.type in DATA_TYPES:
            outputs = tuple(numbers[name] if name in model.inputs else next(fresh) for name in layer.tops)
        else:
            outputs = tuple(next(fresh) for _ in layer.tops)
        numbers.update(zip(layer.tops, outputs))
        steps.append(Step(layer, inputs, outputs))
    return steps, first_input


def _input_size(model):
    """(h, w) that the prototxt gives its input, or None."""
    shape = next(iter(model.inputs.values()))
    return tuple(shape[2:]) if shape is not None and len(shape) == 4 else None
