"""A Caffe model as plain data: its layers in order, each with its parameters and weights, and its inputs."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deepdream.errors import ModelError
from deepdream.networks.caffemodel import caffemodel_pb2 as pb
from deepdream.networks.caffemodel.prototxt import find_inputs, read_prototxt
from deepdream.networks.caffemodel.weights import read_blobs

MAX_INPUT_ELEMENTS = 1 << 28  # a gigabyte


@dataclass(frozen=True)
class Layer:
    """One layer: ``parameters`` is its `LayerParameter` message, ``blobs`` its weights (float32 arrays)."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    parameters: pb.LayerParameter
    blobs: tuple[np.ndarray, ...] = ()

    @classmethod
    def from_message(cls, message: pb.LayerParameter, blobs: tuple[np.ndarray, ...] = ()) -> "Layer":
        """The layer that a message describes."""
        return cls(message.name, message.type, tuple(message.bottom), tuple(message.top), message, blobs)


@dataclass(frozen=True)
class Model:
    """A net: ``inputs`` maps the name of each input blob to its shape (None where the file gives none)."""

    name: str
    inputs: dict[str, tuple[int, ...] | None]
    layers: tuple[Layer, ...] = field(repr=False)


def load_model(prototxt: str | Path, caffemodel: str | Path) -> Model:
    """Read a model from its two files. Raises `ModelError` that names the file and, in text, the line."""
    net = read_prototxt(prototxt)
    blobs = read_blobs(caffemodel)
    inputs = find_inputs(net)
    if not net.layer:
        raise ModelError(f"{prototxt} has no layers; is it a deploy.prototxt?")
    if not inputs:
        raise ModelError(f"{prototxt} has no input: neither an `input` nor an Input or Data layer")
    for name, shape in inputs.items():
        if shape is not None and (min(shape, default=1) < 1 or math.prod(shape) > MAX_INPUT_ELEMENTS):
            raise ModelError(f"{prototxt}: its input {name} has the impossible shape {' x '.join(map(str, shape))}")
    layers = tuple(Layer.from_message(message, blobs.get(message.name, ())) for message in net.layer)
    return Model(net.name or Path(prototxt).parent.name, inputs, layers)
