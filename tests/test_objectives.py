"""Objectives against plain formulas."""

import numpy as np
import pytest
import torch

from deepdream.picture import objectives


def activations(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def nearest_features(layer, guide):
    """At each position the guide's feature vector of greatest dot product, position by position."""
    features = [guide[:, y, x] for y in range(guide.shape[1]) for x in range(guide.shape[2])]
    best = np.empty_like(layer)
    for y, x in np.ndindex(*layer.shape[1:]):
        best[:, y, x] = max(features, key=lambda feature: feature @ layer[:, y, x])
    return best


def test_l2_is_the_gradient_of_half_the_squared_norm():
    layer = activations(4, 5, 6).requires_grad_()
    (layer.square().sum() / 2).backward()
    torch.testing.assert_close(objectives.l2(layer.detach()), layer.grad)


@pytest.mark.parametrize("guide_shape", [(6, 7, 3), (6, 1, 1), (6, 3, 4)])
def test_guide_gives_each_position_the_guides_nearest_feature(guide_shape):
    layer, guide = activations(6, 3, 4), activations(*guide_shape, seed=1)
    gradient = objectives.guide(guide)(layer)
    np.testing.assert_array_equal(gradient, nearest_features(layer.numpy(), guide.numpy()))


@pytest.mark.parametrize("products", [1, 21, 50])
def test_guide_gives_the_same_whatever_is_held_at_a_time(monkeypatch, products):
    layer, guide = activations(6, 5, 4), activations(6, 7, 3, seed=1)
    monkeypatch.setattr(objectives, "MAX_PRODUCTS", products)
    gradient = objectives.guide(guide)(layer)
    np.testing.assert_array_equal(gradient, nearest_features(layer.numpy(), guide.numpy()))


def test_guide_knows_no_distance_only_direction_and_length():
    # The nearer vector in the plane is (1, 0); the greater dot product has (0.5, 3).
    guide = torch.tensor([[1.0, 0.5], [0.0, 3.0]])[:, None]
    gradient = objectives.guide(guide)(torch.tensor([1.0, 0.5])[:, None, None])
    assert gradient.flatten().tolist() == [0.5, 3.0]


def test_channels_are_the_gradient_of_their_sum():
    layer = activations(5, 3, 4).requires_grad_()
    layer[[1, 4]].sum().backward()
    torch.testing.assert_close(objectives.channels([4, 1])(layer.detach()), layer.grad)
    vector = activations(5)  # of a fully connected layer
    assert objectives.channels([2])(vector).tolist() == [0, 0, 1, 0, 0]


def test_only_some_channels_of_an_objective_count():
    layer, guide = activations(5, 3, 4), activations(5, 6, 7, seed=1)
    whole, some = objectives.guide(guide)(layer), objectives.only(objectives.guide(guide), [0, 3])(layer)
    assert torch.equal(some[[0, 3]], whole[[0, 3]]) and not some[[1, 2, 4]].any()


def test_objectives_compose_as_numbers_do():
    layer = activations(3, 4, 5)
    composed = 2 * (objectives.at("a") + objectives.at("b", objectives.channels([1])) * -0.5) + objectives.at("a")
    assert [(part.layer, part.weight) for part in composed.parts] == [("a", 2), ("b", -1), ("a", 1)]
    by_layer = composed.by_layer([3, 0.25, 10])
    torch.testing.assert_close(by_layer["a"](layer), 13 * layer)  # both of a
    torch.testing.assert_close(by_layer["b"](layer), 0.25 * objectives.channels([1])(layer))
    assert composed.by_layer([0, 0.25, 0]).keys() == {"b"}  # what has no gradient is not run
