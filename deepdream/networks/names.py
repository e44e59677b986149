"""Layer names as a user gives them, turned into names of the network's own layers."""

import difflib
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING

from deepdream.errors import ModelError
from deepdream.options import CUSTOM_LOOP

if TYPE_CHECKING:
    from deepdream.interface import Network


def resolve_layers(network: "Network", names: Iterable[str], *, on_message: Callable[[str], object]) -> tuple[str, ...]:
    """The layers that ``names`` mean: customloop is replaced by the network's loop, and each name is the network's.

    A name of GoogLeNet's is translated where the embedded default network runs; ``on_message`` gets the line that
    says so. Raises `ModelError` that offers the nearest names for an unknown one.
    """
    from deepdream.networks import default

    layers = []
    for name in chain.from_iterable(network.loop if name == CUSTOM_LOOP else (name,) for name in names):
        stand_in = default.stand_in(name) if network.name == default.NAME else None
        if name not in network.layers and stand_in:
            on_message(f"{name} is a layer of GoogLeNet; {stand_in} of the default network stands in for it")
            name = stand_in
        if name not in network.layers:
            near = difflib.get_close_matches(name, network.layers, 3, 0.4)
            hint = f"near it: {', '.join(near)}; " if near else ""
            raise ModelError(f"the network {network.name} has no layer {name}; {hint}--list-layers shows all")
        layers.append(name)
    return tuple(layers)
