"""An option as a dataclass field: `setting` makes one, and all that is known of it travels in the field's metadata.

From there come the command line's parser, the checks of values, the entries of a render's manifest and the command
line that a frame carries.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

from deepdream.errors import UsageError
from deepdream.schedule import Schedule, has_keyframes, parse_lists, parse_number

NO_FILE = "none"
_METADATA_KEY = "setting"

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What the command line and the manifest know of an option. `setting` says what the fields mean."""

    names: tuple[str, ...]
    default: object
    about: str
    default_text: str
    low: float | Fraction | None
    high: float
    low_included: bool
    historic: object
    keyframes: str | None
    is_whole: bool
    argument: dict[str, Any]  # for argparse's add_argument

    @property
    def name(self) -> str:
        """The long name: in messages, and the manifest's key."""
        return self.names[-1]

    @property
    def destination(self) -> str:
        """The name of its value among the parsed arguments."""
        return self.name.lstrip("-").replace("-", "_")

    @property
    def takes_text(self) -> bool:
        """Whether its value is any text, such as a path."""
        return self.argument.get("type") is str and not {"choices", "nargs"} & self.argument.keys()

    @property
    def range(self) -> str:
        """The numbers that it takes, in words."""
        if self.low is None:
            return ""
        low = f"{float(self.low):g}"
        if self.high < math.inf:
            return f"{low} to {self.high:g}"
        return f"at least {low}" if self.low_included else f"greater than {low}"

    @property
    def help(self) -> str:
        """The line of ``--help``: what it is, its range and its default."""
        notes = [self.range] if self.low is not None else []
        if self.default_text:
            notes.append(f"default: {self.default_text}")
        if self.keyframes:
            notes.append(f"over time: {self.keyframes}")
        return f"{self.about} ({'; '.join(notes)})" if notes else self.about

    def convert(self, value: Any) -> Any:
        """A parsed value as the field holds it."""
        if isinstance(self.default, Enum):
            return type(self.default)(value)
        if self.keyframes and isinstance(value, list) and has_keyframes(value[0]):
            return parse_lists(self.name, value, self.keyframes)
        return tuple(value) if isinstance(value, list) else value

    def words(self, value: Any, whole_paths: bool = False) -> list[str]:
        """A value as on the command line; of a path the file's name alone, unless ``whole_paths``."""
        if "action" in self.argument:
            return [self.name]
        if self.takes_text:
            show = str if whole_paths else _file_name
            if isinstance(value, Schedule):
                return [self.name, str(Schedule(value.frames, tuple(map(show, value.values))))]
            return [self.name, show(value)]
        value = _plain(value) if isinstance(value, Schedule) else value
        values = value if isinstance(value, (tuple, list)) else (value.value if isinstance(value, Enum) else value,)
        return [self.name, *map(str, values)]

    def check(self, value: Any) -> None:
        """Raise `UsageError` for a value that is out of range or none of the choices."""
        choices = self.argument.get("choices")
        if choices and value is not None and value not in choices:
            raise UsageError(f"{self.name} {value}: expected one of {', '.join(map(str, choices))}")
        if isinstance(value, Schedule):
            return self._check_schedule(value)
        if self.low is None or value is None:
            return
        above = value >= self.low if self.low_included else value > self.low
        # Not isfinite: it fails for whole numbers beyond the range of float. Comparing is False for nan.
        if not (above and value <= self.high and value < math.inf):
            raise UsageError(f"{self.name} {value}: expected a number, {self.range}")

    def _check_schedule(self, schedule: Schedule) -> None:
        if not self.keyframes:
            raise UsageError(f"{self.name} {schedule}: it cannot change over time; give one value")
        for frame, value in zip(schedule.frames, schedule.values):
            try:
                self.check(value)
            except UsageError as error:
                raise UsageError(f"{error}, at frame {frame} of {schedule}; such as {self.keyframes}") from None

    def at(self, schedule: Schedule, frame: int) -> Any:
        """The value of a `Schedule` at a frame, as the field holds it: whole numbers are rounded."""
        value = schedule.at(frame)
        return math.floor(value + 0.5) if self.is_whole else value


