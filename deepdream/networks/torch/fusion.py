"""Layers that run faster together: a peephole pass over the steps that a target needs.

Seven things are recognised, each where nothing else looks at the values in between:

- a convolution followed by a ReLU: one call, which keeps what the derivative needs and nothing else;
- a BatchNorm and a Scale between the two: part of the convolution's weights;
- that, followed by the Power, ReLU and Power that make it min(x, c): one call as well;
- 1x1 convolutions that read one value (the branches of an inception module): one convolution, whose
  derivative is one convolution too, instead of several and their sum;
- convolutions one after another: one function to differentiate;
- a maximum pooling or a response norm after a convolution and its ReLU: it differentiates the ReLU as well, whose
  values it has or knows;
- a maximum pooling after a Concat (the end of many a module): the maximums of its parts are joined, which are fewer.

Milliseconds a step at 480x270 on two cores (scripts/ablation.py), float32 and bfloat16, with this pass, without it,
and without oneDNN's packed weights and the compiled loops as well:

    default network, block_9/output         15 / 12    28 / 28     29 / 29
    GoogLeNet, inception_4d/output          39 / 29    47 / 48     53 / 54
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor

from deepdream.errors import ModelError
from deepdream.networks.caffemodel import Layer
from deepdream.networks.steps import Runnable, Step
from deepdream.networks.torch import compiled
from deepdream.networks.torch.chain import Chain
from deepdream.networks.torch.conv2d import FusedConv2d, Window
from deepdream.networks.torch.layers import LayerFunction, Weights
from deepdream.networks.torch.layers.convolution import CONVOLUTIONS, convolution_parameters
from deepdream.networks.torch.layers.normalisation import channel_scale, scales_channels, stopping_norm
from deepdream.networks.torch.layers.pooling import stopping_maximum
from deepdream.networks.torch.layers.shape import joins_channels


@dataclass(frozen=True, eq=False)
class FusedStep:
    """A step that stands for several: convolutions of one input, side by side, and the activation after them.

    ``scales``: for each of ``layers`` the BatchNorm and Scale layers that belong to it. ``ceiling``: None for no
    activation, infinity for a ReLU, c for a ReLU that stops at c. ``owns_gradient``: the gradient by its output is
    used nowhere else, and may be overwritten. ``reader_stops``: it is that by a `StoppingStep` that ``stops``.
    """

    layers: tuple[Layer, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scales: tuple[tuple[Layer, ...], ...] = ((),)
    ceiling: float | None = None
    owns_gradient: bool = False
    reader_stops: bool = False

    @property
    def layer(self) -> Layer:
        """The layer to name where it fails."""
        return self.layers[0]

    def build(self, device: torch.device, dtype: torch.dtype) -> FusedConv2d:
        """Its function, on ``device`` in ``dtype``."""
        stored = torch.promote_types(dtype, torch.float32)
        parts = [_parameters(layer, scales, device, stored) for layer, scales in zip(self.layers, self.scales)]
        weights, biases, windows = zip(*parts)
        sizes = [len(bias) for bias in biases]
        how = self.ceiling, sizes, self.owns_gradient, self.reader_stops
        return FusedConv2d(_cat(weights), _cat(biases), windows[0], *how, dtype)


_Link = TypeVar("_Link", FusedStep, Step)


@dataclass(frozen=True, eq=False)
class _Series(Generic[_Link]):
    """Steps that run as one, each of which alone reads the one before it; of a `Runnable` what follows from that."""

    links: tuple[_Link, ...]

    @property
    def layer(self) -> Layer:
        """See `Runnable`."""
        return self.links[0].layer

    @property
    def inputs(self) -> tuple[int, ...]:
        """See `Runnable`."""
        return self.links[0].inputs

    @property
    def outputs(self) -> tuple[int, ...]:
        """See `Runnable`."""
        return self.links[-1].outputs


class ChainStep(_Series[FusedStep]):
    """Fused steps as a `Runnable`."""

    @property
    def parts(self) -> tuple[Runnable, ...]:
        """Its links as steps of their own, of which one that fails can be told."""
        return tuple(ChainStep((link,)) for link in self.links)

    @cached_property
    def key(self) -> Hashable:
        """Cache key: the same layers may be fused otherwise for another target."""
        names = tuple(layer.name for link in self.links for layer in link.layers)
        return names, self.outputs, *((link.ceiling, link.owns_gradient, link.reader_stops) for link in self.links)

    def build(self, device: torch.device, dtype: torch.dtype) -> Chain:
        """Its function of a tensor (n, c, h, w) to the tuple of outputs, on ``device`` in ``dtype``."""
        return Chain([link.build(device, dtype) for link in self.links])


@dataclass(frozen=True, eq=False)
class StoppingStep(_Series[Step]):
    """A maximum pooling, also of what a Concat joins, or a response norm, as a `Runnable`.

    ``stops``: of each input whether it is that of a ReLU, and read here alone; the derivative of that is worked in
    where the compiled loops run. There the parts of a Concat are joined when they are small.
    """

    stops: tuple[bool, ...]

    @property
    def parts(self) -> tuple[Runnable, ...]:
        """As `ChainStep` has them."""
        return self.links

    @property
    def key(self) -> Hashable:
        """See `Runnable`."""
        return tuple(link.layer.name for link in self.links), self.outputs, self.stops

    def build(self, device: torch.device, dtype: torch.dtype) -> LayerFunction:
        """See `Runnable`."""
        functions = [link.build(device, dtype) for link in self.links]
        stopping = _stopping(self.links[-1].layer)
        assert stopping is not None

        def run(*inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
            if len({x.shape[2:] for x in inputs}) == 1 and all(map(compiled.is_supported, inputs)):
                return _cat([stopping(x, stops=stops) for x, stops in zip(inputs, self.stops)], 1)
            value = functions[0](*inputs)
            for function in functions[1:]:
                value = function(value)
            return value

        return run


def _stopping(layer: Layer) -> Callable[..., Tensor] | None:
    """The function of (x, stops=) of a layer that can work in the derivative of the ReLU before it; None for others."""
    return stopping_maximum(layer) or stopping_norm(layer)


def _cat(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors end to end. The first `torch.cat` on meta tensors takes PyTorch half a second of imports."""
    return torch.cat(list(parts), axis) if len(parts) > 1 else parts[0]


