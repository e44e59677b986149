"""What becomes of memory that is freed: kept from step to step, given back from octave to octave.

Only glibc can be told; elsewhere nothing happens.
"""

import ctypes
import os

try:
    import resource
except ImportError:  # Windows has no such limits, and no glibc
    resource = None

LARGE = 4_000_000  # pixels: of such pictures memory is given back between octaves; smaller ones would be held up by it
_LIBC = ctypes.CDLL(None) if os.name == "posix" else None
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # the numbers of glibc's malloc.h
_NEVER = 2**31 - 1


def keep_freed():
    """Keep what is freed, until `give_back`.

    Else glibc returns every large tensor to the system and asks for the next one page by page: of a picture of
    1280x720 that takes a quarter of a step's time. Not where the address space is limited (``ulimit -v``): the holes
    of a heap count there in full, and cannot be given back.
    """
    if hasattr(_LIBC, "mallopt") and resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        _LIBC.mallopt(_MMAP_MAX, 0)
        _LIBC.mallopt(_TRIM_THRESHOLD, _NEVER)


def give_back():
    """Return what is free to the system: the next octave's tensors are of other sizes, and would come on top of it."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
