"""Running ffmpeg: from an argument list, never through a shell, and never beyond the call."""

import re
import shutil
import subprocess
import tempfile

from deepdream.errors import DreamError

# Without these, swscale rounds down (pictures lose one level in 255) and repeats chroma instead of interpolating it.
SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


def ffmpeg_binary():
    """The ffmpeg on PATH, else the one of imageio-ffmpeg. Raises `DreamError` where there is neither."""
    binary = shutil.which("ffmpeg")
    if binary:
        return binary
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise DreamError(
            "no ffmpeg: put one on PATH (https://ffmpeg.org/download.html), or pip install imageio-ffmpeg"
        ) from None


def run_ffmpeg(graph, directory, pictures=None, on_frame=None):
    """Run ffmpeg on ``graph`` in ``directory``; returns what it complained of although it succeeded, often "".

    ``pictures``: iterable of bytes for its standard input. ``on_frame(done)`` hears how many frames are written.
    Raises `DreamError` with ffmpeg's own last words where it fails. It never outlives this call.
    """
    arguments = ["-hide_banner", "-loglevel", "error", "-nostats", "-progress", "pipe:1"]
    arguments += ["-nostdin"] if pictures is None else []
    command = graph.global_args(*arguments).compile(cmd=ffmpeg_binary(), overwrite_output=True)
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
            fed = _follow(process.stdout, on_frame) if pictures is None else _feed(process.stdin, pictures)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        log.seek(0)
        words = _last_words(log.read().decode(errors="replace"))
    if status != 0 or not fed:
        raise DreamError(f"ffmpeg failed: {words or f'exit status {status}'}")
    return words


def _follow(pipe, on_frame):
    for line in pipe:
        if on_frame and line.startswith(b"frame="):
            on_frame(int(line.removeprefix(b"frame=")))
    return True


def _feed(pipe, pictures):
    """Write all; False where ffmpeg stopped reading."""
    for picture in pictures:
        rest = memoryview(picture)
        while rest:
            try:
                rest = rest[pipe.write(rest) :]
            except OSError:
                return False  # ffmpeg is gone; its status and its words say why
    pipe.close()
    return True


def _last_words(text):
    """The last lines of ffmpeg's log that tell something, as one line."""
    lines = [re.sub(r"^(\[[^]]* @ 0x[0-9a-f]+\] )+", "", line.strip()) for line in text.splitlines()]
    hollow = (
        *("Conversion failed!", "Nothing was written", "Error opening output file"),
        *("Task finished", "Terminating thread", "Last message repeated"),
    )
    lines = [line for line in lines if line and not line.startswith(hollow)]
    return "; ".join(dict.fromkeys(lines[-3:]))
