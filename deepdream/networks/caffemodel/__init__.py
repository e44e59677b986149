"""Caffe models as they lie on disk: a prototxt (the layers) and a caffemodel (their blobs), read into plain data.

Three generations of the format are read: today's ``layer``, the ``layers`` with numbered types of 2014,
and the flat ``layers { layer { } }`` of 2013.
"""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from deepdream.errors import ModelError
from deepdream.files.atomic import write_whole
from deepdream.networks.caffemodel import caffemodel_pb2 as pb

LARGEST_INPUT = 1 << 28  # numbers: a gigabyte
LARGEST_PROTOTXT = 10_000_000  # bytes; ResNet-152 has 100,000
LARGEST_CAFFEMODEL = (1 << 31) - 1  # bytes: what protobuf can hold

# Layers that feed a net with data: their first top is the net's input.
DATA_TYPES = ("Input", "Data", "ImageData", "MemoryData", "DummyData", "HDF5Data", "WindowData", "AnnotatedData")

# The types of 2014 whose name in today's layout is not theirs in CamelCase.
_V1_NAMES = {
    "BNLL": "BNLL", "LRN": "LRN", "MVN": "MVN", "HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output",
    "RELU": "ReLU", "TANH": "TanH", "ABSVAL": "AbsVal", "ARGMAX": "ArgMax", "SOFTMAX_LOSS": "SoftmaxWithLoss",
}  # fmt: skip

