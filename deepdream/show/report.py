"""The report page of a directory of dreams: what became of the frames, how that measures, and with which settings.

One HTML file beside the frames, which holds all that it shows. It is made of what the directory holds, while the
render is under way too.
"""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean

import numpy as np

from deepdream import __version__
from deepdream.errors import UsageError
from deepdream.files.atomic import write_whole
from deepdream.files.clip import read_clip
from deepdream.files.frames import read_frame, read_note, read_size
from deepdream.files.note import commands
from deepdream.geometry import at_width
from deepdream.render.dream_size import shrink
from deepdream.render.journal import REPORT_NAME
from deepdream.render.sequence import FrameReport
from deepdream.show.measures import read_at
from deepdream.show.page import data_url, jpeg, render_page
from deepdream.show.progress import show_duration
from deepdream.show.survey import JUDGE_WIDTH, Survey
from deepdream.video.encode import NOTE_KEY
from deepdream.video.excerpt import make_excerpt
from deepdream.video.probe import probe, read_metadata

SHARE, LEAST = 0.03, 2.0  # of a render's time that its page may take, and so many seconds in any case
BETWEEN = 15.0  # seconds between two pages of a render under way
POINTS = 600  # of a curve
MOST_SHOTS = 60  # that are shown
PICTURE_BYTES, VIDEO_BYTES = 2_300_000, 1_100_000  # what the pictures and the video may take of the page
PICTURE_PIXELS = 500_000  # of one picture, at most
BYTES_A_PIXEL = 0.4  # of a dream as JPEG
QUALITIES = (80, 65, 50, 35)
VIDEO_WIDTH, VIDEO_SECONDS = 480, 60
RECENT = 20  # frames by which the time that is left is estimated


@dataclass(frozen=True)
class Curve:
    """A measure by frame: ``lines`` of values by frame number, each with its name. ``form``: how one is written."""

    title: str
    about: str
    form: str
    unit: str
    lines: Mapping[str, Mapping[int, float]]
    from_zero: bool = True


