"""The errors of a run. Every message says what is wrong, where, and what to do."""

from collections.abc import Iterable
from itertools import islice

LONGEST_LIST = 5  # items that a message names


class DreamError(Exception):
    """A run failed. The message is one line for the user; ``exit_status`` is the process's."""

    exit_status = 1


class UsageError(DreamError):
    """The command line or an input is wrong: nothing has been done and nothing is lost."""

    exit_status = 2


class OutOfMemory(DreamError):
    """A network could not get the memory that it needs. `memory.predict.explain` says what would fit."""


class ModelError(UsageError):
    """A Caffe model cannot be found, read or run, or has no such layer."""


class PictureTooSmall(UsageError):
    """A picture is too small for a layer, or of a size that the layer does not take."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there is not enough memory: ours, NumPy's, PyTorch's of any device, OpenCV's."""
    words = ("allocate memory", "Insufficient memory", "out of memory")
    return isinstance(error, (OutOfMemory, MemoryError)) or any(part in str(error) for part in words)


def first_line(error: BaseException) -> str:
    """An error's message in one line; its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]


def some_of(items: Iterable[object]) -> str:
    """The first few items, as text."""
    shown = list(islice(items, LONGEST_LIST + 1))
    return ", ".join(map(str, shown[:LONGEST_LIST])) + (", …" if len(shown) > LONGEST_LIST else "")


def one_line(text: object) -> str:
    """``text`` without line breaks and control characters, which names of files and layers may hold."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))
