"""How much memory a computation holds at its peak, found on tensors that have shapes and no values."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class PeakMemory(TorchDispatchMode):
    """While this is entered, ``bytes`` is the most that tensors made on the ``meta`` device have held together.

    Every operation counts, those of the way back and those inside of others too, and each storage from when it is
    made until nothing holds it any more. What a library sets aside inside of one operation does not show.
    """

    def __init__(self):
        super().__init__()
        self.bytes = 0
        self._now = 0
        self._known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.convolution.default:
            # On `meta` it lays its result out plane by plane; on a device it keeps the layout of its input.
            result = torch.empty_like(result, memory_format=torch.channels_last)
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, torch.Tensor):
                self._count(made.untyped_storage())
        return result

    def _count(self, storage):
        if storage in self._known:
            return
        self._known.add(storage)
        weakref.finalize(storage, self._free, storage.nbytes())
        self._now += storage.nbytes()
        self.bytes = max(self.bytes, self._now)

    def _free(self, count):
        self._now -= count
