"""Functions of single values, and the softmax."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from deepdream.networks.caffemodel import Layer
from deepdream.networks.torch.layers.registry import LayerFunction, Weights, layer_type


@layer_type("ReLU")
def relu(layer: Layer, weights: Weights) -> LayerFunction:
    slope = layer.parameters.relu_param.negative_slope
    return (lambda x: F.leaky_relu(x, slope)) if slope else F.relu


@layer_type("ReLU6")
def relu6(layer: Layer, weights: Weights) -> LayerFunction:
    return F.relu6


@layer_type("PReLU")
def prelu(layer: Layer, weights: Weights) -> LayerFunction:
    slope = weights.take(0, (-1,))
    return lambda x: F.prelu(x, slope)


@layer_type("ELU")
def elu(layer: Layer, weights: Weights) -> LayerFunction:
    alpha = layer.parameters.elu_param.alpha
    return lambda x: F.elu(x, alpha)


@layer_type("Sigmoid")
def sigmoid(layer: Layer, weights: Weights) -> LayerFunction:
    return torch.sigmoid


@layer_type("TanH")
def tanh(layer: Layer, weights: Weights) -> LayerFunction:
    return torch.tanh


@layer_type("AbsVal")
def absval(layer: Layer, weights: Weights) -> LayerFunction:
    return torch.abs


@layer_type("BNLL")
def bnll(layer: Layer, weights: Weights) -> LayerFunction:
    return lambda x: F.softplus(x, threshold=80)


@layer_type("Power")
def power(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.power_param

    def apply(x: Tensor) -> Tensor:
        y = x * p.scale + p.shift
        return y if p.power == 1 else y.pow(p.power)

    return apply


@layer_type("Exp")
def exp(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.exp_param
    log_base = _log_base(p.base)
    return lambda x: torch.exp((x * p.scale + p.shift) * log_base)


@layer_type("Log")
def log(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.log_param
    log_base = _log_base(p.base)
    return lambda x: torch.log(x * p.scale + p.shift) / log_base


def _log_base(base: float) -> float:
    """The natural logarithm of a base; Caffe's -1 stands for e."""
    return 1.0 if base == -1 else math.log(base)


@layer_type("Softmax")
def softmax(layer: Layer, weights: Weights) -> LayerFunction:
    axis = layer.parameters.softmax_param.axis
    return lambda x: torch.softmax(x, axis)


@layer_type("Dropout")
def dropout(layer: Layer, weights: Weights) -> LayerFunction:
    return lambda x: x  # training only