def _parameters(
    layer: Layer, scales: Sequence[Layer], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Window]:
    """(weight, bias, window) of a convolution, the layers that scale its channels worked in."""
    weight, bias, window = convolution_parameters(layer, Weights(layer, device, dtype))
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    for scale in scales:
        factor, shift = channel_scale(scale, Weights(scale, device, dtype))
        if len(factor) != len(bias):
            raise ModelError(f"layer {scale.name} ({scale.type}) scales {len(factor)} channels of {len(bias)}")
        weight, bias = weight * factor[:, None, None, None], bias * factor + shift
    return weight, bias, window


AnyStep = Step | FusedStep | StoppingStep


def fuse(steps: Sequence[Step], targets: Iterable[int]) -> list[Runnable]:
    """``steps`` (in order), which compute the values with the numbers ``targets``, with those fused that can be."""
    uses = Counter(number for step in steps for number in step.inputs)
    uses.update(targets)
    readers = {number: step for step in steps for number in step.inputs}
    absorbed: set[Step] = set()
    fused: list[AnyStep] = []
    for step in steps:
        if step in absorbed:
            continue
        if step.layer.type in CONVOLUTIONS:
            convolution, followers = _with_activation(step, uses, readers)
            absorbed.update(followers)
            fused.append(convolution)
        else:
            fused.append(step)
    return _chained(_with_gradients(_with_stops(_side_by_side(fused), uses, readers), uses), targets)


def _with_activation(step: Step, uses: Counter[int], readers: dict[int, Step]) -> tuple[FusedStep, list[Step]]:
    """A convolution with the ReLU, or the min(ReLU, c), that alone reads it; and the steps that this replaces."""

    def next_of(step: Step, type_name: str) -> Step | None:
        number = step.outputs[0]
        reader = readers.get(number)
        return reader if uses[number] == 1 and reader is not None and reader.layer.type == type_name else None

    scales: list[Step] = []
    last = step
    while (reader := next_of(last, "BatchNorm") or next_of(last, "Scale")) and scales_channels(reader.layer):
        scales.append(reader)
        last = reader
    own = tuple(reader.layer for reader in scales)
    whole = FusedStep((step.layer,), step.inputs, last.outputs, (own,))
    relu = next_of(last, "ReLU")
    if relu is None or relu.layer.parameters.relu_param.negative_slope:
        return whole, scales
    whole = replace(whole, outputs=relu.outputs, ceiling=math.inf)
    # min(x, c) of a rectified x, as prototxts write it: c - max(c - x, 0)
    flip = next_of(relu, "Power")
    second = flip and next_of(flip, "ReLU")
    flip_back = second and next_of(second, "Power")
    if not (flip and second and flip_back):
        return whole, [*scales, relu]
    if second.layer.parameters.relu_param.negative_slope or not _flips_alike(flip.layer, flip_back.layer):
        return whole, [*scales, relu]
    ceiling = flip.layer.parameters.power_param.shift
    return replace(whole, outputs=flip_back.outputs, ceiling=ceiling), [*scales, relu, flip, second, flip_back]


