"""What is checked before a render starts: its frames, its settings, and which frames are still to do."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepdream.errors import UsageError
from deepdream.files.clip import copy_clip
from deepdream.files.frames import MAX_FRAME_PIXELS, FrameDirectory, read_frame
from deepdream.geometry import at_width, octave_sizes
from deepdream.interface import Network
from deepdream.motion.inheritance import inherits
from deepdream.options import IMAGE_TYPES, RenderOptions
from deepdream.picture import ascent
from deepdream.render.frame import FrameOptions
from deepdream.render.journal import Journal, file_sum
from deepdream.settings import manifest_entries
from deepdream.target import target_layers

LARGE_WIDTH = 1500  # pixels: beyond this the shapes of a dream look small, and a frame takes long
ADVISED_WIDTH = 1280


@dataclass(frozen=True)
class Render:
    """A run that has been checked and can start: frames in, frames out, and which are still to do.

    ``size`` is the (w, h) of the frames that are written, ``dream_size`` that at which they are dreamed. ``layers`` are
    the network's, one a frame, in turn. ``note``: text that the frames carry. The output is locked from here until
    `sequence.dream_frames` ends.
    """

    frames: FrameDirectory
    output: Path
    options: RenderOptions
    layers: tuple[str, ...]
    size: tuple[int, int]
    dream_size: tuple[int, int]
    journal: Journal
    todo: tuple[int, ...] = ()
    note: str | None = None

    def path(self, number: int) -> Path:
        """Where the dream of frame ``number`` is saved."""
        return self.output / f"frame_{number:06d}{IMAGE_TYPES[self.frames.image_type][0]}"

    def options_at(self, number: int) -> FrameOptions:
        """The options of frame ``number``."""
        layer, options = self.layers[number % len(self.layers)], self.options
        return FrameOptions(number, layer, options.dream, options.flow, options.divide)

    @property
    def faster_width(self) -> int | None:
        """A width at which to dream large frames, where none was chosen; None for frames that are not large."""
        chosen = self.options.dream.dream_width
        return ADVISED_WIDTH if self.size[0] > LARGE_WIDTH and not chosen else None

    @property
    def faster_by(self) -> float:
        """How many times as fast the network is at `ADVISED_WIDTH`."""
        return (self.size[0] / ADVISED_WIDTH) ** 2

    @property
    def pixel_steps(self) -> int:
        """The work still to do, in pixels times iterations. Each scene cut adds `cut_pixel_steps`."""
        return sum(self._pixel_steps(number, starts_shot=number == 0) for number in self.todo)

    @property
    def cut_pixel_steps(self) -> int:
        """What the first frame of a shot takes more than one that inherits."""
        return self._pixel_steps(0, starts_shot=True) - self._pixel_steps(0, starts_shot=False)

    def _pixel_steps(self, number: int, starts_shot: bool) -> int:
        width, height = self.dream_size
        return ascent.pixel_steps(height, width, self.options_at(number).dream_options(starts_shot))


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

    ``layers``: the network's, or targets (see `deepdream.target`), one a frame, in turn. Frames that the same command
    has made before count as done. ``note``: text that the frames carry; it makes no other render. Raises `UsageError`
    where ``output`` holds another render and ``overwrite`` is not set, and where the frames or the guide cannot be
    used.
    """
    output, dream = Path(output), options.dream
    size = at_width(check_source(frames, output), dream.preview)
    if math.prod(size) > MAX_FRAME_PIXELS:
        raise UsageError(f"--preview {dream.preview}: dreams of {size[0]}x{size[1]} pixels are too large")
    if dream.dream_width > size[0]:
        raise UsageError(f"--dreamwidth {dream.dream_width}: wider than the frames, which have {size[0]} pixels")
    dream_size = at_width(size, dream.dream_width)
    smallest = octave_sizes(dream_size[1], dream_size[0], dream.octaves, dream.octave_scale)[-1]
    for layer in target_layers(layers, network.layers):
        network.check_size(layer, smallest)
    if options.guide is not None:
        read_frame(options.guide)
    journal = Journal(output, _settings(frames, network, layers, options), overwrite)
    render = Render(frames, output, options, tuple(layers), size, dream_size, journal, note=note)
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
