"""Caffe nets to test with, filled with random weights that keep their activations alive, and pictures for them."""

import math
from pathlib import Path

import numpy as np
import torch
from google.protobuf import text_format

from deepdream.networks.caffemodel import DATA_TYPES, Layer, parse_prototxt, pb, write_caffemodel
from deepdream.networks.caffemodel.prototxt import find_inputs
from deepdream.networks.torch.layers import LAYER_TYPES, Weights

MEAN_DEVIATION = 70.0  # of a picture's values

SMALL_SIZE = (40, 48)
SMALL = """
name: "small"
input: "data"
input_shape { dim: 1 dim: 3 dim: 40 dim: 48 }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 6 kernel_size: 5 stride: 2 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
        pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 5 alpha: 0.1 beta: 0.75 } }
layer { name: "left" type: "Convolution" bottom: "norm1" top: "left"
        convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "right" type: "Convolution" bottom: "norm1" top: "right"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 group: 2 } }
layer { name: "mixed" type: "Concat" bottom: "left" bottom: "right" top: "mixed" }
layer { name: "relu2" type: "ReLU" bottom: "mixed" top: "mixed" }
layer { name: "narrow" type: "Convolution" bottom: "mixed" top: "narrow"
        convolution_param { num_output: 5 kernel_size: 4 } }
layer { name: "classes" type: "InnerProduct" bottom: "narrow" top: "classes" inner_product_param { num_output: 7 } }
layer { name: "prob" type: "Softmax" bottom: "classes" top: "prob" }
"""


def write_model(folder, prototxt, blobs, name="net"):
    """Write deploy.prototxt (from text or a message) and a caffemodel of ``blobs`` into ``folder``; both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "deploy.prototxt", folder / f"{name}.caffemodel"
    text = text_format.MessageToString(prototxt) if isinstance(prototxt, pb.NetParameter) else prototxt
    files[0].write_text(text, encoding="utf-8")
    write_caffemodel(files[1], "net", blobs)
    return files


def save(folder, net, seed=0):
    """Write a net (a message) with random weights into ``folder``; returns the folder."""
    write_model(folder, net, random_blobs(net, seed))
    return folder


def zoo_net(path, size):
    """A prototxt of the Caffe Model Zoo, for pictures of ``size``."""
    net = parse_prototxt(Path(path).read_text(encoding="utf-8"), path)
    del net.input_dim[:], net.input_shape[:]
    inputs = [layer for layer in net.layer if layer.type == "Input"]
    for layer in inputs:
        del layer.input_param.shape[:]
        layer.input_param.shape.add(dim=(1, 3, *size))
    if not inputs:
        net.input_shape.add(dim=(1, 3, *size))
    return net


def picture(size, seed=0):
    """A smooth random picture less its mean, float32 (3, h, w)."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.standard_normal((1, 3, size[0] // 3 + 2, size[1] // 3 + 2)))
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0] * MEAN_DEVIATION
    noise = torch.from_numpy(rng.standard_normal((3, *size))) * MEAN_DEVIATION / 10
    return (smooth + noise).clamp(-128, 127).float()


def random_blobs(net, seed=0):
    """Weights for every layer of ``net`` (text or a message), of the shapes that the values before it ask for."""
    net = parse_prototxt(net) if isinstance(net, str) else net
    rng = np.random.default_rng(seed)
    values = {name: picture(shape[2:])[None] for name, shape in find_inputs(net).items()}
    blobs = {}
    for message in net.layer:
        if message.type in DATA_TYPES:
            continue
        bottoms = [values[name] for name in message.bottom]
        made = tuple(array.astype(np.float32) for array in _random_weights(message, bottoms, rng))
        if made:
            blobs[message.name] = made
        layer = Layer.from_message(message, made)
        with torch.no_grad():
            tops = LAYER_TYPES[message.type](layer, Weights(layer, "cpu"))(*bottoms)
        values.update(zip(message.top, tops if isinstance(tops, tuple) else (tops,)))
    return blobs


def _random_weights(message, bottoms, rng):
    """He's initialisation where there are weights to multiply, statistics of the values where they are normalised."""
    x = bottoms[0]
    channels = x.shape[1]
    if message.type in ("Convolution", "Deconvolution", "InnerProduct"):
        return _filters(message, x, rng)
    if message.type == "BatchNorm":
        axes = [axis for axis in range(x.ndim) if axis != 1]
        factor = 999.98  # as training leaves it: the sums are stored, not the means
        # The statistics of a data set, not of this picture: what its pixels have in common is not all taken away, and
        # a channel that it leaves dark is not brought up. Else every layer would double the relative error of the one
        # before, in either engine, which no trained net does.
        mean = x.mean(axes).numpy() * rng.uniform(0, 0.4, channels)
        variance = (x.square().mean(axes).numpy() + float(x.square().mean())) / 2
        return [mean * factor, variance * factor, np.array([factor])]
    if message.type in ("Scale", "Bias") and len(bottoms) == 1:
        p = message.scale_param if message.type == "Scale" else message.bias_param
        first = p.axis % x.ndim
        shape = x.shape[first:] if p.num_axes == -1 else x.shape[first : first + p.num_axes]
        weight, bias = rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.6, shape)
        return ([weight, bias] if p.bias_term else [weight]) if message.type == "Scale" else [bias]
    if message.type == "Scale" and message.scale_param.bias_term:
        return [rng.normal(0, 0.3, bottoms[1].shape)]
    if message.type == "PReLU":
        return [rng.uniform(0.1, 0.5, () if message.prelu_param.channel_shared else channels)]
    if message.type == "Normalize":
        return [rng.uniform(5, 20, () if message.norm_param.channel_shared else channels)]
    return []


def _filters(message, x, rng):
    if message.type == "InnerProduct":
        p = message.inner_product_param
        fan_in = math.prod(x.shape[p.axis % x.ndim :])
        shape = (fan_in, p.num_output) if p.transpose else (p.num_output, fan_in)
    else:
        p = message.convolution_param
        sizes = list(p.kernel_size)
        kernel = (p.kernel_h, p.kernel_w) if p.HasField("kernel_h") else (sizes[0], sizes[-1])
        forward = message.type == "Convolution"
        ends = (p.num_output, x.shape[1]) if forward else (x.shape[1], p.num_output)
        shape = (ends[0], ends[1] // p.group, *kernel)
        fan_in = x.shape[1] // p.group * math.prod(kernel)
    # The first layer meets pixels of up to 128 and brings them to about 1, as trained nets do.
    spread = float(x.square().mean().sqrt())
    weight = rng.standard_normal(shape, dtype=np.float32) * math.sqrt(2 / fan_in) / max(spread / 1.5, 1e-6)
    return [weight, rng.normal(0, 0.1, p.num_output)] if p.bias_term else [weight]
