"""The table of layer types, and what its functions are given: the layer's weights, and readers of its parameters."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from google.protobuf.message import Message
from torch import Tensor

from deepdream.errors import ModelError
from deepdream.networks.caffemodel import Layer
from deepdream.networks.torch.loops import Pair

LayerFunction = Callable[..., Tensor | tuple[Tensor, ...]]  # bottoms to the top, or to several tops
_Builder = Callable[[Layer, "Weights"], LayerFunction]


class Weights:
    """The blobs of a layer as tensors of ``dtype`` on ``device``."""

    def __init__(self, layer: Layer, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        self._layer = layer
        self._device = torch.device(device)
        self._dtype = dtype

    def take(self, number: int, shape: Sequence[int] | None = None) -> Tensor:
        """Blob ``number`` as a tensor of ``shape``, one of whose sizes may be -1; its own shape where None.

        Old files store every blob with four sizes, so only the count has to agree. Raises `ModelError`.
        """
        layer = self._layer
        if number >= len(layer.blobs):
            raise ModelError(
                f"layer {layer.name} ({layer.type}) has {len(layer.blobs)} blobs in the caffemodel and needs "
                f"{number + 1}; do prototxt and caffemodel belong together?"
            )
        blob = layer.blobs[number]
        if shape is not None:
            try:
                blob = blob.reshape(shape)
            except ValueError:
                wanted = " x ".join("any" if size < 0 else str(size) for size in shape)
                raise ModelError(
                    f"layer {layer.name} ({layer.type}): the prototxt asks for a blob of {wanted}, the caffemodel "
                    f"has {' x '.join(map(str, layer.blobs[number].shape))}; do they belong together?"
                ) from None
        if self._device.type == "meta":
            return torch.empty(blob.shape, dtype=self._dtype, device="meta")
        tensor = torch.from_numpy(np.array(blob)).to(self._device, self._dtype)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


LAYER_TYPES: dict[str, _Builder] = {}


def layer_type(*names: str) -> Callable[[_Builder], _Builder]:
    """Register a function in `LAYER_TYPES` under the names of the Caffe types that it builds."""

    def register(builder: _Builder) -> _Builder:
        LAYER_TYPES.update(dict.fromkeys(names, builder))
        return builder

    return register


def optional(message: Message, name: str) -> int | None:
    """A field of a protobuf message, None where it is not set."""
    return getattr(message, name) if message.HasField(name) else None


def pair(
    layer: Layer, what: str, repeated: Sequence[int], height: int | None, width: int | None, default: int | None
) -> Pair:
    """A spatial parameter as (vertical, horizontal), from its ``repeated`` field or its _h and _w fields.

    ``what`` names it in the `ModelError` where it is missing without a ``default``, or has more than two dimensions.
    """
    if height is not None or width is not None:
        return (height or 0, width or 0)
    if len(repeated) > 2:
        raise ModelError(f"layer {layer.name} ({layer.type}): {what} in {len(repeated)} dimensions; a picture has two")
    if repeated:
        return (repeated[0], repeated[-1])
    if default is None:
        raise ModelError(f"layer {layer.name} ({layer.type}) says no {what}")
    return (default, default)
