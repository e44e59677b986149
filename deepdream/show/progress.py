"""What the user sees while it runs: lines, progress and the live picture. All text goes to standard error.

A terminal gets a bar, anything else (a log file, cron, a batch system) a line now and then. There is no colour.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deepdream.errors import one_line

if TYPE_CHECKING:
    from tqdm import tqdm

    from deepdream.picture.ascent import StepReport
    from deepdream.render.sequence import FrameReport
    from deepdream.show.live import LivePicture, Shown

BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}"
BAR_DELAY = 1e-3  # seconds: enough for tqdm to show no bar before there is progress
LOG_SECONDS = 60.0  # between two lines in a log


class Progress(Protocol):
    """Work of which ``n`` out of ``total`` is done: what `tqdm` and `LogLines` have in common."""

    n: float
    total: float | None

    def update(self, n: float) -> object:
        """So much more is done."""

    def set_postfix_str(self, s: str, refresh: bool = ...) -> None:
        """Words to show beside it."""


def write_log(line: str) -> None:
    """Print a line to standard error. A log that takes no more (a full disk, a closed pipe) does not stop the work."""
    with suppress(OSError):
        print(line, file=sys.stderr)


class Screen:
    """What the user sees while it runs, by the level of -v."""

    def __init__(self, level: int) -> None:
        self.level = level
        self._bar: tqdm | None = None

    def tell(self, *lines: str) -> None:
        """Lines for the user, above the bar."""
        for line in map(one_line, lines if self.level >= 1 else ()):
            if self._bar is None:
                write_log(line)
            else:
                self._bar.write(line, file=sys.stderr)

    def detail(self, line: str) -> None:
        """A line that only -v 2 shows."""
        if self.level >= 2:
            self.tell(line)

    @contextmanager
    def progress(self, total: float | None, what: str) -> Iterator[Progress]:
        """Shows progress and the time that is left, as soon as there is progress."""
        if self.level < 1 or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            yield LogLines(total, what, self.tell)
            return
        from tqdm import tqdm

        with tqdm(
            total=total, desc=what, bar_format=BAR_FORMAT, dynamic_ncols=True, delay=BAR_DELAY, file=sys.stderr
        ) as self._bar:
            yield self._bar
        self._bar = None

    @contextmanager
    def counter(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Progress over frames, as a function of (done, total)."""
        with self.progress(None, what) as progress:

            def on_progress(done: int, total: int) -> None:
                progress.total = total
                progress.update(done - progress.n)

            yield on_progress

    @contextmanager
    def dream(
        self, work: int, cut_work: Callable[[int], int], preview: Path, shown: "Shown"
    ) -> "Iterator[DreamProgress]":
        """The progress of a render; ``work`` in pixels times iterations, as reports count it.

        ``cut_work``: what a scene cut at a frame adds to it. ``preview``: the file of the live picture, of what is
        ``shown``, which needs -v 3.
        """
        with ExitStack() as stack:
            progress, live = stack.enter_context(self.progress(work, "dream")), None
            if self.level >= 3:
                from deepdream.show.live import LivePicture

                live = LivePicture(shown, preview, self.tell)
                stack.callback(live.close)
            yield DreamProgress(self, progress, cut_work, len(shown.sources), live)


class LogLines:
    """Progress as lines: one at each tenth of the work, and one a minute in between."""

    def __init__(self, total: float | None, what: str, tell: Callable[[str], None]) -> None:
        self.n = 0.0
        self.total = total
        self._what = what
        self._tell = tell
        self._postfix = ""
        self._started = self._told = time.monotonic()
        self._tenths = 0

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:
        """Words for the next line."""
        self._postfix = f", {s}"

    def update(self, n: float) -> None:
        """So much more is done; says so if a line is due."""
        self.n += n
        if not self.total or not self.n:
            return
        now = time.monotonic()
        tenths = int(10 * self.n / self.total)
        if tenths == self._tenths and now - self._told < LOG_SECONDS:
            return
        self._tenths, self._told = tenths, now
        gone = now - self._started
        left = gone * (self.total - self.n) / self.n
        self._tell(
            f"{self._what} {self.n / self.total:4.0%}: {show_duration(gone)} gone, {show_duration(left)} left"
            f"{self._postfix}"
        )


def show_duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


class DreamProgress:
    """Shows the reports of a render: its progress, the lines of -v 2 and the live picture."""

    def __init__(
        self,
        screen: Screen,
        progress: Progress,
        cut_work: Callable[[int], int],
        count: int,
        live: "LivePicture | None",
    ) -> None:
        self._screen = screen
        self._progress = progress
        self._cut_work = cut_work
        self._count = count
        self._live = live
        self._threads: int | None = None

    def on_step(self, number: int, report: "StepReport") -> None:
        """A step of frame ``number`` (from 0) is done."""
        frame = f"frame {number + 1}/{self._count}"
        self._progress.set_postfix_str(f"{frame}, octave {report.octave}/{report.octaves}", refresh=False)
        self._progress.update(report.pixels)
        if self._screen.level >= 2:  # the mean takes time
            height, width = report.size
            self._screen.detail(
                f"frame {number + 1} octave {report.octave} ({width}x{height}) "
                f"iteration {report.iteration}: mean gradient {report.mean_gradient():.4g}"
            )
        if self._live:
            self._live.show(number, report)

    def on_cut(self, number: int, why: str = "scene cut, nothing inherited") -> None:
        """Frame ``number`` (from 0) takes the steps of a shot's first frame, which were not counted."""
        self._progress.total = (self._progress.total or 0) + self._cut_work(number)
        self._screen.detail(f"frame {number + 1}/{self._count}: {why}")

    def on_frame(self, report: "FrameReport") -> None:
        """A frame is saved."""
        frame = f"frame {report.number + 1}/{self._count}"
        if report.worker is not None:  # whose steps are not reported
            self._progress.set_postfix_str(frame, refresh=False)
            self._progress.update(report.pixels)
            self._screen.detail(f"{frame}: on worker {report.worker}")
            if self._live:
                self._live.show_saved(report.number, report.path)
        elif report.threads != self._threads:
            self._threads = report.threads
            self._screen.detail(f"{frame}: on {report.threads} thread{'s' if report.threads > 1 else ''}")
        self._screen.detail(f"{frame}: {report.layer}, {report.seconds:.1f} s, {report.path}")
