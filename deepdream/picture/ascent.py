"""The dream of one picture: gradient ascent over octaves (Mordvintsev, Olah and Tyka 2015, the DeepDream notebook).

Pictures here are float32 tensors (3, h, w) on the network's device: BGR in 0..255 with the network's mean subtracted.
`dream` takes and returns RGB arrays.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from deepdream.errors import ModelError
from deepdream.files.masks import resize_mask, weights
from deepdream.geometry import Tile, divide, divide_gradient, octave_sizes
from deepdream.interface import Network, Objective
from deepdream.memory.malloc import TRIM_ABOVE_PIXELS, trim
from deepdream.opencv import opencv
from deepdream.options import DivideOptions, DreamOptions
from deepdream.picture.look import Look
from deepdream.picture.objectives import WeightedSum
from deepdream.picture.sphere import VIEWS, Sphere, area_weights, random_turn

BATCH_PIXELS = 350_000  # small views go through the network together, up to so many pixels: each call costs time


@dataclass(frozen=True)
class StepReport:
    """An ascent step that was made. Counts start at 1; ``size`` is (h, w) of the octave, ``pixels`` the tile's area.

    ``mean_gradient()`` gives the mean absolute gradient, ``picture()`` the octave as uint8 RGB (h, w, 3). Both wait
    for the device, so they are called only where they are shown.
    """

    octave: int
    octaves: int
    iteration: int
    size: tuple[int, int]
    pixels: int
    mean_gradient: Callable[[], float]
    picture: Callable[[], np.ndarray]


@dataclass(frozen=True)
class TileAscent:
    """All steps on one tile, as plain data: ``x`` (3, h, w) float32, the ``weight`` of its pixels (1, h, w) or None."""

    x: np.ndarray
    weight: np.ndarray | None
    options: DreamOptions
    rng: np.random.Generator

    def run(
        self, network: Network, layer: str, objective: Objective | WeightedSum, on_step: Callable[[], Any]
    ) -> np.ndarray:
        """The tile (3, h, w) after its steps; ``on_step`` is called after each."""
        x = torch.from_numpy(self.x.copy()).to(network.device)
        weight = None if self.weight is None else torch.from_numpy(self.weight).to(network.device)
        for _ in ascend(x, network, layer, objective, self.options, self.rng, weight=weight):
            on_step()
        return x.cpu().numpy()


AscendTiles = Callable[[list[TileAscent]], Iterable[np.ndarray]]  # the tiles after their steps, in order


def dream(
    picture: np.ndarray,
    network: Network,
    layer: str,
    options: DreamOptions,
    division: DivideOptions,
    objective: Objective | WeightedSum,
    rng: np.random.Generator,
    on_step: Callable[[StepReport], Any] | None = None,
    mask: np.ndarray | None = None,
    ascend_tiles: AscendTiles | None = None,
) -> np.ndarray:
    """Dream one picture: RGB (h, w, 3) in 0..255, uint8 or float, to uint8 of the same shape.

    ``objective``: that at ``layer``, or a sum that names its own layers. ``rng`` draws the jitter. ``on_step`` is
    called after each step. ``mask``, uint8 (h, w), weights the steps. ``ascend_tiles`` does the steps of each octave's
    tiles in place of this function, which then does not use ``objective``; they are not reported. Raises
    `PictureTooSmall` where an octave does not reach the layer, `ModelError` where the gradient is not finite.
    """
    is_large = picture.shape[0] * picture.shape[1] >= TRIM_ABOVE_PIXELS
    if is_large:
        trim()
    octaves = pyramid(to_network(picture, network), options.octaves, options.octave_scale, options.panorama)
    detail = torch.zeros_like(octaves[-1])
    for number, count in enumerate(reversed(octave_iterations(options)), 1):
        x = octaves.pop()
        base = x.clone() if octaves else None  # of the finest nobody asks what was added: at 4K a copy has 100 MB
        size = (x.shape[1], x.shape[2])
        x += resize(detail, size, options.panorama)
        weight = None if mask is None else torch.from_numpy(weights(resize_mask(mask, size[::-1]))).to(x.device)[None]
        tiles, here = divide(*size, division), replace(options, iterations=count)
        if ascend_tiles:
            ascents = [_tile_ascent(x, weight, tile, here, rng) for tile in tiles]
            for tile, ascended in zip(tiles, ascend_tiles(ascents)):
                x[tile.index] = torch.from_numpy(ascended).to(x.device)
            tiles = []
        for tile in tiles:
            part = None if weight is None else weight[tile.index]
            steps = ascend(x[tile.index], network, layer, objective, here, rng, division, part)
            for iteration, mean_gradient in enumerate(steps, 1):
                if on_step:
                    pixels, current = tile.size[0] * tile.size[1], partial(to_picture, x, network)
                    on_step(StepReport(number, options.octaves, iteration, size, pixels, mean_gradient.item, current))
        if not torch.isfinite(x.sum()):  # ten times as fast as to look at each value
            raise ModelError(f"the gradient at {layer} is not finite: the weights of {network.name} are broken")
        if base is not None:
            detail = x - base
        if is_large:
            trim()
    return to_picture(x, network)


def _tile_ascent(
    x: torch.Tensor, weight: torch.Tensor | None, tile: Tile, options: DreamOptions, rng: np.random.Generator
) -> TileAscent:
    """The steps on a tile; ``rng`` goes on to those of the next one, as if it had made them."""
    part = None if weight is None else weight[tile.index].cpu().numpy()
    ascent = TileAscent(x[tile.index].cpu().numpy(), part, options, deepcopy(rng))
    for _ in range(options.iterations):
        _draw_shift(rng, options.jitter)
    return ascent


def pixel_steps(height: int, width: int, options: DreamOptions) -> int:
    """How much work the dream of a picture is: pixels times iterations, over all octaves."""
    sizes = octave_sizes(height, width, options.octaves, options.octave_scale)
    return sum(steps * h * w for steps, (h, w) in zip(octave_iterations(options), sizes))


def octave_iterations(options: DreamOptions) -> list[int]:
    """The number of steps at each octave, the finest first.

    Where they taper, the coarser octaves take one fewer, and those from the fourth on, two.
    """
    steps = options.iterations
    # A step of so small an octave is mostly calls: it takes longer than it adds.
    fewer = [options.taper * (min(octave, 1) + (octave >= 3)) for octave in range(options.octaves)]
    return [max(min(steps, 1), steps - less) for less in fewer]


def pyramid(picture: torch.Tensor, octaves: int, scale: float, panorama: bool = False) -> list[torch.Tensor]:
    """A picture (3, h, w) and its octaves, each ``scale`` times smaller than the one before it."""
    pictures = [picture]
    for size in octave_sizes(picture.shape[1], picture.shape[2], octaves, scale)[1:]:
        pictures.append(resize(pictures[-1], size, panorama))
    return pictures


def resize(picture: torch.Tensor, size: tuple[int, int], panorama: bool = False) -> torch.Tensor:
    """A picture (c, h, w) resized linearly to ``size`` (h, w), corners on corners: `scipy.ndimage.zoom` of order 1.

    Of a ``panorama`` left and right border meet, and a pixel stands for the middle of its area.
    PyTorch's own bilinear resize counts positions in float32: up to 0.07 grey levels off at 4K.
    """
    for axis, target in zip((1, 2), size):
        if picture.shape[axis] != target:
            picture = _resize_axis(picture, axis, target, panorama)
    return picture


def _resize_axis(picture: torch.Tensor, axis: int, target: int, panorama: bool) -> torch.Tensor:
    length = picture.shape[axis]
    if panorama:
        position = (np.arange(target) + 0.5) * length / target - 0.5
        first = np.floor(position).astype(np.int64)
        neighbours = first, first + 1
        first_two = [one % length if axis == 2 else one.clip(0, length - 1) for one in neighbours]
    else:
        position = np.linspace(0, length - 1, target)
        first = position.astype(np.int64).clip(max=max(length - 2, 0))
        first_two = [first, (first + 1).clip(max=length - 1)]
    weight = torch.from_numpy((position - first).astype(np.float32)).to(picture.device)
    before, after = (torch.from_numpy(one).to(picture.device) for one in first_two)
    if axis == 1:
        return picture.index_select(1, before).lerp_(picture.index_select(1, after), weight[:, None])
    # index_select takes columns one by one: several times slower.
    before, after = (index.expand(*picture.shape[:2], target) for index in (before, after))
    return picture.gather(2, before).lerp_(picture.gather(2, after), weight)


def ascend(
    x: torch.Tensor,
    network: Network,
    layer: str,
    objective: Objective | WeightedSum,
    options: DreamOptions,
    rng: np.random.Generator,
    division: DivideOptions = DivideOptions(),
    weight: torch.Tensor | None = None,
) -> Iterator[torch.Tensor]:
    """Ascend in place: ``options.iterations`` steps on ``x`` (3, h, w). Yields each step's mean absolute gradient.

    A step moves ``x`` by ``options.step_size`` in the mean and keeps it within 0..255 less the network's mean. Where
    there is a ``weight`` (1, h, w) in 0..1, it moves by so much of that.
    Where the gradient is zero everywhere, ``x`` stays. Of a panorama the mean is that over the sphere.
    """
    sphere = Sphere((x.shape[1], x.shape[2]), x.device) if options.panorama else None
    size = sphere.view_size if sphere else (x.shape[1], x.shape[2])
    look = Look(size, x.device, options.smooth or 0, options.colors)
    ascent = network, layer, objective
    if sphere:
        areas: torch.Tensor | None = area_weights(x.shape[1], x.device)
        gradients = _turned(x, sphere, look, ascent, rng)
    else:
        areas = None
        gradients = _rolled(x, look, ascent, rng, options.jitter, division)
    for gradient, pieces in islice(gradients, options.iterations):
        mean_gradient = mean_magnitude(gradient, areas)
        rate = torch.where(mean_gradient > 0, options.step_size / mean_gradient, 0).float()
        for here, there in pieces:
            step = gradient[there] if weight is None else gradient[there] * weight[here]
            x[here].addcmul_(step, rate)
        look.clip(x, -network.mean, 255 - network.mean)
        yield mean_gradient


_Index = tuple[slice, slice, slice]
_Gradient = tuple[torch.Tensor, list[tuple[_Index, _Index]]]  # and its pieces: where in the picture, where in it
_Ascent = tuple[Network, str, Objective | WeightedSum]
_Part = slice | _Index  # of a batch, or of a picture


def _draw_shift(rng: np.random.Generator, jitter: int) -> list[int]:
    """How far a step rolls its picture down and to the right."""
    return rng.integers(-jitter, jitter, 2, endpoint=True).tolist()


def _rolled(
    x: torch.Tensor,
    look: Look,
    ascent: _Ascent,
    rng: np.random.Generator,
    jitter: int,
    division: DivideOptions,
) -> Iterator[_Gradient]:
    """The gradients of a picture (3, h, w) as it changes, rolled at random before each.

    Where ``division`` cuts the gradient, the grid of tiles is shifted at every step, by up to a tile each way, so that
    no border stays put. Where it does not, the steps are those of an undivided picture.
    """
    height, width = x.shape[1:]
    tiles = divide_gradient(height, width, division)
    gradient_of = _gradient_function(ascent, [tile.index for tile in tiles])
    rolled = torch.empty_like(x[None], memory_format=torch.channels_last)[0]  # the layout that networks take
    while True:
        down, right = _draw_shift(rng, jitter)
        if len(tiles) > 1:
            down, right = (shift + rng.integers(size).item() for shift, size in zip((down, right), tiles[-1].size))
        pieces = _roll(height, width, down, right)
        for here, there in pieces:
            rolled[there] = x[here]
        yield look.apply(gradient_of(rolled)), pieces


def _turned(
    x: torch.Tensor, sphere: Sphere, look: Look, ascent: _Ascent, rng: np.random.Generator
) -> Iterator[_Gradient]:
    """The gradients of a panorama (3, h, w) as it changes, seen in six views that are turned at random before each."""
    at_once = max(n for n in (1, 2, 3, 6) if n == 1 or n * math.prod(sphere.view_size) <= BATCH_PIXELS)
    parts = [slice(k, k + at_once) for k in range(0, VIEWS, at_once)]
    gradient_of = _gradient_function(ascent, parts)
    whole = slice(None), slice(None), slice(None)
    while True:
        turn = random_turn(rng)
        gradients = gradient_of(sphere.views(x, turn))
        for part in parts:
            gradients[part] = look.apply(gradients[part])
        yield sphere.fetch(gradients, turn), [(whole, whole)]


def mean_magnitude(gradient: torch.Tensor, areas: torch.Tensor | None = None) -> torch.Tensor:
    """The mean absolute value of a gradient (..., h, w), a float64 scalar, whose bits do not depend on threads.

    ``areas``: what each row shows of the sphere, (h,), mean 1; None for a flat picture.
    Each row is added by one thread in a fixed order, and float64 adds the rows. ``gradient.abs().mean()`` divides its
    work by the number of threads, and one rounded bit grows into another dream.
    """
    rows = gradient.abs().sum(-1)
    if rows.device.type != "mps":  # Apple's GPUs know no float64
        rows = rows.double()
    if areas is not None:
        rows *= areas
    return rows.sum() / gradient.numel()


def _roll(height: int, width: int, down: int, right: int) -> list[tuple[_Index, _Index]]:
    """The four pieces of a picture (c, h, w) that is rolled: each one's index before and after.

    Copying them is several times as fast as `torch.roll`, and goes from any memory layout into any other.
    """
    return [
        ((slice(None), row, column), (slice(None), rolled_row, rolled_column))
        for row, rolled_row in _roll_axis(height, down)
        for column, rolled_column in _roll_axis(width, right)
    ]


def _roll_axis(length: int, shift: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The two pieces of an axis that is rolled by ``shift``: each one's slice before and after."""
    start = -shift % length
    return (slice(start), slice(length - start, length)), (slice(start, length), slice(length - start))


