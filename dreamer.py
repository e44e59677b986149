#!/usr/bin/env python3
"""The command line: three modes, extract, dream and create, and all three in one.

Here an error turns into a line and an exit status. What the modes do lies in `deepdream.modes`, whose heavy libraries
are imported once the command line has been understood, so that --help answers at once.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from deepdream.arguments import parse
from deepdream.errors import DreamError, UsageError
from deepdream.memory.malloc import tune
from deepdream.modes.job import Job
from deepdream.options import GROUPS, Arguments, FlowMode, RunOptions
from deepdream.show.progress import Screen, one_line, write_log
from deepdream.video.formats import CONTAINERS

INTERRUPTED = 130
TERMINATED = 143
INTERRUPT_AGAIN_AFTER = 0.01  # seconds
REPLACED_BY_VIEWS = ("--divide", "--maxWidth", "--maxHeight", "--jitter")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    signal.signal(signal.SIGTERM, Terminated.on_signal)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may hold what the terminal cannot show
    words = sys.argv[1:] if words is None else words
    usual = sys.unraisablehook
    sys.unraisablehook = partial(_interrupt_again, usual)
    try:
        arguments = parse(words)
        _run(arguments, Screen(arguments.run.verbose))
        with suppress(BrokenPipeError):  # a reader that wanted no more, such as ``head``, is no error
            sys.stdout.flush()
    except (DreamError, OSError, MemoryError) as error:
        write_log(f"dreamer.py: {one_line(_reason(error))}")
        if os.environ.get("DEEPDREAM_DEBUG"):
            raise
        return getattr(error, "exit_status", DreamError.exit_status)
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to stop
        without = " without --overwrite" if "--overwrite" in words else ""
        write_log(f"dreamer.py: interrupted; the same command{without} goes on from here")
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    finally:
        sys.unraisablehook = usual
        _drop_output()
    return 0


def _drop_output() -> None:
    """Forget what could not be printed: Python would fail for it when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}); close other programs, or take smaller frames"
    if isinstance(error, OSError):  # errors not translated elsewhere
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error)


class Terminated(KeyboardInterrupt):
    """SIGTERM: it ends a run as Ctrl-C does."""

    @classmethod
    def on_signal(cls, number: int, frame: object) -> NoReturn:
        """A signal handler that raises it."""
        raise cls


def _interrupt_again(usual: Callable[..., object], ignored: "sys.UnraisableHookArgs") -> None:
    """What Python calls for an exception that it ignores, as in a library's callbacks while memory is freed.

    An interrupt that arrived there would be lost. It comes again when the callback is over, since here it would be
    ignored as well. ``usual``: what takes other exceptions.
    """
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        usual(ignored)
        return
    number = signal.SIGTERM if issubclass(ignored.exc_type, Terminated) else signal.SIGINT
    to_thread = getattr(signal, "pthread_kill", None)  # wakes a thread that waits; Windows has no such thing
    send = partial(to_thread, threading.main_thread().ident) if to_thread else signal.raise_signal
    again = threading.Timer(INTERRUPT_AGAIN_AFTER, send, [number])
    again.daemon = True
    again.start()


def _run(arguments: Arguments, screen: Screen) -> None:
    run = arguments.run
    source, target = Path(run.input), Path(run.output)
    if run.settings or run.list_layers or run.print_schedule:
        with suppress(BrokenPipeError):  # the reader wanted no more
            for line in _question(run)(Job(arguments, screen, source, target)):
                print(line)
        return
    if run.show_layers:
        _runner("layers")(Job(arguments, screen, source, Path(run.show_layers)))
        return
    _check_mode(run)
    mode = "extract" if run.extract else "create" if run.create else _dream_mode(run, source)
    _tell_unused(arguments, mode, screen)
    _runner(mode)(Job(arguments, screen, source, target))


def _question(run: RunOptions) -> Callable[[Job], Iterable[str]]:
    """What answers a question, in lines."""
    from deepdream.modes import tell

    return tell.settings if run.settings else tell.layers if run.list_layers else tell.schedule


def _runner(mode: str) -> Callable[[Job], object]:
    """What runs a mode."""
    runners: dict[str, Callable[[Job], object]]
    if mode in ("dream", "picture", "layers"):
        from deepdream.modes import dream

        runners = {"dream": dream.dream_alone, "picture": dream.dream_picture, "layers": dream.show_layers}
    else:
        from deepdream.modes import video

        runners = {"extract": video.extract_frames, "create": video.create_video, "all": video.dream_video,
                   "dive": video.dive}  # fmt: skip
    return runners[mode]


def _dream_mode(run: RunOptions, source: Path) -> str:
    from deepdream.files.frames import is_picture

    if not source.is_file():
        return "dream"
    if not is_picture(source):
        return "all"
    return "dive" if run.frames else "picture"


def _check_mode(run: RunOptions) -> None:
    if run.extract and run.create:
        raise UsageError("-e and -c are two modes; give one of them")
    for option in ("input", "output"):
        if not getattr(run, option):
            raise UsageError(f"-{option[0]}/--{option} is missing (--help shows examples)")
    dreaming = not (run.extract or run.create or Path(run.input).is_file())
    if dreaming and Path(run.output).suffix.lower() in CONTAINERS:
        raise UsageError(
            f"{run.input} is no video, and {run.output} is one; dream frames into a directory, "
            "then create the video with -c 1"
        )


def _tell_unused(arguments: Arguments, mode: str, screen: Screen) -> None:
    """Say which of the given options belong to another mode (batch files often share one list of options)."""
    others = [group for group in GROUPS if mode != "all" and mode not in group.modes]
    elsewhere = {setting.name for group in others for setting in group.settings}
    elsewhere.discard("--flow" if mode in ("picture", "dive") else "")  # it says how smooth they are
    if arguments.render.flow.mode != FlowMode.STABLE:
        elsewhere.add("--flowiterations")
    if mode != "dive":
        elsewhere.add("--frames")
    if mode == "picture":
        elsewhere |= {"--zoom", "--rotate", "--image_type"}
    if mode not in ("dream", "all"):
        elsewhere.add("--report")
    elsewhere.add("--frame")  # of --show-layers, which is no mode
    unused = [name for name in arguments.given if name in elsewhere]
    if unused:
        screen.tell(f"{', '.join(unused)}: these change nothing in this mode")
    replaced = [name for name in arguments.given if name in REPLACED_BY_VIEWS and name not in elsewhere]
    if arguments.render.dream.panorama and replaced:
        screen.tell(f"{', '.join(replaced)}: these change nothing, for a panorama is seen in six turned views")


def run() -> int:
    """The program: `main`, in a process whose memory suits large tensors."""
    tune()
    return main()


if __name__ == "__main__":
    sys.exit(run())
