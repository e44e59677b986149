"""The dream of one picture: gradient ascent over octaves (Mordvintsev, Olah and Tyka 2015, the DeepDream notebook).

Pictures here are float32 tensors (3, h, w) on the network's device: BGR in 0..255 with the network's mean subtracted.
`dream` takes and returns RGB arrays.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from deepdream.errors import ModelError
from deepdream.files.masks import resize_mask, weights
from deepdream.geometry import Tile, divide, divide_gradient, octave_sizes
from deepdream.interface import Network, Objective
from deepdream.memory.malloc import TRIM_ABOVE_PIXELS, trim
from deepdream.options import DivideOptions, DreamOptions
from deepdream.picture.look import Look
from deepdream.picture.objectives import WeightedSum


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
) -> np.ndarray:
    """Dream one picture: RGB (h, w, 3) in 0..255, uint8 or float, to uint8 of the same shape.

    ``objective``: that at ``layer``, or a sum that names its own layers. ``rng`` draws the jitter. ``on_step`` is
    called after each step. ``mask``, uint8 (h, w), weights the steps. Raises `PictureTooSmall` where an octave does not
    reach the layer, `ModelError` where the gradient is not finite.
    """
    is_large = picture.shape[0] * picture.shape[1] >= TRIM_ABOVE_PIXELS
    if is_large:
        trim()
    octaves = pyramid(to_network(picture, network), options.octaves, options.octave_scale)
    detail = torch.zeros_like(octaves[-1])
    for number, base in enumerate(reversed(octaves), 1):
        size = (base.shape[1], base.shape[2])
        x = base + resize(detail, size)
        weight = None if mask is None else torch.from_numpy(weights(resize_mask(mask, size[::-1]))).to(x.device)[None]
        for tile in divide(*size, division):
            part = None if weight is None else weight[tile.index]
            steps = ascend(x[tile.index], network, layer, objective, options, rng, division, part)
            for iteration, mean_gradient in enumerate(steps, 1):
                if on_step:
                    pixels, current = tile.size[0] * tile.size[1], partial(to_picture, x, network)
                    on_step(StepReport(number, len(octaves), iteration, size, pixels, mean_gradient.item, current))
        if not torch.isfinite(x).all():
            raise ModelError(f"the gradient at {layer} is not finite: the weights of {network.name} are broken")
        detail = x - base
        if is_large:
            trim()
    return to_picture(x, network)


def pixel_steps(height: int, width: int, options: DreamOptions) -> int:
    """How much work the dream of a picture is: pixels times iterations, over all octaves."""
    sizes = octave_sizes(height, width, options.octaves, options.octave_scale)
    return options.iterations * sum(h * w for h, w in sizes)


def pyramid(picture: torch.Tensor, octaves: int, scale: float) -> list[torch.Tensor]:
    """A picture (3, h, w) and its octaves, each ``scale`` times smaller than the one before it."""
    pictures = [picture]
    for size in octave_sizes(picture.shape[1], picture.shape[2], octaves, scale)[1:]:
        pictures.append(resize(pictures[-1], size))
    return pictures


def resize(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A picture (c, h, w) resized linearly to ``size`` (h, w), corners on corners: `scipy.ndimage.zoom` of order 1.

    PyTorch's own bilinear resize counts positions in float32: up to 0.07 grey levels off at 4K.
    """
    for axis, target in zip((1, 2), size):
        if picture.shape[axis] != target:
            picture = _resize_axis(picture, axis, target)
    return picture


