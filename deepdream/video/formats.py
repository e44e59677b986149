"""What videos can be made: which container an ending means, which codecs it takes, and how ffmpeg encodes them.

Light, so that the command line can ask for the endings.
"""

from dataclasses import dataclass, field
from pathlib import Path

from deepdream.errors import UsageError
from deepdream.options import VideoOptions

Values = dict[str, str | int]  # options of ffmpeg's


@dataclass(frozen=True)
class Codec:
    """``encoders``: ffmpeg's names, the best first, and the options of each. ``crf``: (default, largest), or None."""

    encoders: dict[str, Values]
    pixel_format: str
    crf: tuple[int, int] | None = None


@dataclass(frozen=True)
class Container:
    """``muxer``: ffmpeg's name. ``codecs``: those it takes, the default first. ``sound``: the encoder, or None."""

    muxer: str
    codecs: tuple[str, ...]
    sound: str | None = "aac"
    options: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """How a video is to be written: by which ``encoder`` of ``codec``, at which ``crf``, into which container."""

    container: Container
    codec: Codec
    encoder: str
    crf: int | None

    @property
    def is_gif(self) -> bool:
        return self.container.muxer == "gif"


_X265: Values = {"x265-params": "log-level=error"}
_VP9: Values = {"b:v": 0, "deadline": "good", "cpu-used": 2, "row-mt": 1}
_AOM: Values = {"b:v": 0, "cpu-used": 6, "row-mt": 1}
CODECS = {
    "h264": Codec({"libx264": {}}, "yuv420p", (20, 51)),
    "h264-10bit": Codec({"libx264": {}}, "yuv420p10le", (20, 51)),
    "h265": Codec({"libx265": _X265}, "yuv420p", (22, 51)),
    "h265-10bit": Codec({"libx265": _X265}, "yuv420p10le", (22, 51)),
    "vp9": Codec({"libvpx-vp9": _VP9}, "yuv420p", (24, 63)),
    "av1": Codec({"libsvtav1": {"preset": 7}, "libaom-av1": _AOM}, "yuv420p", (24, 63)),
    "prores": Codec({"prores_ks": {"profile:v": "standard", "vendor": "apl0"}}, "yuv422p10le"),
    "gif": Codec({"gif": {}}, "pal8"),
}
_H26X = ("h264", "h264-10bit", "h265", "h265-10bit")
_FAST_START: Values = {"movflags": "+faststart"}  # what a player needs first comes first
CONTAINERS = {
    ".mp4": Container("mp4", (*_H26X, "av1"), options=_FAST_START),
    ".m4v": Container("mp4", _H26X, options=_FAST_START),
    ".mov": Container("mov", (*_H26X, "prores"), options=_FAST_START),
    ".mkv": Container("matroska", (*_H26X, "vp9", "av1", "prores")),
    ".webm": Container("webm", ("vp9", "av1"), sound="libopus"),
    ".gif": Container("gif", ("gif",), sound=None),
}
QUICKTIME_TAGS = {"libx265": "hvc1"}  # in MP4 and MOV: the kind of H.265 that Apple's players take


def find_format(video: Path, options: VideoOptions) -> Format:
    """The `Format` of a video by its ending, ``--codec`` and ``--crf``. Raises `UsageError` where they do not fit."""
    from deepdream.video.ffmpeg import ffmpeg_binary

    container = CONTAINERS.get(video.suffix.lower())
    if container is None:
        raise UsageError(f"{video}: a video's name ends in {', '.join(CONTAINERS)}")
    name = options.codec or container.codecs[0]
    if name not in container.codecs:
        raise UsageError(f"--codec {name}: a {video.suffix.lower()} file takes {', '.join(container.codecs)}")
    codec = CODECS[name]
    if options.crf is not None and codec.crf is None:
        raise UsageError(f"--crf {options.crf}: {name} has no such setting; leave it out")
    if options.crf is not None and codec.crf and options.crf > codec.crf[1]:
        raise UsageError(f"--crf {options.crf}: {name} takes 0 to {codec.crf[1]}, less is better")
    sound = [container.sound] if container.sound else []
    for encoder in codec.encoders:
        try:
            ffmpeg_binary(encoder, *sound)
        except UsageError as error:
            reason = error
        else:
            crf = options.crf if options.crf is not None or codec.crf is None else codec.crf[0]
            return Format(container, codec, encoder, crf)
    raise UsageError(f"--codec {name}: {reason}")