def _gradient_function(ascent: _Ascent, parts: Sequence[_Part]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from pictures to their gradients, which are taken part by part."""
    network, layer, objective = ascent
    if isinstance(objective, WeightedSum):
        return _SumGradient(network, objective, parts)
    return partial(_by_parts, parts, partial(network.gradient, layer=layer, objective=objective))


def _by_parts(
    parts: Sequence[_Part], gradient_of: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """The gradients of the parts of ``x``, by their indices in it, put together as they were."""
    if len(parts) == 1:
        return gradient_of(x)
    gradient = torch.empty_like(x)
    for part in parts:
        gradient[part] = gradient_of(x[part])
    return gradient


class _SumGradient:
    """The gradient of a weighted sum at picture after picture.

    At the first one the gradient of each part is taken alone, and its magnitude measured over all tiles. From then on
    the parts are scaled at their layers, so that the sum takes one forward and one backward pass.
    """

    def __init__(self, network: Network, weighted_sum: WeightedSum, tiles: Sequence[_Part]) -> None:
        self._network, self._sum, self._tiles = network, weighted_sum, tiles
        self._objectives: dict[str, Objective] | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._objectives is None:
            return self._measure(x)
        if not self._objectives:
            return torch.zeros_like(x)
        return _by_parts(self._tiles, partial(self._network.gradient_of_sum, objectives=self._objectives), x)

    def _measure(self, x: torch.Tensor) -> torch.Tensor:
        gradient, scales = torch.zeros_like(x), []
        for part in self._sum.parts:
            alone = partial(self._network.gradient, layer=part.layer, objective=part.objective)
            of_part = _by_parts(self._tiles, alone, x)
            magnitude = mean_magnitude(of_part).item()
            scales.append(part.weight / magnitude if magnitude else 0.0)
            gradient.add_(of_part, alpha=scales[-1])
        self._objectives = self._sum.by_layer(scales)
        return gradient


def to_network(picture: Any, network: Network) -> torch.Tensor:
    """RGB (h, w, 3) in 0..255, an array or a Pillow image, as the network takes it: BGR (3, h, w) less the mean."""
    rgb = torch.from_numpy(np.require(picture, np.float32, ["C", "W"])).to(network.device)
    x = torch.empty((3, *rgb.shape[:2]), device=rgb.device)
    for channel, mean in enumerate(network.mean):
        torch.sub(rgb[..., 2 - channel], mean, out=x[channel])
    return x


def to_picture(x: torch.Tensor, network: Network) -> np.ndarray:
    """The inverse of `to_network`, rounded to uint8 RGB (h, w, 3)."""
    planes = (x + network.mean).round_().clamp_(0, 255).byte().cpu().numpy()
    return opencv().merge(planes[::-1])
