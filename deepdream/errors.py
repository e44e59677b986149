"""What can go wrong, said once: every message tells what is wrong, where, and what to do."""

from itertools import islice

LONGEST_LIST = 5  # missing frames that a message names


class DreamError(Exception):
    """A run failed. The message is one line for the user; ``exit_status`` is the process's."""

    exit_status = 1


class UsageError(DreamError):
    """The command line or an input is wrong: nothing has been done and nothing is lost."""

    exit_status = 2


class OutOfMemory(DreamError):
    """A network could not get the memory that it needs. `memory.explain` tells what would do."""


class ModelError(UsageError):
    """A Caffe model cannot be found, read or run, or has no such layer."""


class PictureTooSmall(UsageError):
    """A picture is too small for a layer, or of a size that the layer does not take."""


def is_out_of_memory(error):
    """Whether an error says that memory does not suffice: ours, NumPy's, PyTorch's of any device, OpenCV's."""
    words = ("allocate memory", "Insufficient memory", "out of memory")
    return isinstance(error, (OutOfMemory, MemoryError)) or any(part in str(error) for part in words)


def first_line(error):
    """What an error says, in one line; its kind where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def some_of(items):
    """Items as text, the first few of them."""
    shown = list(islice(items, LONGEST_LIST + 1))
    return ", ".join(map(str, shown[:LONGEST_LIST])) + (", …" if len(shown) > LONGEST_LIST else "")
