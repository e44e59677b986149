"""Whether freed memory stays with the process: kept from step to step, returned to the system between octaves.

This is glibc's to decide (mallopt(3), malloc_trim(3)). With any other C library these functions do nothing.
"""

import ctypes
import os
import sys
from contextlib import suppress

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]  # stands for a module that is not there

TRIM_ABOVE_PIXELS = 4_000_000  # of the frame: below this size, trimming between octaves costs more than it frees
_LIBC = ctypes.CDLL(None) if resource else None
_M_MXFAST, _M_TRIM_THRESHOLD, _M_MMAP_MAX = 1, -1, -4  # as in malloc.h
_NEVER = 2**31 - 1
# What glibc takes from its environment alone. Every tensor is aligned, which leaves a scrap on either side of it. Put
# by for reuse, scraps keep free memory from joining: a gradient took 2.3 times the bytes of its tensors, and takes 1.4
# times. Large pages (hugetlb) are cleared as they are touched, which takes longer than they save.
TUNABLES = "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1"


def tune() -> None:
    """Start the running Python program again with the tunables that suit large tensors, unless some are set.

    To be called before anything else is done. The process keeps its number; the programs that it starts inherit them.
    """
    if sys.platform == "linux" and sys.executable and "GLIBC_TUNABLES" not in os.environ:
        with suppress(OSError):  # a process that may start no program goes on as it is
            line = [sys.executable, *sys.orig_argv[1:]]
            os.execve(sys.executable, line, {**os.environ, "GLIBC_TUNABLES": TUNABLES})


def disable_trim() -> None:
    """Keep freed memory until `trim` is called.

    By default glibc returns every large tensor to the system and asks for the next one page by page, which takes a
    quarter of a step's time at 1280x720. Nothing is changed where the address space is limited (``ulimit -v``): the
    holes of a heap count there in full and cannot be returned.
    """
    if _LIBC and hasattr(_LIBC, "mallopt") and resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        _LIBC.mallopt(_M_MMAP_MAX, 0)
        _LIBC.mallopt(_M_TRIM_THRESHOLD, _NEVER)
        _LIBC.mallopt(_M_MXFAST, 0)


def trim() -> None:
    """Return free memory to the system: the next octave's tensors have other sizes and would come on top of it."""
    if _LIBC and hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