def _flips_alike(first: Layer, second: Layer) -> bool:
    """Whether two Power layers both compute c - x, of one c that is 0 or more."""
    p, q = first.parameters.power_param, second.parameters.power_param
    return p.power == q.power == 1 and p.scale == q.scale == -1 and p.shift == q.shift >= 0


def _side_by_side(steps: Sequence[AnyStep]) -> list[AnyStep]:
    """The steps, with 1x1 convolutions of the same input and activation joined at the place of the first."""
    groups: dict[Hashable, list[FusedStep]] = {}
    for step in steps:
        if isinstance(step, FusedStep) and _is_pointwise(step.layer):
            groups.setdefault((step.inputs, step.ceiling), []).append(step)
    joined: dict[int, AnyStep] = {}
    for group in groups.values():
        layers = tuple(step.layers[0] for step in group)
        outputs = tuple(step.outputs[0] for step in group)
        scales = tuple(step.scales[0] for step in group)
        joined.update(dict.fromkeys(outputs, replace(group[0], layers=layers, outputs=outputs, scales=scales)))
    return list(dict.fromkeys(joined.get(step.outputs[0], step) if step.outputs else step for step in steps))


def _with_stops(steps: Sequence[AnyStep], uses: Counter[int], readers: dict[int, Step]) -> list[AnyStep]:
    """The steps; norms and maximums, Concats joined to them, stop where ReLUs before them do."""
    found: list[AnyStep] = []
    rectified: dict[int, int] = {}  # what comes out of a ReLU, read once, and the place in ``found``
    joined: set[AnyStep] = set()
    for step in steps:
        if step in joined:
            continue
        if isinstance(step, FusedStep) and step.ceiling == math.inf and len(step.outputs) == 1:
            rectified |= {number: len(found) for number in step.outputs if uses[number] == 1}
        reader = readers.get(step.outputs[0]) if joins_channels(step.layer) and uses[step.outputs[0]] == 1 else None
        if reader and stopping_maximum(reader.layer):
            joined.add(reader)
        elif not _stopping(step.layer):
            found.append(step)
            continue
        links = [link for link in (step, reader) if isinstance(link, Step)]
        stops = tuple(number in rectified for number in step.inputs)
        for place in (rectified[number] for number in step.inputs if number in rectified):
            found[place] = replace(cast(FusedStep, found[place]), reader_stops=True)
        found.append(StoppingStep(tuple(links), stops) if any(stops) or len(links) > 1 else step)
    return found


def _with_gradients(steps: Sequence[AnyStep], uses: Counter[int]) -> list[AnyStep]:
    """The steps, each convolution told whether it owns its gradient: its only reader makes a new one."""
    making = (*CONVOLUTIONS, "Pooling", "LRN")
    read = {number for step in steps if step.layer.type in making for number in step.inputs}
    owned = {number for number in read if uses[number] == 1}
    return [
        replace(step, owns_gradient=owned.issuperset(step.outputs)) if isinstance(step, FusedStep) else step
        for step in steps
    ]


def _chained(steps: Sequence[AnyStep], targets: Iterable[int]) -> list[Runnable]:
    """The steps, with convolutions that follow one another in a chain, at the place of its first."""
    uses = Counter(number for step in steps for number in step.inputs)
    uses.update(targets)
    runs: list[list[AnyStep]] = []
    unfinished: dict[int, list[AnyStep]] = {}  # those that another convolution may continue, by what they put out
    for step in steps:
        run = unfinished.pop(step.inputs[0], None) if isinstance(step, FusedStep) else None
        if run is None:
            run = []
            runs.append(run)
        run.append(step)
        if isinstance(step, FusedStep) and len(step.outputs) == 1 and uses[step.outputs[0]] == 1:
            unfinished[step.outputs[0]] = run
    return [_in_one(run) for run in runs]


def _in_one(run: Sequence[AnyStep]) -> Runnable:
    """Several fused steps, or one that is not."""
    links = tuple(step for step in run if isinstance(step, FusedStep))
    return ChainStep(links) if links else cast(Runnable, run[0])


def _is_pointwise(layer: Layer) -> bool:
    p = layer.parameters.convolution_param
    windows = {*p.kernel_size, *p.stride, p.group, *p.dilation, 1}
    sides = (p.HasField(f"{what}_{side}") for what in ("kernel", "stride", "pad") for side in "hw")
    return bool(p.kernel_size) and windows == {1} and not any(p.pad) and not any(sides)
