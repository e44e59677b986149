"""A Caffe model run and differentiated by PyTorch, on a CPU or a GPU."""

import torch

from deepdream.errors import is_out_of_memory
from deepdream.memory.malloc import disable_trim
from deepdream.networks.network import Network, out_of_memory
from deepdream.networks.torch import compiled as torch_compiled
from deepdream.networks.torch.fusion import Convolution, fuse
from deepdream.networks.torch.peak import PeakMemory


class TorchNetwork(Network):
    """The network interface on PyTorch.

    ``precision``: the name of the type in which the convolutions compute. With bfloat16 the first one, that of the
    picture, and all that is before it stay in float32; what follows a convolution takes its values as they come.
    """

    def __init__(self, model, mean, loop, device="cpu", precision="float32"):
        super().__init__(model, mean, loop, device)
        self.precision = precision
        self._dtype = getattr(torch, precision)
        if self.device.type == "cpu":
            disable_trim()

    def activations(self, picture, layer):
        """As `Network.activations` tells."""
        with torch.no_grad():
            return self._forward(self._input(picture, layer), layer)[0].to(picture.dtype)

    def gradient(self, picture, layer, objective):
        """As `Network.gradient` tells."""
        x = self._input(picture, layer).requires_grad_()
        top = self._forward(x, layer)
        direction = objective(top[0].detach().to(picture.dtype)).to(top.dtype)
        try:
            return torch.autograd.grad(top, x, direction[None])[0][0].to(picture.dtype)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise out_of_memory(layer, error) from error
            raise

    def memory(self, layer, size):
        """As `Network.memory` tells."""
        self.check_size(layer, size)
        with PeakMemory() as peak, torch_compiled.stand_for(self.device):
            self.gradient(torch.empty(3, *size, device="meta"), layer, lambda top: top)
        return peak.bytes

    def _input(self, picture, layer):
        self.check_size(layer, picture.shape[1:])
        dtype = torch.promote_types(self._dtype, torch.float32)
        return picture[None].to(dtype).contiguous(memory_format=torch.channels_last)

    def _function(self, step, device, dtype):
        return super()._function(step, device, self._dtype if isinstance(step, Convolution) else dtype)

    def _select(self, layer):
        steps, target = super()._select(layer)
        return fuse(steps, target), target
