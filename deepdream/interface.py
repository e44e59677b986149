"""The network as the dream sees it. What runs it, PyTorch or Caffe, is decided in `deepdream.networks`."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch

Objective = Callable[[torch.Tensor], torch.Tensor]  # a layer's activations (c, h, w) to the gradient there, (c, h, w)


class Network(Protocol):
    """A network to dream with.

    ``layers``: their names, in order; ``loop``: those of its customloop. ``mean``: (3, 1, 1), BGR in 0..255, what is
    subtracted from a picture before it gets here. ``digest``: a sum of the files and the engine. ``precision``: the
    name of the type in which the convolutions compute. ``input_size``: (h, w) that the model declares, or None.
    ``labels``: the names of its classes, in order, where the model brings them. ``features``: the layers that show what
    it sees at each depth: those in which its blocks end, or its convolutions.
    """

    name: str
    layers: tuple[str, ...]
    loop: tuple[str, ...]
    mean: torch.Tensor
    device: torch.device
    precision: str
    digest: str
    input_size: tuple[int, int] | None
    labels: tuple[str, ...]
    features: tuple[str, ...]

    def gradient(self, picture: torch.Tensor, layer: str, objective: Objective) -> torch.Tensor:
        """The derivative of the objective at ``layer`` by the picture: float32 (3, h, w) to (3, h, w).

        Raises as `activations` does.
        """
        ...

    def gradient_of_sum(self, picture: torch.Tensor, objectives: Mapping[str, Objective]) -> torch.Tensor:
        """The derivative of the sum of objectives at several layers, by layer, in one forward and backward pass.

        ``picture`` may be a batch (n, 3, h, w): each is differentiated as if it were alone.
        """
        ...

    def activations(self, picture: torch.Tensor, layer: str) -> torch.Tensor:
        """What ``layer`` puts out for a float32 picture (3, h, w): (c, h', w').

        The run stops right after the layer, before an in-place one that follows. Raises `ModelError` for a layer that
        the net does not have, `PictureTooSmall` for a picture that it cannot take.
        """
        ...

    def shape(self, layer: str, size: tuple[int, int]) -> tuple[int, ...]:
        """The shape (c, h', w') of `activations` for a picture of ``size`` (h, w); nothing is computed."""
        ...

    def class_layers(self) -> tuple[str, ...]:
        """The layers whose channels are classes."""
        ...

    def check_size(self, layer: str, size: tuple[int, int]) -> None:
        """Raise `PictureTooSmall` where a picture of ``size`` (h, w) does not reach ``layer``."""
        ...

    def least_size(self, layer: str) -> int | None:
        """The least n for which n x n pictures reach ``layer``; None where there is none."""
        ...

    def memory(self, layer: str, size: tuple[int, int]) -> int | None:
        """The peak of `gradient` in bytes for a picture of ``size`` (h, w), beside the weights.

        None where the engine cannot tell.
        """
        ...
