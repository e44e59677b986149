"""The loop over frames: start picture, dream, save. A stopped run goes on after its last whole frame."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from deepdream.files.frames import read_frame, write_frame
from deepdream.files.masks import read_mask
from deepdream.interface import Network, Objective
from deepdream.machine import describe
from deepdream.memory.malloc import TRIM_ABOVE_PIXELS
from deepdream.motion.inheritance import Motion, estimate_motion
from deepdream.picture import ascent
from deepdream.picture.objectives import WeightedSum
from deepdream.render.frame import Dream, Previous, Source, dream_frame, previous_of, source_of
from deepdream.render.journal import file_sum
from deepdream.render.plan import Render
from deepdream.render.targets import objectives_at
from deepdream.threads import Background


@dataclass(frozen=True)
class FrameReport:
    """A frame that was dreamed and saved: its number (from 0), and how long it took.

    ``is_cut``: a new scene was found to start here (only ``-flow 2`` looks for one). ``threads``: how many computed it.
    ``worker``: the name of the worker that dreamed it; None for this process. ``pixels``: its work, where no step has
    been reported.
    """

    number: int
    path: Path
    layer: str
    seconds: float
    is_cut: bool = False
    threads: int = 1
    worker: str | None = None
    pixels: int = 0


def dream_frames(
    render: Render,
    network: Network,
    on_step: Callable[[int, ascent.StepReport], Any] | None = None,
    on_cut: Callable[[int], Any] | None = None,
) -> Iterator[FrameReport]:
    """Dream and save the frames of a `Render` that are still to do; yields a report for each.

    While a frame dreams, threads save the one before it and read the one after it, so a report comes when the next
    frame is dreamed. Whatever goes wrong, the frames before are saved and reported first.
    ``on_step`` is called with the frame's number and each step's report; ``on_cut`` with the frame's number before the
    dream of a frame at which a new scene starts.
    """
    with render.journal, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        if render.todo:
            render.journal.begin_run(describe(network.device))
        objectives_of = cache(partial(objectives_at, network))
        background = Background()
        saving: Future[FrameReport] | None = None  # of the frame before
        before: Previous | None = None  # of the frame dreamed last, where the next one inherits
        try:
            for frame in _read_frames(render, reader, background):
                started = time.monotonic()
                threads = background.adapt_threads()
                number, options = frame.number, render.options_at(frame.number)
                if render.inherits_at(number) and before is None:
                    before = _saved(render, number)
                dream = dream_frame(
                    options,
                    network,
                    _leaving_cores(background, objectives_of(options.guide)(options.layer)),
                    frame.source,
                    before and replace(before, motion=frame.motion),
                    partial(_after_step, background, on_step and partial(on_step, number)),
                    on_cut and partial(on_cut, number),
                )
                if saving:
                    yield saving.result()
                saved = number, frame.file_sum, dream, options.layer, started, threads
                saving = background.submit(writer, _save, render, *saved)
                before = _passed_on(render, frame, dream, saving)
                del saved, dream  # it is needed no more, and at 4K it has 25 MB
        except Exception:
            if saving:
                yield saving.result()
            raise
        if saving:
            yield saving.result()


@dataclass(frozen=True)
class _Frame:
    """A frame to dream, the sum of its source file, and the motion from the frame before it, where that is known."""

    number: int
    source: Source
    file_sum: str | None
    motion: Motion | None = None


def _leaving_cores(background: Background, objective: Objective | WeightedSum) -> Objective | WeightedSum:
    """The objective, at which the cores are looked at too: between the passes of a step, which may take seconds."""

    def watched(plain: Objective) -> Objective:
        def watching(activations: torch.Tensor) -> torch.Tensor:
            background.leave_cores()
            return plain(activations)

        return watching

    if isinstance(objective, WeightedSum):
        return WeightedSum(tuple(replace(part, objective=watched(part.objective)) for part in objective.parts))
    return watched(objective)


def _after_step(
    background: Background, on_step: Callable[[ascent.StepReport], Any] | None, report: ascent.StepReport
) -> None:
    background.leave_cores()
    if on_step:
        on_step(report)


def _read_frames(render: Render, reader: Executor, background: Background) -> Iterator[_Frame]:
    """The frames still to do; ``reader`` reads each while the one before it is in use, and estimates its motion.

    Not that of large frames, whose flows take memory that the network needs.
    """
    ahead = None
    for number, following in pairwise((*render.todo, None)):
        assert number is not None
        frame = (ahead or background.submit(reader, _read_ahead, render, number, None)).result()
        ahead = None if following is None else background.submit(reader, _read_ahead, render, following, frame)
        yield frame


def _read_ahead(render: Render, number: int, last: _Frame | None) -> _Frame:
    """Frame ``number``. ``last``: the frame that was read before it, if any."""
    digest, source = file_sum(render.frames.paths[number]), _read_source(render, number)
    is_large = math.prod(render.dream_size) >= TRIM_ABOVE_PIXELS
    if is_large or last is None or last.number != number - 1 or not render.inherits_at(number):
        return _Frame(number, source, digest)
    flow = render.options_at(number).flow
    return _Frame(number, source, digest, estimate_motion(last.source.small, source.small, flow))


def _saved(render: Render, number: int) -> Previous:
    """What frame ``number`` inherits from, read from its files, so that a resumed run gives the same bytes."""
    source, picture = _read_source(render, number - 1), read_frame(render.path(number - 1))
    return previous_of(render.options_at(number), source, picture, render.journal.shot_strength(number - 1))


def _passed_on(render: Render, frame: _Frame, dream: Dream, saving: Future[Any]) -> Previous | None:
    """What the next frame inherits of this one, which is dreamed and being saved; None where it inherits nothing."""
    following, picture = frame.number + 1, dream.picture
    if following not in render.todo or not render.inherits_at(following):
        return None
    if render.frames.image_type != "png":
        saving.result()  # other types are lossy: the next frame inherits what the file holds
        picture = read_frame(render.path(frame.number))
    return previous_of(render.options_at(following), frame.source, picture, dream.shot_strength)


def _save(
    render: Render, number: int, file_sum: str | None, dream: Dream, layer: str, started: float, threads: int
) -> FrameReport:
    """Save and record a frame."""
    path = render.path(number)
    write_frame(path, dream.picture, render.frames.image_type, render.note)
    seconds = time.monotonic() - started
    render.journal.record(number, path, file_sum, dream.shot_strength, layer, round(seconds, 3))
    is_cut = dream.is_cut or number in (render.cuts or ())
    return FrameReport(number, path, layer, seconds, is_cut, threads)


def _read_source(render: Render, number: int) -> Source:
    mask = read_mask(render.masks[number], render.size) if render.masks else None
    return source_of(
        read_frame(render.frames.paths[number]), render.size, render.dream_size, mask, render.options.dream.panorama
    )
