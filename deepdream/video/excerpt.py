"""A small copy of a video's beginning, for a page to hold."""

from pathlib import Path
from tempfile import TemporaryDirectory

import ffmpeg

from deepdream.video.ffmpeg import ffmpeg_binary, run_ffmpeg
from deepdream.video.probe import file_url

SOUND_RATE = 48_000  # bits a second


def make_excerpt(video: Path, width: int, seconds: float, size: int) -> bytes:
    """The first ``seconds`` of a video as an MP4 that browsers play (H.264, AAC), which takes about ``size`` bytes.

    ``width``: in pixels, at most. Raises `DreamError` where ffmpeg fails.
    """
    rate = max(int(8 * size / seconds) - SOUND_RATE, SOUND_RATE)
    options = {
        "format": "mp4",
        "vf": f"scale='trunc(min({width},iw)/2)*2':-2,format=yuv420p",
        "vcodec": "libx264",
        "crf": 26,
        "maxrate": rate,
        "bufsize": rate,
        "acodec": "aac",
        "audio_bitrate": SOUND_RATE,
        "map_metadata": -1,
        "movflags": "+faststart",
    }
    source = ffmpeg.input(file_url(video), t=seconds, protocol_whitelist="file,pipe")
    with TemporaryDirectory(prefix="deepdream-") as directory:
        run_ffmpeg(source.output("excerpt.mp4", **options), Path(directory), ffmpeg_binary("libx264", "aac"))
        return (Path(directory) / "excerpt.mp4").read_bytes()
