"""What each Caffe layer type computes, on PyTorch: one small function a type, in the table `LAYER_TYPES`.

A function takes the layer and its weights (a `Weights`) and returns what maps the bottoms (tensors of any
device, laid out (n, c, h, w)) to the top, or to a tuple of tops. Weights carry no gradient. Where Caffe
and PyTorch differ in a corner (how pooling rounds, which of two equal values a maximum takes), Caffe's way holds.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from deepdream.errors import ModelError
from deepdream.networks.caffemodel import pb
from deepdream.networks.torch import compiled as torch_compiled
from deepdream.networks.torch.convolution import Product

LAYER_TYPES = {}
CONVOLUTIONS = ("Convolution", "DepthwiseConvolution", "ConvolutionDepthwise")
_LEAST_VARIANCE = 1e-30  # far below any eps, and still a float32


def layer_type(*names):
    """Enter a function into the table under the names of the Caffe types that it serves."""

    def enter(function):
        for name in names:
            LAYER_TYPES[name] = function
        return function

    return enter


class Weights:
    """The blobs of a layer as tensors of ``dtype`` on ``device``, given out in the shape that the layer expects."""

    def __init__(self, layer, device, dtype=torch.float32):
        self._layer = layer
        self._device = device
        self._dtype = dtype

    def take(self, number, shape=None):
        """Blob ``number`` as a tensor of ``shape``, one of whose sizes may be -1; its own shape where None.

        Old files store every blob with four sizes, so only the count has to agree. Raises `ModelError`.
        """
        layer = self._layer
        if number >= len(layer.blobs):
            raise ModelError(
                f"layer {layer.name} ({layer.type}) has {len(layer.blobs)} blobs in the caffemodel and needs "
                f"{number + 1}; do prototxt and caffemodel belong together?"
            )
        blob = layer.blobs[number]
        try:
            blob = blob if shape is None else blob.reshape(shape)
        except ValueError:
            wanted = " x ".join("any" if size < 0 else str(size) for size in shape)
            raise ModelError(
                f"layer {layer.name} ({layer.type}): the prototxt asks for a blob of {wanted}, the caffemodel "
                f"has {' x '.join(map(str, layer.blobs[number].shape))}; do they belong together?"
            ) from None
        if torch.device(self._device).type == "meta":
            return torch.empty(blob.shape, dtype=self._dtype, device="meta")
        tensor = torch.from_numpy(np.array(blob)).to(self._device, self._dtype)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _pair(repeated, height, width, default, what, layer):
    """A spatial parameter as (vertical, horizontal), from its repeated field or its _h and _w fields."""
    if height is not None or width is not None:
        return (height or 0, width or 0)
    values = list(repeated)
    if not values and default is None:
        raise ModelError(f"layer {layer.name} ({layer.type}) says no {what}")
    values = values or [default]
    if len(values) > 2:
        raise ModelError(f"layer {layer.name} ({layer.type}): {what} in {len(values)} dimensions; a picture has two")
    return (values[0], values[-1])


def _set(message, name):
    return getattr(message, name) if message.HasField(name) else None


def _convolution_window(layer):
    """(kernel, stride, pad, dilation) of a Convolution or Deconvolution, each (vertical, horizontal)."""
    p = layer.parameters.convolution_param
    kernel = _pair(p.kernel_size, _set(p, "kernel_h"), _set(p, "kernel_w"), None, "kernel_size", layer)
    stride = _pair(p.stride, _set(p, "stride_h"), _set(p, "stride_w"), 1, "stride", layer)
    pad = _pair(p.pad, _set(p, "pad_h"), _set(p, "pad_w"), 0, "pad", layer)
    dilation = _pair(p.dilation, None, None, 1, "dilation", layer)
    if min(kernel + stride + dilation + (p.group,)) < 1:
        raise ModelError(f"layer {layer.name} ({layer.type}): kernel, stride, dilation and group must be 1 or more")
    return kernel, stride, pad, dilation


def convolution_parameters(layer, weights):
    """(weight, bias or None, window) of a Convolution; the window is (kernel, stride, pad, dilation, groups)."""
    p = layer.parameters.convolution_param
    kernel, stride, pad, dilation = _convolution_window(layer)
    weight = weights.take(0, (p.num_output, -1, *kernel))
    bias = weights.take(1, (p.num_output,)) if p.bias_term else None
    # The depthwise types of the forks may leave `group` out: one channel in, one out.
    groups = p.num_output if layer.type != "Convolution" and weight.shape[1] == 1 else p.group
    return weight, bias, (kernel, stride, pad, dilation, groups)


@layer_type(*CONVOLUTIONS)
def convolution(layer, weights):
    weight, bias, (_, stride, pad, dilation, groups) = convolution_parameters(layer, weights)
    return lambda x: F.conv2d(x, weight, bias, stride, pad, dilation, groups)


@layer_type("Deconvolution")
def deconvolution(layer, weights):
    p = layer.parameters.convolution_param
    kernel, stride, pad, dilation = _convolution_window(layer)
    weight = weights.take(0, (-1, p.num_output // p.group, *kernel))
    bias = weights.take(1, (p.num_output,)) if p.bias_term else None
    return lambda x: F.conv_transpose2d(x, weight, bias, stride, pad, 0, p.group, dilation)


@layer_type("InnerProduct")
def inner_product(layer, weights):
    p = layer.parameters.inner_product_param
    shape = (-1, p.num_output) if p.transpose else (p.num_output, -1)
    weight = weights.take(0, shape)
    weight = weight.t() if p.transpose else weight
    bias = weights.take(1, (p.num_output,)) if p.bias_term else None
    return lambda x: F.linear(x.flatten(p.axis), weight, bias)


def _pooled_size(size, kernel, stride, pad, round_up):
    """How many windows Caffe lays over ``size``: rounded up, less a last one that would start in the padding."""
    span = size + 2 * pad - kernel
    windows = (-(-span // stride) if round_up else span // stride) + 1
    if pad and (windows - 1) * stride >= size + pad:
        windows -= 1
    return windows


@layer_type("Pooling")
def pooling(layer, weights):
    p = layer.parameters.pooling_param
    if p.pool == pb.PoolingParameter.STOCHASTIC:
        raise ModelError(f"layer {layer.name} (Pooling): STOCHASTIC pooling has no gradient to dream with")
    maximum = p.pool == pb.PoolingParameter.MAX
    if p.global_pooling:
        # Of equal values the first gets the gradient, which amax would share out among them.
        return lambda x: F.max_pool2d(x, x.shape[2:]) if maximum else x.mean((2, 3), keepdim=True)
    kernel_size = [p.kernel_size] if p.HasField("kernel_size") else []
    kernel = _pair(kernel_size, _set(p, "kernel_h"), _set(p, "kernel_w"), None, "kernel_size", layer)
    stride = _pair([p.stride], _set(p, "stride_h"), _set(p, "stride_w"), 1, "stride", layer)
    pad = _pair([p.pad], _set(p, "pad_h"), _set(p, "pad_w"), 0, "pad", layer)
    if min(kernel + stride) < 1:
        raise ModelError(f"layer {layer.name} (Pooling): kernel and stride must be 1 or more")
    round_up = p.ceil_mode and p.round_mode == pb.PoolingParameter.CEIL
    pool = _max_pool if maximum else _average_pool
    return lambda x: pool(x, kernel, stride, pad, round_up)


def _pool_margins(x, kernel, stride, pad, round_up):
    """The padding (left, right, top, bottom) after which every window of Caffe's lies inside."""
    margins = []
    for axis in (1, 0):
        size = x.shape[2 + axis]
        windows = _pooled_size(size, kernel[axis], stride[axis], pad[axis], round_up)
        if windows < 1:
            raise ValueError(f"a window of {kernel[axis]} does not fit into {size}")
        if (windows - 1) * stride[axis] >= size + pad[axis]:
            # Caffe takes no value from there, and writes the gradient to where it has no right to.
            raise ValueError(f"the last window of {kernel[axis]}, {stride[axis]} apart, lies outside {size}")
        margins += [pad[axis], (windows - 1) * stride[axis] + kernel[axis] - size - pad[axis]]
    return margins


