"""A Caffe model run and differentiated by PyTorch, on a CPU or a GPU."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from deepdream.compiling import CompileNotice
from deepdream.errors import ModelError, is_out_of_memory
from deepdream.interface import Objective
from deepdream.memory.malloc import disable_trim
from deepdream.networks.caffemodel import Layer, Model
from deepdream.networks.network import Network, Size, out_of_memory
from deepdream.networks.steps import Runnable
from deepdream.networks.torch import compiled
from deepdream.networks.torch.conv2d import looked_at
from deepdream.networks.torch.fusion import ChainStep, StoppingStep, fuse
from deepdream.networks.torch.layers import LayerFunction
from deepdream.networks.torch.layers.convolution import CONVOLUTIONS
from deepdream.networks.torch.layers.normalisation import scales_channels
from deepdream.networks.torch.layers.shape import joins_channels
from deepdream.networks.torch.peak import PeakMemory, without_compiler

# Layers that take each picture of a batch by itself, whatever their parameters are.
INDEPENDENT_TYPES = (
    *("ReLU", "ReLU6", "PReLU", "ELU", "Sigmoid", "TanH", "AbsVal", "BNLL", "Power", "Exp", "Log", "Dropout"),
    *("LRN", "Pooling", "Eltwise", "Split", *CONVOLUTIONS),
)


class TorchNetwork(Network):
    """The network interface on PyTorch.

    ``precision``: the name of the type in which the convolutions compute. With bfloat16 the first one, that of the
    picture, and all that is before it stay in float32; what follows a convolution takes its values as they come.
    ``on_message`` gets a line where something takes long and has no progress bar.
    """

    def __init__(
        self,
        model: Model,
        mean: Sequence[float],
        loop: Iterable[str],
        device: torch.device | str = "cpu",
        precision: str = "float32",
        on_message: Callable[[str], object] | None = None,
    ) -> None:
        super().__init__(model, mean, loop, device)
        self.precision = precision
        self._dtype: torch.dtype = getattr(torch, precision)
        self._compile_notice = CompileNotice(on_message)
        if self.device.type == "cpu":
            disable_trim()

    def activations(self, picture: Tensor, layer: str) -> Tensor:
        with torch.no_grad(), self._compile_notice:
            return self._forward(self._input(picture, layer), layer)[0][0].to(picture.dtype)

    def gradient_of_sum(self, picture: Tensor, objectives: Mapping[str, Objective]) -> Tensor:
        if picture.ndim == 4 and not self._keeps_apart(*objectives):
            return torch.stack([self.gradient_of_sum(one, objectives) for one in picture])
        x = self._input(picture, *objectives).requires_grad_()
        with self._compile_notice, looked_at(x):
            tops = self._forward(x, *objectives)
            directions = [
                _direction(top.detach().to(picture.dtype), objective).to(top.dtype)
                for top, objective in zip(tops, objectives.values())
            ]
            try:
                gradient = torch.autograd.grad(tops, x, directions)[0]
            except (RuntimeError, MemoryError) as error:
                if is_out_of_memory(error):
                    raise out_of_memory("+".join(objectives), error) from error
                raise
        return self._from_channels(gradient if picture.ndim == 4 else gradient[0]).to(picture.dtype)

    def memory(self, layer: str, size: Size) -> int:
        self.check_size(layer, size)
        with without_compiler(), PeakMemory() as peak, compiled.emulate_device(self.device):
            self.gradient(torch.empty(3, *size, device="meta"), layer, lambda top: top)
        return peak.bytes

    def _input(self, picture: Tensor, *layers: str) -> Tensor:
        for layer in layers:
            self.check_size(layer, (picture.shape[-2], picture.shape[-1]))
        batch = picture if picture.ndim == 4 else picture[None]
        dtype = torch.promote_types(self._dtype, torch.float32)
        return self._to_channels(batch).to(dtype).contiguous(memory_format=torch.channels_last)

    def _keeps_apart(self, *layers: str) -> bool:
        """Whether the pictures of a batch stay apart, of all that the steps before ``layers`` may do."""
        return all(isinstance(step, ChainStep) or _takes_each_alone(step.layer) for step, _ in self._plan(*layers)[0])

    def _function(self, step: Runnable, device: torch.device, dtype: torch.dtype) -> LayerFunction:
        return super()._function(step, device, self._dtype if isinstance(step, ChainStep) else dtype)

    def run_step(self, step: Runnable, values: dict[int, Tensor]) -> None:
        try:
            super().run_step(step, values)
        except ModelError:
            if isinstance(step, (ChainStep, StoppingStep)) and len(step.parts) > 1:  # name the layer that fails
                for part in step.parts:
                    super().run_step(part, values)
            raise

    def _select(self, *layers: str) -> tuple[Sequence[Runnable], tuple[int, ...]]:
        steps, targets = self._needed(*layers)
        return fuse(steps, targets), targets


def _takes_each_alone(layer: Layer) -> bool:
    """Whether a layer is known to take each picture of a batch by itself."""
    return layer.type in INDEPENDENT_TYPES or joins_channels(layer) or scales_channels(layer)


def _direction(tops: Tensor, objective: Objective) -> Tensor:
    """The objective's gradient at a layer's values for each picture of a batch (n, c, h, w)."""
    each = [objective(top) for top in tops]
    return torch.stack(each) if len(each) > 1 else each[0][None]
