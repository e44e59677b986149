"""A net as a series of steps: its layers in the order of running, their values numbered."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import torch

from deepdream.errors import ModelError
from deepdream.networks.caffemodel import DATA_TYPES, Layer, Model
from deepdream.networks.torch.layers import LAYER_TYPES, LayerFunction, Weights


class UnknownType(ModelError):
    """A layer's type is not in the table of `networks.torch.layers`."""


class Runnable(Protocol):
    """A layer, or several fused, in the order of running.

    Values are numbered, ``inputs`` and ``outputs`` are such numbers: a layer in place makes a new value. ``layer`` is
    the one to name where it fails, ``key`` the cache key of what `build` returns.
    """

    @property
    def layer(self) -> Layer: ...
    @property
    def inputs(self) -> tuple[int, ...]: ...
    @property
    def outputs(self) -> tuple[int, ...]: ...
    @property
    def key(self) -> Hashable: ...

    def build(self, device: torch.device, dtype: torch.dtype) -> LayerFunction:
        """The function of its inputs to its output or outputs, on ``device`` in ``dtype``."""


@dataclass(frozen=True, eq=False)
class Step:
    """A single layer as a `Runnable`."""

    layer: Layer
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def key(self) -> Hashable:
        """Cache key, different from that of any fused step."""
        return self.outputs

    def build(self, device: torch.device, dtype: torch.dtype) -> LayerFunction:
        """See `Runnable`. Raises `UnknownType`."""
        if self.layer.type not in LAYER_TYPES:
            raise UnknownType(
                f"layer {self.layer.name} has the type {self.layer.type}, which is not known here; "
                "choose a layer before it with --layers"
            )
        return LAYER_TYPES[self.layer.type](self.layer, Weights(self.layer, device, dtype))


def trace(model: Model) -> tuple[list[Step], int]:
    """The steps of a net and the number of its (first) input value. Raises `ModelError` for a dangling bottom."""
    numbers: dict[str, int] = {}
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
