"""Targets as a user gives them (see `deepdream.target`), turned into those of the network's own layers and channels."""

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from deepdream.errors import ModelError
from deepdream.options import CUSTOM_LOOP
from deepdream.schedule import Schedule
from deepdream.target import Term, parse_target, target_layers, write_target

if TYPE_CHECKING:
    from deepdream.interface import Network

OnMessage = Callable[[str], object]


def resolve_layers(
    network: "Network", names: Iterable[str] | Schedule, *, on_message: OnMessage
) -> tuple[str, ...] | Schedule:
    """The targets that ``names`` mean: customloop is replaced by the network's loop, and all layers are the network's.

    A name of GoogLeNet's is translated where the embedded default network runs; ``on_message`` gets the line that
    says so. Channels become numbers. Raises `UsageError` for what is no target, `ModelError` that offers the nearest
    names for an unknown layer or class.
    """
    if isinstance(names, Schedule) and _has_layers(network, names.words):
        # Where numbers are names of layers, 325:7 is a channel, unless there is a layer 7 too.
        names = names if _has_layers(network, chain.from_iterable(names.values)) else names.words
    if isinstance(names, Schedule):
        lists = (resolve_layers(network, value, on_message=on_message) for value in names.values)
        return Schedule(names.frames, tuple(lists))
    targets = []
    for name in chain.from_iterable(network.loop if name == CUSTOM_LOOP else (name,) for name in names):
        terms = parse_target(name, network.layers)
        targets.append(write_target(_resolve(network, term, on_message) for term in terms))
    return tuple(targets)


def _has_layers(network: "Network", targets: Iterable[str]) -> bool:
    return all(layer in network.layers for layer in target_layers(targets, network.layers))


def _resolve(network: "Network", term: Term, on_message: OnMessage) -> Term:
    from deepdream.networks import default

    layer = term.layer
    stand_in = default.stand_in(layer) if network.name == default.NAME else None
    if layer not in network.layers and stand_in:
        on_message(f"{layer} is a layer of GoogLeNet; {stand_in} of the default network stands in for it")
        layer = stand_in
    if layer not in network.layers:
        hint = _nearest(layer, network.layers)
        raise ModelError(f"the network {network.name} has no layer {layer}; {hint}--list-layers shows all")
    numbers = chain.from_iterable(_channels(network, layer, name) for name in term.channels)
    return replace(term, layer=layer, channels=tuple(map(str, dict.fromkeys(numbers))))


def _channels(network: "Network", layer: str, name: str) -> Iterable[int]:
    """The channels that ``name`` means: a number, a range such as 9-12, or a class."""
    count = network.shape(layer, network.input_size or (224, 224))[0]
    found = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", name)
    if found:
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < count:
            raise ModelError(f"layer {layer} has no channels {name}: they are numbered from 0 to {count - 1}")
        return range(first, last + 1)
    if layer not in network.class_layers():
        raise ModelError(f"layer {layer} has no channel {name}: give numbers from 0 to {count - 1}")
    if not network.labels:
        raise ModelError(f"{network.name} does not say what its classes are called ({name}); give their numbers")
    # A label lists synonyms: "tench, Tinca tinca".
    numbers = {
        word.strip().lower(): number
        for number, label in reversed(list(enumerate(network.labels[:count])))
        for word in (label, *label.split(","))
    }
    if name.lower() not in numbers:
        raise ModelError(
            f"{network.name} has no class {name}; {_nearest(name.lower(), numbers)}--list-layers shows all"
        )
    return (numbers[name.lower()],)


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), 3, 0.4)
    return f"near it: {', '.join(near)}; " if near else ""