_V0_NAMES = {
    "bnll": "BNLL", "concat": "Concat", "conv": "Convolution", "data": "Data", "dropout": "Dropout",
    "flatten": "Flatten", "innerproduct": "InnerProduct", "lrn": "LRN", "pool": "Pooling", "relu": "ReLU",
    "sigmoid": "Sigmoid", "softmax": "Softmax", "softmax_loss": "SoftmaxWithLoss", "split": "Split", "tanh": "TanH",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One layer: ``parameters`` is its `LayerParameter` message, ``blobs`` its weights (float32 arrays)."""

    name: str
    type: str
    bottoms: tuple
    tops: tuple
    parameters: pb.LayerParameter
    blobs: tuple = ()


@dataclass(frozen=True)
class Model:
    """A net: ``inputs`` maps the name of each input blob to its shape (None where the file gives none)."""

    name: str
    inputs: dict
    layers: tuple = field(repr=False)


def load_model(prototxt, caffemodel):
    """Read a `Model` from its two files. Raises `ModelError` that names the file and, in text, the line."""
    net = parse_prototxt(_read(prototxt, LARGEST_PROTOTXT).decode("utf-8", "replace"), prototxt)
    blobs = read_blobs(caffemodel)
    inputs = dict(_declared_inputs(net))
    layers = []
    for parameters in net.layer:
        if parameters.type in DATA_TYPES:
            inputs.update(_data_layer_inputs(parameters))
        layers.append(
            Layer(
                name=parameters.name,
                type=parameters.type,
                bottoms=tuple(parameters.bottom),
                tops=tuple(parameters.top),
                parameters=parameters,
                blobs=blobs.get(parameters.name, ()),
            )
        )
    if not layers:
        raise ModelError(f"{prototxt} has no layers; is it a deploy.prototxt?")
    if not inputs:
        raise ModelError(f"{prototxt} has no input: neither an `input` nor an Input or Data layer")
    for name, shape in inputs.items():
        if shape is not None and (min(shape, default=1) < 1 or math.prod(shape) > LARGEST_INPUT):
            raise ModelError(f"{prototxt}: its input {name} has the impossible shape {' x '.join(map(str, shape))}")
    return Model(net.name or Path(prototxt).parent.name, inputs, tuple(layers))


def parse_prototxt(text, source="prototxt"):
    """A `NetParameter` in today's layout, of the layers that run in the TEST phase. ``source`` names it in errors."""
    net = pb.NetParameter()
    try:
        text_format.Parse(text, net, allow_unknown_field=True)
    except (text_format.ParseError, UnicodeError, RecursionError) as error:
        raise ModelError(f"{source} is no prototxt that can be read: line {error}") from error
    upgraded = [_upgrade(layer) for layer in net.layers]
    net.layer.extend(upgraded)
    del net.layers[:]
    kept = [layer for layer in net.layer if _runs(layer, net.state)]
    del net.layer[:]
    net.layer.extend(kept)
    return net


def read_blobs(caffemodel):
    """The weights in a ``.caffemodel``: a dict from layer name to a tuple of float32 arrays."""
    net = pb.NetParameter()
    data = _read(caffemodel)
    try:
        net.ParseFromString(data)
        found = [(layer.name, layer.blobs) for layer in net.layer]
        for layer in net.layers:
            old = layer.layer if layer.HasField("layer") else layer
            found.append((old.name, old.blobs))
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{caffemodel} is no caffemodel, or is cut off: download it again") from error
    if not found:
        raise ModelError(f"{caffemodel} holds no layers: it is no caffemodel, or is cut off")
    return {
        name: tuple(blob_array(blob, f"{caffemodel}: layer {name}") for blob in blobs) for name, blobs in found if blobs
    }


def blob_array(blob, where):
    """A `BlobProto` as a float32 array of its shape; ``where`` names it in the `ModelError` if the two differ."""
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:
        shape = (blob.num, blob.channels, blob.height, blob.width)
    kind, data = ("<f8", blob.double_data) if blob.double_data else ("<f4", blob.data)
    if len(data) % np.dtype(kind).itemsize:
        raise ModelError(f"{where}: a blob ends in the middle of a number; the file is damaged")
    values = np.frombuffer(data, kind).astype(np.float32, copy=False)
    count = 1
    for size in shape:
        count *= size
    if count != values.size or any(size < 0 for size in shape):
        raise ModelError(f"{where}: a blob of shape {shape} holds {values.size} numbers; the file is damaged")
    return values.reshape(shape)


def write_caffemodel(path, name, blobs):
    """Write weights (a dict from layer name to float32 arrays) as a caffemodel in today's layout."""
    net = pb.NetParameter(name=name)
    for layer_name, arrays in blobs.items():
        layer = net.layer.add(name=layer_name)
        for array in arrays:
            layer.blobs.add(shape=pb.BlobShape(dim=array.shape), data=array.astype("<f4").tobytes())
    write_whole(path, net.SerializeToString())


def read_mean(path):
    """The mean of each channel (BGR) in a ``mean.npy`` or ``.binaryproto``: float32 (3,), of 0..255."""
    path = Path(path)
    if path.suffix == ".npy":
        try:
            # Mapped, it runs no pickled code, and takes no more memory than the file has bytes.
            mean = np.array(np.lib.format.open_memmap(path, "r"), np.float32)
        except (OSError, ValueError, TypeError, ArithmeticError) as error:
            raise ModelError(f"{path} is no mean that can be read: {error}") from error
    else:
        blob = pb.BlobProto()
        try:
            blob.ParseFromString(_read(path))
        except DecodeError as error:
            raise ModelError(f"{path} is no binaryproto that can be read") from error
        mean = blob_array(blob, path)
    mean = mean.reshape(mean.shape[1:]) if mean.ndim == 4 and len(mean) == 1 else mean
    if mean.ndim not in (1, 3) or mean.shape[0] != 3 or not np.isfinite(mean).all():
        raise ModelError(f"{path} holds a mean of shape {mean.shape}; expected (3,) or (3, h, w), BGR")
    return mean.reshape(3, -1).mean(axis=1, dtype=np.float64).astype(np.float32)


def _read(path, limit=LARGEST_CAFFEMODEL):
    try:
        if os.path.getsize(path) > limit:
            raise ModelError(f"{path} has more than {limit:,} bytes: it is no Caffe model")
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error


def _upgrade(old):
    """A layer of 2014 or 2013 in today's layout, without its blobs."""
    if old.HasField("layer"):
        return _upgrade_v0(old)
    new = pb.LayerParameter(name=old.name, bottom=old.bottom, top=old.top)
    type_name = pb.V1LayerParameter.LayerType.Name(old.type)
    new.type = _V1_NAMES.get(type_name) or type_name.title().replace("_", "")
    new.include.extend(old.include)
    new.exclude.extend(old.exclude)
    for described, value in old.ListFields():
        if described.name.endswith("_param"):
            getattr(new, described.name).CopyFrom(value)
    return new


def _upgrade_v0(old):
    flat = old.layer
    if flat.type not in _V0_NAMES:
        raise ModelError(f"layer {flat.name} has the type {flat.type!r} of 2013, which is not known here")
    new = pb.LayerParameter(name=flat.name, type=_V0_NAMES[flat.type], bottom=old.bottom, top=old.top)
    if new.type == "Convolution":
        convolution = new.convolution_param
        convolution.num_output, convolution.bias_term, convolution.group = flat.num_output, flat.biasterm, flat.group
        convolution.kernel_size.append(flat.kernelsize)
        convolution.stride.append(flat.stride)
        convolution.pad.append(flat.pad)
    elif new.type == "Pooling":
        pooling = new.pooling_param
        pooling.pool, pooling.kernel_size, pooling.stride, pooling.pad = (
            flat.pool, flat.kernelsize, flat.stride, flat.pad,
        )  # fmt: skip
    elif new.type == "InnerProduct":
        new.inner_product_param.num_output, new.inner_product_param.bias_term = flat.num_output, flat.biasterm
    elif new.type == "LRN":
        lrn = new.lrn_param
        lrn.local_size, lrn.alpha, lrn.beta, lrn.k = flat.local_size, flat.alpha, flat.beta, flat.k
    elif new.type == "Concat":
        new.concat_param.axis = flat.concat_dim
    return new


def _runs(layer, state):
    """Whether Caffe's rules of phase, level and stage keep a layer in a net that is run, not trained."""

    def holds(rule):
        return (
            (not rule.HasField("phase") or rule.phase == pb.TEST)
            and (not rule.HasField("min_level") or state.level >= rule.min_level)
            and (not rule.HasField("max_level") or state.level <= rule.max_level)
            and set(rule.stage) <= set(state.stage)
            and not set(rule.not_stage) & set(state.stage)
        )

    if layer.include:
        return any(holds(rule) for rule in layer.include)
    return not any(holds(rule) for rule in layer.exclude)


def _declared_inputs(net):
    """Inputs written at the head of a prototxt: `input` with `input_shape`, or four `input_dim` each."""
    for number, name in enumerate(net.input):
        shape = None
        if number < len(net.input_shape):
            shape = tuple(net.input_shape[number].dim)
        elif 4 * number + 4 <= len(net.input_dim):
            shape = tuple(net.input_dim[4 * number : 4 * number + 4])
        yield name, shape


def _data_layer_inputs(layer):
    """The first top of a layer that feeds data is an input; what follows it (labels) is not."""
    shape = None
    memory, dummy = layer.memory_data_param, layer.dummy_data_param
    if layer.input_param.shape:
        shape = tuple(layer.input_param.shape[0].dim)
    elif dummy.shape:
        shape = tuple(dummy.shape[0].dim)
    elif dummy.height:
        shape = (dummy.num[0], dummy.channels[0], dummy.height[0], dummy.width[0])
    elif layer.transform_param.crop_size:
        shape = (1, 3, layer.transform_param.crop_size, layer.transform_param.crop_size)
    elif memory.height:
        shape = (1, memory.channels, memory.height, memory.width)
    if layer.top:
        yield layer.top[0], shape
