"""Layers that combine several values, take one apart, or change its shape or size."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from deepdream.errors import ModelError
from deepdream.networks.caffemodel import Layer, pb
from deepdream.networks.torch.layers.registry import LayerFunction, Weights, layer_type


@layer_type("Eltwise")
def eltwise(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.eltwise_param
    coefficients = list(p.coeff) or [1.0] * len(layer.bottoms)
    if len(coefficients) != len(layer.bottoms):
        raise ModelError(f"layer {layer.name} (Eltwise): {len(coefficients)} coeff for {len(layer.bottoms)} bottoms")

    def total(*bottoms: Tensor) -> Tensor:
        _check_alike(bottoms)
        terms = [x if c == 1 else x * c for x, c in zip(bottoms, coefficients)]
        return sum(terms[1:], terms[0])

    def largest(first: Tensor, second: Tensor, *others: Tensor) -> Tensor:
        _check_alike((first, second, *others))
        # Of two equal values Caffe passes the gradient to one: the second of the first pair, then the earlier.
        top = torch.where(first > second, first, second)
        for other in others:
            top = torch.where(other > top, other, top)
        return top

    def product(*bottoms: Tensor) -> Tensor:
        _check_alike(bottoms)
        return math.prod(bottoms[1:], start=bottoms[0])

    operations = pb.EltwiseParameter
    functions: dict[int, LayerFunction] = {operations.SUM: total, operations.MAX: largest, operations.PROD: product}
    return functions[p.operation]


def _check_alike(bottoms: tuple[Tensor, ...]) -> None:
    """Caffe takes no bottoms of different shapes, and PyTorch would broadcast some."""
    shapes = {tuple(x.shape) for x in bottoms}
    if len(shapes) > 1:
        raise ValueError(f"bottoms of different shapes: {', '.join(map(str, sorted(shapes)))}")


@layer_type("Axpy")
def axpy(layer: Layer, weights: Weights) -> LayerFunction:
    return lambda a, x, y: a.reshape(*a.shape[:2], 1, 1) * x + y


@layer_type("Concat")
def concat(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.concat_param
    axis = p.concat_dim if p.HasField("concat_dim") else p.axis
    return lambda *bottoms: torch.cat(bottoms, axis)


def joins_channels(layer: Layer) -> bool:
    """Whether a layer is a Concat of channels."""
    p = layer.parameters.concat_param
    return layer.type == "Concat" and p.axis == p.concat_dim == 1


@layer_type("Slice")
def slice_(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.slice_param
    axis = p.slice_dim if p.HasField("slice_dim") else p.axis
    points, count = list(p.slice_point), len(layer.tops)
    if points and len(points) != count - 1:
        raise ModelError(f"layer {layer.name} (Slice): {len(points)} slice_point for {count} tops")

    def apply(x: Tensor) -> tuple[Tensor, ...]:
        if points:
            return torch.tensor_split(x, points, axis)
        if x.shape[axis] % count:
            raise ValueError(f"{x.shape[axis]} does not divide into {count} equal slices")
        return torch.chunk(x, count, axis)

    return apply


@layer_type("Split")
def split(layer: Layer, weights: Weights) -> LayerFunction:
    return lambda x: (x,) * len(layer.tops)


@layer_type("Flatten")
def flatten(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.flatten_param
    return lambda x: x.flatten(p.axis, p.end_axis)


@layer_type("Reshape")
def reshape(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.reshape_param

    def apply(x: Tensor) -> Tensor:
        first = p.axis if p.axis >= 0 else x.ndim + p.axis + 1
        last = x.ndim if p.num_axes == -1 else first + p.num_axes
        middle = [x.shape[first + i] if size == 0 else size for i, size in enumerate(p.shape.dim)]
        return x.reshape(*x.shape[:first], *middle, *x.shape[last:])

    return apply


@layer_type("Permute")
def permute(layer: Layer, weights: Weights) -> LayerFunction:
    order = list(layer.parameters.permute_param.order)
    return lambda x: x.permute(order + [axis for axis in range(x.ndim) if axis not in order])


@layer_type("Crop")
def crop(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.crop_param
    offsets = list(p.offset) or [0]

    def apply(x: Tensor, like: Tensor) -> Tensor:
        first = p.axis % x.ndim
        for axis in range(first, x.ndim):
            start = offsets[0] if len(offsets) == 1 else offsets[axis - first]
            x = x.narrow(axis, start, like.shape[axis])
        return x

    return apply


@layer_type("Reduction")
def reduction(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.reduction_param
    operations = pb.ReductionParameter
    function = {
        operations.SUM: lambda x: x.sum(-1),
        operations.ASUM: lambda x: x.abs().sum(-1),
        operations.SUMSQ: lambda x: x.square().sum(-1),
        operations.MEAN: lambda x: x.mean(-1),
    }[p.operation]

    def apply(x: Tensor) -> Tensor:
        axis = p.axis % x.ndim
        return p.coeff * function(x.reshape(*x.shape[:axis], -1))

    return apply


@layer_type("Tile")
def tile(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.tile_param
    # Not `cat` of as many: a list of a billion is gigabytes before anything is tiled.
    return lambda x: x.repeat([p.tiles if axis == p.axis % x.ndim else 1 for axis in range(x.ndim)])


@layer_type("Interp")
def interp(layer: Layer, weights: Weights) -> LayerFunction:
    p = layer.parameters.interp_param

    def target(size: int, given: int) -> int:
        if given:
            return given
        size = (size - 1) // p.shrink_factor + 1
        return size + (size - 1) * (p.zoom_factor - 1)

    def apply(x: Tensor) -> Tensor:
        if p.pad_beg or p.pad_end:  # zero or negative: a crop
            x = F.pad(x, (p.pad_beg, p.pad_end, p.pad_beg, p.pad_end))
        size = (target(x.shape[2], p.height), target(x.shape[3], p.width))
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    return apply


@layer_type("Upsample")
def upsample(layer: Layer, weights: Weights) -> LayerFunction:
    factor = layer.parameters.upsample_param.scale
    if len(layer.bottoms) != 1:
        raise ModelError(f"layer {layer.name} (Upsample) with a pooling mask as second bottom is not known here")
    return lambda x: F.interpolate(x, scale_factor=factor, mode="nearest")


@layer_type("ShuffleChannel")
def shuffle_channel(layer: Layer, weights: Weights) -> LayerFunction:
    return lambda x: F.channel_shuffle(x, layer.parameters.shuffle_channel_param.group)
