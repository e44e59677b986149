"""Values that change over time: ``0:10, 48:16`` is 10 at frame 0, 16 from frame 48 on, and on a line in between.

Numbers move from one keyframe to the next; anything else, such as layers and pictures, changes at the keyframe. Frames
count from 0. Before the first keyframe and after the last the value stays.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeVar, cast

from deepdream.errors import UsageError

T = TypeVar("T")

_NEXT = re.compile(r",\s*(?=\d+\s*:)(?![^(]*\))")  # channels have commas too, and weights in parentheses keyframes
_KEYFRAME = re.compile(r"\s*(\d{1,9})\s*:\s*(.*?)[\s,]*", re.DOTALL)


@dataclass(frozen=True)
class Schedule:
    """The ``values`` at ``frames``, which ascend."""

    frames: tuple[int, ...]
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ", ".join(f"{frame}:{_show(value)}" for frame, value in zip(self.frames, self.values))

    @property
    def words(self) -> list[str]:
        """Lists over time as words of the command line; `parse_lists` reads them."""
        pairs = zip(self.frames, self.values)
        return [word for frame, (first, *more) in pairs for word in (f"{frame}:{first}", *more)]

    def at(self, frame: int) -> Any:
        """The value at a frame."""
        after = bisect_right(self.frames, frame)
        before = max(after - 1, 0)
        value = self.values[before]
        if after in (0, len(self.frames)) or not isinstance(value, Real):
            return value
        start, end = self.frames[before], self.frames[after]
        return value + (self.values[after] - value) * (frame - start) / (end - start)


def keyframes(values: Mapping[int, T]) -> T:
    """A value that changes over time, by frame: ``DreamOptions(iterations=keyframes({0: 10, 48: 16}))``.

    For the options that take keyframes on the command line. It stands in for a value, so it has a value's type.
    """
    frames = tuple(sorted(values))
    if not frames or frames[0] < 0:
        raise UsageError(f"keyframes {dict(values)}: expected values by frame, from 0, such as {{0: 10, 48: 16}}")
    return cast(T, Schedule(frames, tuple(values[frame] for frame in frames)))


def values_of(value: T) -> tuple[T, ...]:
    """The values that an option takes over time: one, unless it is a `Schedule`."""
    return value.values if isinstance(value, Schedule) else (value,)


def has_keyframes(text: str) -> bool:
    """Whether a text starts as keyframes do."""
    return bool(re.match(r"\s*\d+\s*:", text))


def parse_number(option: str, kind: type, example: str | None, text: str) -> Any:
    """A number of type ``kind``, or a `Schedule` of such; without an ``example`` it takes none. Raises `UsageError`."""
    if ":" in text:
        if not example:
            raise UsageError(f"{option} {text}: it does not change over time; give one number")
        return parse_keyframes(option, text, text.split(","), kind, example)
    try:
        return kind(text)
    except ValueError:
        keyframed = f", or keyframes such as {example}" if example else ""
        raise UsageError(f"{option} {text}: {_expected(kind)}{keyframed}") from None


def parse_texts(option: str, text: str, example: str) -> Schedule:
    """A `Schedule` of texts."""
    return parse_keyframes(option, text, _NEXT.split(text), str, example)


def parse_lists(option: str, words: Iterable[str], example: str) -> Schedule:
    """A `Schedule` of tuples of texts: ``0:a b, 48:c`` is a and b at frame 0."""
    pieces: list[list[str]] = []
    for word in (word for text in words for word in _NEXT.split(text)):
        if has_keyframes(word):
            pieces.append([])
        pieces[-1].append(word.strip(" ,"))
    texts = parse_keyframes(option, " ".join(words), [piece[0] for piece in pieces], str, example)
    return Schedule(texts.frames, tuple((text, *piece[1:]) for text, piece in zip(texts.values, pieces)))


def parse_keyframes(
    option: str, text: str, pieces: Iterable[str], read: Callable[[str], Any], example: str
) -> Schedule:
    """The `Schedule` of ``pieces`` such as ``48:16`` or ``48:(16)``, those of ``text``; ``read`` reads a value.

    Raises `UsageError` that names the option, the place and an ``example``.
    """
    frames: list[int] = []
    values: list[Any] = []
    for number, piece in enumerate(pieces, 1):
        where = f"{option} {text}: keyframe {number}, {piece.strip() or 'nothing'}"
        found = _KEYFRAME.fullmatch(piece)
        if not found or not found[2]:
            raise UsageError(f"{where}: expected a frame and a value, such as {example}")
        frame, value = int(found[1]), found[2]
        if read is not str and value.startswith("(") and value.endswith(")"):
            value = value[1:-1]
        if frames and frame <= frames[-1]:
            raise UsageError(f"{where}: frame {frame} comes after frame {frames[-1]}; they ascend, such as {example}")
        try:
            values.append(read(value))
        except ValueError:
            raise UsageError(f"{where}: {_expected(read)}, such as {example}") from None
        frames.append(frame)
    return Schedule(tuple(frames), tuple(values))


def _expected(kind: object) -> str:
    return "expected a whole number" if kind is int else "expected a number"


def _show(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value).removesuffix(".0")
