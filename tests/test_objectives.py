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
