"""What is measured of a directory of dreams, a render under way too: little by little, as time allows."""

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from deepdream.errors import UsageError
from deepdream.files.frames import open_frames, read_frame
from deepdream.geometry import at_width
from deepdream.motion.cuts import is_cut
from deepdream.render.dream_size import shrink
from deepdream.render.journal import FRAME_NAME, MANIFEST_NAME, Records, read_records
from deepdream.show import measures

JUDGE_WIDTH = 240  # pixels at which flicker is measured


class Survey:
    """The measures of a directory of dreams by frame: see `deepdream.show.measures`, and `measure`.

    ``source``: where the source frames are, if not where the render's settings say. ``cuts``: the frames at which a
    shot starts: those that the journal tells, else as far as they have been found. Raises `UsageError` where there is
    no render, or its source is not there.
    """

    def __init__(self, directory: Path, source: Path | None = None) -> None:
        self.directory = directory
        self.settings = _read_settings(directory)
        guide = str(self.settings.get("--guide") or "").rpartition(" (")[0]
        if source is None and Path(str(self.settings.get("--input"))).is_file():
            raise UsageError(f"{directory} holds a dive into a picture: it has no source frames to compare with")
        place, kind = source or str(self.settings.get("--input")), self.settings.get("--image_type")
        self.sources = open_frames(place, kind, [guide] if guide else ()).paths
        self.strength: dict[int, float] = {}
        self.luminance: dict[int, float] = {}
        self.source_luminance: dict[int, float] = {}
        self.flicker: dict[int, float] = {}
        self.cuts: set[int] = set()
        self.records = Records({}, [])
        self.dreams: dict[int, Path] = {}  # the frames that are there, by number
        self._last: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # the last frame's source and dream, small
        self.look()

    def look(self) -> None:
        """See which frames there are by now."""
        self.records = read_records(self.directory)
        self.cuts.update(self.records.cuts[0] if self.records.cuts else ())
        found = ((FRAME_NAME.fullmatch(path.name), path) for path in self.directory.iterdir())
        numbered = {int(name[1]): path for name, path in found if name}
        self.dreams = {number: numbered[number] for number in sorted(numbered) if number < len(self.sources)}

    def measure(self, until: float = math.inf, on_progress: Callable[[int, int], object] | None = None) -> None:
        """Measure the frames that have not been, up to a time of the monotonic clock: then some, evenly spread."""
        missing = [number for number in self.dreams if not self._is_measured(number)]
        for done, number in enumerate(missing if until == math.inf else _spread(missing)):
            if time.monotonic() >= until:
                return
            self._compare(number)
            if on_progress:
                on_progress(done + 1, len(missing))

    def _is_measured(self, number: int) -> bool:
        compared = number in self.flicker or number in self.cuts or number - 1 not in self.dreams
        return number in self.strength and compared

    def _compare(self, number: int) -> None:
        """Measure a frame, and its flicker where the frame before it is there and of the same shot."""
        before = self._read(number - 1) if number - 1 in self.dreams else None
        now = self._read(number)
        self._last = {number: now}
        if before is None or number in self.cuts:
            return
        if self.records.cuts is None and is_cut(before[0], now[0]):
            self.cuts.add(number)
            return
        pair = measures.match_pair(before[0], now[0], number - 1, number)
        of_source, of_dream = (measures.warping_error(*two, pair) for two in zip(before, now))
        self.flicker[number] = of_dream - of_source

    def _read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Measure a frame alone; its source and its dream, at `JUDGE_WIDTH`."""
        if number in self._last:
            return self._last[number]
        dream = read_frame(self.dreams[number])
        size = (dream.shape[1], dream.shape[0])
        source = measures.read_at(self.sources[number], size)
        self.strength[number] = measures.strength(dream, source)
        small = at_width(size, min(size[0], JUDGE_WIDTH))
        both = shrink(source, small), shrink(dream, small)
        self.source_luminance[number], self.luminance[number] = map(measures.luminance, both)
        return both


def _read_settings(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST_NAME
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{directory} holds no render: there is no {MANIFEST_NAME} in it") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged ({error})") from error
    if not isinstance(settings, dict) or "--input" not in settings:
        raise UsageError(f"{path} is damaged: it does not name the render's --input")
    return settings


def _spread(numbers: Iterable[int]) -> list[int]:
    """Numbers in an order of which each beginning is spread evenly: places by their bits, the last one first."""
    places = enumerate(numbers)
    return [number for _, number in sorted((int(f"{place:032b}"[::-1], 2), number) for place, number in places)]
