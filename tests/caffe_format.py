"""Caffe's file format in its three generations, to test the reading of it.

The caffemodels are written byte by byte, with the field numbers of Caffe's own caffe.proto: a wrong number in
the project's would show.
"""

import re

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