def _max_pool(x, kernel, stride, pad, round_up):
    left, right, top, bottom = _pool_margins(x, kernel, stride, pad, round_up)
    inside = all(p < k for p, k in zip(pad, kernel)) and math.prod(kernel) <= torch_compiled.MOST_PLACES
    if inside and torch_compiled.serves(x):
        sides = zip(x.shape[2:], kernel, stride, pad)
        size = tuple(_pooled_size(*side, round_up) for side in sides)
        return torch_compiled.max_pool(x, kernel, stride, pad, size)
    if 2 * pad[0] <= kernel[0] and 2 * pad[1] <= kernel[1] and right >= 0 and bottom >= 0 and round_up:
        return F.max_pool2d(x, kernel, stride, pad, ceil_mode=True)
    return F.max_pool2d(F.pad(x, (left, right, top, bottom), value=-math.inf), kernel, stride)


def _average_pool(x, kernel, stride, pad, round_up):
    """The mean over each window, padding counted in, but not what lies beyond the padding."""
    margins = _pool_margins(x, kernel, stride, pad, round_up)
    total = F.avg_pool2d(F.pad(x, margins), kernel, stride, divisor_override=1)
    height, width = x.shape[2] + 2 * pad[0], x.shape[3] + 2 * pad[1]
    counts = []
    for size, axis in ((height, 0), (width, 1)):
        starts = torch.arange(total.shape[2 + axis], device=x.device) * stride[axis]
        counts.append((starts + kernel[axis]).clamp(max=size) - starts)
    return total / (counts[0][:, None] * counts[1])


