"""Layers that run faster together: a peephole pass over the steps that a target needs.

Three things are recognised, each where nothing else looks at the values in between:

- a convolution followed by a ReLU: one call, which keeps what the derivative needs and nothing else;
- that, followed by the Power, ReLU and Power that make it min(x, c): one call as well;
- 1x1 convolutions that read one value (the branches of an inception module): one convolution, whose
  derivative is one convolution too, instead of several and their sum.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from deepdream.networks.torch_layers import CONVOLUTIONS, Weights, convolution_parameters

ONEDNN_TYPES = (torch.float32, torch.bfloat16)
FEW_CHANNELS = 4  # a picture's: from so few, the derivative is faster as a convolution of its own


@dataclass(frozen=True, eq=False)
class Convolution:
    """A step that stands for several: convolutions of one input, side by side, and the activation after them.

    ``ceiling``: None for no activation, infinity for a ReLU, c for a ReLU that stops at c.
    """

    layers: tuple
    inputs: tuple
    outputs: tuple
    ceiling: float | None = None

    @property
    def layer(self):
        """The layer to name where it fails."""
        return self.layers[0]

    @property
    def key(self):
        """What tells it from the other steps of a net: the same layers may be fused otherwise for another target."""
        return tuple(layer.name for layer in self.layers), self.outputs, self.ceiling

    def build(self, device, dtype):
        """What computes it on ``device`` in ``dtype``: a function of a tensor (1, c, h, w) to the tuple of outputs."""
        parts = [convolution_parameters(layer, Weights(layer, device, dtype)) for layer in self.layers]
        sizes = [len(weight) for weight, _, _ in parts]
        weight = torch.cat([weight for weight, _, _ in parts]).contiguous(memory_format=torch.channels_last)
        bias = torch.cat([weight.new_zeros(len(weight)) if bias is None else bias for weight, bias, _ in parts])
        window = parts[0][2]
        phases = _phases(weight, window) if weight.shape[1] <= FEW_CHANNELS and _dense(window) else None
        return lambda x: _Convolve.apply(x, weight, bias, window, self.ceiling, sizes, phases)


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
    return _side_by_side(fused)


def _with_activation(step, uses, readers):
    """A convolution with the ReLU, or the min(ReLU, c), that alone reads it; and the steps that this stands for."""

    def next_of(step, type_name):
        number = step.outputs[0]
        reader = readers.get(number)
        return reader if uses[number] == 1 and reader is not None and reader.layer.type == type_name else None

    whole = Convolution((step.layer,), step.inputs, step.outputs)
    relu = next_of(step, "ReLU")
    if relu is None or relu.layer.parameters.relu_param.negative_slope:
        return whole, ()
    whole = replace(whole, outputs=relu.outputs, ceiling=math.inf)
    flip = next_of(relu, "Power")
    second = flip and next_of(flip, "ReLU")
    back = second and next_of(second, "Power")
    if not back or second.layer.parameters.relu_param.negative_slope or not _flips_alike(flip, back):
        return whole, (relu,)
    ceiling = flip.layer.parameters.power_param.shift
    return replace(whole, outputs=back.outputs, ceiling=ceiling), (relu, flip, second, back)


def _flips_alike(first, second):
    """Whether two Power layers both compute c - x, of one c that is 0 or more: then c - max(c - x, 0) is min(x, c)."""
    first, second = first.layer.parameters.power_param, second.layer.parameters.power_param
    return (
        first.power == second.power == 1
        and first.scale == second.scale == -1
        and first.shift == second.shift >= 0
    )


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
        joined.update(dict.fromkeys(outputs, replace(group[0], layers=layers, outputs=outputs)))
    return list(dict.fromkeys(joined.get(step.outputs[0], step) if step.outputs else step for step in steps))


def _is_pointwise(layer):
    p = layer.parameters.convolution_param
    windows = {*p.kernel_size, *p.stride, p.group, *p.dilation, 1}
    sides = (p.HasField(f"{what}_{side}") for what in ("kernel", "stride", "pad") for side in "hw")
    return bool(p.kernel_size) and windows == {1} and not any(p.pad) and not any(sides)


class _Convolve(torch.autograd.Function):
    """A convolution and the activation after it, split into outputs; only the input's derivative is ever computed."""

    @staticmethod
    def forward(ctx, x, weight, bias, window, ceiling, sizes, phases):
        # One of several outputs side by side is a slice; both directions want it on its own.
        x = x.contiguous(memory_format=torch.channels_last)
        y = _activated(x, weight, bias, window, ceiling)
        ctx.save_for_backward(x, weight, phases, None if ceiling is None else y)
        ctx.window, ctx.ceiling, ctx.sizes = window, ceiling, sizes
        return y.split(sizes, 1)

    @staticmethod
    def backward(ctx, *gradients):
        x, weight, phases, y = ctx.saved_tensors
        _, stride, pad, dilation, groups = ctx.window
        gradient = _before_activation(gradients, y, ctx.ceiling, ctx.sizes)
        if phases is not None:
            return (_by_phases(gradient, phases, ctx.window, x.shape[2:]), *[None] * 6)
        dx = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, stride, pad, dilation, False, (0, 0), groups, (True, False, False)
        )[0]
        return (dx, *[None] * 6)


