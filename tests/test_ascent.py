"""The dream of one picture against plain numpy: pyramid, step, octaves, tiles; and that it goes uphill."""

import warnings
from itertools import groupby

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from deepdream.errors import ModelError, PictureTooSmall
from deepdream.geometry import divide
from deepdream.networks import resolve_layers
from deepdream.options import DivideMode, DivideOptions, DreamOptions
from deepdream.picture import ascent, objectives
from deepdream.render.targets import objectives_at

MEAN = np.float32([104, 116, 122])[:, None, None]
WHOLE = DivideOptions()


class Wavy:
    """A network whose gradient is a plain function of the picture; it keeps all pictures that it was given."""

    name, device, mean = "wavy", torch.device("cpu"), torch.from_numpy(MEAN)

    def __init__(self):
        self.seen = []

    def gradient(self, picture, layer, objective):
        self.seen.append(picture.numpy().copy())
        return torch.from_numpy(self.slope(picture.numpy()))

    @staticmethod
    def slope(picture):
        return np.sin(picture / 20) + picture.mean() / 50


class Flat(Wavy):
    """Its gradient is one value everywhere."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def gradient(self, picture, layer, objective):
        return torch.full_like(picture, self.value)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def dream(picture, network, division=WHOLE, on_step=None, seed=0, layer="layer", objective=objectives.l2, **options):
    options = DreamOptions(**options)
    return ascent.dream(picture, network, layer, options, division, objective, np.random.default_rng(seed), on_step)


def zoomed(planes, size):
    """scipy's linear zoom to a size.

    With its default mode, "constant", scipy computes zeros in the last row or column of some sizes: the
    position there is rounded to just beyond the edge. "nearest" gives what is meant.
    """
    factors = [target / length for target, length in zip(size, planes.shape[1:])]
    return np.stack([ndimage.zoom(plane, factors, order=1, mode="nearest") for plane in planes])


def to_planes(picture):
    """RGB (h, w, 3) as BGR (3, h, w) less the mean."""
    return np.float32(picture)[:, :, ::-1].transpose(2, 0, 1) - MEAN


def to_rgb(planes):
    return (planes + MEAN).transpose(1, 2, 0)[:, :, ::-1]


def plain_step(x, gradient, step_size):
    moved = x + step_size / abs(gradient).mean() * gradient
    return np.clip(moved, -MEAN, 255 - MEAN)


def plain_dream(picture, slope, options):
    """Line by line what a dream without jitter is, in numpy and scipy."""

    def steps(x):
        for _ in range(options.iterations):
            x = plain_step(x, slope(x), options.step_size)
        return x

    bases = [to_planes(picture)]
    for _ in range(options.octaves - 1):
        shrunk = [ndimage.zoom(plane, 1 / options.octave_scale, order=1, mode="nearest") for plane in bases[-1]]
        bases.append(np.stack(shrunk))
    detail = np.zeros_like(bases[-1])
    for base in reversed(bases):
        detail = zoomed(detail, base.shape[1:])
        x = steps(base + detail)
        detail = x - base
    return to_rgb(x)


# --- To the network and back ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        np.array,
        Image.fromarray,
        np.float32,
        np.float64,
        np.uint16,
        lambda rgb: rgb[::-1][::-1],
        lambda rgb: rgb.astype(">f4"),
    ],
)
def test_a_picture_of_any_kind_goes_to_the_network_and_back(given):
    rgb = noise(5, 7)
    picture = given(rgb)
    if isinstance(picture, np.ndarray):
        picture.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = ascent.to_network(picture, Wavy())
    np.testing.assert_array_equal(x.numpy(), np.float32(rgb).transpose(2, 0, 1)[::-1] - MEAN)
    back = ascent.to_picture(x + 0.4, Wavy())
    np.testing.assert_array_equal(back, rgb)
    assert back.flags.c_contiguous and back.dtype == np.uint8


def test_what_goes_to_the_network_may_be_upside_down():
    picture = np.float32(noise(5, 7))
    assert torch.equal(ascent.to_network(picture[::-1], Wavy()), ascent.to_network(picture, Wavy()).flip(1))


# --- Pyramid and resize ----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.05, 1.3, 1.4, 1.8, 2.0, 3.7])
@pytest.mark.parametrize("size", [(144, 176), (97, 131), (33, 64), (480, 641), (7, 5)])
def test_each_octave_is_scipys_zoom_of_the_one_before(size, scale):
    octaves = [octave.numpy() for octave in ascent.pyramid(torch.from_numpy(to_planes(noise(*size))), 4, scale)]
    assert len(octaves) == 4 and octaves[0].shape == (3, *size)
    wanted = octaves[0]
    for octave in octaves[1:]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns where it makes a single pixel
            wanted = np.stack([ndimage.zoom(plane, 1 / scale, order=1, mode="nearest") for plane in wanted])
        if 0 in wanted.shape:
            break  # scipy goes on to nothing at all, a pyramid ends at one pixel
        assert octave.shape == wanted.shape
        np.testing.assert_allclose(octave, wanted, atol=1e-2)


@pytest.mark.parametrize(
    "size, target",
    [
        ((40, 50), (56, 70)),
        ((31, 17), (44, 23)),
        ((9, 200), (360, 201)),
        ((1000, 3), (1400, 5)),
        ((20, 30), (20, 42)),
        ((5, 5), (5, 5)),
    ],
)
def test_enlarging_is_scipys_zoom(size, target):
    planes = to_planes(noise(*size))
    resized = ascent.resize(torch.from_numpy(planes), target).numpy()
    np.testing.assert_allclose(resized, zoomed(planes, target), atol=1e-2)


def test_a_single_pixel_grows_into_a_plane_of_its_colour():
    resized = ascent.resize(torch.from_numpy(to_planes(noise(1, 1))), (4, 6)).numpy()
    np.testing.assert_array_equal(resized, np.broadcast_to(resized[:, :1, :1], (3, 4, 6)))


def test_a_picture_of_its_own_size_is_not_touched():
    planes = torch.from_numpy(to_planes(noise(5, 6)))
    assert torch.equal(ascent.resize(planes, (5, 6)), planes)


# --- One step --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_size", [0.5, 1.5, 90.0])
@pytest.mark.parametrize("jitter", [0, 9])
@pytest.mark.parametrize("layer", ["conv1", "mixed"])
def test_one_step_is_the_documented_formula(small_network, jitter, step_size, layer):
    picture = to_planes(noise(24, 31))
    x = torch.from_numpy(picture.copy())
    options = DreamOptions(iterations=1, jitter=jitter, step_size=step_size)
    rolled = []
    watched = Watched(small_network, rolled)
    list(ascent.ascend(x, watched, layer, objectives.l2, options, np.random.default_rng(5)))

    shift = next((down, right) for down in range(-jitter, jitter + 1) for right in range(-jitter, jitter + 1)
                 if np.array_equal(np.roll(picture, (down, right), (1, 2)), rolled[0]))  # fmt: skip
    assert (shift != (0, 0)) == (jitter > 0)
    gradient = small_network.gradient(torch.from_numpy(rolled[0]), layer, objectives.l2).numpy()
    wanted = np.roll(rolled[0] + step_size / abs(gradient).mean() * gradient, (-shift[0], -shift[1]), (1, 2))
    clipped = np.clip(wanted, -MEAN, 255 - MEAN)
    assert (step_size < 10) or (clipped != wanted).any()
    np.testing.assert_allclose(x, clipped, atol=1e-3)


class Watched:
    """A network that passes all on and keeps the pictures in a list."""

    def __init__(self, network, pictures):
        self.mean, self.name = network.mean, network.name
        self._network, self._pictures = network, pictures

    def gradient(self, picture, layer, objective):
        self._pictures.append(picture.numpy().copy())
        return self._network.gradient(picture, layer, objective)


def test_each_step_moves_by_the_step_size_in_the_mean():
    x, network = torch.zeros(3, 20, 20), Wavy()
    gradient = np.random.default_rng(0).standard_normal((3, 20, 20), dtype=np.float32)
    network.slope = lambda picture: gradient
    (strength,) = ascent.ascend(x, network, "layer", None, DreamOptions(iterations=1), np.random.default_rng(0))
    assert abs(float(x.abs().mean()) - 1.5) < 1e-4
    assert abs(float(strength) - abs(gradient).mean()) < 1e-5


@pytest.mark.parametrize("size", [(24, 31), (5, 70), (1, 2)])
def test_many_steps_with_jitter_are_plain_rolls_of_the_picture(size):
    x = torch.from_numpy(to_planes(noise(*size)))
    wanted, rng = x.numpy().copy(), np.random.default_rng(5)
    list(ascent.ascend(x, Wavy(), "layer", None, DreamOptions(iterations=9, jitter=12), np.random.default_rng(5)))
    for _ in range(9):
        shift = rng.integers(-12, 12, 2, endpoint=True)
        gradient = Wavy.slope(np.roll(wanted, shift, (1, 2)))
        wanted = plain_step(wanted, np.roll(gradient, -shift, (1, 2)), 1.5)
    np.testing.assert_allclose(x, wanted, atol=1e-3)


def test_the_jitter_draws_every_shift_and_none_beyond():
    picture = to_planes(noise(12, 12))
    network = Wavy()
    options = DreamOptions(iterations=400, jitter=2, step_size=0)
    list(ascent.ascend(torch.from_numpy(picture), network, "layer", None, options, np.random.default_rng(0)))
    corner = picture[:, 0, 0]
    places = [np.argwhere((seen == corner[:, None, None]).all(0))[0] for seen in network.seen]
    shifts = {tuple(int((place + 6) % 12 - 6) for place in found) for found in places}
    assert shifts == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def test_a_zero_gradient_leaves_the_picture():
    picture = noise(20, 30)
    np.testing.assert_array_equal(dream(picture, Flat(0.0), octaves=1), picture)
    # Over octaves as well: what is added to each is nothing.
    np.testing.assert_array_equal(dream(picture, Flat(0.0), octaves=4), picture)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_is_an_error(value):
    with pytest.raises(ModelError, match="gradient at layer is not finite"):
        dream(noise(20, 30), Flat(value), octaves=1)


@pytest.mark.parametrize("value, end", [(1.0, 255), (-1.0, 0)])
def test_no_step_leaves_the_range_of_a_picture(value, end):
    dreamed = dream(noise(20, 30), Flat(value), octaves=1, iterations=8, step_size=60)
    assert (dreamed == end).all()


def test_the_mean_of_a_gradient_loses_nothing_of_many_small_rows_beside_a_large_one():
    gradient = torch.full((1, 1001, 1), -1.0)
    gradient[0, 0] = 1 << 30
    assert ascent.mean_magnitude(gradient) * 1001 == (1 << 30) + 1000  # float32 makes it 1024 more


# --- Uphill ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["l2", "guide"])
@pytest.mark.parametrize(
    "name, layer",
    [
        ("small_network", "mixed"),
        ("default_network", "block_7/output"),
        ("default_network", "block_11/output"),
        ("googlenet", "inception_4d/pool"),
        ("googlenet", "inception_4c/output"),
        ("squeezenet", "fire5/concat"),
    ],
)
def test_a_few_steps_raise_the_objective(request, photograph, name, layer, kind):
    network = request.getfixturevalue(name)
    guide = network.activations(ascent.to_network(photograph("chelsea.png", (96, 96)), network), layer)

    def value(picture):
        seen = network.activations(ascent.to_network(picture, network), layer).flatten(1)
        return float(seen.square().sum() / 2 if kind == "l2" else (seen.T @ guide.flatten(1)).max(1).values.sum())

    picture = photograph("coffee.png", (96, 96))
    objective = objectives.l2 if kind == "l2" else objectives.guide(guide)
    dreamed = dream(picture, network, layer=layer, objective=objective, octaves=1, iterations=4, jitter=4)
    assert value(dreamed) > 1.02 * value(picture)
    assert 1 < abs(np.float32(dreamed) - picture).mean() < 4 * 1.5 + 1  # four steps of 1.5


# --- Targets ---------------------------------------------------------------------------------------


class Counting:
    """A network that keeps the layers of each pass."""

    def __init__(self, network):
        self._network, self.passes = network, []

    def __getattr__(self, name):
        return getattr(self._network, name)

    def gradient(self, picture, layer, objective):
        self.passes.append((layer,))
        return self._network.gradient(picture, layer, objective)

    def gradient_of_sum(self, picture, objectives):
        self.passes.append(tuple(objectives))
        return self._network.gradient_of_sum(picture, objectives)


def target_of(network, text, guide_path=None):
    return objectives_at(network, guide_path)(text)


@pytest.mark.parametrize("division", [WHOLE, DivideOptions(DivideMode.SEAMLESS, 24, 24)], ids=["whole", "tiles"])
def test_a_sum_weighs_gradients_of_equal_magnitude(small_network, division):
    """Each step is the sum of the parts' gradients, scaled to those of the octave's first step, and one pass a tile."""
    x = torch.from_numpy(np.float32(noise(40, 48).transpose(2, 0, 1)) - MEAN)
    text, options = "mixed-0.5*conv1:2+0.25*mixed:1,3", DreamOptions(iterations=3, jitter=0, step_size=2.0)
    counting = Counting(small_network)
    steps = ascent.ascend(
        x.clone(), counting, text, target_of(small_network, text), options, np.random.default_rng(0), division
    )
    tiles = 1 if division is WHOLE else 4
    assert len(list(steps)) == 3
    alone = [("mixed",)] * tiles + [("conv1",)] * tiles + [("mixed",)] * tiles
    assert counting.passes == alone + [("mixed", "conv1")] * (2 * tiles)

    if division is WHOLE:
        goals = [("mixed", objectives.l2, 1), ("conv1", objectives.channels([2]), -0.5),
                 ("mixed", objectives.channels([1, 3]), 0.25)]  # fmt: skip
        wanted, scales = x.clone(), None
        for _ in range(3):
            parts = [small_network.gradient(wanted, layer, goal).double() for layer, goal, _ in goals]
            scales = scales or [weight / float(part.abs().mean()) for part, (*_, weight) in zip(parts, goals)]
            gradient = sum(scale * part for scale, part in zip(scales, parts))
            wanted = (wanted + 2.0 * gradient / gradient.abs().mean()).float()
            wanted = torch.minimum(torch.maximum(wanted, -small_network.mean), 255 - small_network.mean)
        moved = x.clone()
        list(ascent.ascend(moved, small_network, text, target_of(small_network, text), options,
                           np.random.default_rng(0)))  # fmt: skip
        assert abs(moved - wanted).max() < 1e-2


def test_a_part_without_a_gradient_counts_for_nothing(small_network):
    """As where a channel is dark everywhere."""
    dark = objectives.at("mixed", torch.zeros_like)
    x = torch.from_numpy(np.float32(noise(40, 48).transpose(2, 0, 1)) - MEAN)
    pictures = []
    for objective in (objectives.at("conv1"), dark + objectives.at("conv1"), dark):
        moved = x.clone()
        list(ascent.ascend(moved, small_network, "-", objective, DreamOptions(iterations=3), np.random.default_rng(0)))
        pictures.append(moved)
    assert torch.equal(pictures[0], pictures[1]) and torch.equal(pictures[2], x)


def assert_raised(network, picture, text, goals, guide_path=None):
    """A few steps raise each of ``goals`` (a function of a picture) that has weight 1, and lower that of weight -1."""
    target = target_of(network, text, guide_path)
    dreamed = dream(picture, network, layer=text, objective=target, octaves=2, iterations=5, jitter=4)
    for goal, weight in goals:
        before, after = (goal(ascent.to_network(rgb, network)) for rgb in (picture, dreamed))
        assert weight * (after - before) > 0.01 * abs(before), (text, weight, before, after)


@pytest.mark.parametrize(
    "text, goals",
    [
        ("block_7/output:5", [("block_7/output", [5], 1)]),
        ("block_9/output:3,40-42", [("block_9/output", [3, 40, 41, 42], 1)]),
        ("classes:281", [("classes", [281], 1)]),
        ("-block_5/output:2", [("block_5/output", [2], -1)]),
        ("-1*block_9/output", [("block_9/output", None, -1)]),
        ("block_9/output+0.5*block_4/output", [("block_9/output", None, 1), ("block_4/output", None, 1)]),
        ("classes:281-1*classes:207",
         [("classes", [281], 1), ("classes", [207], -1)]),
    ],
)  # fmt: skip
def test_a_few_steps_raise_every_target(default_network, photograph, text, goals):
    def goal(layer, channels):
        def value(picture):
            seen = default_network.activations(picture, layer)
            return float(seen.square().sum() / 2 if channels is None else seen[channels].sum())

        return value

    (resolved,) = resolve_layers(default_network, [text], on_message=print)
    picture = photograph("coffee.png", (96, 96))
    assert_raised(
        default_network, picture, resolved, [(goal(layer, channels), weight) for layer, channels, weight in goals]
    )


def test_a_guide_draws_every_layer_of_a_sum(small_network, photograph, tmp_path):
    path = tmp_path / "guide.png"
    Image.fromarray(photograph("chelsea.png", (96, 96))).save(path)
    guide = ascent.to_network(Image.open(path).resize((224, 224), Image.Resampling.LANCZOS), small_network)

    def goal(layer, channels):
        features = small_network.activations(guide, layer).flatten(1)

        def value(picture):
            seen = small_network.activations(picture, layer).flatten(1)
            nearest = features[:, (seen.T @ features).argmax(1)]
            return float((seen * nearest)[channels].sum())

        return value

    goals = [(goal("mixed", slice(None)), 1), (goal("pool1", [0, 2]), 1)]
    assert_raised(small_network, photograph("coffee.png", (96, 96)), "mixed+pool1:0,2", goals, str(path))


# --- Octaves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 50), (37, 53)])
@pytest.mark.parametrize("octaves, scale", [(1, 1.4), (2, 2.0), (4, 1.4), (3, 1.8)])
def test_octaves_are_the_documented_formula(size, octaves, scale):
    picture = noise(*size)
    options = DreamOptions(octaves=octaves, octave_scale=scale, iterations=3, step_size=4.0, jitter=0)
    dreamed = ascent.dream(picture, Wavy(), "layer", options, WHOLE, objectives.l2, np.random.default_rng(0))
    wanted = plain_dream(picture, Wavy.slope, options)
    assert dreamed.dtype == np.uint8 and dreamed.shape == picture.shape
    assert abs(dreamed - wanted).max() < 0.55  # half a grey level of rounding


def test_octaves_go_from_the_smallest_up():
    network = Wavy()
    dream(noise(40, 56), network, octaves=3, octave_scale=2.0, iterations=2)
    assert [seen.shape[1:] for seen in network.seen] == [(10, 14)] * 2 + [(20, 28)] * 2 + [(40, 56)] * 2


def test_without_iterations_the_picture_stays():
    picture = noise(31, 45)
    np.testing.assert_array_equal(dream(picture, Wavy(), iterations=0), picture)


def test_the_seed_alone_decides_the_dream(small_network):
    picture = noise(32, 40)
    first, again, other = (
        dream(picture, small_network, layer="mixed", octaves=2, iterations=2, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_given_picture_is_left_alone(small_network):
    picture = noise(32, 40)
    before = picture.copy()
    dream(picture, small_network, layer="mixed", octaves=2, iterations=2)
    np.testing.assert_array_equal(picture, before)


def test_an_octave_too_small_for_the_layer_is_an_error_that_says_what_to_do(small_network):
    with pytest.raises(PictureTooSmall, match=r"narrow .* 11x11 .* at least 19x19.*--octaves"):
        dream(noise(32, 32), small_network, layer="narrow", octaves=4, octave_scale=1.4, iterations=1)


def test_tiny_pictures_dream_with_the_default_network(default_network):
    picture = noise(32, 32)
    dreamed = dream(picture, default_network, layer=default_network.loop[0], octaves=4, iterations=1)
    assert dreamed.shape == picture.shape and (dreamed != picture).any()


@pytest.mark.parametrize("iterations, wanted", [(0, [0] * 5), (1, [1] * 5), (3, [1, 1, 2, 2, 3]), (5, [3, 3, 4, 4, 5])])
def test_coarser_octaves_take_fewer_steps_where_they_taper(iterations, wanted):
    reports = []
    options = {"octaves": 5, "octave_scale": 1.2, "iterations": iterations, "taper": True}
    dream(noise(41, 53), Wavy(), on_step=reports.append, **options)
    taken = [len(list(group)) for _, group in groupby(report.octave for report in reports)]
    assert taken == [count for count in wanted if count]


# --- Reports ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode, taper", [*((mode, False) for mode in DivideMode), (DivideMode.OFF, True)])
def test_the_reports_add_up_to_the_work(mode, taper):
    reports = []
    options = {"octaves": 3, "iterations": 2, "taper": taper}
    dreamed = dream(noise(41, 53), Wavy(), DivideOptions(mode, 20, 20), reports.append, **options)
    assert sum(report.pixels for report in reports) == ascent.pixel_steps(41, 53, DreamOptions(**options))
    assert [number for number, _ in groupby(report.octave for report in reports)] == [1, 2, 3]
    assert {report.octaves for report in reports} == {3}
    assert {report.iteration for report in reports} == {1, 2}
    assert reports[-1].size == (41, 53) and reports[-1].mean_gradient() > 0
    np.testing.assert_array_equal(reports[-1].picture(), dreamed)


# --- Tiles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [DivideMode.TILES, DivideMode.HALVES])
@pytest.mark.parametrize("size", [(41, 53), (40, 60), (61, 31)])
def test_each_tile_is_dreamed_alone_and_all_are_put_together(mode, size):
    picture, division = noise(*size), DivideOptions(mode, max_width=25, max_height=25)
    dreamed = dream(picture, Wavy(), division, octaves=1, iterations=3, jitter=0)
    tiles = divide(*size, division)
    assert len(tiles) > 1
    for tile in tiles:
        _, rows, columns = tile.index
        alone = dream(picture[rows, columns], Wavy(), octaves=1, iterations=3, jitter=0)
        np.testing.assert_array_equal(dreamed[rows, columns], alone)


def test_only_octaves_larger_than_the_limits_are_divided():
    network = Wavy()
    dream(noise(40, 60), network, DivideOptions(DivideMode.TILES, 30, 30), octaves=3, octave_scale=2.0, iterations=1)
    assert [seen.shape[1:] for seen in network.seen] == [(10, 15), (20, 30)] + [(20, 30)] * 4


def test_a_picture_within_the_limits_is_dreamed_as_if_not_divided(small_network):
    picture = noise(32, 40)
    options = {"layer": "mixed", "octaves": 2, "iterations": 2}
    whole, divided = (
        dream(picture, small_network, DivideOptions(mode, 40, 32), **options)
        for mode in (DivideMode.OFF, DivideMode.TILES)
    )
    np.testing.assert_array_equal(whole, divided)


@pytest.mark.parametrize("mode", [DivideMode.TILES, DivideMode.HALVES])
def test_jitter_rolls_inside_a_tile(mode):
    # A roll over the whole picture would bring in other pixels than the tile's own.
    network, picture = Wavy(), noise(21, 35)
    division = DivideOptions(mode, 20, 20)
    dream(picture, network, division, octaves=1, iterations=1, jitter=7)
    for tile, seen in zip(divide(21, 35, division), network.seen, strict=True):
        np.testing.assert_array_equal(np.sort(seen, None), np.sort(to_planes(picture)[tile.index], None))


def test_seamless_tiles_of_one_picture_make_plain_steps(small_network):
    options = {"layer": "mixed", "octaves": 2, "iterations": 3}
    whole, seamless = (
        dream(noise(32, 40), small_network, DivideOptions(mode, 40, 32), **options)
        for mode in (DivideMode.OFF, DivideMode.SEAMLESS)
    )
    np.testing.assert_array_equal(whole, seamless)


class Local(Wavy):
    """A network whose gradient at a pixel hangs on that pixel alone: no tile can change it."""

    @staticmethod
    def slope(picture):
        return np.sin(picture / 20)


def test_the_tiled_gradient_is_put_together_and_normalised_once():
    picture, division = noise(41, 53), DivideOptions(DivideMode.SEAMLESS, 20, 20)
    options = {"octaves": 1, "iterations": 3}
    np.testing.assert_array_equal(dream(picture, Local(), division, **options), dream(picture, Local(), **options))


def test_seamless_tiles_stay_within_the_limits_and_hold_each_pixel_once():
    network, picture = Wavy(), noise(41, 53)
    dream(picture, network, DivideOptions(DivideMode.SEAMLESS, 20, 15), octaves=1, iterations=1, jitter=7)
    assert len(network.seen) == 9 and all(seen.shape[1] <= 15 and seen.shape[2] <= 20 for seen in network.seen)
    seen = np.concatenate([tile.ravel() for tile in network.seen])
    np.testing.assert_array_equal(np.sort(seen), np.sort(to_planes(picture), None))


class Corner(Wavy):
    """Its gradient is 1 at the first pixel of what it is given, and next to nothing elsewhere."""

    @staticmethod
    def slope(picture):
        slope = np.full_like(picture, 1e-6)
        slope[:, 0, 0] = 1
        return slope


def test_no_border_of_a_seamless_tile_stays_put():
    corners = set()
    for seed in range(60):
        dreamed = dream(
            np.full((40, 40, 3), 100, np.uint8), Corner(), DivideOptions(DivideMode.SEAMLESS, 20, 20), seed=seed,
            octaves=1, iterations=1, jitter=0, step_size=0.01,
        )  # fmt: skip
        rows, columns = np.nonzero(dreamed[..., 0] > 100)
        assert len(rows) == 4  # the four tiles are moved as one
        corners.add((rows.min(), columns.min()))
    assert len(corners) > 50
    for places in zip(*corners):
        assert set(places) <= set(range(20)) and len(set(places)) > 15


def test_seamless_tiles_leave_no_seam_where_tiles_leave_one(photograph, default_network):
    picture = photograph("coffee.png", (120, 160))
    options = {"layer": "block_3/output", "octaves": 1, "iterations": 15, "jitter": 8}
    borders = np.arange(39, 159, 40)

    def jumps(mode):
        """The mean jump across each of the upright borders over that across all other lines."""
        dreamed = dream(picture, default_network, DivideOptions(mode, 40, 120), **options)
        jumps = np.abs(np.diff(np.float32(dreamed), axis=1)).mean((0, 2))
        return jumps[borders] / np.delete(jumps, borders).mean()

    whole = jumps(DivideMode.OFF)
    tiles, seamless = (jumps(mode) / whole for mode in (DivideMode.TILES, DivideMode.SEAMLESS))
    # A tile that meets its own far edge draws little there: its border is a dull line.
    assert abs(tiles.mean() - 1) > 0.15
    assert abs(seamless.mean() - 1) < 0.07 and seamless.max() < 1.1
