"""Files that are written whole or not at all."""

import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from deepdream.errors import DreamError, UsageError

PART_SUFFIX = ".part"
LOCK_NAME = ".lock"


def part_path(path):
    """Where a file is made before it gets its name: hidden, in the same folder (so a rename is enough)."""
    path = Path(path)
    return path.with_name(f".{path.name}{PART_SUFFIX}")


@contextmanager
def whole_file(path):
    """Give a path to write to; what stands there gets the name ``path`` only if the block succeeds.

    The bytes are on the disk before the name is, so not even a power cut leaves half a file.
    Raises `DreamError` where the disk is full, read-only or gone.
    """
    path = Path(path)
    part = part_path(path)
    try:
        part.unlink(missing_ok=True)  # what a killed run left, or a link that would lead elsewhere
        yield part
        with open(part, "r+b") as written:  # Windows syncs only what is open for writing
            os.fsync(written.fileno())
        os.replace(part, path)
    except OSError as error:
        raise DreamError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # an error above tells more than that there is nothing to remove
            part.unlink()


def write_whole(path, data):
    """Write ``data`` (bytes) to ``path``, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(data)


def lock_directory(path):
    """Lock a directory against other runs: a `FileLock` to release. Raises `UsageError` where another has it."""
    lock = FileLock(Path(path) / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"another run is at work in {path}; wait for it, or choose another output") from None
    except OSError as error:
        raise DreamError(f"cannot write in {path}: {error.strerror or error}") from error
    return lock


def make_directory(path):
    """Make a directory with its parents, or say in a `DreamError` why it cannot be made."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DreamError(f"cannot make the directory {path}: {error.strerror}") from error
    return path


@contextmanager
def new_directory(path):
    """A new directory for ffmpeg to work in, deleted if the block fails.

    The one that a killed run left behind makes way. Its ffmpeg may live a moment longer: names relative to a directory
    that is gone lead nowhere, so nothing it still writes gets among the new files.
    """
    if path.is_symlink() or path.is_file():
        path.unlink()  # a link would lead elsewhere
    shutil.rmtree(path, ignore_errors=True)
    make_directory(path)
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def sync(path):
    with open(path, "r+b") as written:
        os.fsync(written.fileno())


def move(source, target):
    try:
        os.replace(source, target)
    except OSError as error:
        raise DreamError(f"cannot write {target}: {error.strerror}") from error
