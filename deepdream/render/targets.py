"""The objectives of a render: from targets (see `deepdream.target`) and a guide image to what a dream ascends."""

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from deepdream.files.frames import read_frame
from deepdream.interface import Network, Objective
from deepdream.picture import ascent, objectives
from deepdream.picture.objectives import Part, WeightedSum
from deepdream.schedule import Schedule
from deepdream.target import parse_target

GUIDE_SIZE = (224, 224)


def objectives_at(network: Network, guide: str | np.ndarray | None) -> Callable[[str], Objective | WeightedSum]:
    """A function from a target to its objective: at a plain layer without the layer's name, else a weighted sum.

    ``guide``: the guide image, as its path or as RGB (h, w, 3); None for none.
    """
    at_layer = (lambda layer: objectives.l2) if guide is None else cache(_guides(network, guide))

    def objective(target: str) -> Objective | WeightedSum:
        if target in network.layers:
            return at_layer(target)
        return _weighted_sum(network, target, at_layer, guide is not None)

    return objective


def _weighted_sum(network: Network, target: str, at_layer: Callable[[str], Objective], is_guided: bool) -> WeightedSum:
    parts = []
    for term in parse_target(target, network.layers):
        objective = at_layer(term.layer)
        if term.channels:
            objective = objectives.only(objective, term.numbers) if is_guided else objectives.channels(term.numbers)
        assert not isinstance(term.weight, Schedule), "the target of a frame is plain"
        parts.append(Part(term.layer, objective, term.weight))
    return WeightedSum(tuple(parts))


def _guides(network: Network, guide: str | np.ndarray) -> Callable[[str], Objective]:
    """A function from a layer to the guided objective there."""
    image = Image.fromarray(read_frame(guide) if isinstance(guide, str) else guide)
    picture = ascent.to_network(image.resize(GUIDE_SIZE, Image.Resampling.LANCZOS), network)
    return lambda layer: objectives.guide(network.activations(picture, layer))
