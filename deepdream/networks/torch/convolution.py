"""Convolutions as a dream needs them: the activation applied at once, and no derivative but the input's.

On a CPU both directions are forward convolutions of oneDNN with weights laid out once: the derivative by the input
is the convolution of the gradient with the weights turned round (for stride 1; else PyTorch's own is used).
"""

import math

import torch
import torch.nn.functional as F

from deepdream.networks.torch import compiled as torch_compiled

ONEDNN_TYPES = (torch.float32, torch.bfloat16)
ALIKE = 1.1  # pictures whose numbers of pixels differ by a smaller factor share a layout of the weights
FEW_CHANNELS = 4  # a picture's: from so few, the derivative is faster as a convolution by phases
CHANNELS_LAST = torch.channels_last


class Convolve:
    """A convolution, the activation after it and the split of its channels: called with (1, c, h, w).

    ``window``: (kernel, stride, pad, dilation, groups). ``ceiling``: None for no activation, infinity for a
    ReLU, c for a ReLU that stops at c. ``sizes``: channels of each output. ``owns_gradient``: the gradient that
    comes back may be overwritten. ``dtype``: the type in which it computes; bfloat16 not where the picture itself
    comes in, whose grey levels it would round. Returns a tuple of tensors.
    """

    def __init__(self, weight, bias, window, ceiling, sizes, owns_gradient, dtype):
        few = weight.shape[1] <= FEW_CHANNELS and window[4] == 1
        self._dtype = torch.float32 if few and dtype == torch.bfloat16 else dtype
        self._weight = weight = weight.to(self._dtype).contiguous(memory_format=CHANNELS_LAST)
        bias = bias.to(self._dtype)
        self._window, self._ceiling, self._sizes = window, ceiling, sizes
        self._owns_gradient = owns_gradient and len(sizes) == 1
        kernel, stride, pad, dilation, groups = window
        self._forward = Product(lambda: weight, bias, stride, pad, dilation, groups, ceiling)
        self._phases = self._turned = None
        is_depthwise = weight.shape[1] == 1 and groups == len(weight)
        self._strides_depthwise = is_depthwise and stride != (1, 1) and dilation == (1, 1)
        reach = [d * (k - 1) for k, d in zip(kernel, dilation)]
        if few and dilation == (1, 1):
            self._phases = Product(lambda: _phases(weight, window), pad=_phase_margin(window))
        elif stride == (1, 1) and all(p <= r for p, r in zip(pad, reach)):
            margin = tuple(r - p for r, p in zip(reach, pad))
            self._turned = Product(lambda: _turned(weight, groups), None, stride, margin, dilation, groups)

    def __call__(self, x):
        # One of several outputs side by side is a slice; both directions want it on its own.
        return _Differentiated.apply(x.to(self._dtype).contiguous(memory_format=CHANNELS_LAST), self)

    @property
    def has_activation(self):
        """Whether `backward` needs the values."""
        return self._ceiling is not None

    def forward(self, x):
        """The activated convolution, all outputs in one tensor."""
        return self._forward(x)

    def split(self, y):
        """The outputs that lie side by side in ``y``."""
        return y.split(self._sizes, 1) if len(self._sizes) > 1 else (y,)

    def backward(self, gradients, y, shape):
        """The derivative by the input, of ``shape``, from those by the outputs; ``y`` is what `forward` gave."""
        if self._strides_depthwise and self._is_slow(gradients[0]):
            gradient = gradients[0].contiguous(memory_format=CHANNELS_LAST)
            return torch_compiled.depthwise_back(gradient, y, self._ceiling, self._weight, shape, *self._window[1:3])
        gradient = self._before_activation(gradients, y)
        if self._phases is not None:
            return _by_phases(gradient, self._phases, self._window, shape[2:])
        gradient = gradient.contiguous(memory_format=CHANNELS_LAST)
        return self._strided_back(gradient, shape) if self._turned is None else self._turned(gradient)

    def _strided_back(self, gradient, shape):
        _, stride, pad, dilation, groups = self._window
        return torch.ops.aten.convolution_backward(
            gradient, _unfilled(shape, gradient), self._weight, None,
            stride, pad, dilation, False, (0, 0), groups, (True, False, False),
        )[0]  # fmt: skip

    @staticmethod
    def _is_slow(x):
        """Whether PyTorch has no fast derivatives for the type of a tensor, and there are compiled ones."""
        return x.dtype == torch.bfloat16 and torch_compiled.serves(x)

    def _before_activation(self, gradients, y):
        """The derivative by the convolution's value, side by side, from those by the activated outputs."""
        if self._ceiling is None:
            return gradients[0] if len(gradients) == 1 else torch.cat(gradients, 1)
        # A gradient that is one number spread out, as behind a global mean, has no memory to write to.
        own = self._owns_gradient and gradients[0].is_contiguous(memory_format=CHANNELS_LAST)
        if own and self._is_slow(y):
            torch_compiled.pass_back(gradients[0], y, self._ceiling)
            return gradients[0]
        whole = gradients[0] if own else torch.empty_like(y)
        for gradient, part, out in zip(gradients, self.split(y), self.split(whole)):
            torch.ops.aten.hardtanh_backward(gradient, part, 0, self._ceiling, grad_input=out)
        return whole


