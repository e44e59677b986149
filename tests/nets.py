"""Caffe nets to test with: a small one in each of the three layouts, and any prototxt filled with random weights.

The caffemodels are written byte by byte, with the field numbers of Caffe's own caffe.proto: a wrong number in
the project's would show.
"""

import re

import numpy as np

from deepdream.networks.caffemodel import parse_prototxt

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
SMALL_2013 = """
name: "small"
input: "data"
input_dim: 1 input_dim: 3 input_dim: 40 input_dim: 48
layers { layer { name: "conv1" type: "conv" num_output: 6 kernelsize: 5 stride: 2 } bottom: "data" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: MAX kernelsize: 3 stride: 2 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 5 alpha: 0.1 beta: 0.75 } bottom: "pool1" top: "norm1" }
layers { layer { name: "left" type: "conv" num_output: 4 kernelsize: 1 } bottom: "norm1" top: "left" }
layers { layer { name: "right" type: "conv" num_output: 4 kernelsize: 3 pad: 1 group: 2 } bottom: "norm1" top: "right" }
layers { layer { name: "mixed" type: "concat" } bottom: "left" bottom: "right" top: "mixed" }
layers { layer { name: "relu2" type: "relu" } bottom: "mixed" top: "mixed" }
layers { layer { name: "narrow" type: "conv" num_output: 5 kernelsize: 4 } bottom: "mixed" top: "narrow" }
layers { layer { name: "classes" type: "innerproduct" num_output: 7 } bottom: "narrow" top: "classes" }
layers { layer { name: "prob" type: "softmax" } bottom: "classes" top: "prob" }
"""

_TYPES_2014 = {
    "Concat": "CONCAT", "Convolution": "CONVOLUTION", "Dropout": "DROPOUT", "InnerProduct": "INNER_PRODUCT",
    "LRN": "LRN", "Pooling": "POOLING", "ReLU": "RELU", "Softmax": "SOFTMAX",
}  # fmt: skip
_TYPES_2014_LAYER = re.compile(rf'\btype: "({"|".join(_TYPES_2014)})"')


def layout_2014(prototxt):
    """The text of a prototxt of today in the layout of 2014."""
    text = re.sub(
        r'layer\s*{[^{}]*type: "Input"[^{}]*{\s*shape:\s*{([^}]*)}\s*}\s*}',
        lambda found: 'input: "data" ' + found[1].replace("dim:", "input_dim:"),
        prototxt,
    )
    text = re.sub(r"input_shape {([^}]*)}", lambda found: found[1].replace("dim:", "input_dim:"), text)
    text = re.sub(r"\blayer\s*{", "layers {", text)
    return _TYPES_2014_LAYER.sub(lambda found: f"type: {_TYPES_2014[found[1]]}", text)


def random_blobs(prototxt, size, seed=0):
    """Random weights for each layer of a net that takes pictures of ``size`` (h, w): a dict of float32 arrays."""
    rng = np.random.default_rng(seed)
    blobs = {}
    for name, (shape, bias) in _blob_shapes(parse_prototxt(prototxt), size).items():
        deviation = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        weights = rng.standard_normal(shape, dtype=np.float32) * deviation
        blobs[name] = (weights, rng.standard_normal(bias, dtype=np.float32) * np.float32(0.1))
    return blobs


def _blob_shapes(net, size):
    """The shapes of weights and bias by layer; the picture's size is followed through the net by Caffe's rules."""
    tops, shapes = {"data": (3, *size)}, {}
    for layer in net.layer:
        if layer.type == "Input":
            continue
        top = channels, *size = tops[layer.bottom[0]]
        if layer.type == "Convolution":
            p = layer.convolution_param
            kernel, stride, pad = p.kernel_size[0], (*p.stride, 1)[0], (*p.pad, 0)[0]
            shapes[layer.name] = (p.num_output, channels // p.group, kernel, kernel), (p.num_output,)
            top = (p.num_output, *((length + 2 * pad - kernel) // stride + 1 for length in size))
        elif layer.type == "Pooling":
            p = layer.pooling_param
            top = (channels, *(-(-(length + 2 * p.pad - p.kernel_size) // p.stride) + 1 for length in size))
        elif layer.type == "InnerProduct":
            count = layer.inner_product_param.num_output
            shapes[layer.name] = (count, int(np.prod(top))), (count,)
            top = (count, 1, 1)
        elif layer.type == "Concat":
            top = (sum(tops[bottom][0] for bottom in layer.bottom), *size)
        tops[layer.top[0]] = top
    return shapes


def caffemodel(blobs, layout="today"):
    """The bytes of a caffemodel that holds ``blobs`` (float32 arrays by layer), in the layout of a year."""
    layers = []
    for name, arrays in blobs.items():
        if layout == "today":
            layers.append(_bytes(100, _bytes(1, name.encode()) + b"".join(_bytes(7, _blob(a)) for a in arrays)))
        elif layout == "2014":
            layers.append(_bytes(2, _bytes(4, name.encode()) + b"".join(_bytes(6, _old_blob(a)) for a in arrays)))
        else:
            flat = _bytes(1, name.encode()) + b"".join(_bytes(50, _old_blob(a)) for a in arrays)
            layers.append(_bytes(2, _bytes(1, flat)))
    return _bytes(1, b"net") + b"".join(layers)


def binaryproto(array):
    """The bytes of a blob alone, as in a mean.binaryproto."""
    return _old_blob(array)


def _blob(array):
    return _bytes(7, _bytes(1, b"".join(map(_varint, array.shape)))) + _bytes(5, array.astype("<f4").tobytes())


def _old_blob(array):
    """Until late in 2014 each blob had four sizes: a bias was (1, 1, 1, n)."""
    shape = (1,) * (4 - array.ndim) + array.shape
    sizes = b"".join(_varint(number << 3) + _varint(size) for number, size in enumerate(shape, 1))
    return sizes + _bytes(5, array.astype("<f4").tobytes())


def _bytes(number, content):
    """A protobuf field of bytes: its number and wire type 2, its length, itself."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    """A number in groups of seven bits, the lowest first."""
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def write_model(folder, prototxt, blobs, layout="today", name="net"):
    """Write deploy.prototxt and a caffemodel into ``folder``; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "deploy.prototxt", folder / f"{name}.caffemodel"
    files[0].write_text(prototxt)
    files[1].write_bytes(caffemodel(blobs, layout))
    return files
