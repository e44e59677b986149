"""What a dream enhances: each objective maps a layer's activations to its gradient there.

Activations and gradients are float32 tensors (c, h, w). The dream ascends the objective. Objectives at layers compose
by ``+`` and ``*`` (after lucid's optvis, Olah et al. 2017): ``at("conv3", l2) + 0.5 * at("conv1", channels([7]))``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from deepdream.interface import Objective

MAX_PRODUCTS = 1 << 24  # dot products held at a time: 64 MB


def l2(activations: torch.Tensor) -> torch.Tensor:
    """Whatever the layer sees, more of it: the gradient of half the squared L2 norm (Mordvintsev et al. 2015)."""
    return activations


def channels(numbers: Sequence[int]) -> Objective:
    """The sum of these channels over all positions (Olah et al. 2017); of a classifier's layer, of these classes."""

    return only(torch.ones_like, numbers)


def only(objective: Objective, numbers: Sequence[int]) -> Objective:
    """An objective of these channels alone."""

    def chosen(activations: torch.Tensor) -> torch.Tensor:
        gradient = torch.zeros_like(activations)
        gradient[list(numbers)] = objective(activations)[list(numbers)]
        return gradient

    return chosen


def scaled(objective: Objective, factor: float) -> Objective:
    """An objective times a number."""
    return lambda activations: factor * objective(activations)


def total(parts: Sequence[Objective]) -> Objective:
    """The sum of objectives at one layer."""
    return lambda activations: sum((part(activations) for part in parts[1:]), start=parts[0](activations))


@dataclass(frozen=True)
class Part:
    """An objective at a layer, with its weight in a sum."""

    layer: str
    objective: Objective
    weight: float = 1.0


@dataclass(frozen=True)
class WeightedSum:
    """Objectives at several layers, each weighted after its gradient has been scaled to mean magnitude 1."""

    parts: tuple[Part, ...]

    def __add__(self, other: "WeightedSum") -> "WeightedSum":
        return WeightedSum(self.parts + other.parts)

    def __mul__(self, factor: float) -> "WeightedSum":
        return WeightedSum(tuple(replace(part, weight=factor * part.weight) for part in self.parts))

    __rmul__ = __mul__

    def by_layer(self, scales: Sequence[float]) -> dict[str, Objective]:
        """The objective at each layer, with the parts multiplied by ``scales``."""
        gathered: dict[str, list[Objective]] = {}
        for part, scale in zip(self.parts, scales):
            if scale:
                gathered.setdefault(part.layer, []).append(scaled(part.objective, scale))
        return {layer: total(objectives) for layer, objectives in gathered.items()}


def at(layer: str, objective: Objective = l2) -> WeightedSum:
    """An objective at a layer, to be composed."""
    return WeightedSum((Part(layer, objective),))


def guide(guide_activations: torch.Tensor) -> Objective:
    """The guided dream: each position is drawn towards the guide's feature vector with the greatest dot product.

    ``guide_activations``: those of the guide image at the same layer, (c, h, w) of any h and w
    (Mordvintsev et al. 2015).
    """
    features = guide_activations.reshape(len(guide_activations), -1)  # a fully connected layer has no h and w

    def objective(activations: torch.Tensor) -> torch.Tensor:
        flat = activations.reshape(len(activations), -1)
        chunk = max(1, MAX_PRODUCTS // features.shape[1])
        best = [(part.T @ features).argmax(1) for part in flat.split(chunk, 1)]
        return features[:, torch.cat(best)].reshape(activations.shape)

    return objective
