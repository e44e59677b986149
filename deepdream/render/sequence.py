"""The loop over frames: start picture, dream, save. A stopped run goes on after its last whole frame.

`open_render` checks everything that can be checked before the first step; `dream_frames` does the work and reports
each frame that it has saved.
"""

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

from deepdream.errors import UsageError
from deepdream.files.clip import copy_clip
from deepdream.files.frames import MAX_FRAME_PIXELS, FrameDirectory, read_frame, write_frame
from deepdream.geometry import octave_sizes
from deepdream.interface import Network, Objective
from deepdream.motion.inheritance import Inheritance, Motion, estimate_motion, inherit, inherits
from deepdream.options import IMAGE_TYPES, FlowMode, RenderOptions
from deepdream.picture import ascent, objectives
from deepdream.render.journal import Journal, file_sum
from deepdream.settings import manifest_entries
from deepdream.threads import adapt_threads

GUIDE_SIZE = (224, 224)


@dataclass(frozen=True)
class Render:
    """A run that has been checked and can start: frames in, frames out, and which are still to do.

    ``size`` is the (w, h) at which it dreams; ``layers`` are the network's, one a frame, in turn. ``note``: text that
    the frames carry. The output is locked from here until `dream_frames` ends.
    """

    frames: FrameDirectory
    output: Path
    options: RenderOptions
    layers: tuple[str, ...]
    size: tuple[int, int]
    journal: Journal
    todo: tuple[int, ...] = ()
    note: str | None = None

    def path(self, number: int) -> Path:
        """Where the dream of frame ``number`` is saved."""
        return self.output / f"frame_{number:06d}{IMAGE_TYPES[self.frames.image_type][0]}"

    @property
    def pixel_steps(self) -> int:
        """The work still to do, in pixels times iterations."""
        return len(self.todo) * ascent.pixel_steps(self.size[1], self.size[0], self.options.dream)


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


def open_render(
    frames: FrameDirectory,
    output: Path | str,
    network: Network,
    layers: tuple[str, ...],
    options: RenderOptions,
    overwrite: bool = False,
    note: str | None = None,
) -> Render:
    """Check all that can be checked before the first step, and find what is still to do.

    ``layers``: names of the network's, one a frame, in turn. Frames that the same command has made before count as
    done. ``note``: text that the frames carry; it makes no other render. Raises `UsageError` where ``output`` holds
    another render and ``overwrite`` is not set, and where the frames or the guide cannot be used.
    """
    output = Path(output)
    width, height = _preview_size(check_source(frames, output), options.dream.preview)
    if width * height > MAX_FRAME_PIXELS:
        raise UsageError(f"--preview {options.dream.preview}: dreams of {width}x{height} pixels are too large")
    smallest = octave_sizes(height, width, options.dream.octaves, options.dream.octave_scale)[-1]
    for layer in dict.fromkeys(layers):
        network.check_size(layer, smallest)
    if options.guide is not None:
        read_frame(options.guide)
    journal = Journal(output, _settings(frames, network, layers, options), overwrite)
    render = Render(frames, output, options, tuple(layers), (width, height), journal, note=note)
    try:
        copy_clip(frames.path, output)
        paths = [render.path(number) for number in range(len(frames.paths))]
        return replace(render, todo=tuple(journal.to_do(paths, frames.paths, inherits(options.flow))))
    except BaseException:
        journal.close()
        raise


def check_source(frames: FrameDirectory, output: Path | str) -> tuple[int, int]:
    """The (w, h) of frames that can be dreamed into ``output``; `UsageError` says why they cannot."""
    source, target = frames.path.resolve(), Path(output).resolve()
    # `samefile` also knows names that differ in case alone, where the system does not distinguish them.
    if target.exists() and source.samefile(target):
        raise UsageError(f"input and output are the same directory, {output}; the dreams need one of their own")
    if target.exists() and not target.is_dir():
        raise UsageError(f"the output {output} is a file; dreams go into a directory")
    if any(parent.exists() and source.samefile(parent) for parent in target.parents):
        raise UsageError(f"the output {output} lies inside the input {frames.path}; choose one beside it")
    if min(frames.size) < 2:
        raise UsageError(f"{frames.path}: frames of {frames.size[0]}x{frames.size[1]} are too small; 2x2 is the least")
    return frames.size


def dream_frames(
    render: Render, network: Network, on_step: Callable[[int, ascent.StepReport], Any] | None = None
) -> Iterator[FrameReport]:
    """Dream and save the frames of a `Render` that are still to do; yields a report for each.

    While a frame dreams, threads save the one before it and read the one after it, so a report comes when the next
    frame is dreamed. Whatever goes wrong, the frames before are saved and reported first.
    ``on_step`` is called with the frame's number and each step's report.
    """
    with render.journal, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        objective_of = objectives_at(network, render.options.guide)
        saving: Future[FrameReport] | None = None  # of the frame before
        dream = None  # the frame before, if it was dreamed just now
        try:
            for frame in _read_frames(render, reader, look_ahead=network.device.type != "cpu"):
                started = time.monotonic()
                threads = adapt_threads()
                layer = render.layers[frame.number % len(render.layers)]
                inherited, is_cut = _inherit(render, frame, dream)
                picture = ascent.dream(
                    inherited.start,
                    network,
                    layer,
                    render.options.dream,
                    render.options.divide,
                    objective_of(layer),
                    _jitter(render, frame.number),
                    on_step and partial(on_step, frame.number),
                )
                picture = inherited.stabilise(picture)
                if saving:
                    yield saving.result()
                saving = writer.submit(_save, render, frame, picture, layer, started, is_cut, threads)
                if render.frames.image_type == "png":
                    dream = picture
                else:
                    saving.result()  # other types are lossy: the next frame inherits what the file holds
        except Exception:
            if saving:
                yield saving.result()
            raise
        if saving:
            yield saving.result()


