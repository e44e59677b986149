"""What can go wrong, said once: every message tells what is wrong, where, and what to do."""


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
