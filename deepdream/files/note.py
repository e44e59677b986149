"""What a dreamed frame or a created video says of its making: a note, as text in the file itself.

    deepdream 1.0.0, network EfficientNet-Lite0 a2534e3a…
    dreamer.py --input Input --flow 2
    dreamer.py --create --input Output --framerate 24

The first line names the version, and the network by its name and digest; the others are the commands of the steps.
A note holds names of files but no paths. What a command wrote to is left out, so that renders of one kind have the
same bytes wherever they lie; `commands` fills it in again.
"""

import shlex
from pathlib import Path
from typing import Any, Protocol

from deepdream import __version__
from deepdream.errors import UsageError, one_line
from deepdream.options import (
    PICTURE_ENDINGS,
    NetworkOptions,
    PartOptions,
    RenderOptions,
    RunOptions,
    VideoOptions,
    image_type_of,
)
from deepdream.settings import words

PROGRAM = "dreamer.py"


class NamedNetwork(Protocol):
    """What a note says of a network: see `Network`."""

    name: str
    digest: str


def dream_note(
    source: str | Path,
    network: NamedNetwork,
    engine: NetworkOptions,
    options: RenderOptions,
    part: PartOptions = PartOptions(),
    video: VideoOptions = VideoOptions(),
    frames: int | None = None,
) -> str:
    """The note of what is dreamed from ``source`` with a network that ``engine`` chose.

    ``part`` and ``video``: of a video that is made in one go. ``frames``: of a dive.
    """
    run = RunOptions(input=str(source), image_type=options.image_type, frames=frames)
    named = f"deepdream {__version__}, network {one_line(network.name)} {network.digest}"
    return f"{named}\n{_command(run, part, engine, options, video)}"


def create_note(frames: str | Path, image_type: str | None, options: VideoOptions, frame_note: str | None) -> str:
    """The note of a video created from the directory ``frames``, which goes on that of the frames, if they have one."""
    dreamed = frame_note or f"deepdream {__version__}"
    return f"{dreamed}\n{_command(RunOptions(input=str(frames), create=1, image_type=image_type), options)}"


def commands(note: str, path: str | Path) -> list[str]:
    """The commands of a note found in the file ``path``, to be typed one after the other.

    They are quoted anew: whoever writes a picture's text does not get to write more than arguments.
    Raises `UsageError` where there is none.
    """
    path = Path(path).resolve()
    try:
        found = [shlex.split(line) for line in note.splitlines() if line.startswith(f"{PROGRAM} ")]
        inputs = [command[command.index("--input") + 1] for command in found]
    except (ValueError, IndexError) as error:
        raise UsageError(f"{path}: its settings are damaged ({error})") from None
    if not found:
        raise UsageError(f"{path} carries no settings")
    # A step writes what the next one reads; the last one made this file.
    is_photo = "--frames" not in found[-1] and Path(inputs[-1]).suffix.lower() in (*PICTURE_ENDINGS, ".gif")
    is_frame = not is_photo and image_type_of(path.suffix)
    outputs = [*inputs[1:], path.parent.name if is_frame else path.name]
    return [one_line(shlex.join([*command, "--output", output])) for command, output in zip(found, outputs)]


def _command(*parts: Any) -> str:
    return one_line(shlex.join([PROGRAM, *(word for part in parts for word in words(part))]))
