"""What a directory of dreams remembers of its render: the settings, and the sums of each frame that is whole.

`render.json` holds the settings. `frames.jsonl` gets a line as each frame is saved; a frame counts as done while
it and its source have the sums of its line. Each run adds a line of what it runs on, and one that looks for the scene
cuts of all frames first a line of these. Nothing that is decided here depends on clocks or on the times of files.
"""

import hashlib
import json
import operator
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepdream.errors import UsageError
from deepdream.files.atomic import lock_directory, make_directory, write_errors, write_whole
from deepdream.files.frames import PREVIEW_NAME
from deepdream.machine import differences
from deepdream.options import HISTORIC

MANIFEST_NAME = "render.json"
JOURNAL_NAME = "frames.jsonl"
REPORT_NAME = "report.html"  # the page of a render, which `deepdream.show.report` writes
FRAME_NAME = re.compile(r"frame_(\d{6,})\.(png|jpg)")


@dataclass(frozen=True)
class Entry:
    """What is noted of a saved frame: the `file_sum` of it, and of its source as it was read.

    ``shot_strength``: the mean change of the first frame of its shot in grey levels, where the render uses it.
    ``target`` and ``seconds``: what it was dreamed towards, and how long it took; for people alone.
    """

    frame_sum: str | None
    source_sum: str | None
    shot_strength: float | None = None
    target: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Records:
    """What the lines of a journal tell: the entries by frame, and each run's `deepdream.machine.describe`.

    ``cuts``: the frames at which scenes start, and the `sum_of_all` of the sources that were looked at.
    """

    entries: dict[int, Entry]
    runs: list[dict[str, str]]
    cuts: tuple[list[int], str] | None = None


def read_records(directory: str | Path) -> Records:
    """The `Records` of a directory of dreams, of which a run may be at work; empty where there are none.

    A line that a crash cut off counts for nothing.
    """
    path = Path(directory) / JOURNAL_NAME
    entries, runs, cuts = {}, [], None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            values = json.loads(line)
            if "run" in values:
                runs.append({str(name): str(value) for name, value in values["run"].items()})
                continue
            if "cuts" in values:
                cuts = [operator.index(number) for number in values["cuts"]], str(values["sources"])
                continue
            frame_sum, source_sum = values["sums"]
            numbers = (values.get(name) for name in ("shot_strength", "seconds"))
            strength, seconds = (None if number is None else float(number) for number in numbers)
            target = values.get("target")
            entries[operator.index(values["frame"])] = Entry(frame_sum, source_sum, strength, target, seconds)
    return Records({number: entry for number, entry in entries.items() if number >= 0}, runs, cuts)


