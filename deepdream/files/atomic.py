"""Files and directories that are written whole or not at all.

A file is made beside its place and renamed once its bytes are on the disk, so neither a killed run nor a power cut
leaves half a file under a final name. Whatever keeps it from being written is a `DreamError` of one line.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from deepdream.errors import DreamError, UsageError

PART_SUFFIX = ".part"
LOCK_NAME = ".lock"
DELETE_ATTEMPTS = 20
# The disk is full, or the quota is used up, or the disk has become read-only; and what all C libraries call it.
FULL_DISK = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "uota exceeded",
    errno.EROFS: "Read-only file system",
}
GO_ON = "; when it can be written again, the same command goes on"


def write_errors(path: str | Path) -> AbstractContextManager[None]:
    """Turn an `OSError` of a block into a `DreamError` that says that ``path`` cannot be written, and why."""
    return _reported(f"cannot write {path}")


@contextmanager
def _reported(failure: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = GO_ON if error.errno in FULL_DISK else ""
        raise DreamError(f"{failure}: {error.strerror or error}{hint}") from error


def check_written(log: str) -> None:
    """Raise the `OSError` of another program, if its log says that it could not write."""
    for number, reason in FULL_DISK.items():
        if reason in log:
            raise OSError(number, os.strerror(number))


def part_path(path: str | Path) -> Path:
    """Where a file is made before it gets its name: hidden, in the same folder, so that a rename is enough."""
    path = Path(path)
    return path.with_name(f".{path.name}{PART_SUFFIX}")


def sync(path: str | Path) -> None:
    """Wait until the bytes of a file are on the disk. Raises `OSError`."""
    with open(path, "r+b") as written:  # Windows syncs only what is open for writing
        os.fsync(written.fileno())


def replace(source: str | Path, target: str | Path) -> None:
    """Rename a file, replacing what has the new name. Raises `DreamError`."""
    with write_errors(target):
        os.replace(source, target)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a path to write to; what is written there gets the name ``path`` only if the block succeeds.

    Raises `DreamError` for any `OSError`, as where the disk is full, read-only or gone.
    """
    path = Path(path)
    part = part_path(path)
    try:
        with write_errors(path):
            part.unlink(missing_ok=True)  # what a killed run left, or a link that would lead elsewhere
            yield part
            sync(part)
            os.replace(part, path)
    finally:
        with suppress(OSError):  # an error above tells more than that there is nothing to remove
            part.unlink()


def write_whole(path: str | Path, data: bytes | memoryview) -> None:
    """Write ``data`` to ``path``, whole or not at all. Raises `DreamError`."""
    with whole_file(path) as part:
        part.write_bytes(data)


def lock_directory(path: str | Path) -> FileLock:
    """Lock a directory against other runs; the lock is to be released. Raises `UsageError` where another has it."""
    lock = FileLock(Path(path) / LOCK_NAME)
    with write_errors(lock.lock_file):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(f"another run is at work in {path}; wait for it, or choose another output") from None
    return lock


def make_directory(path: str | Path) -> Path:
    """Make a directory with its parents where it is missing. Raises `DreamError`."""
    path = Path(path)
    with _reported(f"cannot make the directory {path}"):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Make a new, empty directory, which is deleted if the block fails. Raises `DreamError`.

    What a killed run left there is deleted first. Its ffmpeg may still be running and adding files, so this may take
    several attempts; once the directory is gone, that process cannot write into the new one.
    """
    with write_errors(path):
        if path.is_symlink() or path.is_file():
            path.unlink()  # a link would lead elsewhere
        for _ in range(DELETE_ATTEMPTS):
            if not path.exists():
                break
            shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
