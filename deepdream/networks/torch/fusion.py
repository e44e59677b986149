"""Layers that run faster together: a peephole pass over the steps that a target needs.

Four things are recognised, each where nothing else looks at the values in between:

- a convolution followed by a ReLU: one call, which keeps what the derivative needs and nothing else;
- a BatchNorm and a Scale between the two: part of the convolution's weights;
- that, followed by the Power, ReLU and Power that make it min(x, c): one call as well;
- 1x1 convolutions that read one value (the branches of an inception module): one convolution, whose
  derivative is one convolution too, instead of several and their sum.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace

import torch

from deepdream.errors import ModelError
from deepdream.networks.torch.convolution import Convolve
from deepdream.networks.torch.layers import (
    CONVOLUTIONS,
    Weights,
    channel_scale,
    convolution_parameters,
    scales_channels,
)


@dataclass(frozen=True, eq=False)
class Convolution:
    """A step that stands for several: convolutions of one input, side by side, and the activation after them.

    ``scales``: for each of ``layers`` the BatchNorm and Scale layers that belong to it. ``ceiling``: None for no
    activation, infinity for a ReLU, c for a ReLU that stops at c. ``owns_gradient``: the gradient that comes back
    to it is used nowhere else.
    """

    layers: tuple
    inputs: tuple
    outputs: tuple
    scales: tuple = ((),)
    ceiling: float | None = None
    owns_gradient: bool = False

    @property
    def layer(self):
        """The layer to name where it fails."""
        return self.layers[0]

    @property
    def key(self):
        """What tells it from the other steps of a net: the same layers may be fused otherwise for another target."""
        return tuple(layer.name for layer in self.layers), self.outputs, self.ceiling, self.owns_gradient

    def build(self, device, dtype):
        """What computes it on ``device`` in ``dtype``: a function of a tensor (1, c, h, w) to the tuple of outputs."""
        stored = torch.promote_types(dtype, torch.float32)
        parts = [_parameters(layer, scales, device, stored) for layer, scales in zip(self.layers, self.scales)]
        weights, biases, windows = zip(*parts)
        sizes = [len(bias) for bias in biases]
        return Convolve(_joined(weights), _joined(biases), windows[0], self.ceiling, sizes, self.owns_gradient, dtype)


def _joined(parts):
    """Tensors end to end. The first `torch.cat` on meta tensors takes PyTorch half a second of imports."""
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _parameters(layer, scales, device, dtype):
    """(weight, bias, window) of a convolution, the layers that scale its channels worked in."""
    weight, bias, window = convolution_parameters(layer, Weights(layer, device, dtype))
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    for scale in scales:
        factor, shift = channel_scale(scale, Weights(scale, device, dtype))
        if len(factor) != len(bias):
            raise ModelError(f"layer {scale.name} ({scale.type}) scales {len(factor)} channels of {len(bias)}")
        weight, bias = weight * factor[:, None, None, None], bias * factor + shift
    return weight, bias, window


def fuse(steps, target):
    """The steps (in order, of `network.Step`) that compute value ``target``, with those fused that can be."""
    uses = Counter(number for step in steps for number in step.inputs)
    uses[target] += 1
    readers = {number: step for step in steps for number in step.inputs}
    gone, fused = set(), []
    for step in steps:
        if step in gone:
            continue
        if step.layer.type in CONVOLUTIONS:
            step, swallowed = _with_activation(step, uses, readers)
            gone.update(swallowed)
        fused.append(step)
    return _with_gradients(_side_by_side(fused), uses)


def _with_activation(step, uses, readers):
    """A convolution with the ReLU, or the min(ReLU, c), that alone reads it; and the steps that this stands for."""

    def next_of(step, type_name):
        number = step.outputs[0]
        reader = readers.get(number)
        return reader if uses[number] == 1 and reader is not None and reader.layer.type == type_name else None

    scales, last = [], step
    while (reader := next_of(last, "BatchNorm") or next_of(last, "Scale")) and scales_channels(reader.layer):
        scales.append(reader)
        last = reader
    own = tuple(reader.layer for reader in scales)
    whole = Convolution((step.layer,), step.inputs, last.outputs, (own,))
    relu = next_of(last, "ReLU")
    if relu is None or relu.layer.parameters.relu_param.negative_slope:
        return whole, scales
    whole = replace(whole, outputs=relu.outputs, ceiling=math.inf)
    flip = next_of(relu, "Power")
    second = flip and next_of(flip, "ReLU")
    back = second and next_of(second, "Power")
    if not back or second.layer.parameters.relu_param.negative_slope or not _flips_alike(flip, back):
        return whole, (*scales, relu)
    ceiling = flip.layer.parameters.power_param.shift
    return replace(whole, outputs=back.outputs, ceiling=ceiling), (*scales, relu, flip, second, back)


def _flips_alike(first, second):
    """Whether two Power layers both compute c - x, of one c that is 0 or more: then c - max(c - x, 0) is min(x, c)."""
    first, second = first.layer.parameters.power_param, second.layer.parameters.power_param
    return first.power == second.power == 1 and first.scale == second.scale == -1 and first.shift == second.shift >= 0


def _side_by_side(steps):
    """The steps, with 1x1 convolutions of the same input and activation joined at the place of the first."""
    groups = {}
    for step in steps:
        if isinstance(step, Convolution) and _is_pointwise(step.layer):
            groups.setdefault((step.inputs, step.ceiling), []).append(step)
    joined = {}
    for group in groups.values():
        layers = tuple(step.layers[0] for step in group)
        outputs = tuple(step.outputs[0] for step in group)
        scales = tuple(step.scales[0] for step in group)
        joined.update(dict.fromkeys(outputs, replace(group[0], layers=layers, outputs=outputs, scales=scales)))
    return list(dict.fromkeys(joined.get(step.outputs[0], step) if step.outputs else step for step in steps))


def _with_gradients(steps, uses):
    """The steps, with the convolutions told whose gradient no other step sees: its only reader makes it anew."""
    making = (*CONVOLUTIONS, "Pooling", "LRN")
    read = {number for step in steps if step.layer.type in making for number in step.inputs}
    owned = {number for number in read if uses[number] == 1}
    return [
        replace(step, owns_gradient=owned.issuperset(step.outputs)) if isinstance(step, Convolution) else step
        for step in steps
    ]


def _is_pointwise(layer):
    p = layer.parameters.convolution_param
    windows = {*p.kernel_size, *p.stride, p.group, *p.dilation, 1}
    sides = (p.HasField(f"{what}_{side}") for what in ("kernel", "stride", "pad") for side in "hw")
    return bool(p.kernel_size) and windows == {1} and not any(p.pad) and not any(sides)
