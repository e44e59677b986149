"""What a dream enhances: each objective maps a layer's activations to its gradient there.

Activations and gradients are float32 tensors (c, h, w). The dream ascends the objective.
"""

import torch

from deepdream.interface import Objective

MAX_PRODUCTS = 1 << 24  # dot products held at a time: 64 MB


def l2(activations: torch.Tensor) -> torch.Tensor:
    """Whatever the layer sees, more of it: the gradient of half the squared L2 norm (Mordvintsev et al. 2015)."""
    return activations


def guide(guide_activations: torch.Tensor) -> Objective:
    """The guided dream: each position is drawn towards the guide's feature vector with the greatest dot product.

    ``guide_activations``: those of the guide image at the same layer, (c, h, w) of any h and w
    (Mordvintsev et al. 2015).
    """
    features = guide_activations.reshape(len(guide_activations), -1)  # a fully connected layer has no h and w

    def objective(activations: torch.Tensor) -> torch.Tensor:
        flat = activations.reshape(len(activations), -1)
        chunk = max(1, MAX_PRODUCTS // features.shape[1])
        best = [(part.T @ features).argmax(1) for part in flat.split(chunk, 1)]
        return features[:, torch.cat(best)].reshape(activations.shape)

    return objective