class _AcrossChannels(torch.autograd.Function):
    """y = x * (k + alpha / n * sum of x^2 over n neighbouring channels) ** -beta, and its derivative.

    The sum over channels is a 1x1 convolution with a band of alpha / n (symmetric, so that it serves both
    directions): on a CPU several times as fast as PyTorch's own response norm. ``scale_of`` maps x^2 to the bracket,
    ``crossed`` is the band times -2 beta.
    """

    @staticmethod
    def forward(ctx, x, scale_of, crossed, beta):
        scale = scale_of(x * x)
        factor = _power(scale, -beta)
        y = x * factor
        ctx.save_for_backward(x, factor, y / scale)
        ctx.crossed = crossed
        return y

    @staticmethod
    def backward(ctx, dy):
        x, factor, ratio = ctx.saved_tensors
        return ctx.crossed(ratio * dy).mul_(x).addcmul_(dy, factor), None, None, None


def _power(x, exponent):
    """x ** exponent; the -0.75 that nearly all nets use comes much faster from square roots."""
    return x.sqrt().mul_(x).rsqrt_() if exponent == -0.75 else x.pow(exponent)


@layer_type("LRN")
def lrn(layer, weights):
    p = layer.parameters.lrn_param
    if p.local_size % 2 == 0:
        raise ModelError(f"layer {layer.name} (LRN): local_size {p.local_size} must be odd")
    reach = (p.local_size - 1) // 2
    if p.norm_region == pb.LRNParameter.WITHIN_CHANNEL:

        def within(x):
            mean_square = _average_pool(x * x, (p.local_size,) * 2, (1, 1), (reach, reach), True)
            return x * (1 + p.alpha * mean_square) ** -p.beta

        return within
    bands = {}

    def across(x):
        if torch_compiled.serves(x) and p.beta == torch_compiled.LRN_BETA:
            return torch_compiled.across_channels(x, reach, p.alpha / p.local_size, p.k)
        x = x.contiguous(memory_format=torch.channels_last)
        channels = x.shape[1]
        key = channels, x.dtype, x.device
        if key not in bands:
            ones = torch.full((channels, channels), p.alpha / p.local_size, dtype=x.dtype, device=x.device)
            band = ones.triu(-reach).tril(reach)[:, :, None, None]
            k = torch.full((channels,), p.k, dtype=x.dtype, device=x.device)
            crossed = Product(lambda: -2 * p.beta * band)
            bands[key] = Product(lambda: band, k), crossed
        return _AcrossChannels.apply(x, *bands[key], p.beta)

    return across


