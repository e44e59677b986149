"""Whether a dream fits into the memory there is, and with which tiles it would."""

import math
import traceback

from deepdream.errors import OutOfMemory, first_line
from deepdream.geometry import divide, divide_gradient, octave_sizes
from deepdream.memory.available import available
from deepdream.memory.malloc import LARGE
from deepdream.options import DivideMode, FlowMode

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None

# All three measured: how many times a dream holds its frame as float32 beside the gradient (the octaves, what is
# inherited, what the flow is found with); how much more than its tensors a gradient takes, for what lies unused
# between them, and where memory is not given back between octaves; and what threads and libraries set aside with the
# first step.
FRAME_COPIES = {FlowMode.OFF: 8, FlowMode.BLEND: 10, FlowMode.STABLE: 10}
SPACING, SPACING_KEPT = 1.4, 2.1
SET_ASIDE = 50_000_000
FILLED = 0.8  # of the memory that is free, by the tiles that are advised
TILE_STEP = 100  # pixels: tiles are advised in multiples of it
LEAST_TILE = 200  # pixels: smaller ones are all border


def warning(network, layers, size, options):
    """A line where a dream of frames of ``size`` (w, h) at ``layers`` will hardly fit into memory; else None.

    ``options``: `RenderOptions`. What it needs is estimated; None too where the engine or the device tells nothing.
    """
    layer, part = _deepest(network, layers), _largest_part(size, options)
    needed, free = _needed(network, layer, size, part, options), available(network.device)
    if needed is None or free is None or needed <= free:
        return None
    tiles = "" if part == size[::-1] else f" in tiles of {part[1]}x{part[0]}"
    return (
        f"frames of {size[0]}x{size[1]}{tiles} need about {_gigabytes(needed)} at {layer}, and {_gigabytes(free)} "
        f"are free: {_way_out(network, layer, size, part, options, FILLED * free)}"
    )


def explain(error, network, layers, size, options):
    """A line for the user where such a dream ended with ``error``, of which `is_out_of_memory` holds."""
    _let_go(error)
    layer, part = _deepest(network, layers), _largest_part(size, options)
    needed, free = _needed(network, layer, size, part, options), available(network.device)
    # Whatever is free now, it has failed: the tiles that are advised ask for half of it at the most.
    if needed is None:
        tiles = _tiles(network, layer, math.prod(part) / 2)
    else:
        budget = min(needed / 2, math.inf if free is None else FILLED * free)
        tiles = _way_out(network, layer, size, part, options, budget)
    reason = str(error) if isinstance(error, OutOfMemory) else f"not enough memory ({first_line(error)})"
    return f"{reason}; {tiles}"


def _deepest(network, layers):
    return max(layers, key=network.layers.index)


def _largest_part(size, options):
    """(h, w) of the largest picture whose gradient is taken at once, of frames of ``size`` (w, h)."""
    octaves = octave_sizes(*size[::-1], options.dream.octaves, options.dream.octave_scale)
    tiles = [tile.size for octave in octaves for tile in divide(*octave, options.divide)]
    parts = [part.size for tile in tiles for part in divide_gradient(*tile, options.divide)]
    return max(parts, key=math.prod)


def _needed(network, layer, size, part, options):
    """How many bytes a dream of frames of ``size`` (w, h) needs whose gradient is taken of ``part`` (h, w)."""
    gradient = network.memory(layer, part)
    return None if gradient is None else _beside(size, options) + _spacing(size, options) * gradient


def _spacing(size, options):
    """How many times what a gradient holds it takes, with what octaves before it have left."""
    is_kept = options.dream.octaves > 1 and math.prod(size) < LARGE
    return SPACING_KEPT if is_kept else SPACING


def _beside(size, options):
    """What it needs beside the gradient."""
    return SET_ASIDE + FRAME_COPIES[options.flow.mode] * 3 * 4 * math.prod(size)


def _way_out(network, layer, size, part, options, budget):
    """The options with which such a dream needs at most ``budget`` bytes."""
    per_pixel = _spacing(size, options) * network.memory(layer, part) / math.prod(part)  # the same at any size, nearly
    return _tiles(network, layer, (budget - _beside(size, options)) / per_pixel)


def _tiles(network, layer, pixels):
    """The options for tiles of at most ``pixels``. A cut may leave half of one, and that must reach ``layer``."""
    side = math.isqrt(max(0, int(pixels))) // TILE_STEP * TILE_STEP
    least = network.least_size(layer)
    if least is None or side < max(LEAST_TILE, 2 * least):
        return "no tiles would be small enough; dream smaller (--preview)"
    return f"take -d {DivideMode.SEAMLESS:d} -mw {side} -mh {side}"


def _let_go(error):
    """Free what the calls that failed still hold: nothing looks at it any more, and it is memory."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__


def _gigabytes(count):
    return f"{count / 1e9:.1f} GB"
