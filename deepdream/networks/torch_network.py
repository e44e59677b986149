"""A Caffe model run and differentiated by PyTorch, on a CPU or a GPU."""

import torch

from deepdream.networks.network import Network
from deepdream.networks.torch_fusion import fuse


class TorchNetwork(Network):
    """The network interface on PyTorch."""

    def activations(self, picture, layer):
        """As `Network.activations` tells."""
        self.check_size(layer, picture.shape[1:])
        with torch.no_grad():
            return self._forward(picture[None].contiguous(memory_format=torch.channels_last), layer)[0]

    def gradient(self, picture, layer, objective):
        """As `Network.gradient` tells."""
        self.check_size(layer, picture.shape[1:])
        x = picture[None].contiguous(memory_format=torch.channels_last).requires_grad_()
        top = self._forward(x, layer)
        return torch.autograd.grad(top, x, objective(top[0].detach())[None])[0][0]

    def _select(self, layer):
        steps, target = super()._select(layer)
        return fuse(steps, target), target
