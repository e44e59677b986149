"""The loop over frames: start picture, dream, save. A stopped run goes on after its last whole frame."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deepdream.files.frames import read_frame, write_frame
from deepdream.interface import Network
from deepdream.motion.inheritance import Inheritance, Motion, estimate_motion, inherit, inherits
from deepdream.options import FlowMode
from deepdream.picture import ascent
from deepdream.render.dream_size import lay_on, shrink, take_off
from deepdream.render.journal import file_sum
from deepdream.render.plan import Render
from deepdream.render.targets import objectives_at
from deepdream.threads import adapt_threads


@dataclass(frozen=True)
class FrameReport:
    """A frame that was dreamed and saved: its number (from 0), and how long it took.

    ``is_cut``: a new scene was found to start here (only ``-flow 2`` looks for one). ``threads``: how many computed it.
    """

    number: int
    path: Path
    layer: str
    seconds: float
    is_cut: bool = False
    threads: int = 1


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
        objective_of = objectives_at(network, render.options.guide)
        saving: Future[FrameReport] | None = None  # of the frame before
        last: _Dream | None = None  # the frame before
        try:
            for frame in _read_frames(render, reader, look_ahead=network.device.type != "cpu"):
                started = time.monotonic()
                threads = adapt_threads()
                layer = render.layers[frame.number % len(render.layers)]
                inherited, is_cut = _inherit(render, frame, last)
                if is_cut and on_cut:
                    on_cut(frame.number)
                dreamed = ascent.dream(
                    inherited.start,
                    network,
                    layer,
                    render.dream_options(starts_shot=inherited.warped is None),
                    render.options.divide,
                    objective_of(layer),
                    _jitter(render, frame.number),
                    on_step and partial(on_step, frame.number),
                )
                last = _finish(render, frame, inherited, dreamed, last)
                if saving:
                    yield saving.result()
                saving = writer.submit(_save, render, frame, last, layer, started, is_cut, threads)
                if render.frames.image_type != "png":
                    saving.result()  # other types are lossy: the next frame inherits what the file holds
                    last = replace(last, picture=read_frame(render.path(frame.number)))
        except Exception:
            if saving:
                yield saving.result()
            raise
        if saving:
            yield saving.result()


@dataclass(frozen=True)
class _Source:
    """A source frame, uint8 RGB: ``full`` at the size that is written, ``small`` at that of the dream."""

    full: np.ndarray
    small: np.ndarray


@dataclass(frozen=True)
class _Frame:
    """A frame to dream, and the sum of its source file.

    Where it inherits also the source before it, and the motion if it is known.
    """

    number: int
    source: _Source
    file_sum: str | None
    previous: _Source | None = None
    motion: Motion | None = None


@dataclass(frozen=True)
class _Dream:
    """A finished frame, uint8 RGB as it is saved. ``shot_strength``: see `Inheritance.stabilise`; only under STABLE."""

    picture: np.ndarray
    shot_strength: float | None


def _read_frames(render: Render, reader: Executor, look_ahead: bool) -> Iterator[_Frame]:
    """The frames still to do; ``reader`` reads each while the one before it is in use.

    With ``look_ahead`` it estimates the motion too. Not on a CPU: a network that uses all cores waits for the one that
    a flow occupies, for longer than the flow alone takes.
    """
    ahead = None
    for number, following in pairwise((*render.todo, None)):
        assert number is not None
        frame = (ahead or reader.submit(_read_ahead, render, number, None, look_ahead)).result()
        ahead = None if following is None else reader.submit(_read_ahead, render, following, frame, look_ahead)
        yield frame


def _read_ahead(render: Render, number: int, last: _Frame | None, look_ahead: bool) -> _Frame:
    """Frame ``number``. ``last``: the frame that was read before it, if any."""
    flow = render.options.flow
    digest, source = file_sum(render.frames.paths[number]), _read_source(render, number)
    if number == 0 or not inherits(flow):
        return _Frame(number, source, digest)
    previous = last.source if last and last.number == number - 1 else _read_source(render, number - 1)
    known = look_ahead or flow.mode == FlowMode.OFF
    motion = estimate_motion(previous.small, source.small, flow) if known else None
    return _Frame(number, source, digest, previous, motion)


def _inherit(render: Render, frame: _Frame, last: _Dream | None) -> tuple[Inheritance, bool]:
    """What a frame takes over from the dream before it, and whether a scene starts at it.

    A dream that was not made just now is read as it was saved, so that a resumed run gives the same bytes.
    """
    if frame.previous is None:
        return Inheritance(frame.source.small.astype(np.float32)), False
    flow, previous, current = render.options.flow, frame.previous, frame.source.small
    motion = frame.motion or estimate_motion(previous.small, current, flow)
    picture = read_frame(render.path(frame.number - 1)) if last is None else last.picture
    dream = take_off(picture, previous.full, previous.small)
    return inherit(previous.small, current, dream, motion, flow, render.options.dream.zoom), motion.is_cut


def _finish(render: Render, frame: _Frame, inherited: Inheritance, dreamed: np.ndarray, last: _Dream | None) -> _Dream:
    """The frame to be saved: stabilised, and laid onto the full frame."""
    strength = None
    if inherited.warped is not None:
        strength = last.shot_strength if last else render.journal.shot_strength(frame.number - 1)
        assert strength is not None
        dreamed = inherited.stabilise(dreamed, strength)
    elif render.options.flow.mode == FlowMode.STABLE:
        strength = float(np.abs(dreamed.astype(np.float32) - frame.source.small).mean(dtype=np.float64))
    return _Dream(lay_on(dreamed, frame.source.small, frame.source.full), strength)


def _save(
    render: Render, frame: _Frame, dream: _Dream, layer: str, started: float, is_cut: bool, threads: int
) -> FrameReport:
    """Save and record a frame."""
    path = render.path(frame.number)
    write_frame(path, dream.picture, render.frames.image_type, render.note)
    render.journal.record(frame.number, path, frame.file_sum, dream.shot_strength)
    return FrameReport(frame.number, path, layer, time.monotonic() - started, is_cut, threads)


def _jitter(render: Render, number: int) -> np.random.Generator:
    """The generator of a frame's jitter. Under STABLE it is the same for each frame, so that they dream alike."""
    seed = render.options.dream.seed
    return np.random.default_rng([seed, 0 if render.options.flow.mode == FlowMode.STABLE else number])


def _read_source(render: Render, number: int) -> _Source:
    frame = read_frame(render.frames.paths[number])
    if frame.shape[1::-1] != render.size:
        frame = np.asarray(Image.fromarray(frame).resize(render.size, Image.Resampling.LANCZOS))
    return _Source(frame, shrink(frame, render.dream_size))