def _resize_axis(picture: torch.Tensor, axis: int, target: int) -> torch.Tensor:
    length = picture.shape[axis]
    position = np.linspace(0, length - 1, target)
    first = position.astype(np.int64).clip(max=max(length - 2, 0))
    weight = torch.from_numpy((position - first).astype(np.float32)).to(picture.device)
    before = torch.from_numpy(first).to(picture.device)
    after = (before + 1).clamp_(max=length - 1)
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
    Where the gradient is zero everywhere, ``x`` stays.

    Where ``division`` cuts the gradient, the grid of tiles is shifted at every step, by up to a tile each way, so that
    no border stays put. Where it does not, the steps are those of an undivided picture.
    """
    height, width = x.shape[1:]
    tiles = divide_gradient(height, width, division)
    gradient_of: Callable[[torch.Tensor], torch.Tensor]
    if isinstance(objective, WeightedSum):
        gradient_of = _SumGradient(network, objective, tiles)
    else:
        gradient_of = partial(_tiled, tiles, partial(network.gradient, layer=layer, objective=objective))
    look = Look((height, width), x.device, options.smooth or 0, options.colors)
    rolled = torch.empty_like(x[None], memory_format=torch.channels_last)[0]  # the layout that networks take
    for _ in range(options.iterations):
        down, right = rng.integers(-options.jitter, options.jitter, 2, endpoint=True).tolist()
        if len(tiles) > 1:
            down, right = (shift + rng.integers(size).item() for shift, size in zip((down, right), tiles[-1].size))
        pieces = _roll(height, width, down, right)
        for here, there in pieces:
            rolled[there] = x[here]
        gradient = look.apply(gradient_of(rolled))
        mean_gradient = mean_magnitude(gradient)
        rate = torch.where(mean_gradient > 0, options.step_size / mean_gradient, 0).float()
        for here, there in pieces:
            step = gradient[there] if weight is None else gradient[there] * weight[here]
            x[here].addcmul_(step, rate)
        look.clip(x, -network.mean, 255 - network.mean)
        yield mean_gradient


def mean_magnitude(gradient: torch.Tensor) -> torch.Tensor:
    """The mean absolute value of a gradient (3, h, w), a float64 scalar, whose bits do not depend on threads.

    Each row is added by one thread in a fixed order, and float64 adds the rows. ``gradient.abs().mean()`` divides its
    work by the number of threads, and one rounded bit grows into another dream.
    """
    rows = gradient.abs().sum(-1)
    if rows.device.type != "mps":  # Apple's GPUs know no float64
        rows = rows.double()
    return rows.sum() / gradient.numel()


_Index = tuple[slice, slice, slice]


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


def _tiled(tiles: list[Tile], gradient_of: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The gradients of the tiles of ``x`` (3, h, w), put together: (3, h, w)."""
    if len(tiles) == 1:
        return gradient_of(x)
    gradient = torch.empty_like(x)
    for tile in tiles:
        gradient[tile.index] = gradient_of(x[tile.index])
    return gradient


class _SumGradient:
    """The gradient of a weighted sum at picture after picture (3, h, w).

    At the first one the gradient of each part is taken alone, and its magnitude measured over all tiles. From then on
    the parts are scaled at their layers, so that the sum takes one forward and one backward pass.
    """

    def __init__(self, network: Network, weighted_sum: WeightedSum, tiles: list[Tile]) -> None:
        self._network, self._sum, self._tiles = network, weighted_sum, tiles
        self._objectives: dict[str, Objective] | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._objectives is None:
            return self._measure(x)
        if not self._objectives:
            return torch.zeros_like(x)
        return _tiled(self._tiles, partial(self._network.gradient_of_sum, objectives=self._objectives), x)

    def _measure(self, x: torch.Tensor) -> torch.Tensor:
        gradient, scales = torch.zeros_like(x), []
        for part in self._sum.parts:
            alone = partial(self._network.gradient, layer=part.layer, objective=part.objective)
            of_part = _tiled(self._tiles, alone, x)
            magnitude = mean_magnitude(of_part).item()
            scales.append(part.weight / magnitude if magnitude else 0.0)
            gradient.add_(of_part, alpha=scales[-1])
        self._objectives = self._sum.by_layer(scales)
        return gradient


def to_network(picture: Any, network: Network) -> torch.Tensor:
    """RGB (h, w, 3) in 0..255, an array or a Pillow image, as the network takes it: BGR (3, h, w) less the mean."""
    tensor = torch.from_numpy(np.array(picture, dtype=np.float32)).to(network.device)
    return tensor.permute(2, 0, 1).flip(0).contiguous().sub_(network.mean)


def to_picture(x: torch.Tensor, network: Network) -> np.ndarray:
    """The inverse of `to_network`, rounded to uint8 RGB (h, w, 3)."""
    return (x + network.mean).round_().clamp_(0, 255).byte().flip(0).permute(1, 2, 0).cpu().numpy()
