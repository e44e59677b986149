"""What is checked before a render starts: its frames, its settings, and which frames are still to do."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from deepdream.errors import UsageError
from deepdream.files.atomic import make_directory, write_whole
from deepdream.files.clip import copy_clip
from deepdream.files.frames import MAX_FRAME_PIXELS, FrameDirectory, read_frame
from deepdream.files.masks import find_masks
from deepdream.files.photo import source_frame
from deepdream.geometry import at_width, check_panorama, dream_size_of, seen_sizes
from deepdream.interface import Network
from deepdream.machine import describe
from deepdream.motion.inheritance import inherits
from deepdream.options import IMAGE_TYPES, DreamOptions, FlowMode, RenderOptions
from deepdream.picture import ascent
from deepdream.render.frame import FrameOptions
from deepdream.render.journal import Journal, file_sum
from deepdream.schedule import Schedule, values_of
from deepdream.settings import at, manifest_entries
from deepdream.target import target_at, target_layers


@dataclass(frozen=True)
class Render:
    """A run that has been checked and can start: frames in, frames out, and which are still to do.

    ``size`` is the (w, h) of the frames that are written, ``dream_size`` that at which they are dreamed. The layers of
    ``options`` are the network's. ``masks``: the files of the frames' masks, where they have some. ``note``: text that
    the frames carry. ``cuts``: the frames at which scenes start, where all of them are known. The output is locked from
    here until the frames have been dreamed.
    """

    frames: FrameDirectory
    output: Path
    options: RenderOptions
    size: tuple[int, int]
    dream_size: tuple[int, int]
    journal: Journal
    masks: tuple[Path, ...] = ()
    todo: tuple[int, ...] = ()
    note: str | None = None
    cuts: frozenset[int] | None = None

    def path(self, number: int) -> Path:
        """Where the dream of frame ``number`` is saved."""
        return self.output / f"frame_{number:06d}{IMAGE_TYPES[self.frames.image_type][0]}"

    def options_at(self, number: int) -> FrameOptions:
        """The options of frame ``number``."""
        return options_at(self.options, number)

    @property
    def layers(self) -> list[str]:
        """The layers, or targets, of all frames."""
        return list(dict.fromkeys(layer for variant in self.variants for layer in variant.dream.layers))

    @property
    def variants(self) -> list[RenderOptions]:
        """See `variants`."""
        return variants(self.options, len(self.frames.paths))

    def inherits_at(self, number: int) -> bool:
        """Whether frame ``number`` takes anything over from the one before it, as far as is known."""
        return number > 0 and number not in (self.cuts or ()) and inherits(self.options_at(number).flow)

    @property
    def lacks_cuts(self) -> bool:
        """Whether scene cuts count in this render, and are not known."""
        return self.cuts is None and self.options.flow.mode == FlowMode.STABLE

    @property
    def pixel_steps(self) -> int:
        """The work still to do, in pixels times iterations. Each scene cut that is not known adds `cut_pixel_steps`."""
        return sum(map(self.pixel_steps_at, self.todo))

    def pixel_steps_at(self, number: int) -> int:
        """The work of a frame."""
        return self._pixel_steps(number, starts_shot=not self.inherits_at(number))

    def cut_pixel_steps(self, number: int) -> int:
        """What frame ``number`` takes more where it is the first of a shot than where it inherits."""
        return self._pixel_steps(number, starts_shot=True) - self._pixel_steps(number, starts_shot=False)

    def _pixel_steps(self, number: int, starts_shot: bool) -> int:
        width, height = self.dream_size
        return ascent.pixel_steps(height, width, self.options_at(number).dream_options(starts_shot))


def open_render(
    frames: FrameDirectory,
    output: Path | str,
    network: Network,
    layers: tuple[str, ...] | Schedule,
    options: RenderOptions,
    overwrite: bool = False,
    note: str | None = None,
    mix_machines: bool = False,
) -> Render:
    """Check all that can be checked before the first step, and find what is still to do.

    ``layers``: the network's, or targets (see `deepdream.target`), one a frame, in turn. A dive's ``frames`` are those
    of `dive_frames`; the picture becomes a frame inside the output. Frames that the same command has made before count
    as done. ``note``: text that the frames carry; it makes no other render. Raises `UsageError` where ``output`` holds
    another render and ``overwrite`` is not set, where it was begun on a machine that rounds otherwise and
    ``mix_machines`` is not set, and where the frames, the guide or the masks cannot be used.
    """
    output = Path(output)
    check_render(frames, output, network, layers, options)
    size = at_width(frames.size, options.dream.preview)
    dream_size = at_width(size, options.dream.dream_width)
    masks = find_masks(options.mask, len(frames.paths)) if options.mask else ()
    options = with_layers(options, layers)
    sum_of, photo = file_sum, None
    if options.dive:
        photo, content = source_frame(frames.path, output)
        digest = sha256(content).hexdigest()
        frames, sum_of = replace(frames, paths=(photo,) * len(frames.paths)), lambda path: digest
    journal = Journal(output, _settings(frames, masks, network, options), overwrite)
    try:
        render = Render(frames, output, options, size, dream_size, journal, masks, note=note)
        paths = [render.path(number) for number in range(len(frames.paths))]
        is_chain = any(inherits(variant.flow) for variant in render.variants)
        cuts = journal.cuts(frames.paths)
        todo = journal.to_do(paths, frames.paths, is_chain, cuts or (), sum_of)
        if todo and not mix_machines:
            journal.check_machine(describe(network.device))
        copy_clip(frames.path, output)
        if photo:
            make_directory(photo.parent)
            write_whole(photo, content)
        return replace(render, todo=tuple(todo), cuts=None if cuts is None else frozenset(cuts))
    except BaseException:
        journal.close()
        raise


def check_render(
    frames: FrameDirectory,
    output: Path | str,
    network: Network,
    layers: tuple[str, ...] | Schedule,
    options: RenderOptions,
) -> None:
    """Check all that `open_render` checks before it looks into the output. Masks are left out."""
    dream = options.dream
    full_size = check_source(frames, output, dream.panorama)
    size = at_width(full_size, dream.preview)
    if math.prod(size) > MAX_FRAME_PIXELS:
        raise UsageError(f"--preview {dream.preview}: dreams of {size[0]}x{size[1]} pixels are too large")
    dream_size = dream_size_of(size, dream, "frames, which have")
    for guide in filter(None, values_of(options.guide)):
        read_frame(guide)
    options = with_layers(options, layers)
    for variant in variants(options, len(frames.paths)):
        check_reach(variant.dream, variant.dream.layers, dream_size, network)


def check_source(frames: FrameDirectory, output: Path | str, panorama: bool = False) -> tuple[int, int]:
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
    if panorama:
        check_panorama(frames.size, frames.path)
    return frames.size


def options_at(options: RenderOptions, number: int) -> FrameOptions:
    """The options of frame ``number``. The layers of ``options`` are the network's."""
    now, before = at(options, number), at(options, max(number - 1, 0))
    layers = now.dream.layers
    layer = target_at(layers[number % len(layers)], number)
    growth = _steps(now) / _steps(before) if _steps(before) else 0.0
    return FrameOptions(number, layer, now.dream, now.flow, now.divide, now.guide, now.dive, growth)


