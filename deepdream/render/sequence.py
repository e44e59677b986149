"""The loop over frames: start picture, dream, save. A run that was stopped goes on after its last whole frame."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from deepdream.errors import UsageError
from deepdream.files.clip import copy_clip
from deepdream.files.frames import MAX_FRAME_PIXELS, FrameDirectory, read_frame, write_frame
from deepdream.geometry import octave_sizes
from deepdream.motion.inheritance import Inheritance, Motion, inherit, inherits, observe
from deepdream.options import IMAGE_TYPES, FlowMode, RenderOptions
from deepdream.picture import ascent, objectives
from deepdream.render.journal import Journal, file_sum
from deepdream.settings import manifest_entries

GUIDE_SIZE = (224, 224)


@dataclass(frozen=True)
class Render:
    """A run that has been checked and can start: frames in, frames out, and which are still to do.

    ``size`` is the (w, h) at which it dreams; ``layers`` are the network's, one a frame, in turn. The output is
    locked from here until `dream_frames` ends.
    """

    frames: FrameDirectory
    output: Path
    options: RenderOptions
    layers: tuple
    size: tuple
    journal: Journal
    todo: tuple = ()

    def path(self, number):
        """Where the dream of frame ``number`` is saved."""
        return self.output / f"frame_{number:06d}{IMAGE_TYPES[self.frames.image_type][0]}"

    @property
    def work(self):
        """What is to do, in pixels times iterations."""
        return len(self.todo) * ascent.work(self.size[1], self.size[0], self.options.dream)


@dataclass(frozen=True)
class FrameReport:
    """A frame that was dreamed and saved: its number (from 0) of ``count``, and how long it took in seconds.

    ``is_cut``: a new scene was found to start here (only ``-flow 2`` looks for one).
    """

    number: int
    count: int
    path: Path
    layer: str
    seconds: float
    is_cut: bool = False


def open_render(frames, output, network, layers, options, overwrite=False):
    """Check all that can be checked before the first step, and find what is still to do: a `Render`.

    ``frames``: `FrameDirectory`; ``layers``: names of the network's, one a frame, in turn. Frames that the same
    command has made before count as done. Raises `UsageError` where ``output`` holds another render and
    ``overwrite`` is not set, and where the frames or the guide cannot be used.
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
    render = Render(frames, output, options, tuple(layers), (width, height), journal)
    try:
        copy_clip(frames.path, output)
        paths = [render.path(number) for number in range(len(frames.paths))]
        return replace(render, todo=tuple(journal.to_do(paths, frames.paths, inherits(options.flow))))
    except BaseException:
        journal.close()
        raise


def check_source(frames, output):
    """The (w, h) of frames that can be dreamed into ``output``; `UsageError` says why they cannot."""
    source, target = frames.path.resolve(), Path(output).resolve()
    if source == target:
        raise UsageError(f"input and output are the same directory, {output}; the dreams need one of their own")
    if target.exists() and not target.is_dir():
        raise UsageError(f"the output {output} is a file; dreams go into a directory")
    if source in target.parents:
        raise UsageError(f"the output {output} lies inside the input {frames.path}; choose one beside it")
    if min(frames.size) < 2:
        raise UsageError(f"{frames.path}: frames of {frames.size[0]}x{frames.size[1]} are too small; 2x2 is the least")
    return frames.size


def dream_frames(render, network, on_step=None):
    """Dream and save the frames of a `Render` that are still to do; yields a `FrameReport` a frame.

    While a frame dreams, threads save the one before it and read the one after it, so a report comes when the next
    frame is dreamed. Whatever goes wrong, the frames before are saved and reported first.
    ``on_step(number, report)`` is called with the frame's number and each `ascent.StepReport`.
    """
    with render.journal, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        objective_of = _objectives(network, render)
        saving = dream = None  # the frame before: its report to come, and its dream if it was made just now
        try:
            for scene in _scenes(render, reader, look_ahead=network.device.type != "cpu"):
                started = time.monotonic()
                layer = render.layers[scene.number % len(render.layers)]
                inherited = _inherit(render, scene, dream)
                picture = ascent.dream(
                    inherited.start,
                    network,
                    layer,
                    render.options.dream,
                    render.options.divide,
                    objective_of(layer),
                    _jitter(render, scene.number),
                    on_step and partial(on_step, scene.number),
                )
                picture = inherited.settle(picture)
                if saving:
                    yield saving.result()
                saving = writer.submit(_save, render, scene, picture, layer, started, inherited.is_cut)
                if render.frames.image_type == "png":
                    dream = picture
                else:
                    saving.result()  # other types lose something: the next frame inherits what the file holds
        except Exception:
            if saving:
                yield saving.result()
            raise
        if saving:
            yield saving.result()


