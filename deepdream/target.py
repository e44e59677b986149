"""What a frame dreams towards, as text: layers, channels of them, and weighted sums of both.

    mixed            what the layer sees
    mixed:3,7,9-12   these channels of it; of a classifier's layer, classes
    mixed+0.5*conv1  several in one step; a negative weight dreams away from what follows it
    mixed*(0:1, 48:0)+conv1*(0:0, 48:1)
                     weights that change over time (see `deepdream.schedule`)

A layer's own name, whatever characters it has, is that layer. Texts are checked against a network and brought into
this form by `deepdream.networks.resolve_layers`; `parse_target` reads them.
"""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

from deepdream.errors import UsageError
from deepdream.schedule import Schedule, parse_number, values_of

# Between terms. A minus is one only before a number and an asterisk: names and ranges of channels may have others.
_BETWEEN_TERMS = re.compile(r"\+|(?=-\s*[\d.]+\s*\*)")
_WEIGHT = r"-?\s*[\d.]+|\(\s*\d+\s*:.*?\)?\)"  # a number, or keyframes, whose values may stand in parentheses too
_TERM = re.compile(
    rf"\s*(?:(?P<weight>{_WEIGHT})\s*\*|(?P<minus>-))?\s*(?P<place>\S.*?)\s*(?:\*\s*(?P<after>{_WEIGHT})\s*)?"
)
EXAMPLE = "mixed*(0:1, 48:0)+conv1*(0:0, 48:1)"
MIN_WEIGHT, MAX_WEIGHT = 0.0001, 10_000  # of a term; between them a number is written without an exponent


@dataclass(frozen=True)
class Term:
    """One layer of a target. ``channels``: numbers, or names of classes before they are resolved; () for all.

    ``weight``: a number, or a `Schedule` of them.
    """

    layer: str
    channels: tuple[str, ...] = ()
    weight: float | Schedule = 1.0

    def __str__(self) -> str:
        if isinstance(self.weight, Schedule):
            weight = f"({self.weight})*"
        else:
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


def target_at(target: str, frame: int) -> str:
    """A target as it is for a frame: its weights are numbers. Terms of weight 0 drop out, but for all of them."""
    terms = parse_target(target, ())  # a name that this cuts is put together again
    if not any(isinstance(term.weight, Schedule) for term in terms):
        return target
    plain = [replace(term, weight=_number(term.weight, frame)) for term in terms]
    weighty = [term for term in plain if abs(_number(term.weight)) >= MIN_WEIGHT]
    return write_target(weighty or [replace(term, weight=MIN_WEIGHT) for term in plain])


def _number(weight: float | Schedule, frame: int = 0) -> float:
    return weight.at(frame) if isinstance(weight, Schedule) else weight


def _read_term(text: str, found: re.Match[str], layers: Container[str]) -> Term:
    if (found["weight"] or found["minus"]) and found["after"]:
        raise UsageError(f"--layers {text}: {found[0].strip()} has two weights; give one, such as {EXAMPLE}")
    weight = -1.0 if found["minus"] else _read_weight(text, found["weight"] or found["after"] or "1")
    place = found["place"]
    layer, colon, channels = (place, "", "") if place in layers else place.rpartition(":")
    if not colon:
        return Term(place, (), weight)
    names = tuple(name.strip() for name in channels.split(","))
    if not layer or not all(names):
        raise UsageError(f"--layers {text}: after the colon, channels are missing; expected such as {layer}:3,7,9-12")
    return Term(layer.strip(), names, weight)


def _read_weight(text: str, weight: str) -> float | Schedule:
    bare = weight[1:-1] if weight.startswith("(") else weight
    read = parse_number(f"--layers {text}: weight", float, EXAMPLE, bare.replace(" ", ""))
    is_varying = isinstance(read, Schedule)
    for number in values_of(read):
        if not (MIN_WEIGHT <= abs(number) <= MAX_WEIGHT or (is_varying and number == 0)):
            raise UsageError(
                f"--layers {text}: the weight {number:g} is out of range: {MIN_WEIGHT} to {MAX_WEIGHT}, or the negative"
            )
    return read


def target_layers(targets: Iterable[str], layers: Container[str]) -> tuple[str, ...]:
    """The layers that some targets name, each once."""
    terms = (term for target in targets for term in parse_target(target, layers))
    return tuple(dict.fromkeys(term.layer for term in terms))