def _steps(options: RenderOptions) -> float:
    """What the steps of a frame that inherits under STABLE come to, relative to those of other frames."""
    few = replace(options.dream, iterations=options.flow.iterations or 0, taper=True)
    return options.dream.step_size * sum(ascent.octave_iterations(few))


def variants(options: RenderOptions, count: int) -> list[RenderOptions]:
    """The options of each of ``count`` frames, where they change over time; else those of the render alone."""
    changes = at(options, 0) is not options
    return [at(options, number) for number in range(count)] if changes else [options]


def with_layers(options: RenderOptions, layers: tuple[str, ...] | Schedule) -> RenderOptions:
    """Options with the layers, or targets, that a network calls so."""
    return replace(options, dream=replace(options.dream, layers=layers))  # type: ignore[arg-type]


def check_reach(dream: DreamOptions, targets: Iterable[str], size: tuple[int, int], network: Network) -> None:
    """Raise `PictureTooSmall` where a picture dreamed at ``size`` (w, h) is too small for a layer of the targets."""
    octave = seen_sizes(size[1], size[0], dream)[-1]
    for layer in target_layers(targets, network.layers):
        network.check_size(layer, octave)


def _named_sums(paths: str | Schedule) -> str:
    """Files by their paths, with their sums."""
    if isinstance(paths, Schedule):
        return str(Schedule(paths.frames, tuple(path and _named_sums(path) for path in paths.values)))
    return f"{Path(paths).resolve()} ({file_sum(paths)})"


def _sum_of_sums(paths: Iterable[Path]) -> str:
    """The sha256 of files' sums, each file once; of one file it is its own."""
    sums = [file_sum(path) or "" for path in dict.fromkeys(paths)]
    return sums[0] if len(sums) == 1 else sha256("".join(sums).encode()).hexdigest()


def _settings(
    frames: FrameDirectory, masks: tuple[Path, ...], network: Network, options: RenderOptions
) -> dict[str, Any]:
    """What two runs must share to make the same bytes, as plain data for the manifest, by option."""
    return {
        "--input": str(frames.path.resolve()),
        "--image_type": frames.image_type,
        "network": network.digest,
        "--gpu": network.device.type,  # rounds otherwise, so frames of both would not be those of one run
        "--precision": network.precision,
        **manifest_entries(options.dream),
        "--guide": options.guide and _named_sums(options.guide),
        "--mask": options.mask and f"{Path(options.mask).resolve()} ({_sum_of_sums(masks)})",
        **manifest_entries(options.flow),
        **manifest_entries(options.divide),
    }
