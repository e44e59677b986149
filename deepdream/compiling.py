"""Loops that Numba compiles for all cores of a CPU. What is compiled is kept on disk: it takes seconds only once."""

from collections.abc import Callable
from functools import cache
from typing import Self

import numba
import torch
from numba.core import config, event


def compile_loop(function: Callable) -> Callable:
    """``function``, compiled when it is first called; its `numba.prange` are shared by the threads."""
    try:
        return numba.njit(parallel=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no folder for it can be written to: it is compiled in every run
        return numba.njit(parallel=True, error_model="numpy")(function)


def use_pytorchs_threads() -> None:
    """Let the loops run on as many threads as PyTorch computes with in this thread."""
    numba.set_num_threads(min(torch.get_num_threads(), _start_threads()))


@cache
def _start_threads() -> int:
    """Start Numba's threads, which are PyTorch's too where both share OpenMP; how many there can be.

    Numba takes one for every processor, and tells OpenMP, so PyTorch's number has to be set again.
    """
    threads = torch.get_num_threads()
    config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]  # type: ignore[attr-defined]  # set at run time
    count = numba.get_num_threads()
    torch.set_num_threads(threads)
    return count


class CompileNotice(event.Listener):
    """A context within which ``on_message`` gets a line when the first loop is compiled; one line in all.

    Nothing is compiled where Numba finds on disk what an earlier run has compiled.
    """

    def __init__(self, on_message: Callable[[str], object] | None = None) -> None:
        self._on_message = on_message

    def __enter__(self) -> Self:
        event.register("numba:compile", self)
        return self

    def __exit__(self, *exception: object) -> None:
        event.unregister("numba:compile", self)

    def on_start(self, event: event.Event) -> None:
        """Called by Numba before it compiles."""
        if self._on_message and event.data["dispatcher"].py_func.__module__.startswith("deepdream."):
            self._on_message("compiling loops, which takes some seconds the first time")
            self._on_message = None

    def on_end(self, event: event.Event) -> None:
        """Called by Numba after it has compiled."""
