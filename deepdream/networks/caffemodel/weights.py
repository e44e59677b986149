"""The binary files of a Caffe model: weights and means, as float32 arrays."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from deepdream.errors import ModelError
from deepdream.files.atomic import write_whole
from deepdream.networks.caffemodel import caffemodel_pb2 as pb

MAX_CAFFEMODEL_BYTES = (1 << 31) - 1  # what protobuf can hold


def read_file(path: str | Path, limit: int = MAX_CAFFEMODEL_BYTES) -> bytes:
    """The bytes of a file of a model. Raises `ModelError` where it cannot be read or has more than ``limit`` bytes."""
    try:
        if os.path.getsize(path) > limit:
            raise ModelError(f"{path} has more than {limit:,} bytes: it is no Caffe model")
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error


def read_blobs(caffemodel: str | Path) -> dict[str, tuple[np.ndarray, ...]]:
    """The weights in a ``.caffemodel``, by layer name. Raises `ModelError` that names the file."""
    net = pb.NetParameter()
    data = read_file(caffemodel)
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
        name: tuple(_to_array(blob, f"{caffemodel}: layer {name}") for blob in blobs) for name, blobs in found if blobs
    }


def write_caffemodel(path: str | Path, name: str, blobs: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write the weights of a net, by layer name, as a caffemodel in today's layout."""
    net = pb.NetParameter(name=name)
    for layer_name, arrays in blobs.items():
        layer = net.layer.add(name=layer_name)
        for array in arrays:
            layer.blobs.add(shape=pb.BlobShape(dim=array.shape), data=array.astype("<f4").tobytes())
    write_whole(path, net.SerializeToString())


def read_mean(path: str | Path) -> np.ndarray:
    """The mean of each channel (BGR) in a ``mean.npy`` or ``.binaryproto``: float32 (3,), of 0..255.

    Raises `ModelError` that names the file.
    """
    path = Path(path)
    if path.suffix == ".npy":
        try:
            # Mapped, it runs no pickled code, and takes no more memory than the file has bytes.
            mean = np.array(np.lib.format.open_memmap(path, mode="r"), np.float32)
        except (OSError, ValueError, TypeError, ArithmeticError) as error:
            raise ModelError(f"{path} is no mean that can be read: {error}") from error
    else:
        blob = pb.BlobProto()
        try:
            blob.ParseFromString(read_file(path))
        except DecodeError as error:
            raise ModelError(f"{path} is no binaryproto that can be read") from error
        mean = _to_array(blob, str(path))
    mean = mean.reshape(mean.shape[1:]) if mean.ndim == 4 and len(mean) == 1 else mean
    if mean.ndim not in (1, 3) or mean.shape[0] not in (1, 3) or not np.isfinite(mean).all():
        raise ModelError(f"{path} holds a mean of shape {mean.shape}; expected (3,) or (3, h, w), BGR")
    channels = mean.reshape(len(mean), -1).mean(axis=1, dtype=np.float64).astype(np.float32)
    return np.broadcast_to(channels, 3).copy()  # that of grey pictures is every channel's


def _to_array(blob: pb.BlobProto, where: str) -> np.ndarray:
    """A blob as a float32 array of its shape; ``where`` names it in the `ModelError` if the two differ."""
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:
        shape = (blob.num, blob.channels, blob.height, blob.width)
    kind, data = ("<f8", blob.double_data) if blob.double_data else ("<f4", blob.data)
    if len(data) % np.dtype(kind).itemsize:
        raise ModelError(f"{where}: a blob ends in the middle of a number; the file is damaged")
    values = np.frombuffer(data, kind).astype(np.float32, copy=False)
    if math.prod(shape) != values.size or any(size < 0 for size in shape):
        raise ModelError(f"{where}: a blob of shape {shape} holds {values.size} numbers; the file is damaged")
    return values.reshape(shape)
