"""Pictures and a sound track into a video file, by ffmpeg: the last step of `create`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import ffmpeg

from deepdream.video.ffmpeg import SCALE_FLAGS, ffmpeg_binary, run_ffmpeg
from deepdream.video.formats import QUICKTIME_TAGS, Format, Values
from deepdream.video.probe import Sound, file_url
from deepdream.video.spherical import mark_spherical

NOTE_KEY = "description"  # of the metadata
HD_HEIGHT = 720  # pixels; from here on players expect the colours of BT.709
AUDIO_BIT_RATE = 96_000  # bits a second and channel
OPUS_LAYOUTS = "mono|stereo|3.0|quad|5.0|5.1|6.1|7.1"  # others are mixed into one of these
SOUND_TOLERANCE = 0.03  # seconds out of step: less than a frame, more than time stamps jitter
MAX_GIF_RATE = 50  # frames a second: browsers show faster ones at 10
PALETTE = "palette.png"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """All that decides how the video of some frames looks and sounds."""

    size: tuple[int, int]  # (width, height) in pixels, both even but in a GIF
    frame_rate: Fraction
    pixel_aspect: Fraction
    format: Format
    sound: Sound | None = None
    sound_shift: float = 0.0  # seconds by which the sound is put later than the file's start
    sound_end: float | None = None  # seconds at which it is cut
    lead: int = 0  # frames of time that pass before the first picture
    panorama: str | None = None  # see `Clip`


def encode(
    plan: Plan,
    pictures: Callable[[Progress | None], Iterable[memoryview]],
    directory: Path,
    comment: str,
    note: str | None,
    on_progress: Progress | None = None,
) -> Path:
    """Encode the video in ``directory``; its path. Raises `DreamError` where ffmpeg fails, `OSError` on a full disk.

    ``pictures(on_progress)`` gives each frame's bytes, RGB, row by row, and tells ``on_progress(done, total)``.
    ``comment`` and ``note``: text for the video's metadata.
    """
    path = directory / "video"
    sound = plan.format.container.sound
    binary = ffmpeg_binary(plan.format.encoder, *([sound] if sound else []))
    if plan.format.is_gif:
        # A first pass finds the palette of the whole clip: in one pass, ffmpeg would hold all frames until then.
        palette = _gif_frames(plan).filter("palettegen").output(PALETTE, format="image2")
        run_ffmpeg(palette, directory, binary, pictures=pictures(None))
    run_ffmpeg(graph(plan, path.name, comment, note), directory, binary, pictures=pictures(on_progress))
    if plan.format.is_gif:
        (directory / PALETTE).unlink()
        path.write_bytes(add_gif_comment(path.read_bytes(), f"{comment}\n{note}" if note else comment))
    if plan.panorama:
        mark_spherical(path, plan.panorama)
    return path


def graph(plan: Plan, target: str, comment: str, note: str | None = None) -> ffmpeg.nodes.OutputStream:
    """ffmpeg's graph from raw pictures on standard input, and a sound file, to the video ``target``."""
    if plan.format.is_gif:
        frames = _gif_frames(plan).filter("setsar", sar=str(plan.pixel_aspect), max=65535)
        return ffmpeg.filter([frames, ffmpeg.input(PALETTE)], "paletteuse").output(target, format="gif")
    pictures = _raw_pictures(plan)
    container, codec, encoder = plan.format.container, plan.format.codec, plan.format.encoder
    matrix = "bt709" if plan.size[1] >= HD_HEIGHT else "smpte170m"
    tags: Values = {"colorspace": matrix, "color_primaries": "bt709", "color_trc": "bt709"}
    filters = (
        f"scale=flags={SCALE_FLAGS}:out_color_matrix={matrix}:out_range=tv,format={codec.pixel_format},"
        f"setparams=range=tv:colorspace={matrix}:color_primaries=bt709:color_trc=bt709,"
        f"setsar=sar={plan.pixel_aspect}:max=65535"
    )
    options: Values = {"format": container.muxer, "vf": filters, "vcodec": encoder, **codec.encoders[encoder]}
    options |= {} if plan.format.crf is None else {"crf": plan.format.crf}
    # Older ffmpeg takes the tags from here, newer from the frames. A sound file's chapters are not the picture's.
    options |= {"metadata": f"comment={comment}", "color_range": "tv", **tags, "map_chapters": -1, **container.options}
    if container.muxer in ("mp4", "mov") and encoder in QUICKTIME_TAGS:
        options["tag:v"] = QUICKTIME_TAGS[encoder]
    if note:
        options["metadata:g"] = f"{NOTE_KEY}={note}"  # "g": global, as "metadata" alone is
    if note and container.muxer == "mov":  # which has no such field of its own
        options["movflags"] = f"{options['movflags']}+use_metadata_tags"
    if plan.sound is None or container.sound is None:
        return pictures["0"].output(target, **options)
    sound = ffmpeg.input(file_url(plan.sound.path), format=plan.sound.demuxer, protocol_whitelist="file,pipe")
    options |= {"af": _sound_filters(plan), "acodec": container.sound}
    options["audio_bitrate"] = AUDIO_BIT_RATE * plan.sound.channels
    return ffmpeg.output(pictures["0"], sound[str(plan.sound.index)], target, **options)


def _raw_pictures(plan: Plan) -> ffmpeg.nodes.FilterableStream:
    """ffmpeg's input of frames on standard input."""
    delay = {"itsoffset": f"{float(plan.lead / plan.frame_rate):.6f}"} if plan.lead else {}
    return ffmpeg.input(
        "pipe:0", format="rawvideo", pixel_format="rgb24", video_size=plan.size, framerate=str(plan.frame_rate), **delay
    )


def _gif_frames(plan: Plan) -> ffmpeg.nodes.FilterableStream:
    frames = _raw_pictures(plan)["0"]
    return frames.filter("fps", MAX_GIF_RATE) if plan.frame_rate > MAX_GIF_RATE else frames


def _sound_filters(plan: Plan) -> str:
    # aresample: silence where the sound starts late or has a gap, and a cut where it would come before the start.
    resample = f"aresample=async=1:min_hard_comp={SOUND_TOLERANCE}:first_pts=0"
    filters = f"asetpts=PTS-STARTPTS+({plan.sound_shift:.6f})/TB,{resample}"
    if plan.sound_end is not None:
        filters += f",atrim=end={plan.sound_end:.6f}"
    if plan.format.container.sound == "libopus":
        filters += f",aformat=channel_layouts={OPUS_LAYOUTS}"
    return filters


def add_gif_comment(gif: bytes, text: str) -> bytes:
    """A GIF with a comment before its first picture, which ffmpeg reads and does not write (GIF89a, section 24)."""
    data = text.encode()
    blocks = b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255))
    flags = gif[10]
    start = 13 + (3 << (flags % 8 + 1) if flags & 0x80 else 0)  # after the header and its palette
    return gif[:start] + b"!\xfe" + blocks + b"\0" + gif[start:]