@layer_type("ReLU")
def relu(layer, weights):
    slope = layer.parameters.relu_param.negative_slope
    return (lambda x: F.leaky_relu(x, slope)) if slope else F.relu


@layer_type("ReLU6")
def relu6(layer, weights):
    return F.relu6


@layer_type("PReLU")
def prelu(layer, weights):
    slope = weights.take(0, (-1,))
    return lambda x: F.prelu(x, slope)


@layer_type("ELU")
def elu(layer, weights):
    alpha = layer.parameters.elu_param.alpha
    return lambda x: F.elu(x, alpha)


@layer_type("Sigmoid")
def sigmoid(layer, weights):
    return torch.sigmoid


@layer_type("TanH")
def tanh(layer, weights):
    return torch.tanh


@layer_type("AbsVal")
def absval(layer, weights):
    return torch.abs


@layer_type("BNLL")
def bnll(layer, weights):
    return lambda x: F.softplus(x, threshold=80)


@layer_type("Power")
def power(layer, weights):
    p = layer.parameters.power_param

    def apply(x):
        y = x * p.scale + p.shift
        return y if p.power == 1 else y.pow(p.power)

    return apply


@layer_type("Exp")
def exp(layer, weights):
    p = layer.parameters.exp_param
    log_base = 1.0 if p.base == -1 else math.log(p.base)
    return lambda x: torch.exp((x * p.scale + p.shift) * log_base)


@layer_type("Log")
def log(layer, weights):
    p = layer.parameters.log_param
    log_base = 1.0 if p.base == -1 else math.log(p.base)
    return lambda x: torch.log(x * p.scale + p.shift) / log_base


@layer_type("BatchNorm")
def batch_norm(layer, weights):
    p = layer.parameters.batch_norm_param
    if not _has_statistics(layer):
        return lambda x: _normalised(x, p.eps)
    mean, variance = _statistics(weights)
    return lambda x: F.batch_norm(x, mean, variance, training=False, eps=p.eps)


def _has_statistics(layer):
    """Whether a BatchNorm goes by the mean and variance that it stores, not by those of its input."""
    p = layer.parameters.batch_norm_param
    training = layer.parameters.HasField("phase") and layer.parameters.phase == pb.TRAIN
    return p.use_global_stats if p.HasField("use_global_stats") else not training


def _statistics(weights):
    """(mean, variance) of each channel. The running sums are stored with the factor they were weighted by; a factor
    of 0 means no statistics."""
    factor = weights.take(2, (1,))
    unweight = torch.where(factor == 0, torch.zeros_like(factor), 1 / factor)
    return weights.take(0, (-1,)) * unweight, weights.take(1, (-1,)) * unweight


def scales_channels(layer):
    """Whether a layer multiplies each channel by a number of its own and adds another."""
    if layer.type == "BatchNorm":
        return _has_statistics(layer)
    p = layer.parameters.scale_param
    return layer.type == "Scale" and len(layer.bottoms) == 1 and p.axis == 1 and p.num_axes == 1


def channel_scale(layer, weights):
    """(factor, shift), one number a channel, of a layer that `scales_channels`."""
    if layer.type == "BatchNorm":
        mean, variance = _statistics(weights)
        factor = (variance + layer.parameters.batch_norm_param.eps).rsqrt()
        return factor, -mean * factor
    factor = weights.take(0, (-1,))
    shift = weights.take(1, (-1,)) if layer.parameters.scale_param.bias_term else torch.zeros_like(factor)
    return factor, shift


