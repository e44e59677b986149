"""Layers that normalise values by their neighbours or by statistics, and those that scale and shift channels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deepdream.errors import ModelError
from deepdream.networks.caffemodel import Layer, pb
from deepdream.networks.torch import compiled
from deepdream.networks.torch.conv2d import PackedConv2d
from deepdream.networks.torch.layers.pooling import average_pool
from deepdream.networks.torch.layers.registry import LayerFunction, Weights, layer_type
from deepdream.networks.torch.loops import LRN_BETA

_MIN_VARIANCE = 1e-30  # far below any eps, and still a float32


@layer_type("LRN")
def lrn(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.lrn_param
    if p.local_size % 2 == 0:
        raise ModelError(f"layer {layer.name} (LRN): local_size {p.local_size} must be odd")
    if p.norm_region == pb.LRNParameter.WITHIN_CHANNEL:
        return _lrn_within_channel(p.local_size, p.alpha, p.beta)
    return _lrn_across_channels(p.local_size, p.alpha, p.beta, p.k, stopping_norm(layer))


def stopping_norm(layer: Layer) -> Callable[..., Tensor] | None:
    """`compiled.local_response_norm` of (x, stops=) as a layer has it; None for others and where it cannot take it."""
    p = layer.parameters.lrn_param
    if layer.type != "LRN" or p.norm_region == pb.LRNParameter.WITHIN_CHANNEL or p.local_size % 2 == 0:
        return None
    reach = p.local_size // 2
    if p.beta != LRN_BETA or reach > compiled.MAX_REACH:
        return None
    return partial(compiled.local_response_norm, reach=reach, alpha=p.alpha / p.local_size, k=p.k)


def _lrn_within_channel(size: int, alpha: float, beta: float) -> LayerFunction:
    def apply(x: Tensor) -> Tensor:
        mean_square = average_pool(x * x, (size, size), (1, 1), (size // 2, size // 2), True)
        return x * (1 + alpha * mean_square) ** -beta

    return apply


def _lrn_across_channels(
    size: int, alpha: float, beta: float, k: float, compiled_norm: Callable[..., Tensor] | None
) -> LayerFunction:
    reach = size // 2
    convolutions = {}

    def apply(x: Tensor) -> Tensor:
        if compiled_norm and compiled.is_supported(x):
            return compiled_norm(x)
        x = x.contiguous(memory_format=torch.channels_last)
        channels = x.shape[1]
        key = channels, x.dtype, x.device
        if key not in convolutions:
            weight = torch.full((channels, channels), alpha / size, dtype=x.dtype, device=x.device)
            band = weight.triu(-reach).tril(reach)[:, :, None, None]
            bias = torch.full((channels,), k, dtype=x.dtype, device=x.device)
            convolutions[key] = PackedConv2d(lambda: band, bias), PackedConv2d(lambda: -2 * beta * band)
        return LocalResponseNorm.apply(x, *convolutions[key], beta)

    return apply


class LocalResponseNorm(torch.autograd.Function):
    """y = x * (k + alpha / n * sum of x^2 over n neighbouring channels) ** -beta, and its derivative.

    The sum over channels is a 1x1 convolution with a band of alpha / n (symmetric, so that it serves both passes): on a
    CPU several times as fast as PyTorch's own response norm. ``scale_of`` maps x^2 to the bracket, ``cross_term_of``
    is the band times -2 beta.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale_of: Callable, cross_term_of: Callable, beta: float) -> Tensor:
        scale = scale_of(x * x)
        factor = _power(scale, -beta)
        y = x * factor
        ctx.save_for_backward(x, factor, y / scale)
        ctx.cross_term_of = cross_term_of
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        x, factor, ratio = ctx.saved_tensors
        return ctx.cross_term_of(ratio * dy).mul_(x).addcmul_(dy, factor), None, None, None


