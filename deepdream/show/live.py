"""The live picture of a render: source and dream side by side, in a window or, where none can be shown, in a file."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepdream.errors import DreamError, one_line
from deepdream.files.frames import read_frame, write_frame
from deepdream.geometry import at_width
from deepdream.opencv import opencv
from deepdream.show.measures import read_at

if TYPE_CHECKING:
    from deepdream.picture.ascent import StepReport

SECONDS = 0.5  # between two pictures
WIDTH = 720  # pixels of the source and of the dream, at most
PROGRAM = Path(__file__).with_name("window.py")


@dataclass(frozen=True)
class Shown:
    """What a live picture shows: the ``sources`` of the frames beside their dreams, which have a ``size`` (w, h).

    ``layer_of``: the layer of a frame, by its number.
    """

    sources: Sequence[Path]
    size: tuple[int, int]
    layer_of: Callable[[int], str]


class LivePicture:
    """The picture of a dream as it grows. ``path``: the file that serves where there is no window.

    ``tell``: shows a line to the user.
    """

    def __init__(self, shown: Shown, path: Path, tell: Callable[[str], object]) -> None:
        self._sources, self._layer_of = shown.sources, shown.layer_of
        self._path = path
        self._tell = tell
        self._size = at_width(shown.size, min(shown.size[0], WIDTH))
        self._shown = 0.0
        self._source: tuple[int, np.ndarray] | None = None  # the last one, by the number of its frame
        self._window = open_window() if _has_display() else None
        self._is_closed = False

    def show(self, number: int, report: "StepReport") -> None:
        """Show the picture of a step of frame ``number``, at most twice a second."""
        self._show(number, f"octave {report.octave}/{report.octaves}", report.picture)

    def show_saved(self, number: int, path: Path) -> None:
        """Show frame ``number`` as it was saved, at most twice a second."""
        self._show(number, "saved", partial(read_frame, path))

    def _show(self, number: int, what: str, picture_of: Callable[[], np.ndarray]) -> None:
        if self._is_closed or time.monotonic() - self._shown < SECONDS:
            return
        title = f"frame {number + 1}/{len(self._sources)}, {what}, {one_line(self._layer_of(number))}"
        picture = self._side_by_side(number, picture_of())
        if self._window and not send(self._window, title, picture):
            self._is_closed = self._end_of_window(self._window) == 0
            self._window = None
        if not (self._window or self._is_closed):
            with suppress(DreamError):  # Windows does not replace a file that a viewer has open
                write_frame(self._path, picture, "jpg")
        self._shown = time.monotonic()

    def close(self) -> None:
        """Close the window."""
        if self._window:
            _end(self._window)

    def _side_by_side(self, number: int, dream: np.ndarray) -> np.ndarray:
        if self._source is None or self._source[0] != number:
            self._source = number, read_at(self._sources[number], self._size)
        return np.hstack([self._source[1], opencv().resize(dream, self._size)])

    def _end_of_window(self, window: "subprocess.Popen[bytes]") -> int:
        """Tell why there is no window any more; its exit status."""
        status = _end(window)
        if status == 0:
            self._tell("the window is closed; the render goes on")
        else:
            self._tell(f"no window can be shown here; the live picture is {self._path}")
        return status


def open_window() -> "subprocess.Popen[bytes]":
    """Start the program that shows a window: see `deepdream.show.window`."""
    command = [sys.executable, "-P", str(PROGRAM)]  # -P: the modules beside it are none of its own
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def send(window: "subprocess.Popen[bytes]", title: str, picture: np.ndarray) -> bool:
    """Send a picture, uint8 RGB (h, w, 3), to the window; False where it is closed."""
    assert window.stdin
    about = json.dumps({"title": title, "size": picture.shape[:2]})
    try:
        window.stdin.write(f"{about}\n".encode() + picture[:, :, ::-1].tobytes())
        window.stdin.flush()
    except (OSError, ValueError):  # ValueError: its input is closed
        return False
    return window.poll() is None


def _end(window: "subprocess.Popen[bytes]") -> int:
    """End the program of a window; its exit status."""
    assert window.stdin
    with suppress(OSError):
        window.stdin.close()
    try:
        return window.wait(5)
    except subprocess.TimeoutExpired:
        window.kill()
        return window.wait()


def _has_display() -> bool:
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