@dataclass(frozen=True)
class _Scene:
    """A source frame, the sum of its file, and under optical flow the frame before and the motion, if it is known."""

    number: int
    source: np.ndarray
    source_sum: str
    previous: np.ndarray | None = None
    motion: Motion | None = None


def _scenes(render, reader, look_ahead):
    """A `_Scene` for each frame to do; each is read by the executor ``reader`` while the one before it is in use.

    With ``look_ahead`` its motion is found there too. Not so on a CPU: a network that has all cores is held up by a
    flow on one of them for longer than the flow alone takes.
    """
    ahead = None
    for number, following in pairwise((*render.todo, None)):
        scene = (ahead or reader.submit(_read_scene, render, number, None, look_ahead)).result()
        ahead = None if following is None else reader.submit(_read_scene, render, following, scene, look_ahead)
        yield scene


def _read_scene(render, number, before, look):
    """The `_Scene` of a frame; ``before``: the one that was read last, or None. ``look``: find its motion, too."""
    flow = render.options.flow
    source_sum, source = file_sum(render.frames.paths[number]), _read(render, number)
    if number == 0 or flow.mode == FlowMode.OFF:
        return _Scene(number, source, source_sum)
    previous = before.source if before and before.number == number - 1 else _read(render, number - 1)
    return _Scene(number, source, source_sum, previous, observe(previous, source, flow) if look else None)


def _inherit(render, scene, dream):
    """What a frame takes over from the ``dream`` before it, which is read as saved where it is None: a resumed run
    gives the same bytes."""
    if scene.number == 0 or not inherits(render.options.flow):
        return Inheritance(scene.source)
    if dream is None:
        dream = read_frame(render.path(scene.number - 1))
    return inherit(scene.previous, scene.source, dream, render.options.flow, render.options.dream.zoom, scene.motion)


def _save(render, scene, picture, layer, started, is_cut):
    """Save and note a frame; its `FrameReport`."""
    path = render.path(scene.number)
    write_frame(path, picture, render.frames.image_type)
    render.journal.record(scene.number, path, scene.source_sum)
    seconds = time.monotonic() - started
    return FrameReport(scene.number, len(render.frames.paths), path, layer, seconds, is_cut)


def _jitter(render, number):
    """The generator of a frame's jitter: stabilised the same for each frame, so that they dream alike."""
    seed = render.options.dream.seed
    return np.random.default_rng([seed, 0 if render.options.flow.mode == FlowMode.STABLE else number])


def _objectives(network, render):
    """A function from a layer's name to the objective there."""
    if render.options.guide is None:
        return lambda layer: objectives.l2
    guide = Image.fromarray(read_frame(render.options.guide)).resize(GUIDE_SIZE, Image.Resampling.LANCZOS)
    picture = ascent.to_network(guide, network)
    made = {}

    def objective(layer):
        if layer not in made:
            made[layer] = objectives.guide(network.activations(picture, layer))
        return made[layer]

    return objective


def _read(render, number):
    """A source frame as uint8 RGB (h, w, 3) at the size of the render."""
    frame = read_frame(render.frames.paths[number])
    if frame.shape[1::-1] == render.size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(render.size, Image.Resampling.LANCZOS))


def _preview_size(size, preview):
    width, height = size
    return (preview, max(1, round(height * preview / width))) if preview else (width, height)


def _settings(frames, network, layers, options):
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