def _power(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent; the -0.75 that nearly all nets use comes much faster from square roots."""
    return x.sqrt().mul_(x).rsqrt_() if exponent == -0.75 else x.pow(exponent)


@layer_type("BatchNorm")
def batch_norm(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.batch_norm_param
    if not _has_statistics(layer):
        return lambda x: _normalised(x, p.eps)
    mean, variance = _statistics(weights)
    return lambda x: F.batch_norm(x, mean, variance, training=False, eps=p.eps)


def _has_statistics(layer: Layer) -> bool:
    """Whether a BatchNorm goes by the mean and variance that it stores, not by those of its input."""
    p = layer.parameters.batch_norm_param
    is_training = layer.parameters.HasField("phase") and layer.parameters.phase == pb.TRAIN
    return p.use_global_stats if p.HasField("use_global_stats") else not is_training


def _statistics(weights: Weights) -> tuple[Tensor, Tensor]:
    """(mean, variance) of each channel. The running sums are stored with the factor they were weighted by; a factor
    of 0 means no statistics."""
    factor = weights.take(2, (1,))
    unweight = torch.where(factor == 0, torch.zeros_like(factor), 1 / factor)
    return weights.take(0, (-1,)) * unweight, weights.take(1, (-1,)) * unweight


def _normalised(x: Tensor, eps: float) -> Tensor:
    """Each channel less its own mean, over its own deviation; PyTorch's refuses a channel of a single value."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()


def scales_channels(layer: Layer) -> bool:
    """Whether a layer multiplies each channel by a number of its own and adds another."""
    if layer.type == "BatchNorm":
        return _has_statistics(layer)
    p = layer.parameters.scale_param
    return layer.type == "Scale" and len(layer.bottoms) == 1 and p.axis == 1 and p.num_axes == 1


def channel_scale(layer: Layer, weights: Weights) -> tuple[Tensor, Tensor]:
    """(factor, shift), one number a channel, of a layer that `scales_channels`."""
    if layer.type == "BatchNorm":
        mean, variance = _statistics(weights)
        factor = (variance + layer.parameters.batch_norm_param.eps).rsqrt()
        return factor, -mean * factor
    factor = weights.take(0, (-1,))
    shift = weights.take(1, (-1,)) if layer.parameters.scale_param.bias_term else torch.zeros_like(factor)
    return factor, shift


@layer_type("Scale")
def scale(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.scale_param
    learned = (weights.take(0),) if len(layer.bottoms) == 1 else ()
    shift = weights.take(len(learned)) if p.bias_term else None

    def apply(x: Tensor, *factors: Tensor) -> Tensor:
        (factor,) = factors or learned
        y = x * _broadcast(factor, x, p.axis)
        return y if shift is None else y + _broadcast(shift.reshape(factor.shape), x, p.axis)

    return apply


@layer_type("Bias")
def bias(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.bias_param
    learned = (weights.take(0),) if len(layer.bottoms) == 1 else ()

    def apply(x: Tensor, *shifts: Tensor) -> Tensor:
        (shift,) = shifts or learned
        return x + _broadcast(shift, x, p.axis)

    return apply


def _broadcast(weight: Tensor, x: Tensor, axis: int) -> Tensor:
    """``weight`` shaped so that its first axis meets axis ``axis`` of ``x``; a single number meets them all."""
    axis = axis % x.ndim if weight.ndim else 0
    if tuple(weight.shape) != tuple(x.shape[axis : axis + weight.ndim]):
        raise ValueError(f"{tuple(weight.shape)} is not part of {tuple(x.shape)} from axis {axis} on")
    return weight.reshape(weight.shape + (1,) * (x.ndim - axis - weight.ndim))


@layer_type("MVN")
def mvn(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.mvn_param
    axes = (1, 2, 3) if p.across_channels else (2, 3)

    def apply(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        if not p.normalize_variance:
            return centred
        # The root of 0 has no derivative, so a flat channel must not reach it.
        deviation = centred.square().mean(axes, keepdim=True).clamp(min=_MIN_VARIANCE).sqrt()
        return centred / (deviation + p.eps)

    return apply


@layer_type("Normalize")
def normalize(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.norm_param
    factor = weights.take(0, (1, -1, 1, 1))
    axes = (1, 2, 3) if p.across_spatial else (1,)
    return lambda x: x * (x.square().sum(axes, keepdim=True) + p.eps).rsqrt() * factor