def _activated(x, weight, bias, window, ceiling):
    """The convolution with its activation; on a CPU oneDNN applies this while the values are in its registers."""
    _, stride, pad, dilation, groups = window
    onednn = torch.backends.mkldnn.is_available() and x.device.type == "cpu" and x.dtype in ONEDNN_TYPES
    if ceiling is not None and onednn:
        activation = ("relu", [], "") if ceiling == math.inf else ("hardtanh", [0.0, ceiling], "")
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, pad, stride, dilation, groups, *activation)
    y = F.conv2d(x, weight, bias, stride, pad, dilation, groups)
    return y if ceiling is None else y.clamp_(0, ceiling)


def _before_activation(gradients, y, ceiling, sizes):
    """The derivative by the convolution's value, side by side, from those by the activated outputs."""
    if ceiling is None:
        return gradients[0] if len(gradients) == 1 else torch.cat(gradients, 1)
    whole = torch.empty_like(y)
    for gradient, part, out in zip(gradients, y.split(sizes, 1), whole.split(sizes, 1)):
        torch.ops.aten.hardtanh_backward(gradient, part, 0, ceiling, grad_input=out)
    return whole


def _dense(window):
    return window[3] == (1, 1) and window[4] == 1


def _reach(kernel, stride, pad):
    """The steps (first, last) by which a window that covers pixel q may start away from window q // stride."""
    return -((pad + stride - 1) // stride), (kernel - 1 - pad) // stride


def _phases(weight, window):
    """The weights of the convolution that takes a gradient at the output to one at the input, phase by phase.

    Pixel s m + r of the input is covered by windows m - d through weight s d + r + pad: for each phase r of the
    stride s that is a plain convolution over d. From (out, in, kh, kw) to (in * sh * sw, out, dh, dw).
    """
    (kernel, stride, pad) = window[:3]
    for axis in (0, 1):
        first, last = _reach(kernel[axis], stride[axis], pad[axis])
        taps = stride[axis] * torch.arange(last, first - 1, -1) + torch.arange(stride[axis])[:, None] + pad[axis]
        inside = (taps >= 0) & (taps < kernel[axis])
        # (out, in, phases so far …, taps so far …): this axis of the kernel becomes two, its phase and its tap.
        place = 2 if axis == 0 else 4
        picked = weight.index_select(place, taps.clamp(0, kernel[axis] - 1).flatten().to(weight.device))
        shape = (*weight.shape[:place], *taps.shape, *weight.shape[place + 1 :])
        mask = inside.to(weight).reshape(*taps.shape, *[1] * (weight.ndim - place - 1))
        weight = picked.reshape(shape) * mask
    phases = weight.permute(1, 2, 4, 0, 3, 5)  # in, phase y, phase x, out, tap y, tap x
    return phases.flatten(0, 2).contiguous(memory_format=torch.channels_last)


def _by_phases(gradient, phases, window, size):
    """The derivative by the input, of ``size`` (h, w), from that at the output and the weights of `_phases`."""
    (kernel, stride, pad) = window[:3]
    margins = []
    for axis in (1, 0):
        first, last = _reach(kernel[axis], stride[axis], pad[axis])
        blocks = -(-size[axis] // stride[axis])
        margins += [last, blocks - gradient.shape[2 + axis] - first]
    dx = F.conv2d(F.pad(gradient, margins), phases)
    rows, columns = dx.shape[2:]
    dx = dx.reshape(1, -1, *stride, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return dx.reshape(1, dx.shape[1], rows * stride[0], columns * stride[1])[:, :, : size[0], : size[1]]