def setting(
    default: T,
    *names: str,
    help: str,
    default_text: str | None = None,
    low: float | Fraction | None = None,
    high: float = math.inf,
    low_included: bool = True,
    historic: object = MISSING,
    keyframes: str | None = None,
    **argument: Any,
) -> T:
    """A dataclass field that is an option of the command line.

    ``names``: as typed, the long one last. ``help``: what it is; the range is added, and the default in the words of
    ``default_text``, else as it is, if it is neither False nor "". ``low`` and ``high``: the range of a number,
    inclusive but for ``low`` without ``low_included``. ``historic``: what renders did before there was this option,
    so that those begun then go on; for options younger than render.json. ``keyframes``: an example of them, where the
    value may change over time (see `deepdream.schedule`). ``argument``: more for argparse's add_argument; ``type`` is
    that of the default if it is not given, and text for None; ``metavar`` is N for a whole number, and X for another.
    """
    if isinstance(default, bool):
        argument["action"] = "store_true"
    elif isinstance(default, Enum):
        argument |= {"type": type(default.value), "choices": [member.value for member in type(default)]}
    else:
        argument.setdefault("type", str if default is None else type(default))
    kind = argument.get("type")
    if kind in (int, float):
        argument["type"] = partial(parse_number, names[-1], kind, keyframes)
        if "choices" not in argument:
            argument.setdefault("metavar", "N" if kind is int else "X")
    text = _show(default) if default_text is None else default_text
    whole = kind is int
    metadata = Setting(names, default, help, text, low, high, low_included, historic, keyframes, whole, argument)
    return field(default=default, metadata={_METADATA_KEY: metadata})


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if value is None:
        return NO_FILE
    return "" if value is False else f"{value:g}" if isinstance(value, float) else str(value)


def _file_name(path: str | None) -> str:
    """The name of a file without its directory; of no file, the word for it."""
    return os.path.basename(os.path.abspath(path)).encode(errors="replace").decode() if path else NO_FILE


def settings_of(kind: Any) -> Iterator[tuple[str, Setting]]:
    """(name of the field, `Setting`) of each option that an option class or an instance of one holds."""
    return ((each.name, each.metadata[_METADATA_KEY]) for each in fields(kind) if _METADATA_KEY in each.metadata)


class Options:
    """The base of option classes, which are frozen: an instance that exists has been checked."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for the first option that is out of range."""
        for name, known in settings_of(self):
            known.check(getattr(self, name))

    def _take(self, **values: Any) -> None:
        """Set fields, amid `__post_init__`."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def at(options: T, frame: int) -> T:
    """Options as they are for a frame: what changes over time, in those that they hold too, has its value there."""
    changed = {}
    for each in fields(options):  # type: ignore[arg-type]  # an option class is a dataclass
        value = getattr(options, each.name)
        if isinstance(value, Schedule):
            changed[each.name] = each.metadata[_METADATA_KEY].at(value, frame)
        elif is_dataclass(value) and (plain := at(value, frame)) is not value:
            changed[each.name] = plain
    return replace(options, **changed) if changed else options  # type: ignore[type-var]


def options_from(kind: Callable[..., T], values: Mapping[str, Any], **more: Any) -> T:
    """An option class, with those that it holds, from parsed values by their destinations; None keeps the default.

    ``more``: its fields that are no options.
    """
    given = more
    for each in fields(kind):  # type: ignore[arg-type]  # an option class is a dataclass
        if is_dataclass(each.default):
            given[each.name] = options_from(type(each.default), values)
        elif _METADATA_KEY in each.metadata:
            known = each.metadata[_METADATA_KEY]
            value = values[known.destination]
            if value is not None:
                given[each.name] = known.convert(value)
    return kind(**given)


def manifest_entries(options: Any) -> dict[str, object]:
    """The options of an instance by their long names, as plain data for a render's manifest."""
    values = ((known.name, getattr(options, name)) for name, known in settings_of(options))
    return {name: _plain(value) for name, value in values}


def words(options: Any, whole_paths: bool = False) -> list[str]:
    """The shortest command line that gives an instance, with those that it holds; see `Setting.words`."""
    found = list(leaves(options))
    kept = {path for path, _, _ in found}
    for path, _, _ in found:  # some defaults depend on other options, so try without each
        if _keep(options, kept - {path}) == options:
            kept.remove(path)
    return [word for path, known, value in found if path in kept for word in known.words(value, whole_paths)]


def leaves(options: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Setting, Any]]:
    """(path, `Setting`, value) of each option of an instance and of those that it holds."""
    for each in fields(options):
        here, value = (*path, each.name), getattr(options, each.name)
        if _METADATA_KEY in each.metadata:
            yield here, each.metadata[_METADATA_KEY], value
        elif is_dataclass(value):
            yield from leaves(value, here)


def _keep(options: Any, kept: set[tuple[str, ...]], path: tuple[str, ...] = ()) -> Any:
    """An instance with the options at the paths ``kept``, and defaults for the others."""
    values = {}
    for each in fields(options):
        here, value = (*path, each.name), getattr(options, each.name)
        if is_dataclass(each.default):
            values[each.name] = _keep(value, kept, here)
        elif here in kept or _METADATA_KEY not in each.metadata:
            values[each.name] = value
    return type(options)(**values)


def _plain(value: Any) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Schedule):
        return value.words if isinstance(value.values[0], tuple) else str(value)
    return list(value) if isinstance(value, tuple) else value
