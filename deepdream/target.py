"""What a frame dreams towards, as text: layers, channels of them, and weighted sums of both.

    mixed            what the layer sees
    mixed:3,7,9-12   these channels of it; of a classifier's layer, classes
    mixed+0.5*conv1  several in one step; a negative weight dreams away from what follows it

A layer's own name, whatever characters it has, is that layer. Texts are checked against a network and brought into
this form by `deepdream.networks.resolve_layers`; `parse_target` reads them.
"""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

from deepdream.errors import UsageError

# Between terms. A minus is one only before a number and an asterisk: names and ranges of channels may have others.
_BETWEEN_TERMS = re.compile(r"\+|(?=-\s*[\d.]+\s*\*)")
_TERM = re.compile(r"\s*(?:(?P<weight>-?\s*[\d.]+)\s*\*|(?P<minus>-))?\s*(?P<place>\S.*?)\s*")
MIN_WEIGHT, MAX_WEIGHT = 0.0001, 10_000  # of a term; between them a number is written without an exponent


@dataclass(frozen=True)
class Term:
    """One layer of a target. ``channels``: numbers, or names of classes before they are resolved; () for all."""

    layer: str
    channels: tuple[str, ...] = ()
    weight: float = 1.0

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"{self.weight:.12g}*"
        channels = f":{','.join(self.channels)}" if self.channels else ""
        return f"{weight}{self.layer}{channels}"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The channels of a resolved term."""
        return tuple(map(int, self.channels))


def parse_target(text: str, layers: Container[str]) -> tuple[Term, ...]:
    """The terms of a target, ``layers`` being the network's. Raises `UsageError` where the text is none."""
    if text in layers:
        return (Term(text),)
    terms: list[Term] = []
    parts = _BETWEEN_TERMS.split(text)
    for part, following in zip(parts, [*parts[1:], ""]):
        if not part.strip() and following.startswith("-"):
            continue  # there is nothing before a leading minus, nor between + and -
        found = _TERM.fullmatch(part)
        if not found:
            raise UsageError(f"--layers {text}: a term is missing; expected such as mixed:3,7 or mixed+0.5*conv1")
        terms.append(_read_term(text, found, layers))
    return tuple(terms)


def write_target(terms: Iterable[Term]) -> str:
    """The text of a target; `parse_target` reads it again."""
    texts = [str(term) for term in terms]
    return texts[0] + "".join(text if text.startswith("-") else f"+{text}" for text in texts[1:])


def _read_term(text: str, found: re.Match[str], layers: Container[str]) -> Term:
    try:
        weight = -1.0 if found["minus"] else float((found["weight"] or "1").replace(" ", ""))
    except ValueError:
        raise UsageError(f"--layers {text}: {found['weight']} is no number") from None
    if not MIN_WEIGHT <= abs(weight) <= MAX_WEIGHT:
        raise UsageError(
            f"--layers {text}: the weight {weight:g} is out of range: {MIN_WEIGHT} to {MAX_WEIGHT}, or the negative"
        )
    place = found["place"]
    layer, colon, channels = (place, "", "") if place in layers else place.rpartition(":")
    if not colon:
        return Term(place, (), weight)
    names = tuple(name.strip() for name in channels.split(","))
    if not layer or not all(names):
        raise UsageError(f"--layers {text}: after the colon, channels are missing; expected such as {layer}:3,7,9-12")
    return Term(layer.strip(), names, weight)


def target_layers(targets: Iterable[str], layers: Container[str]) -> tuple[str, ...]:
    """The layers that some targets name, each once."""
    terms = (term for target in targets for term in parse_target(target, layers))
    return tuple(dict.fromkeys(term.layer for term in terms))
