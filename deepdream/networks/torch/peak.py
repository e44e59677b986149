"""How much memory a computation holds at its peak, found on tensors that have shapes and no values."""

import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class OutOfProportion(ValueError):
    """A tensor is larger than any that a network needs."""


_COMPILER = "torch._dynamo"


@contextmanager
def without_compiler() -> Iterator[None]:
    """Within this, PyTorch does not import its compiler, which takes more than a second, for tensors without values.

    It does so to have what computes their shapes left out of what is compiled. Nothing is compiled here.
    """
    if _COMPILER in sys.modules:
        yield
        return
    stand_in = ModuleType(_COMPILER)
    stand_in.disable = _leave  # type: ignore[attr-defined]  # a module's contents are set at run time
    sys.modules[_COMPILER] = stand_in
    try:
        yield
    finally:
        del sys.modules[_COMPILER]


def _leave(function: Callable, recursive: bool = True, *, wrapping: bool = True) -> Callable:
    """Stands for `torch._dynamo.disable`."""
    return function


class PeakMemory(TorchDispatchMode):
    """While this is entered, ``bytes`` is the most that tensors made on the ``meta`` device have held together.

    Every operation counts, those of the backward pass and those inside of others too, and each storage from when it
    is made until nothing holds it any more. What a library sets aside inside of one operation does not show.
    ``max_elements``: a tensor of more raises `OutOfProportion`.
    """

    def __init__(self, max_elements: float = float("inf")) -> None:
        super().__init__()
        self.bytes = 0
        self._max_elements = max_elements
        self._now = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        function: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.is_view:  # of memory that is counted, or that was there before
            return result
        if function is torch.ops.aten.convolution.default:
            # On `meta` it lays its result out plane by plane; on a device it keeps the layout of its input.
            result = torch.empty_like(result, memory_format=torch.channels_last)
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, torch.Tensor):
                if made.numel() > self._max_elements:
                    raise OutOfProportion(f"{tuple(made.shape)} is out of all proportion to its picture")
                self._count(made.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        weakref.finalize(storage, self._free, storage.nbytes())
        self._now += storage.nbytes()
        self.bytes = max(self.bytes, self._now)

    def _free(self, count: int) -> None:
        self._now -= count
