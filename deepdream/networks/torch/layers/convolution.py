"""Layers whose values are weighted sums: convolutions and fully connected layers."""

import torch.nn.functional as F
from torch import Tensor

from deepdream.errors import ModelError
from deepdream.networks.caffemodel import Layer
from deepdream.networks.torch.conv2d import Window
from deepdream.networks.torch.layers.registry import LayerFunction, Weights, layer_type, optional, pair

CONVOLUTIONS = ("Convolution", "DepthwiseConvolution", "ConvolutionDepthwise")


def convolution_parameters(layer: Layer, weights: Weights) -> tuple[Tensor, Tensor | None, Window]:
    """(weight (out, in / groups, kh, kw), bias or None, window) of a layer of one of the types `CONVOLUTIONS`."""
    p = layer.parameters.convolution_param
    window = _window(layer)
    weight = weights.take(0, (p.num_output, -1, *window.kernel))
    bias = weights.take(1, (p.num_output,)) if p.bias_term else None
    if layer.type != "Convolution" and weight.shape[1] == 1:
        # The depthwise types of the forks may leave `group` out: one channel in, one out.
        window = window._replace(groups=p.num_output)
    return weight, bias, window


def _window(layer: Layer) -> Window:
    p = layer.parameters.convolution_param
    kernel = pair(layer, "kernel_size", p.kernel_size, optional(p, "kernel_h"), optional(p, "kernel_w"), None)
    stride = pair(layer, "stride", p.stride, optional(p, "stride_h"), optional(p, "stride_w"), 1)
    pad = pair(layer, "pad", p.pad, optional(p, "pad_h"), optional(p, "pad_w"), 0)
    dilation = pair(layer, "dilation", p.dilation, None, None, 1)
    if min(*kernel, *stride, *dilation, p.group) < 1:
        raise ModelError(f"layer {layer.name} ({layer.type}): kernel, stride, dilation and group must be 1 or more")
    return Window(kernel, stride, pad, dilation, p.group)


@layer_type(*CONVOLUTIONS)
def convolution(layer: Layer, weights: Weights) -> LayerFunction:
    weight, bias, window = convolution_parameters(layer, weights)
    return lambda x: F.conv2d(x, weight, bias, *window[1:])


@layer_type("Deconvolution")
def deconvolution(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.convolution_param
    kernel, stride, pad, dilation, groups = _window(layer)
    weight = weights.take(0, (-1, p.num_output // groups, *kernel))
    bias = weights.take(1, (p.num_output,)) if p.bias_term else None
    return lambda x: F.conv_transpose2d(x, weight, bias, stride, pad, 0, groups, dilation)


@layer_type("InnerProduct")
def inner_product(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.inner_product_param
    weight = weights.take(0, (-1, p.num_output)).t() if p.transpose else weights.take(0, (p.num_output, -1))
    bias = weights.take(1, (p.num_output,)) if p.bias_term else None
    return lambda x: F.linear(x.flatten(p.axis), weight, bias)
