"""2D convolutions as a dream needs them: the activation applied at once, and no derivative but the input's.

On a CPU both passes are forward convolutions of oneDNN, with weights laid out for it once: the derivative by the input
is the convolution of the gradient with the transposed weights (for stride 1), or a sub-pixel convolution (where the
input has few channels); else PyTorch's own is used.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deepdream.networks.torch import compiled
from deepdream.networks.torch.loops import Pair

ONEDNN_TYPES = (torch.float32, torch.bfloat16)
MAX_SIZE_RATIO = 1.1  # pictures whose numbers of pixels differ by no more share a layout of the weights
# Octaves take turns from frame to frame: layouts of small weights, which cost calls and little memory, are kept.
MAX_LAYOUTS, MAX_SMALL_WEIGHT = 8, 1 << 17
# Up to so many input channels the derivative is faster as a sub-pixel convolution: of a 7x7 window of stride 2 from
# three channels it takes a third of the time, from eight of a 3x3 window up to twice as long.
MAX_PICTURE_CHANNELS = 4
LARGE = 1 << 20  # values from which on a bit is kept for each: that takes a pass, and a call that small ones feel
LARGE_PICTURE = 1 << 18  # pixels from which on it is: smaller ones need little, and the first such pass takes 0.4 s
CHANNELS_LAST = torch.channels_last

is_picture_large = ContextVar("is_picture_large", default=True)


@contextmanager
def looked_at(pictures: Tensor) -> Iterator[None]:
    """Within this, convolutions run on ``pictures`` (n, c, h, w), and keep what suits their size."""
    token = is_picture_large.set(pictures[:, 0].numel() >= LARGE_PICTURE)
    try:
        yield
    finally:
        is_picture_large.reset(token)


class Window(NamedTuple):
    """How a convolution moves over its input; each pair is (vertical, horizontal)."""

    kernel: Pair
    stride: Pair
    pad: Pair
    dilation: Pair
    groups: int


class FusedConv2d:
    """A convolution, the activation after it and the split of its channels, forward and back, without autograd.

    ``weight``: (out, in / groups, kh, kw); ``bias``: (out,). ``ceiling``: None for no activation, infinity for a ReLU,
    c for a ReLU that stops at c. ``sizes``: channels of each output. ``owns_gradient``: the gradient by the output may
    be overwritten. ``reader_stops``: it comes with the ReLU's derivative worked in, where `compiled.is_supported`.
    ``dtype``: the type in which it computes; bfloat16 not where the picture itself comes in, whose grey levels it would
    round.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        window: Window,
        ceiling: float | None,
        sizes: Sequence[int],
        owns_gradient: bool,
        reader_stops: bool,
        dtype: torch.dtype,
    ) -> None:
        kernel, stride, pad, dilation, groups = window
        self.channels = len(weight)
        of_picture = weight.shape[1] <= MAX_PICTURE_CHANNELS and groups == 1
        self.dtype = torch.float32 if of_picture and dtype == torch.bfloat16 else dtype
        self._weight = weight = weight.to(self.dtype).contiguous(memory_format=CHANNELS_LAST)
        self._window, self._ceiling, self._sizes = window, ceiling, list(sizes)
        self._owns_gradient, self._reader_stops = owns_gradient and len(sizes) == 1, reader_stops
        self._forward = PackedConv2d(lambda: weight, bias.to(self.dtype), stride, pad, dilation, groups, ceiling)
        self._is_depthwise = weight.shape[1] == 1 and groups == len(weight)
        self._is_strided = stride != (1, 1) and dilation == (1, 1)
        self._sub_pixel = self._transposed = None
        reach = [d * (k - 1) for k, d in zip(kernel, dilation)]
        self.stride, self.reach = stride[0], reach[0]  # vertical
        if of_picture and dilation == (1, 1):
            margin = _sub_pixel_margin(window)
            self._sub_pixel = PackedConv2d(lambda: sub_pixel_weight(weight, stride, pad), pad=margin)
        elif stride == (1, 1) and all(p <= r for p, r in zip(pad, reach)):
            margin = (reach[0] - pad[0], reach[1] - pad[1])
            self._transposed = PackedConv2d(
                lambda: transposed_weight(weight, groups), None, stride, margin, dilation, groups
            )

    def forward(self, x: Tensor) -> Tensor:
        """The activated convolution of ``x`` (n, c, h, w), all outputs in one tensor."""
        return self._forward(x.to(self.dtype))

    def split(self, y: Tensor) -> tuple[Tensor, ...]:
        """The outputs that lie side by side in ``y``."""
        return y.split(self._sizes, 1) if len(self._sizes) > 1 else (y,)

    def kept(self, y: Tensor) -> Tensor | None:
        """What `backward` needs of the values that `forward` returned; None if it stops nothing."""
        if self._ceiling is None or self._leaves_stops(y):
            return None
        is_large = is_picture_large.get() and y.numel() >= LARGE and compiled.is_supported(y)
        return compiled.find_stops(y, self._ceiling) if is_large else y

    @property
    def can_go_in_rows(self) -> bool:
        """Whether `forward_rows` and `backward_rows` may be called, and where values are many take less time.

        Larger windows over all channels compute longer than they wait for memory, and bfloat16 waits half as long.
        """
        is_small = self._weight.numel() <= MAX_SMALL_WEIGHT and len(self._sizes) == 1
        is_light = self._is_depthwise or self._window[:2] == ((1, 1), (1, 1))
        is_known = self._transposed is not None or (self._is_strided and self.reach >= self._window.pad[0])
        return self.dtype == torch.float32 and is_small and is_light and is_known

    def size(self, size: Pair) -> Pair:
        """(h, w) of the result of an input of ``size`` (h, w)."""
        height, width = (
            (length + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for length, kernel, stride, pad, dilation in zip(size, *self._window[:4])
        )
        return height, width

    def stops(self, y: Tensor) -> Tensor | None:
        """As `kept`, of values of any size."""
        return None if self._ceiling is None or self._leaves_stops(y) else compiled.find_stops(y, self._ceiling)

    def _leaves_stops(self, y: Tensor) -> bool:
        return self._reader_stops and compiled.is_supported(y)

    def rows_read(self, start: int, stop: int, height: int) -> Pair:
        """The rows of an input of ``height`` that `forward_rows` reads for rows of the result."""
        _, (stride, _), (pad, _), *_ = self._window
        return _rows_read(start, stop, height, self.reach, stride, pad)

    def forward_rows(self, x: Tensor, first: int, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of `forward`; ``x`` holds the rows that they read, which begin with ``first``."""
        skipped = start - first // self._window.stride[0]
        return self.forward(x)[:, :, skipped : skipped + stop - start]

    def backward_rows_read(self, start: int, stop: int, height: int) -> Pair:
        """The rows of a gradient of ``height`` that `backward_rows` reads for rows of the derivative."""
        _, (stride, _), (pad, _), *_ = self._window
        if self._transposed is not None:
            return _rows_read(start, stop, height, self.reach, 1, self.reach - pad)
        return max(0, -((self.reach - start - pad) // stride)), min(height, (stop - 1 + pad) // stride + 1)

    def backward_rows(
        self, gradient: Tensor, stops: Tensor | None, width: int, first: int, start: int, stop: int
    ) -> Tensor:
        """Rows ``start`` to ``stop`` of `backward`, of an input of ``width``.

        ``gradient`` and ``stops`` hold the rows that they read, which begin with ``first``. Where the convolution
        strides, ``start`` is a multiple of that.
        """
        gradient = self._before_activation([gradient], stops)
        if self._transposed is not None:
            return self._transposed(gradient)[:, :, start - first : stop - first]
        (_, across), stride, pad, _, groups = self._window
        skipped = start - stride[0] * first + pad[0]
        reached = (gradient.shape[2] - 1) * stride[0] + 1 + self.reach
        rest = max(0, skipped + stop - start - reached), (width + 2 * pad[1] - across) % stride[1]
        dx = F.conv_transpose2d(gradient, self._weight, None, stride, (0, pad[1]), rest, groups)
        return dx[:, :, skipped : skipped + stop - start]

    def backward(self, gradients: Sequence[Tensor], kept: Tensor | None, shape: torch.Size) -> Tensor:
        """The derivative by the input, of ``shape``, from those by the outputs and what was `kept` of them."""
        gradient = self._before_activation([one.to(self.dtype) for one in gradients], kept)
        if self._sub_pixel is not None:
            return sub_pixel_backward(gradient, self._sub_pixel, self._window, shape)
        gradient = gradient.contiguous(memory_format=CHANNELS_LAST)
        if self._transposed is not None:
            return self._transposed(gradient)
        if self._is_depthwise and self._is_strided:
            return self._depthwise_backward(gradient, shape)
        return self._strided_backward(gradient, shape)

    def _depthwise_backward(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        kernel, stride, pad, _, groups = self._window
        if gradient.dtype == torch.bfloat16 and compiled.is_supported(gradient):
            return compiled.depthwise_backward(gradient, self._weight, shape, stride, pad)
        # Pixels at the end that no window reaches. `convolution_backward`, of the same bits, asks for an input as well.
        rest = [(size + 2 * p - k) % s for size, k, s, p in zip(shape[2:], kernel, stride, pad)]
        return F.conv_transpose2d(gradient, self._weight, None, stride, pad, rest, groups)

    def _strided_backward(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        _, stride, pad, dilation, groups = self._window
        # Of the input only the shape is looked at.
        x = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=CHANNELS_LAST)
        return torch.ops.aten.convolution_backward(
            gradient, x, self._weight, None, stride, pad, dilation, False, (0, 0), groups, (True, False, False)
        )[0]

    def _before_activation(self, gradients: Sequence[Tensor], kept: Tensor | None) -> Tensor:
        """The derivative by the convolution's value, side by side, from those by the activated outputs."""
        # A gradient that is one number spread out, as behind a global mean, has no memory to write to.
        in_place = self._owns_gradient and gradients[0].is_contiguous(memory_format=CHANNELS_LAST)
        if kept is not None and kept.dtype != torch.uint8:
            whole = gradients[0] if in_place else torch.empty_like(kept)
            for one, values, out in zip(gradients, self.split(kept), self.split(whole)):
                torch.ops.aten.hardtanh_backward.grad_input(one, values, 0, self._ceiling, grad_input=out)
            return whole
        whole = gradients[0] if len(gradients) == 1 else torch.cat(list(gradients), 1)
        if kept is not None:
            if len(gradients) == 1 and not in_place:
                whole = whole.clone()
            whole = whole.contiguous(memory_format=CHANNELS_LAST)
            compiled.stop(whole, kept)
        return whole


class PackedConv2d:
    """A convolution without derivative, for tensors in channels_last. ``ceiling`` as `FusedConv2d` has it.

    oneDNN, on a CPU, applies the activation while the values are in its registers, and takes weights in a layout of
    its own. To lay them out costs as much as a small convolution, so it is done once for all pictures of about a
    size, at large weights for the last such size alone: which layout is best depends on the size. ``make_weight``
    gives the weights (out, in / groups, kh, kw).
    """

    def __init__(
        self,
        make_weight: Callable[[], Tensor],
        bias: Tensor | None = None,
        stride: Pair = (1, 1),
        pad: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
        ceiling: float | None = None,
    ) -> None:
        self._make_weight, self._bias, self._ceiling = make_weight, bias, ceiling
        self._window = pad, stride, dilation, groups  # in oneDNN's order
        self._onednn_arguments = bias, *self._window, *_onednn_activation(ceiling)
        self._layouts: list[tuple[int, Tensor]] = []  # weights, and the pixels of the picture that they are for

    def __call__(self, x: Tensor) -> Tensor:
        onednn = x.device.type == "cpu" and x.dtype in ONEDNN_TYPES and torch.backends.mkldnn.is_available()
        weight = self._laid_out(x, onednn)
        if onednn:
            return torch.ops.mkldnn._convolution_pointwise(x, weight, *self._onednn_arguments)
        pad, stride, dilation, groups = self._window
        y = F.conv2d(x, weight, self._bias, stride, pad, dilation, groups)
        return y if self._ceiling is None or y.is_meta else y.clamp_(0, self._ceiling)

    def _laid_out(self, x: Tensor, onednn: bool) -> Tensor:
        """The weights as ``x`` needs them."""
        pixels = x.shape[2] * x.shape[3]
        for known, weight in self._layouts:
            if not onednn or pixels / MAX_SIZE_RATIO <= known <= pixels * MAX_SIZE_RATIO:
                return weight
        weight = self._make_weight().contiguous(memory_format=CHANNELS_LAST)
        count = MAX_LAYOUTS if weight.numel() <= MAX_SMALL_WEIGHT else 1
        if onednn:
            weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._window, x.shape)
        self._layouts = [*self._layouts, (pixels, weight)][-count:]
        return weight


def _rows_read(start: int, stop: int, height: int, reach: int, stride: int, pad: int) -> Pair:
    """The rows of an input of ``height`` to read for rows ``start`` to ``stop`` of a padded convolution.

    The first is a multiple of the stride. More is read above than is needed, since what is read is padded again, and
    the rows whose windows reach into that are not used.
    """
    above = math.ceil(pad / stride)
    return max(0, stride * (start - above)), min(height, stride * (stop - 1) - pad + reach + 1)


def _onednn_activation(ceiling: float | None) -> tuple[str, list[float], str]:
    """The activation as oneDNN's operator takes it: its name, its numbers, its variant."""
    if ceiling is None:
        return "none", [], ""
    return ("relu", [], "") if ceiling == math.inf else ("hardtanh", [0.0, ceiling], "")


def transposed_weight(weight: Tensor, groups: int) -> Tensor:
    """The weights (out, in / groups, kh, kw) rotated by 180 degrees, in and out swapped: (in, out / groups, kh, kw)."""
    outs, ins, *kernel = weight.shape
    swapped = weight.reshape(groups, outs // groups, ins, *kernel).transpose(1, 2)
    return swapped.reshape(groups * ins, outs // groups, *kernel).flip(2, 3)


def sub_pixel_weight(weight: Tensor, stride: Pair, pad: Pair) -> Tensor:
    """The weights of the sub-pixel convolution (Shi et al. 2016) that is the derivative by the input.

    Pixel s m + r of the input is covered by windows m - d through weight s d + r + pad: for each phase r of the
    stride s that is a plain convolution over d. From (out, in, kh, kw) to (in * sh * sw, out, dh, dw).
    """
    margins: list[int] = []
    for size, s, p in zip(weight.shape[:1:-1], stride[::-1], pad[::-1]):
        before = -p % s  # up to weight s d + pad of the first d
        margins += [before, -(before + size) % s]
    weight = F.pad(weight, margins)
    outs, ins, height, width = weight.shape
    phases = weight.reshape(outs, ins, height // stride[0], stride[0], width // stride[1], stride[1])
    return phases.permute(1, 3, 5, 0, 2, 4).flatten(0, 2).flip(2, 3)


def _sub_pixel_reach(kernel: int, stride: int, pad: int) -> tuple[int, int]:
    """How many windows before (first) and after (second) window m cover pixels s m to s m + s - 1."""
    return (kernel - 1 - pad) // stride, -(-pad // stride)


def _sub_pixel_margin(window: Window) -> Pair:
    """The padding of the convolution by `sub_pixel_weight`: enough before and after, whatever the size is."""
    vertical, horizontal = (_margin(*axis) for axis in zip(*window[:3]))
    return vertical, horizontal


def _margin(kernel: int, stride: int, pad: int) -> int:
    before, after = _sub_pixel_reach(kernel, stride, pad)
    missing = -((2 * pad - kernel + 1) // stride)  # of a size s m, at most so many of m windows
    return max(0, before, after + missing)


def sub_pixel_backward(gradient: Tensor, convolution: PackedConv2d, window: Window, shape: torch.Size) -> Tensor:
    """The derivative by the input, of ``shape``, from that by the output and the convolution by `sub_pixel_weight`."""
    dx = convolution(gradient.contiguous(memory_format=CHANNELS_LAST))
    stride = window.stride
    blocks = [-(-shape[2 + axis] // stride[axis]) for axis in (0, 1)]
    for axis, margin in enumerate(_sub_pixel_margin(window)):
        before, _ = _sub_pixel_reach(window.kernel[axis], stride[axis], window.pad[axis])
        dx = dx.narrow(2 + axis, margin - before, blocks[axis])
    # `F.pixel_shuffle`, for strides that differ as well
    dx = dx.reshape(len(dx), -1, *stride, *blocks).permute(0, 1, 4, 2, 5, 3)
    dx = dx.reshape(*dx.shape[:2], blocks[0] * stride[0], blocks[1] * stride[1])
    return dx[:, :, : shape[2], : shape[3]]