class Reporter:
    """Writes the page of a render while it runs and at its end, in a small share of the render's time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._survey: Survey | None = None
        self._started = self._written = time.monotonic()
        self._spent = self._page_seconds = 0.0
        self._frames = 0
        self._cuts: set[int] = set()  # those that the render found

    def on_frame(self, report: FrameReport) -> None:
        """A frame is saved: write a page if one is due and costs little enough."""
        self._frames += 1
        if report.is_cut:
            self._cuts.add(report.number)
        now = time.monotonic()
        allowed = SHARE / 2 * (now - self._started) - self._spent - self._page_seconds
        if allowed > 0 and now - self._written > BETWEEN:
            self.write(now + allowed)

    def finish(self, video: Path | None = None, on_progress: Callable[[int, int], object] | None = None) -> Path:
        """Write the last page; its path. Where all frames would take long, and some were dreamed, it measures a part.

        ``video``: see `write_report`.
        """
        now = time.monotonic()
        allowed = max(SHARE * (now - self._started) - self._spent, LEAST)
        return self.write(now + allowed if self._frames else math.inf, video, on_progress)

    def write(self, until: float = math.inf, video: Path | None = None,
              on_progress: Callable[[int, int], object] | None = None) -> Path:  # fmt: skip
        """Measure up to a time of the monotonic clock, and write the page."""
        begun = time.monotonic()
        self._survey = self._survey or Survey(self._directory)
        self._survey.cuts |= self._cuts
        self._survey.look()
        self._survey.measure(until, on_progress)
        measured = time.monotonic()
        path = write_report(self._survey, video)
        self._written = time.monotonic()
        self._page_seconds, self._spent = self._written - measured, self._spent + self._written - begun
        return path


def write_report(survey: Survey, video: Path | None = None) -> Path:
    """Write the page of what has been measured; its path. ``video``: what was made of the frames.

    Raises `DreamError` where it cannot be written.
    """
    path = survey.directory / REPORT_NAME
    shots = _shots(survey)
    shown = shots[:: math.ceil(len(shots) / MOST_SHOTS)] if shots else []
    curves = [curve for curve in _curves(survey) if any(curve.lines.values())]
    values = {
        "title": video.name if video else survey.directory.resolve().name,
        "facts": _facts(survey, len(shots)),
        "done": len(survey.dreams),
        "count": len(survey.sources),
        "left": _time_left(survey),
        "video": _video(video) if video else None,
        "shots": _pictures(survey, shown),
        "shot_count": len(shots),
        "charts": [_chart(curve, survey) for curve in curves],
        "cuts": [_x(number, survey) for number in sorted(survey.cuts)],
        "readings": _readings(survey, curves),
        "measured": len(survey.strength),
        "commands": _commands(survey, video),
        "settings": survey.settings,
        "runs": survey.records.runs,
        "made": f"deepdream {__version__}, {datetime.now().astimezone():%d %B %Y, %H:%M}",
    }
    write_whole(path, render_page("report.html", **values))
    return path


def _shots(survey: Survey) -> list[list[int]]:
    """The numbers of the frames that are there, by shot."""
    shots: list[list[int]] = []
    for number in survey.dreams:
        if not shots or number in survey.cuts:
            shots.append([])
        shots[-1].append(number)
    return shots


def _facts(survey: Survey, shots: int) -> list[str]:
    """The size of the frames, their rate, how many shots there are, and the network."""
    facts = []
    if survey.dreams:
        width, height = read_size(next(iter(survey.dreams.values())))
        facts.append(f"{width}x{height}")
    clip = read_clip(survey.directory)
    if clip:
        seconds = float(len(survey.sources) / clip.frame_rate)
        facts.append(f"{float(clip.frame_rate):.4g} frames a second, {seconds:.1f} s")
    if shots:
        facts.append(f"{shots} shot{'s' if shots > 1 else ''}")
        note = read_note(next(iter(survey.dreams.values()))) or ""
        facts += re.findall(r"^deepdream \S+, network (.+) [0-9a-f]{64}$", note, re.M)
    return facts


def _time_left(survey: Survey) -> str | None:
    """About how long the frames take that are still to do; None where none is, or nothing is known."""
    missing = len(survey.sources) - len(survey.dreams)
    seconds = [entry.seconds for entry in survey.records.entries.values() if entry.seconds is not None][-RECENT:]
    return show_duration(missing * mean(seconds)) if missing and seconds else None


def _video(path: Path) -> dict[str, object]:
    info = probe(path)
    seconds = float(info.frame_count / info.frame_rate)
    shown = min(seconds, VIDEO_SECONDS)
    excerpt = make_excerpt(path, VIDEO_WIDTH, shown, VIDEO_BYTES)
    return {"url": data_url(excerpt, "video/mp4"), "name": path.name, "seconds": shown, "is_part": seconds > shown}


def _pictures(survey: Survey, shots: Sequence[Sequence[int]]) -> list[dict[str, object]]:
    """Source and dream of a frame of each shot, as small as the page must be."""
    numbers = [shot[len(shot) // 2] for shot in shots]
    pixels = min(PICTURE_PIXELS, PICTURE_BYTES / (1.5 * BYTES_A_PIXEL * max(1, len(numbers))))
    pairs = [_read_pair(survey, number, pixels) for number in numbers]
    encoded: list[list[bytes]] = []
    for quality in QUALITIES:
        encoded = [[jpeg(picture, quality) for picture in pair] for pair in pairs]
        if sum(len(data) for pair in encoded for data in pair) <= PICTURE_BYTES:
            break
    return [
        {
            "source": data_url(source, "image/jpeg"),
            "dream": data_url(dream, "image/jpeg"),
            "size": pair[0].shape[1::-1],
            "number": number,
            "name": survey.sources[number].name,
            "target": _target(survey, number),
        }
        for number, pair, (source, dream) in zip(numbers, pairs, encoded)
    ]


def _read_pair(survey: Survey, number: int, pixels: float) -> tuple[np.ndarray, np.ndarray]:
    """Source and dream of a frame, of about so many pixels at most."""
    dream = read_frame(survey.dreams[number])
    height, width = dream.shape[:2]
    size = at_width((width, height), round(width * min(1, math.sqrt(pixels / (width * height)))))
    return shrink(read_at(survey.sources[number], (width, height)), size), shrink(dream, size)


def _target(survey: Survey, number: int) -> str | None:
    entry = survey.records.entries.get(number)
    return entry.target if entry else None


def _curves(survey: Survey) -> list[Curve]:
    entries = survey.records.entries
    seconds = {number: entry.seconds for number, entry in sorted(entries.items()) if entry.seconds is not None}
    about = (
        f"warping error beyond the source's own (Lai et al. 2018), at {JUDGE_WIDTH} pixels; 0 is as calm as the source"
    )
    brightness = {"dream": survey.luminance, "source": survey.source_luminance}
    return [
        Curve("Strength", "mean change of the picture, in grey levels", ".1f", "", {"": survey.strength}),
        Curve("Flicker", about, ".5f", "", {"": survey.flicker}),
        Curve("Brightness", "mean luminance, in grey levels", ".0f", "", brightness, from_zero=False),
        Curve("Time", "seconds a frame took", ".2f", " s", {"": seconds}),
    ]


def _chart(curve: Curve, survey: Survey) -> dict[str, object]:
    """A `Curve` as it is drawn, in a square of 1000 x 100."""
    values = [value for line in curve.lines.values() for value in line.values()]
    low, high = min(values), max(values)
    if curve.from_zero:
        low, high = min(low, 0), max(high, 0)
    low, high = (low, high) if high > low else (low - 1, high + 1)
    first = list(next(iter(curve.lines.values())).values())
    lines = {
        name: " ".join(
            f"{_x(number, survey)},{100 - 100 * (value - low) / (high - low):.1f}" for number, value in _thin(line)
        )
        for name, line in curve.lines.items()
    }
    summary = f"mean {mean(first):{curve.form}}, from {min(first):{curve.form}} to {max(first):{curve.form}}"
    return {
        "title": curve.title, "about": curve.about, "summary": summary, "lines": lines,
        "low": f"{low:{curve.form}}", "high": f"{high:{curve.form}}",
    }  # fmt: skip


def _x(number: int, survey: Survey) -> str:
    """Where a frame lies along the charts."""
    return f"{1000 * number / max(1, len(survey.sources) - 1):.1f}"


def _thin(line: Mapping[int, float]) -> list[tuple[int, float]]:
    """At most `POINTS` points of a line: the means of as many pieces; a single one twice, so that it shows."""
    points = sorted(line.items())
    piece = math.ceil(len(points) / POINTS)
    if piece > 1:
        pieces = [points[place : place + piece] for place in range(0, len(points), piece)]
        points = [(each[len(each) // 2][0], mean(value for _, value in each)) for each in pieces]
    return points * 2 if len(points) == 1 else points


def _readings(survey: Survey, curves: list[Curve]) -> list[tuple[str, str]]:
    """What the charts say at a frame, in words, with its place along them: of at most `POINTS` frames."""
    numbers = list(survey.dreams)[:: math.ceil(len(survey.dreams) / POINTS) or 1]
    return [(_x(number, survey), _reading(survey, curves, number)) for number in numbers]


def _reading(survey: Survey, curves: list[Curve], number: int) -> str:
    words = [f"frame {number}", _target(survey, number) or ""]
    for curve in curves:
        for name, line in curve.lines.items():
            if number in line and name != "source":
                words.append(f"{curve.title.lower()} {line[number]:{curve.form}}{curve.unit}")
    return ", ".join(filter(None, words)) + (", a shot starts" if number in survey.cuts else "")


def _commands(survey: Survey, video: Path | None) -> list[str]:
    """The commands that made the video, or else the frames; none where they do not carry them."""
    try:
        if video:
            return commands(read_metadata(video).get(NOTE_KEY) or "", video)
        first = next(iter(survey.dreams.values()))
        return commands(read_note(first) or "", first)
    except (UsageError, StopIteration):
        return []
