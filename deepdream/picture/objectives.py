"""What a dream enhances: each objective maps a layer's activations to its own gradient there.

Activations are float32 tensors (c, h, w); so is what an objective returns. The dream ascends it.
"""

import torch

LARGEST_PRODUCT = 1 << 24  # dot products held at a time: 64 MB


def l2(activations):
    """Whatever the layer sees, more of it: the gradient of half the squared L2 norm (Mordvintsev et al. 2015)."""
    return activations


def guide(guide_activations):
    """The objective that draws each position towards the guide's feature vector nearest to it by dot product.

    ``guide_activations``: those of the guide image at the same layer, (c, h, w) of any h and w
    (the guided dream of Mordvintsev et al. 2015).
    """
    features = guide_activations.reshape(len(guide_activations), -1)  # a fully connected layer has no h and w

    def objective(activations):
        flat = activations.reshape(len(activations), -1)
        chunk = max(1, LARGEST_PRODUCT // features.shape[1])
        best = [(part.T @ features).argmax(1) for part in flat.split(chunk, 1)]
        return features[:, torch.cat(best)].reshape(activations.shape)

    return objective
