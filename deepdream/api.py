"""What a Python program uses in place of the command line. `deepdream` itself offers these names.

Nothing prints here: messages for a user go to the logger ``deepdream`` as information, unless another function
is given. Pictures and options mean the same as on the command line, and give the same bytes.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepdream import networks
from deepdream.errors import UsageError
from deepdream.files.frames import FrameDirectory, open_frames, read_size
from deepdream.files.masks import find_masks, read_mask
from deepdream.files.note import dream_note
from deepdream.files.photo import dive_frames
from deepdream.geometry import check_panorama, dream_size_of
from deepdream.interface import Network
from deepdream.options import NetworkOptions, RenderOptions, RunOptions
from deepdream.picture.ascent import StepReport
from deepdream.render.dream_size import shrink
from deepdream.render.frame import Source, dream_frame
from deepdream.render.plan import check_reach, check_render, open_render, options_at, with_layers
from deepdream.render.sequence import FrameReport, dream_frames
from deepdream.render.targets import objectives_at
from deepdream.schedule import values_of
from deepdream.video.mask import check_mask, mask_frames

OnMessage = Callable[[str], object]
_log = logging.getLogger("deepdream").info


def dream(
    picture: np.ndarray,
    network: Network,
    options: RenderOptions = RenderOptions(),
    on_step: Callable[[StepReport], object] | None = None,
    on_message: OnMessage = _log,
) -> np.ndarray:
    """Dream one picture: RGB (h, w, 3) in 0..255 to uint8 of the same shape, as the first frame of a directory.

    Of ``options`` count the dream (its first layer), the division, the guide and a picture as mask. ``on_step`` gets a
    report of each step. Raises `UsageError` for layers that the network has not, and for a picture too small for them.
    """
    layers = networks.resolve_layers(network, options.dream.layers, on_message=on_message)
    first = options_at(with_layers(options, layers), 0)
    dream, layer = first.dream, first.layer
    if dream.panorama:
        check_panorama((picture.shape[1], picture.shape[0]), "the picture")
    size = dream_size_of((picture.shape[1], picture.shape[0]), dream, "picture, which has")
    check_reach(dream, [layer], size, network)
    mask = read_mask(find_masks(options.mask, 1)[0], picture.shape[1::-1]) if options.mask else None
    source = Source(picture, shrink(picture, size), mask)
    return dream_frame(first, network, objectives_at(network, first.guide)(layer), source, on_step=on_step).picture


def dream_directory(
    source: str | Path,
    output: str | Path,
    network: Network,
    options: RenderOptions = RenderOptions(),
    *,
    overwrite: bool = False,
    settings: bool = True,
    on_frame: Callable[[FrameReport], object] = lambda report: None,
    on_step: Callable[[int, StepReport], object] | None = None,
    on_message: OnMessage = _log,
) -> list[Path]:
    """Dream the frames of a directory into another; gives the dreams' paths, in order.

    Frames that an earlier call with these arguments made count as done. ``on_frame`` gets a report of each frame
    that is saved, ``on_step`` the frame's number (from 0) and a report of each step. ``settings``: let the frames
    carry the command that makes them. Raises `UsageError` before any work, `DreamError` where it fails later; what
    is saved stays.
    """
    frames = open_frames(source, options.image_type, leave_out=filter(None, values_of(options.guide)))
    return _dream_frames(frames, output, network, options, None, overwrite, settings, on_frame, on_step, on_message)


def dive(
    source: str | Path,
    output: str | Path,
    network: Network,
    frames: int,
    options: RenderOptions = RenderOptions(),
    *,
    overwrite: bool = False,
    settings: bool = True,
    on_frame: Callable[[FrameReport], object] = lambda report: None,
    on_step: Callable[[int, StepReport], object] | None = None,
    on_message: OnMessage = _log,
) -> list[Path]:
    """Dive into the picture ``source``: each of so many ``frames`` is the dream before it, moved and dreamed again.

    ``options.dream`` says how it moves, by ``zoom`` and ``rotate``; there is no flow. All else is as for
    `dream_directory`.
    """
    path, options = Path(source), replace(options, dive=True)
    if path.is_dir():
        raise UsageError(f"{path} is a directory; a dive goes into a picture")
    read_size(path)  # raises where it is none
    RunOptions(frames=frames)  # checks the number
    dived = dive_frames(path, frames, options.image_type)
    return _dream_frames(dived, output, network, options, frames, overwrite, settings, on_frame, on_step, on_message)


def _dream_frames(
    frames: FrameDirectory,
    output: str | Path,
    network: Network,
    options: RenderOptions,
    dived: int | None,
    overwrite: bool,
    settings: bool,
    on_frame: Callable[[FrameReport], object],
    on_step: Callable[[int, StepReport], object] | None,
    on_message: OnMessage,
) -> list[Path]:
    """Dream frames; ``dived``: how many, of a dive. All else is as for `dream_directory`."""
    layers = networks.resolve_layers(network, options.dream.layers, on_message=on_message)
    engine = NetworkOptions(precision=network.precision)
    note = dream_note(frames.path, network, engine, options, frames=dived) if settings else None
    masks = check_mask(options.mask, len(frames.paths))
    if masks:
        check_render(frames, output, network, layers, options)
        options = replace(options, mask=mask_frames(masks, Path(output), overwrite))
    render = open_render(frames, output, network, layers, options, overwrite, note)
    for report in dream_frames(render, network, on_step):
        on_frame(report)
    return [render.path(number) for number in range(len(frames.paths))]
