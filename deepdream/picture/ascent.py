"""The dream of one picture: gradient ascent over octaves (Mordvintsev, Olah and Tyka 2015).

Pictures here are float32 tensors (3, h, w) on the network's device: BGR, of 0..255, less the network's mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from deepdream.errors import ModelError
from deepdream.geometry import divide, divide_gradient, octave_sizes
from deepdream.memory.malloc import TRIM_ABOVE_PIXELS, trim
from deepdream.options import DivideOptions


@dataclass(frozen=True)
class StepReport:
    """An ascent step that was made. Counts start at 1; ``size`` is (h, w) of the octave; ``pixels`` of the part moved.

    ``strength()`` gives the mean absolute gradient before it was normalised, ``picture()`` the octave as uint8
    RGB (h, w, 3): both ask the device, so they are called only where they are shown.
    """

    octave: int
    octaves: int
    iteration: int
    iterations: int
    size: tuple
    pixels: int
    strength: Callable
    picture: Callable


def dream(picture, network, layer, options, division, objective, rng, on_step=None):
    """Dream one picture.

    ``picture``: RGB (h, w, 3) in 0..255, uint8 or float. ``options``: `DreamOptions`; ``division``:
    `DivideOptions`. ``objective`` as in `objectives`. ``rng``: the `numpy.random.Generator` of the jitter.
    ``on_step`` is called with a `StepReport` after each step. Returns uint8 RGB (h, w, 3). Raises
    `PictureTooSmall` where an octave does not reach the layer, `ModelError` where the gradient is not finite.
    """
    is_large = picture.shape[0] * picture.shape[1] >= TRIM_ABOVE_PIXELS
    if is_large:
        trim()
    octaves = pyramid(to_network(picture, network), options.octaves, options.octave_scale)
    detail = torch.zeros_like(octaves[-1])
    for number, base in enumerate(reversed(octaves), 1):
        x = base + resize(detail, base.shape[1:])
        for tile in divide(*base.shape[1:], division):
            steps = ascend(x[tile.of], network, layer, objective, options, rng, division)
            for iteration, strength in enumerate(steps, 1):
                if on_step:
                    on_step(
                        StepReport(
                            number,
                            len(octaves),
                            iteration,
                            options.iterations,
                            tuple(base.shape[1:]),
                            tile.size[0] * tile.size[1],
                            strength.item,
                            partial(to_picture, x, network),
                        )  # fmt: skip
                    )
        if not torch.isfinite(x).all():
            raise ModelError(f"the gradient at {layer} is not finite: the weights of {network.name} are broken")
        detail = x - base
        if is_large:
            trim()
    return to_picture(x, network)


def work(height, width, options):
    """How much a dream of a picture is: pixels times iterations, over all octaves."""
    sizes = octave_sizes(height, width, options.octaves, options.octave_scale)
    return options.iterations * sum(h * w for h, w in sizes)


def pyramid(picture, octaves, scale):
    """A picture (3, h, w) and its octaves, each ``scale`` times smaller than the one before it."""
    pictures = [picture]
    for size in octave_sizes(*picture.shape[1:], octaves, scale)[1:]:
        pictures.append(resize(pictures[-1], size))
    return pictures


def resize(picture, size):
    """A picture (c, h, w) resized linearly to ``size`` (h, w), corners on corners: `scipy.ndimage.zoom` of order 1.

    PyTorch's own bilinear resize counts positions in float32: up to 0.07 grey levels off at 4K.
    """
    for axis, target in zip((1, 2), size):
        if picture.shape[axis] != target:
            picture = _resize_axis(picture, axis, target)
    return picture


def _resize_axis(picture, axis, target):
    length = picture.shape[axis]
    position = np.linspace(0, length - 1, target)
    before = position.astype(np.int64).clip(max=max(length - 2, 0))
    weight = torch.from_numpy((position - before).astype(np.float32)).to(picture.device)
    before = torch.from_numpy(before).to(picture.device)
    after = (before + 1).clamp_(max=length - 1)
    if axis == 1:
        return picture.index_select(1, before).lerp_(picture.index_select(1, after), weight[:, None])
    # Of columns index_select takes one after the other: several times slower.
    before, after = (index.expand(*picture.shape[:2], target) for index in (before, after))
    return picture.gather(2, before).lerp_(picture.gather(2, after), weight)


def ascend(x, network, layer, objective, options, rng, division=DivideOptions()):
    """Ascend in place: ``options.iterations`` steps on ``x`` (3, h, w), each yielding its gradient's mean magnitude.

    A step moves ``x`` by ``options.step_size`` in the mean and keeps it within 0..255 less the network's mean.
    Where the gradient is zero everywhere, ``x`` stays.

    Where ``division`` cuts the gradient, the grid of tiles lies elsewhere at every step, by up to a tile each
    way, so that no border stays put; where it does not, the steps are those of an undivided picture.
    """
    tiles = divide_gradient(*x.shape[1:], division)
    rolled = torch.empty_like(x[None], memory_format=torch.channels_last)[0]  # as the networks take it
    for _ in range(options.iterations):
        down, right = rng.integers(-options.jitter, options.jitter, 2, endpoint=True).tolist()
        if len(tiles) > 1:
            down, right = (shift + rng.integers(size).item() for shift, size in zip((down, right), tiles[-1].size))
        pieces = _roll(*x.shape[1:], down, right)
        for here, there in pieces:
            rolled[there] = x[here]
        gradient = _tiled_gradient(rolled, tiles, network, layer, objective)
        strength = gradient.abs().mean()
        rate = torch.where(strength > 0, options.step_size / strength, 0)
        for here, there in pieces:
            x[here].addcmul_(gradient[there], rate)
        torch.maximum(x, -network.mean, out=x)  # clamp_ takes twice as long with a bound for each channel
        torch.minimum(x, 255 - network.mean, out=x)
        yield strength


def _roll(height, width, down, right):
    """The four pieces that change places where a picture (c, h, w) is rolled: index in it, index in the rolled one.

    Copying them is several times as fast as `torch.roll`, and goes from any memory layout into any other.
    """
    return [
        ((slice(None), row, column), (slice(None), rolled_row, rolled_column))
        for row, rolled_row in _swap(height, down)
        for column, rolled_column in _swap(width, right)
    ]


def _swap(length, shift):
    """The two slices of a line that change places where it is rolled by ``shift``, each before and after."""
    start = -shift % length
    return (slice(start), slice(length - start, length)), (slice(start, length), slice(length - start))


def _tiled_gradient(x, tiles, network, layer, objective):
    """The gradient of each tile of ``x`` (3, h, w), put together: (3, h, w)."""
    if len(tiles) == 1:
        return network.gradient(x, layer, objective)
    gradient = torch.empty_like(x)
    for tile in tiles:
        gradient[tile.of] = network.gradient(x[tile.of], layer, objective)
    return gradient


def to_network(picture, network):
    """RGB (h, w, 3) in 0..255 as the network takes it: BGR (3, h, w) less the mean, float32."""
    tensor = torch.from_numpy(np.array(picture, dtype=np.float32)).to(network.device)
    return tensor.permute(2, 0, 1).flip(0).contiguous().sub_(network.mean)


def to_picture(x, network):
    """The inverse of `to_network`, rounded to uint8."""
    return (x + network.mean).round_().clamp_(0, 255).byte().flip(0).permute(1, 2, 0).cpu().numpy()