def _normalised(x, eps):
    """Each channel less its own mean, over its own deviation; PyTorch's refuses a channel of a single value."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()


def _broadcast(weight, x, axis):
    """``weight`` shaped so that its first axis meets axis ``axis`` of ``x``; a single number meets them all."""
    axis = axis % x.ndim if weight.ndim else 0
    if tuple(weight.shape) != tuple(x.shape[axis : axis + weight.ndim]):
        raise ValueError(f"{tuple(weight.shape)} is not part of {tuple(x.shape)} from axis {axis} on")
    return weight.reshape(weight.shape + (1,) * (x.ndim - axis - weight.ndim))


@layer_type("Scale")
def scale(layer, weights):
    p = layer.parameters.scale_param
    learned = len(layer.bottoms) == 1
    factor = weights.take(0) if learned else None
    shift = weights.take(1 if learned else 0) if p.bias_term else None

    def apply(x, given=factor):
        y = x * _broadcast(given, x, p.axis)
        return y if shift is None else y + _broadcast(shift.reshape(given.shape), x, p.axis)

    return apply


@layer_type("Bias")
def bias(layer, weights):
    p = layer.parameters.bias_param
    learned = weights.take(0) if len(layer.bottoms) == 1 else None
    return lambda x, given=learned: x + _broadcast(given, x, p.axis)


def _check_alike(bottoms):
    """Caffe takes no bottoms of different shapes, and PyTorch would broadcast some."""
    shapes = {tuple(x.shape) for x in bottoms}
    if len(shapes) > 1:
        raise ValueError(f"bottoms of different shapes: {', '.join(map(str, sorted(shapes)))}")


@layer_type("Eltwise")
def eltwise(layer, weights):
    p = layer.parameters.eltwise_param
    coefficients = list(p.coeff) or [1.0] * len(layer.bottoms)
    if len(coefficients) != len(layer.bottoms):
        raise ModelError(f"layer {layer.name} (Eltwise): {len(coefficients)} coeff for {len(layer.bottoms)} bottoms")

    def total(*bottoms):
        _check_alike(bottoms)
        terms = [x if c == 1 else x * c for x, c in zip(bottoms, coefficients)]
        return sum(terms[1:], terms[0])

    def largest(first, second, *others):
        _check_alike((first, second, *others))
        # Of two equal values Caffe passes the gradient to one: the second of the first pair, then the earlier.
        top = torch.where(first > second, first, second)
        for other in others:
            top = torch.where(other > top, other, top)
        return top

    def product(*bottoms):
        _check_alike(bottoms)
        return math.prod(bottoms[1:], start=bottoms[0])

    operations = pb.EltwiseParameter
    return {operations.SUM: total, operations.MAX: largest, operations.PROD: product}[p.operation]


@layer_type("Axpy")
def axpy(layer, weights):
    return lambda a, x, y: a.reshape(*a.shape[:2], 1, 1) * x + y


@layer_type("Concat")
def concat(layer, weights):
    p = layer.parameters.concat_param
    axis = p.concat_dim if p.HasField("concat_dim") else p.axis
    return lambda *xs: torch.cat(xs, axis)


@layer_type("Slice")
def slice_(layer, weights):
    p = layer.parameters.slice_param
    axis = p.slice_dim if p.HasField("slice_dim") else p.axis
    points, count = list(p.slice_point), len(layer.tops)
    if points and len(points) != count - 1:
        raise ModelError(f"layer {layer.name} (Slice): {len(points)} slice_point for {count} tops")

    def apply(x):
        if points:
            return torch.tensor_split(x, points, axis)
        if x.shape[axis] % count:
            raise ValueError(f"{x.shape[axis]} does not divide into {count} equal slices")
        return torch.chunk(x, count, axis)

    return apply


@layer_type("Split")
def split(layer, weights):
    return lambda x: (x,) * len(layer.tops)


@layer_type("Dropout")
def dropout(layer, weights):
    return lambda x: x  # training only


@layer_type("Flatten")
def flatten(layer, weights):
    p = layer.parameters.flatten_param
    return lambda x: x.flatten(p.axis, p.end_axis)


@layer_type("Reshape")
def reshape(layer, weights):
    p = layer.parameters.reshape_param

    def apply(x):
        first = p.axis if p.axis >= 0 else x.ndim + p.axis + 1
        last = x.ndim if p.num_axes == -1 else first + p.num_axes
        middle = [x.shape[first + i] if size == 0 else size for i, size in enumerate(p.shape.dim)]
        return x.reshape(*x.shape[:first], *middle, *x.shape[last:])

    return apply


@layer_type("Permute")
def permute(layer, weights):
    order = list(layer.parameters.permute_param.order)
    return lambda x: x.permute(order + [axis for axis in range(x.ndim) if axis not in order])


@layer_type("Crop")
def crop(layer, weights):
    p = layer.parameters.crop_param
    offsets = list(p.offset) or [0]

    def apply(x, like):
        first = p.axis % x.ndim
        for axis in range(first, x.ndim):
            start = offsets[0] if len(offsets) == 1 else offsets[axis - first]
            x = x.narrow(axis, start, like.shape[axis])
        return x

    return apply


@layer_type("MVN")
def mvn(layer, weights):
    p = layer.parameters.mvn_param
    axes = (1, 2, 3) if p.across_channels else (2, 3)

    def apply(x):
        centred = x - x.mean(axes, keepdim=True)
        if not p.normalize_variance:
            return centred
        # The root of 0 has no derivative, so a flat channel must not reach it.
        deviation = centred.square().mean(axes, keepdim=True).clamp(min=_LEAST_VARIANCE).sqrt()
        return centred / (deviation + p.eps)

    return apply


@layer_type("Reduction")
def reduction(layer, weights):
    p = layer.parameters.reduction_param
    operations = pb.ReductionParameter
    function = {
        operations.SUM: lambda x: x.sum(-1),
        operations.ASUM: lambda x: x.abs().sum(-1),
        operations.SUMSQ: lambda x: x.square().sum(-1),
        operations.MEAN: lambda x: x.mean(-1),
    }[p.operation]

    def apply(x):
        axis = p.axis % x.ndim
        return p.coeff * function(x.reshape(*x.shape[:axis], -1))

    return apply


@layer_type("Tile")
def tile(layer, weights):
    p = layer.parameters.tile_param
    # Not `cat` of as many: a list of a billion is gigabytes before anything is tiled.
    return lambda x: x.repeat([p.tiles if axis == p.axis % x.ndim else 1 for axis in range(x.ndim)])


@layer_type("Softmax")
def softmax(layer, weights):
    axis = layer.parameters.softmax_param.axis
    return lambda x: torch.softmax(x, axis)


@layer_type("Normalize")
def normalize(layer, weights):
    p = layer.parameters.norm_param
    factor = weights.take(0, (1, -1, 1, 1))
    axes = (1, 2, 3) if p.across_spatial else (1,)
    return lambda x: x * (x.square().sum(axes, keepdim=True) + p.eps).rsqrt() * factor


@layer_type("Interp")
def interp(layer, weights):
    p = layer.parameters.interp_param

    def target(size, given):
        if given:
            return given
        size = (size - 1) // p.shrink_factor + 1
        return size + (size - 1) * (p.zoom_factor - 1)

    def apply(x):
        if p.pad_beg or p.pad_end:  # zero or negative: a crop
            x = F.pad(x, (p.pad_beg, p.pad_end, p.pad_beg, p.pad_end))
        size = (target(x.shape[2], p.height), target(x.shape[3], p.width))
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    return apply


@layer_type("Upsample")
def upsample(layer, weights):
    factor = layer.parameters.upsample_param.scale
    if len(layer.bottoms) != 1:
        raise ModelError(f"layer {layer.name} (Upsample) with a pooling mask as second bottom is not known here")
    return lambda x: F.interpolate(x, scale_factor=factor, mode="nearest")


@layer_type("ShuffleChannel")
def shuffle_channel(layer, weights):
    return lambda x: F.channel_shuffle(x, layer.parameters.shuffle_channel_param.group)