def file_sum(path: Path | str) -> str | None:
    """The sha256 of a file; None where there is none that can be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


class Journal:
    """The journal of a directory of dreams, which is locked for as long as this is open (use it as a context).

    ``settings``: plain data by option, all that decides the frames' bytes. Raises `UsageError` where another run
    is at work in the directory, or it holds frames of other settings and ``overwrite`` is not set.
    """

    def __init__(self, directory: Path, settings: dict[str, Any], overwrite: bool = False) -> None:
        self._directory = make_directory(directory)
        self._lock = lock_directory(self._directory)
        try:
            self._open(settings, overwrite)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, settings: dict[str, Any], overwrite: bool) -> None:
        if overwrite or not self._rendered():
            self._clear()  # entries without frames are of a render that somebody deleted
        self._check_settings(settings)
        write_whole(self._directory / MANIFEST_NAME, (json.dumps(settings, indent=2) + "\n").encode())
        self._mend()
        records = read_records(self._directory)
        self._entries, self._runs, self._cuts = records.entries, records.runs, records.cuts

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock of the directory."""
        self._lock.release()

    def to_do(
        self,
        paths: Sequence[Path],
        sources: Sequence[Path],
        inherits: bool,
        cuts: Collection[int] = (),
        sum_of: Callable[[Path], str | None] = file_sum,
    ) -> list[int]:
        """The numbers of the frames that are missing or damaged; frame n is saved at ``paths[n]``.

        Where a frame ``inherits`` from the one before it, also of all that come after those, up to the next of the
        ``cuts``: frames that inherit nothing. ``sum_of`` gives the sum of a source in place of `file_sum`. Raises
        `UsageError` where dreams are there and whole, but of sources that have changed or are gone since: they are not
        overwritten unasked.
        """
        beyond = [number for number in self._entries if number >= len(paths)]
        if beyond:
            raise UsageError(
                f"{self._directory} holds dreams of {max(beyond) + 1} frames, and the input has {len(paths)} now; "
                "choose another output, or --overwrite it"
            )
        whole = [number for number, entry in self._entries.items() if entry.frame_sum == file_sum(paths[number])]
        changed = [number for number in whole if self._entries[number].source_sum != sum_of(sources[number])]
        if changed:
            raise UsageError(
                f"{sources[min(changed)]} has changed since it was dreamed; restore it, choose another output, "
                "or --overwrite this one"
            )
        todo: list[int] = []
        missing = set(range(len(paths))).difference(whole)
        for number in range(len(paths)):
            follows = inherits and number not in cuts and todo[-1:] == [number - 1]
            if number in missing or follows:
                todo.append(number)
        if self._entries.keys() & todo:
            # What is dreamed again counts for nothing until then: a run killed in between would take the rest as done.
            self._entries = {number: entry for number, entry in self._entries.items() if number not in todo}
            lines = [_line(run=about) for about in self._runs]
            if self._cuts:
                lines.append(_line(cuts=self._cuts[0], sources=self._cuts[1]))
            lines += [_frame_line(number, self._entries[number]) for number in sorted(self._entries)]
            write_whole(self._directory / JOURNAL_NAME, "".join(lines).encode())
        return todo

    def check_machine(self, about: dict[str, str]) -> None:
        """Raise `UsageError` where no earlier run computed on what rounds as that which ``about`` describes."""
        different = [differences(about, run) for run in self._runs]
        if self._entries and different and all(different):
            raise UsageError(
                f"{self._directory} was begun where frames may round otherwise ({', '.join(different[-1])}); go on "
                "there, mix both with --mix-machines, or --overwrite it"
            )

    def cuts(self, sources: Sequence[Path]) -> list[int] | None:
        """The frames at which scenes start, where all have been looked for in these ``sources``; else None."""
        if self._cuts is None or self._cuts[1] != sum_of_all(map(file_sum, sources)):
            return None
        return self._cuts[0]

    def record_cuts(self, cuts: list[int], sources_sum: str) -> None:
        """Note the frames at which scenes start; ``sources_sum``: the `sum_of_all` of the sources."""
        self._cuts = cuts, sources_sum
        self._append(_line(cuts=cuts, sources=sources_sum))

    def begin_run(self, about: dict[str, str]) -> None:
        """Note what a run computes on, unless the last one was of the same kind."""
        if about not in self._runs[-1:]:
            self._runs.append(about)
            self._append(_line(run=about))

    def record(
        self,
        number: int,
        path: Path,
        source_sum: str | None,
        shot_strength: float | None = None,
        target: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Note that frame ``number`` has been saved at ``path``; see `Entry`."""
        entry = self._entries[number] = Entry(file_sum(path), source_sum, shot_strength, target, seconds)
        self._append(_frame_line(number, entry))

    def _append(self, line: str) -> None:
        path = self._directory / JOURNAL_NAME
        with write_errors(path), open(path, "ab", opener=_open_file) as journal:
            journal.write(line.encode())

    def shot_strength(self, number: int) -> float | None:
        """The strength of the first frame of the shot of frame ``number``, which is done; None where none was noted."""
        return self._entries[number].shot_strength

    def _mend(self) -> None:
        """End the last line, which a crash may have cut off, so that the next one starts anew."""
        path = self._directory / JOURNAL_NAME
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        if text and not text.endswith("\n"):
            write_whole(path, (text + "\n").encode())

    def _rendered(self) -> list[Path]:
        return [path for path in self._directory.iterdir() if FRAME_NAME.fullmatch(path.name)]

    def _clear(self) -> None:
        for path in self._rendered():
            path.unlink()
        for name in (MANIFEST_NAME, JOURNAL_NAME, PREVIEW_NAME, REPORT_NAME):
            (self._directory / name).unlink(missing_ok=True)

    def _check_settings(self, settings: dict[str, Any]) -> None:
        if not self._rendered():
            return
        path = self._directory / MANIFEST_NAME
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            there = None
        if not isinstance(there, dict):
            raise UsageError(
                f"{self._directory} holds frames, and no {MANIFEST_NAME} says how they were made; "
                "choose another output, or --overwrite it"
            )
        there = {**HISTORIC, **there}
        changed = [key for key in settings if settings[key] != there.get(key)]
        if changed:
            differing = "; ".join(f"{key} is {settings[key]}, was {there.get(key)}" for key in changed)
            raise UsageError(
                f"{self._directory} holds another render ({differing}); choose another output, or --overwrite it"
            )


def _open_file(path: str, flags: int) -> int:
    """An opener that does not follow a link: that would lead out of the directory. (Windows makes none unasked.)"""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _line(**values: object) -> str:
    return json.dumps(values) + "\n"


def _frame_line(number: int, entry: Entry) -> str:
    more = {"shot_strength": entry.shot_strength, "target": entry.target, "seconds": entry.seconds}
    known = {name: value for name, value in more.items() if value is not None}
    return _line(frame=number, sums=[entry.frame_sum, entry.source_sum], **known)


def sum_of_all(sums: Iterable[str | None]) -> str:
    """One sum of the `file_sum` of many files, in order."""
    return hashlib.sha256("\n".join(map(str, sums)).encode()).hexdigest()
