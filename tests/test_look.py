"""The look of a step: its spectrum, its colours, and what stays as it was."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import fft

from deepdream.errors import UsageError
from deepdream.options import Colors, DreamOptions, FlowMode, FlowOptions, RenderOptions
from deepdream.picture import ascent, objectives
from deepdream.picture.look import FLOOR, MEAN_GAIN, Look
from deepdream.picture.waves import weight_waves

CPU = torch.device("cpu")
LOW, HIGH = torch.zeros(3, 1, 1), torch.full((3, 1, 1), 255.0)


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("size", [(1, 1), (24, 32), (98, 63), (30, 45)])
@pytest.mark.parametrize("smooth", [0.5, 1.0, 2.0])
def test_smoothing_weights_the_spectrum_as_documented(size, smooth):
    gradient = noise(3, *size).numpy()
    frequency = np.hypot(fft.fftfreq(size[0])[:, None], fft.fftfreq(size[1]))
    spectrum = np.maximum(frequency, FLOOR) ** -smooth
    spectrum[0, 0] *= MEAN_GAIN
    wanted = fft.ifft2(fft.fft2(gradient.astype(np.float64)) * spectrum).real
    smoothed = Look(size, CPU, smooth, Colors.DREAM).apply(torch.from_numpy(gradient))
    np.testing.assert_allclose(smoothed, wanted, atol=1e-3 * abs(wanted).max())


@pytest.mark.parametrize(("size", "wider"), [((17, 64), (18, 64)), ((30, 31), (30, 32)), ((97, 53), (98, 54))])
def test_sizes_that_are_slow_to_transform_are_smoothed_with_what_lies_beyond_their_borders(size, wider):
    gradient, look = noise(3, *size), Look(size, CPU, 1.0, Colors.DREAM)
    before = [(one - other) // 2 for one, other in zip(wider, size)]
    around = [(first, one - other - first) for first, one, other in zip(before, wider, size)]
    wrapped = torch.from_numpy(np.pad(gradient, ((0, 0), *around), "wrap"))
    inside = [slice(first, first + length) for first, length in zip(before, size)]
    wanted = Look(wider, CPU, 1.0, Colors.DREAM).apply(wrapped)[:, inside[0], inside[1]]
    torch.testing.assert_close(look.apply(gradient), wanted)
    two = torch.stack([gradient, gradient.flip(1)])
    torch.testing.assert_close(look.apply(two), torch.stack([wanted, look.apply(gradient.flip(1))]))


@pytest.mark.parametrize("colors", Colors)
@pytest.mark.parametrize("width", [8, 13, 16, 31, 32, 33, 64, 65, 83, 96, 128, 233, 330])
@pytest.mark.parametrize("height", [9, 36, 97, 131])
def test_what_is_smoothed_does_not_depend_on_threads(request, height, width, colors):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    gradient, look = noise(2, 3, height, width), Look((height, width), CPU, 1.0, colors)
    smoothed = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        smoothed.append(look.apply(gradient))
    assert torch.equal(smoothed[0], smoothed[1]) and torch.equal(smoothed[0], smoothed[2])


@pytest.mark.parametrize("size", [(1, 7), (15, 2), (16, 30), (17, 31), (32, 32), (50, 49), (90, 105)])
def test_waves_are_weighted_as_scipy_does_it_however_the_planes_lie_in_memory(size):
    """Sizes below, at and beyond what a core takes at a time."""
    planes, weights = noise(4, *size), noise(size[0], size[1] // 2 + 1, seed=1).abs()
    wanted = fft.irfft2(fft.rfft2(planes.double().numpy()) * weights.numpy(), size, norm="forward")
    apart = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # plane after plane for each pixel
    for given in (planes, apart):
        found = weight_waves(given, weights).numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-5 * abs(wanted).max())
    assert torch.equal(apart, planes)


def test_smoothing_wraps_round_the_edges():
    gradient, look = noise(3, 20, 28), Look((20, 28), CPU, 1.0, Colors.NATURAL)
    rolled = torch.roll(gradient, (7, -5), (1, 2))
    torch.testing.assert_close(look.apply(rolled), torch.roll(look.apply(gradient), (7, -5), (1, 2)), atol=1e-4, rtol=0)


def test_the_historic_look_leaves_a_gradient_as_it_is():
    gradient = noise(3, 8, 9)
    assert Look((8, 9), CPU, 0, Colors.DREAM).apply(gradient) is gradient


def test_natural_colours_favour_brightness_and_have_the_documented_matrix():
    matrix = torch.stack(
        [Look((1, 1), CPU, 0, Colors.NATURAL).apply(one)[:, 0, 0] for one in torch.eye(3)[..., None, None]], 1
    )
    factor = np.array([[0.26, 0.09, 0.02], [0.27, 0, -0.05], [0.27, -0.09, 0.03]])[::-1]  # BGR
    covariance = factor @ factor.T
    np.testing.assert_allclose(matrix, (covariance * 3 / np.trace(covariance) + np.eye(3)) / 2, atol=1e-6)
    grey, colourful = torch.ones(3) / 3**0.5, torch.tensor([1.0, 0, -1]) / 2**0.5
    assert (matrix @ grey).norm() > 2.5 * (matrix @ colourful).norm()


def chroma(picture):
    """(Cb, Cr) of BGR (3, h, w), not scaled: blue and red less luma."""
    luma = 0.114 * picture[0] + 0.587 * picture[1] + 0.299 * picture[2]
    return torch.stack([picture[0] - luma, picture[2] - luma])


def test_with_the_sources_colours_only_brightness_changes_even_at_the_limits():
    source = 127 + 60 * noise(3, 30, 40)
    source.clamp_(0, 255)  # much of it lies at the limits
    look = Look((30, 40), CPU, 1.0, Colors.SOURCE)
    x = source + 200 * look.apply(noise(3, 30, 40, seed=1))
    look.clip(x, LOW, HIGH)
    assert x.min() >= 0 and x.max() <= 255 and (x - source).abs().mean() > 5
    torch.testing.assert_close(chroma(x), chroma(source), atol=1e-3, rtol=0)


@pytest.mark.parametrize("colors", Colors)
@pytest.mark.parametrize("smooth", [0, 1, 2])
def test_a_step_still_moves_the_picture_by_the_step_size(default_network, photograph, smooth, colors):
    picture = np.uint8(photograph("coffee.png", (96, 120)) // 2 + 64)  # nothing near the limits
    options = DreamOptions(octaves=1, iterations=1, smooth=smooth, colors=colors)
    x = ascent.to_network(picture, default_network)
    before = x.clone()
    list(ascent.ascend(x, default_network, "block_5/output", objectives.l2, options, np.random.default_rng(0)))
    assert (x - before).abs().mean().item() == pytest.approx(1.5, rel=0.02)


def fine_share(hallucination):
    """The share of power above a quarter cycle a pixel, of (h, w, 3)."""
    power = np.abs(fft.fft2(hallucination, axes=(0, 1))) ** 2
    frequency = np.hypot(fft.fftfreq(power.shape[0])[:, None], fft.fftfreq(power.shape[1]))
    return power[frequency > 0.25].sum() / power.sum()


def test_a_smoothed_dream_is_painted_and_not_carved(default_network, photograph):
    picture, shares = photograph("coffee.png", (160, 240)), []
    for smooth in (0, 1):
        options = DreamOptions(smooth=smooth, iterations=8, octaves=2)
        arguments = default_network, "block_9/output", options, RenderOptions().divide, objectives.l2
        dreamed = ascent.dream(picture, *arguments, np.random.default_rng(0))
        shares.append(fine_share(np.float32(dreamed) - picture))
    assert shares[1] < 0.6 * shares[0]


@pytest.mark.parametrize("layer", ["fire6/concat", "fire8/concat"])
@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png"])
def test_smooth_steps_hold_the_brightness_where_activations_have_no_zero_mean(squeezenet, photograph, name, layer):
    picture, options = photograph(name, (160, 240)), DreamOptions(smooth=1, iterations=20)
    arguments = squeezenet, layer, options, RenderOptions().divide, objectives.l2
    dreamed = ascent.dream(picture, *arguments, np.random.default_rng(0))
    assert abs(dreamed.mean() - picture.mean()) < 3


def test_only_the_stabilised_dream_is_smooth_by_default():
    assert [RenderOptions(flow=FlowOptions(mode)).dream.smooth for mode in FlowMode] == [0, 0, 1]
    assert RenderOptions(DreamOptions(smooth=0.5), FlowOptions(FlowMode.STABLE)).dream.smooth == 0.5


def test_a_frame_that_inherits_takes_few_steps_only_under_the_stabilised_dream():
    stable = [
        RenderOptions(DreamOptions(iterations=n), FlowOptions(FlowMode.STABLE)).flow.iterations for n in (0, 1, 10)
    ]
    assert stable[:2] == [0, 1] and 1 < stable[2] < 5
    assert RenderOptions(flow=FlowOptions(FlowMode.BLEND, iterations=3)).flow.iterations is None


@pytest.mark.parametrize("wrong", [{"smooth": -0.1}, {"smooth": 2.1}, {"smooth": float("nan")}, {"colors": "blue"}])
def test_a_look_that_cannot_be_is_an_error(wrong):
    with pytest.raises(UsageError):
        DreamOptions(**wrong)
