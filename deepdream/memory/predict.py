"""Whether a dream fits into the memory there is, and with which tiles it would.

What a gradient holds is asked of the network (see `Network.memory`); the rest is estimated by the constants below,
which ``scripts/fit_memory.py`` measures again.
"""

import math
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

from deepdream.errors import DreamError, OutOfMemory, first_line, is_out_of_memory
from deepdream.geometry import at_width, divide, divide_gradient, seen_sizes
from deepdream.memory.available import available
from deepdream.options import DivideMode, FlowMode, RenderOptions
from deepdream.target import target_layers

# Copies of the frame, as float32, that a dream holds beside the gradient: octaves, what is inherited, the flow's own.
FRAME_COPIES = {FlowMode.OFF: 8, FlowMode.BLEND: 8, FlowMode.STABLE: 11}
PANORAMA_COPIES = 8  # the same of a panorama, besides: six views of 1.3 frames, their gradients, and on the way between
SPACING = 1.4  # how many times the bytes of its tensors a gradient takes: memory lies unused between them
FULL_FRAME_COPIES = 4  # the same of the full frame, where the dream has a width of its own
SET_ASIDE = 50_000_000  # bytes that threads and libraries take with the first step
ADVISED_SHARE = 0.8  # of the free memory: what the tiles that are advised fill
TILE_STEP = 100  # pixels: tiles are advised in multiples of it
SMALLER = "dream smaller (--dreamwidth)"
MIN_TILE = 200  # pixels: smaller tiles are all border


class SizedNetwork(Protocol):
    """What is asked of a network: see `Network`."""

    device: torch.device

    @property
    def layers(self) -> Sequence[str]:
        """Their names, in order."""
        ...

    def memory(self, layer: str, size: tuple[int, int], /) -> int | None: ...

    def least_size(self, layer: str, /) -> int | None: ...


def heaviest(size: tuple[int, int], options: Iterable[RenderOptions]) -> RenderOptions:
    """The options of those with which a dream of frames of ``size`` (w, h) takes the most memory at one layer."""
    return max(options, key=lambda one: math.prod(_largest_part(size, one)))


def warning(
    network: SizedNetwork, layers: Sequence[str], size: tuple[int, int], options: RenderOptions, at_once: int = 1
) -> str | None:
    """A line for the user where a dream of frames of ``size`` (w, h) at ``layers`` will hardly fit into memory.

    ``at_once``: how many are dreamed at a time. None where they will, and where the engine does not say what it needs
    or the device what it has.
    """
    layer, part = _deepest(network, layers), _largest_part(size, options)
    needed, free = _needed(network, layer, size, part, options), available(network.device)
    if needed is None or free is None or at_once * needed <= free:
        return None
    kind = "views" if options.dream.panorama else "tiles"
    tiles = "" if part == at_width(size, options.dream.dream_width)[::-1] else f" in {kind} of {part[1]}x{part[0]}"
    share = free / at_once
    return (
        f"frames of {size[0]}x{size[1]}{tiles} need about {_gigabytes(needed)} at {layer}, and {_gigabytes(share)} "
        f"are free{' for each' if at_once > 1 else ''}: "
        f"{_tiling_hint(network, layer, size, part, options, ADVISED_SHARE * share)}"
    )


@contextmanager
def explained(
    network: SizedNetwork, layers: Sequence[str], size: tuple[int, int], options: RenderOptions
) -> Iterator[None]:
    """A block that dreams; where memory does not suffice it ends with the `DreamError` that `explain` words."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DreamError(explain(error, network, layers, size, options)) from error


def explain(
    error: BaseException,
    network: SizedNetwork,
    layers: Sequence[str],
    size: tuple[int, int],
    options: RenderOptions,
) -> str:
    """A line for the user where such a dream ended with ``error``, of which `is_out_of_memory` holds."""
    _clear_frames(error)
    layer, part = _deepest(network, layers), _largest_part(size, options)
    needed, free = _needed(network, layer, size, part, options), available(network.device)
    # Whatever is free now, it has failed: the tiles that are advised ask for half of it at the most.
    if needed is None:
        hint = SMALLER if options.dream.panorama else _tiles(network, layer, math.prod(part) / 2)
    else:
        budget = min(needed / 2, math.inf if free is None else ADVISED_SHARE * free)
        hint = _tiling_hint(network, layer, size, part, options, budget)
    reason = str(error) if isinstance(error, OutOfMemory) else f"not enough memory ({first_line(error)})"
    return f"{reason}; {hint}"


def _deepest(network: SizedNetwork, layers: Sequence[str]) -> str:
    return max(target_layers(layers, network.layers), key=network.layers.index)


def _largest_part(size: tuple[int, int], options: RenderOptions) -> tuple[int, int]:
    """(h, w) of the largest picture whose gradient is taken at once, of frames of ``size`` (w, h)."""
    width, height = at_width(size, options.dream.dream_width)
    octaves = seen_sizes(height, width, options.dream)
    tiles = [tile.size for octave in octaves for tile in divide(*octave, options.divide)]
    parts = [part.size for tile in tiles for part in divide_gradient(*tile, options.divide)]
    return max(parts, key=math.prod)


def _needed(
    network: SizedNetwork, layer: str, size: tuple[int, int], part: tuple[int, int], options: RenderOptions
) -> float | None:
    """How many bytes a dream of frames of ``size`` (w, h) needs whose gradient is taken of ``part`` (h, w)."""
    gradient = network.memory(layer, part)
    return None if gradient is None else _fixed_bytes(size, options) + SPACING * gradient


def _fixed_bytes(size: tuple[int, int], options: RenderOptions) -> int:
    """How many bytes a dream needs beside the gradient, however it is tiled."""
    copies = FRAME_COPIES[options.flow.mode] + (PANORAMA_COPIES if options.dream.panorama else 0)
    copies *= math.prod(at_width(size, options.dream.dream_width))
    if options.dream.dream_width:
        copies += FULL_FRAME_COPIES * math.prod(size)
    return SET_ASIDE + 3 * 4 * copies


def _tiling_hint(
    network: SizedNetwork,
    layer: str,
    size: tuple[int, int],
    part: tuple[int, int],
    options: RenderOptions,
    budget: float,
) -> str:
    """The options with which a dream of frames of ``size`` needs at most ``budget`` bytes."""
    if options.dream.panorama:
        return SMALLER
    fixed = _fixed_bytes(size, options)
    gradient = network.memory(layer, part)
    assert gradient is not None, "an engine that tells nothing has no budget to keep"
    per_pixel = SPACING * gradient / math.prod(part)  # nearly the same at any size
    return _tiles(network, layer, (budget - fixed) / per_pixel)


def _tiles(network: SizedNetwork, layer: str, pixels: float) -> str:
    """The options for tiles of at most ``pixels``. A cut may leave half of one, and that must reach ``layer``."""
    side = math.isqrt(max(0, int(pixels))) // TILE_STEP * TILE_STEP
    least = network.least_size(layer)
    if least is None or side < max(MIN_TILE, 2 * least):
        return f"no tiles would be small enough; {SMALLER}"
    return f"take -d {DivideMode.SEAMLESS:d} -mw {side} -mh {side}"


def _clear_frames(error: BaseException | None) -> None:
    """Free the local variables of the calls that failed: they hold memory that nothing uses any more."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