class _Differentiated(torch.autograd.Function):
    """Hands `Convolve` to PyTorch's differentiation."""

    @staticmethod
    def forward(ctx, x, convolve):
        y = convolve.forward(x)
        ctx.convolve, ctx.shape = convolve, x.shape
        ctx.save_for_backward(y if convolve.has_activation else None)
        return convolve.split(y)

    @staticmethod
    def backward(ctx, *gradients):
        return ctx.convolve.backward(gradients, *ctx.saved_tensors, ctx.shape), None


class Product:
    """One direction of a convolution, for tensors in channels_last. ``ceiling`` as `Convolve` has it.

    oneDNN, on a CPU, applies the activation while the values are in its registers, and takes weights in a layout of
    its own. To lay them out costs as much as a small convolution, so it is done once for all pictures of about a
    size: which layout is best depends on the size. ``weight`` is called for the weights.
    """

    def __init__(self, weight, bias=None, stride=(1, 1), pad=(0, 0), dilation=(1, 1), groups=1, ceiling=None):
        self._make_weight, self._bias, self._ceiling = weight, bias, ceiling
        self._window = pad, stride, dilation, groups
        self._weight, self._pixels = None, 0

    def __call__(self, x):
        onednn = x.device.type == "cpu" and x.dtype in ONEDNN_TYPES and torch.backends.mkldnn.is_available()
        pixels = x.shape[2] * x.shape[3]
        if self._weight is None or (onednn and not pixels / ALIKE <= self._pixels <= pixels * ALIKE):
            self._weight, self._pixels = self._make_weight().contiguous(memory_format=CHANNELS_LAST), pixels
            if onednn:
                self._weight = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *self._window, x.shape)
        pad, stride, dilation, groups = self._window
        if onednn:
            how = *self._window, *self._activation()
            return torch.ops.mkldnn._convolution_pointwise(x, self._weight, self._bias, *how)
        y = F.conv2d(x, self._weight, self._bias, stride, pad, dilation, groups)
        return y if self._ceiling is None else y.clamp_(0, self._ceiling)

    def _activation(self):
        """The activation as oneDNN's operator takes it: its name, its numbers, its variant."""
        if self._ceiling is None:
            return "none", [], ""
        return ("relu", [], "") if self._ceiling == math.inf else ("hardtanh", [0.0, self._ceiling], "")


def _unfilled(shape, like):
    """Stands in for an input of which only the shape is asked."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=CHANNELS_LAST)


def _turned(weight, groups):
    """The weights (out, in / groups, kh, kw) of the convolution back: (in, out / groups, kh, kw), turned round."""
    outs, ins, *kernel = weight.shape
    swapped = weight.reshape(groups, outs // groups, ins, *kernel).transpose(1, 2)
    return swapped.reshape(groups * ins, outs // groups, *kernel).flip(2, 3)


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
    return phases.flatten(0, 2)


def _after(size, kernel, stride, pad):
    """How many windows beyond the last one would have to be there, so that all pixels of ``size`` are covered."""
    windows = (size + 2 * pad - kernel) // stride + 1
    return -(-size // stride) - windows - _reach(kernel, stride, pad)[0]


def _phase_margin(window):
    """The padding of the convolution by `_phases` on each axis: enough before and after, whatever the size is."""
    return tuple(
        max(0, _reach(kernel, stride, pad)[1], *(_after(kernel + more, kernel, stride, pad) for more in range(stride)))
        for kernel, stride, pad in zip(*window[:3])
    )


def _by_phases(gradient, phases, window, size):
    """The derivative by the input, of ``size`` (h, w), from that at the output and the convolution by `_phases`."""
    kernel, stride, pad = window[:3]
    dx = phases(gradient.contiguous(memory_format=CHANNELS_LAST))
    blocks = [-(-size[axis] // stride[axis]) for axis in (0, 1)]
    for axis, margin in enumerate(_phase_margin(window)):
        dx = dx.narrow(2 + axis, margin - _reach(kernel[axis], stride[axis], pad[axis])[1], blocks[axis])
    dx = dx.reshape(1, -1, *stride, *blocks).permute(0, 1, 4, 2, 5, 3)
    dx = dx.reshape(1, dx.shape[1], blocks[0] * stride[0], blocks[1] * stride[1])
    return dx[:, :, : size[0], : size[1]]
