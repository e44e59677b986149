"""What a directory of frames remembers of its video: `clip.json`, written by extract and read by create."""

import json
import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from deepdream.errors import UsageError
from deepdream.files.atomic import write_whole

CLIP_NAME = "clip.json"
STEREO_MODES = ("mono", "left-right", "top-bottom")  # in the words of Google's Spherical Video V1


@dataclass(frozen=True)
class Clip:
    """The video that a directory of frames was extracted from.

    ``frame_rate`` in frames a second; ``pixel_aspect`` width by height of one pixel; ``audio_offset`` seconds of the
    source's sound that come before the first of these frames. They are the source's from number ``first_frame`` (from
    0) up to ``end_frame``, or its end where that is None. ``panorama``: None, or how an equirectangular one is laid out
    for two eyes: ``"mono"``, ``"left-right"`` or ``"top-bottom"``.
    """

    source: str
    frame_rate: Fraction
    pixel_aspect: Fraction
    has_audio: bool
    frame_count: int
    audio_offset: float = 0.0
    first_frame: int = 0
    end_frame: int | None = None
    panorama: str | None = field(default=None, compare=False)  # extracts of earlier versions lack it


def read_clip(directory: str | Path) -> Clip | None:
    """The `Clip` of a frame directory, or None where it has none. Raises `UsageError` if it is damaged."""
    path = Path(directory) / CLIP_NAME
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        clip = Clip(
            source=str(fields["source"]),
            frame_rate=_ratio(fields["frame_rate"]),
            pixel_aspect=_ratio(fields["pixel_aspect"]),
            has_audio=bool(fields["has_audio"]),
            frame_count=int(fields["frame_count"]),
            audio_offset=float(fields["audio_offset"]),
            first_frame=int(fields.get("first_frame", 0)),
            end_frame=None if fields.get("end_frame") is None else int(fields["end_frame"]),
            panorama=fields["panorama"] if fields.get("panorama") in STEREO_MODES else None,
        )
    except (FileNotFoundError, NotADirectoryError):  # a dive's frames come from a file
        return None
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise UsageError(f"{path} is damaged ({error!r}); delete it, or extract the video again") from error
    if clip.frame_rate <= 0 or clip.pixel_aspect <= 0:
        raise UsageError(f"{path} is damaged: frame rate and pixel aspect must be greater than 0; delete it")
    return clip


def _ratio(text: str) -> Fraction:
    if not re.fullmatch(r"\d{1,18}(/\d{1,18})?", text):  # Fraction itself computes 1e999999999, for hours
        raise ValueError(f"{text} is no ratio")
    return Fraction(text)


def write_clip(directory: str | Path, clip: Clip) -> None:
    """Write the `Clip` of a frame directory. Raises `DreamError` where it cannot."""
    fields = {name: value for name, value in vars(clip).items() if name != "panorama" or value}
    write_whole(Path(directory) / CLIP_NAME, (json.dumps(fields, indent=2, default=str) + "\n").encode())


def copy_clip(source: str | Path, target: str | Path) -> None:
    """Copy the clip.json of one frame directory to another, if there is one."""
    clip = read_clip(source)
    if clip is not None:
        write_clip(target, clip)
