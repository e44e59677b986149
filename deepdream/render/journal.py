"""What a directory of dreams remembers of its render: the settings, and a sum of each frame that is whole.

`render.json` holds the settings. `frames.jsonl` gets a line as each frame is saved; a frame counts as done while
it and its source have the sums of its line. Nothing here depends on clocks or on the times of files.
"""

import hashlib
import json
import operator
import os
import re
from pathlib import Path

from deepdream.errors import UsageError
from deepdream.files.atomic import lock_directory, make_directory, write_errors, write_whole
from deepdream.files.frames import PREVIEW_NAME
from deepdream.options import HISTORIC

MANIFEST_NAME = "render.json"
JOURNAL_NAME = "frames.jsonl"
_FRAME_NAME = re.compile(r"frame_\d{6,}\.(png|jpg)")


class Journal:
    """The journal of a directory of dreams, which is locked for as long as this is open (use it as a context).

    ``settings``: plain data by option, all that decides the frames' bytes. Raises `UsageError` where another run
    is at work in the directory, or it holds frames of other settings and ``overwrite`` is not set.
    """

    def __init__(self, directory, settings, overwrite=False):
        self._directory = make_directory(Path(directory))
        self._lock = lock_directory(self._directory)
        try:
            self._open(settings, overwrite)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, settings, overwrite):
        if overwrite or not self._rendered():
            self._clear()  # notes without frames are of a render that somebody deleted
        self._check_settings(settings)
        write_whole(self._directory / MANIFEST_NAME, (json.dumps(settings, indent=2) + "\n").encode())
        self._sums = self._read()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Give the directory free."""
        self._lock.release()

    def to_do(self, paths, sources, inherits):
        """The numbers of the frames that are missing or damaged; frame n is saved at ``paths[n]``.

        Where a frame ``inherits`` from the one before it, also of all that come after those. Raises `UsageError`
        where dreams are there and whole, but of sources that have changed or are gone since: they are not
        overwritten unasked.
        """
        beyond = [number for number in self._sums if number >= len(paths)]
        if beyond:
            raise UsageError(
                f"{self._directory} holds dreams of {max(beyond) + 1} frames, and the input has {len(paths)} now; "
                "choose another output, or --overwrite it"
            )
        whole = [number for number, (frame_sum, _) in self._sums.items() if frame_sum == file_sum(paths[number])]
        changed = [number for number in whole if self._sums[number][1] != file_sum(sources[number])]
        if changed:
            raise UsageError(
                f"{sources[min(changed)]} has changed since it was dreamed; restore it, choose another output, "
                "or --overwrite this one"
            )
        todo = sorted(set(range(len(paths))).difference(whole))
        if todo and inherits:
            todo = list(range(todo[0], len(paths)))
        if self._sums.keys() & todo:
            # What is dreamed again counts for nothing until then: a run killed in between would take the rest as done.
            self._sums = {number: pair for number, pair in self._sums.items() if number not in todo}
            text = "".join(map(_line, *zip(*sorted(self._sums.items())))) if self._sums else ""
            write_whole(self._directory / JOURNAL_NAME, text.encode())
        return todo

    def record(self, number, path, source_sum):
        """Note that a frame has been saved; ``source_sum``: the `file_sum` of its source as it was read."""
        self._sums[number] = (file_sum(path), source_sum)
        path = self._directory / JOURNAL_NAME
        with write_errors(path), open(path, "ab", opener=_open_file) as journal:
            journal.write(_line(number, self._sums[number]).encode())

    def _read(self):
        """The sums by frame. A line that a crash cut off counts for nothing: its frame is dreamed again."""
        sums = {}
        path = self._directory / JOURNAL_NAME
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                frame_sum, source_sum = entry["sums"]
                sums[operator.index(entry["frame"])] = (frame_sum, source_sum)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        if text and not text.endswith("\n"):
            write_whole(path, (text + "\n").encode())
        return {number: pair for number, pair in sums.items() if number >= 0}

    def _rendered(self):
        return [path for path in self._directory.iterdir() if _FRAME_NAME.fullmatch(path.name)]

    def _clear(self):
        for path in self._rendered():
            path.unlink()
        for name in (MANIFEST_NAME, JOURNAL_NAME, PREVIEW_NAME):
            (self._directory / name).unlink(missing_ok=True)

    def _check_settings(self, settings):
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


def _line(number, sums):
    return json.dumps({"frame": number, "sums": sums}) + "\n"


def file_sum(path):
    """The sha256 of a file; None where there is none that can be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