@dataclass(frozen=True)
class _SourceFrame:
    """A source frame and the sum of its file. Under optical flow also the frame before, and the motion if known."""

    number: int
    picture: np.ndarray
    file_sum: str | None
    previous: np.ndarray | None = None
    motion: Motion | None = None


def _read_frames(render: Render, reader: Executor, look_ahead: bool) -> Iterator[_SourceFrame]:
    """The frames still to do; ``reader`` reads each while the one before it is in use.

    With ``look_ahead`` it estimates the motion too. Not on a CPU: a network that uses all cores waits for the one that
    a flow occupies, for longer than the flow alone takes.
    """
    ahead = None
    for number, following in pairwise((*render.todo, None)):
        assert number is not None
        frame = (ahead or reader.submit(_read_source, render, number, None, look_ahead)).result()
        ahead = None if following is None else reader.submit(_read_source, render, following, frame, look_ahead)
        yield frame


def _read_source(render: Render, number: int, last: _SourceFrame | None, look_ahead: bool) -> _SourceFrame:
    """``last``: the frame that was read before this one, if any."""
    flow = render.options.flow
    digest, picture = file_sum(render.frames.paths[number]), _read(render, number)
    if number == 0 or flow.mode == FlowMode.OFF:
        return _SourceFrame(number, picture, digest, motion=Motion())
    previous = last.picture if last and last.number == number - 1 else _read(render, number - 1)
    motion = estimate_motion(previous, picture, flow) if look_ahead else None
    return _SourceFrame(number, picture, digest, previous, motion)


def _inherit(render: Render, frame: _SourceFrame, dream: np.ndarray | None) -> tuple[Inheritance, bool]:
    """What a frame takes over from the ``dream`` before it, and whether a scene starts at it.

    A dream that is None is read as it was saved, so that a resumed run gives the same bytes.
    """
    flow = render.options.flow
    if frame.number == 0 or not inherits(flow):
        return Inheritance(frame.picture.astype(np.float32)), False
    previous = frame.picture if frame.previous is None else frame.previous  # without flow it is not looked at
    motion = frame.motion or estimate_motion(previous, frame.picture, flow)
    if dream is None:
        dream = read_frame(render.path(frame.number - 1))
    return inherit(previous, frame.picture, dream, motion, flow, render.options.dream.zoom), motion.is_cut


def _save(
    render: Render,
    frame: _SourceFrame,
    picture: np.ndarray,
    layer: str,
    started: float,
    is_cut: bool,
    threads: int,
) -> FrameReport:
    """Save and record a frame."""
    path = render.path(frame.number)
    write_frame(path, picture, render.frames.image_type, render.note)
    render.journal.record(frame.number, path, frame.file_sum)
    return FrameReport(frame.number, path, layer, time.monotonic() - started, is_cut, threads)


def _jitter(render: Render, number: int) -> np.random.Generator:
    """The generator of a frame's jitter. Under STABLE it is the same for each frame, so that they dream alike."""
    seed = render.options.dream.seed
    return np.random.default_rng([seed, 0 if render.options.flow.mode == FlowMode.STABLE else number])


def objectives_at(network: Network, guide_path: str | None) -> Callable[[str], Objective]:
    """A function from a layer's name to the objective there."""
    if guide_path is None:
        return lambda layer: objectives.l2
    guide = Image.fromarray(read_frame(guide_path)).resize(GUIDE_SIZE, Image.Resampling.LANCZOS)
    picture = ascent.to_network(guide, network)
    made: dict[str, Objective] = {}

    def objective(layer: str) -> Objective:
        if layer not in made:
            made[layer] = objectives.guide(network.activations(picture, layer))
        return made[layer]

    return objective


def _read(render: Render, number: int) -> np.ndarray:
    """A source frame as uint8 RGB (h, w, 3) at the size of the render."""
    frame = read_frame(render.frames.paths[number])
    if frame.shape[1::-1] == render.size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(render.size, Image.Resampling.LANCZOS))


def _preview_size(size: tuple[int, int], preview: int) -> tuple[int, int]:
    width, height = size
    return (preview, max(1, round(height * preview / width))) if preview else (width, height)


def _settings(
    frames: FrameDirectory, network: Network, layers: tuple[str, ...], options: RenderOptions
) -> dict[str, Any]:
    """What two runs must share to make the same bytes, as plain data for the manifest, by option."""
    return {
        "--input": str(frames.path.resolve()),
        "--image_type": frames.image_type,
        "network": network.digest,
        "--gpu": network.device.type,  # rounds otherwise, so frames of both would not be those of one run
        "--precision": network.precision,
        **manifest_entries(options.dream),
        "--layers": list(layers),  # as the network calls them
        "--guide": options.guide and f"{Path(options.guide).resolve()} ({file_sum(options.guide)})",
        **manifest_entries(options.flow),
        **manifest_entries(options.divide),
    }
