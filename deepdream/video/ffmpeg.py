"""Running ffmpeg on a graph of ffmpeg-python's: never through a shell, and never longer than the call."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import IO

import ffmpeg

from deepdream.errors import DreamError, UsageError
from deepdream.files.atomic import check_written

# Without these, swscale rounds down (pictures lose one level in 255) and repeats chroma instead of interpolating it.
SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
# Lines of ffmpeg's log that only say that something failed, or came again.
_EMPTY_LINES = (
    *("Conversion failed!", "Nothing was written", "Error opening output file"),
    *("Task finished", "Terminating thread", "Last message repeated"),
)


def ffmpeg_binary(*needs: str) -> str:
    """An ffmpeg that has the filters and encoders ``needs``: the one on PATH, else that of imageio-ffmpeg.

    Raises `DreamError` where there is none, and `UsageError` where none has what is needed.
    """
    binaries = list(filter(None, (shutil.which("ffmpeg"), _packaged_binary())))
    if not binaries:
        raise DreamError("no ffmpeg: put one on PATH (https://ffmpeg.org/download.html), or pip install imageio-ffmpeg")
    for binary in binaries:
        if not needs or set(needs) <= _abilities(binary):
            return binary
    missing = ", ".join(sorted(set(needs) - _abilities(binaries[-1])))
    raise UsageError(f"{binaries[-1]} was built without {missing}; pip install imageio-ffmpeg brings one that has more")


def _packaged_binary() -> str | None:
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None


@cache
def _abilities(binary: str) -> frozenset[str]:
    """The names of the filters and encoders that an ffmpeg was built with."""
    lists = [
        subprocess.run([binary, "-hide_banner", f"-{what}"], capture_output=True, check=False).stdout.decode()
        for what in ("filters", "encoders")
    ]
    return frozenset(words[1] for words in map(str.split, "\n".join(lists).splitlines()) if len(words) > 1)


def run_ffmpeg(
    graph: ffmpeg.nodes.OutputStream,
    directory: Path,
    binary: str | None = None,
    pictures: Iterable[memoryview] | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> str:
    """Run ffmpeg (``binary``, or `ffmpeg_binary`) on ``graph`` in ``directory``.

    Gives what it complained of although it succeeded, often "". ``pictures``: bytes for its standard input.
    ``on_frame(done)`` is told how many frames are written. Raises `OSError` where the disk is full, and `DreamError`
    with the end of ffmpeg's log where it fails. The process never outlives this call.
    """
    arguments = ["-hide_banner", "-loglevel", "error", "-nostats", "-progress", "pipe:1"]
    arguments += ["-nostdin"] if pictures is None else []
    command = graph.global_args(*arguments).compile(cmd=binary or ffmpeg_binary(), overwrite_output=True)
    with tempfile.TemporaryFile() as log:  # not a pipe: nothing would empty it while frames are fed
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL if pictures is None else subprocess.PIPE,
            stdout=subprocess.PIPE if pictures is None else subprocess.DEVNULL,
            stderr=log,
            bufsize=0,
        )
        try:
            if process.stdin and pictures is not None:
                is_fed = _feed(process.stdin, pictures)
            else:
                is_fed = _follow(process.stdout, on_frame)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        log.seek(0)
        complaints = _last_lines(log.read().decode(errors="replace"))
    check_written(complaints)
    if status != 0 or not is_fed:
        raise DreamError(f"ffmpeg failed: {complaints or f'exit status {status}'}")
    return complaints


def _follow(progress: Iterable[bytes] | None, on_frame: Callable[[int], None] | None) -> bool:
    """Read ffmpeg's progress reports to their end."""
    for line in progress or ():
        if on_frame and line.startswith(b"frame="):
            on_frame(int(line.removeprefix(b"frame=")))
    return True


def _feed(pipe: IO[bytes], pictures: Iterable[memoryview]) -> bool:
    """Write all pictures; False where ffmpeg stopped reading: its status and its log say why."""
    for picture in pictures:
        rest = memoryview(picture)
        while rest:
            try:
                rest = rest[pipe.write(rest) :]
            except OSError:
                return False
    pipe.close()
    return True


def _last_lines(log: str) -> str:
    """The last lines of ffmpeg's log that say something, as one line."""
    lines = [re.sub(r"^(\[[^]]* @ 0x[0-9a-f]+\] )+", "", line.strip()) for line in log.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_EMPTY_LINES)]
    return "; ".join(dict.fromkeys(lines[-3:]))
