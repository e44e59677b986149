"""Render a short clip to try the program on, a dive into the Mandelbrot set with sound.  Usage: demo_clip.py VIDEO"""

import sys

import common  # noqa: F401 - the way to the package
import ffmpeg

from deepdream.video.ffmpeg import ffmpeg_binary

SECONDS = 2


def main(path: str) -> None:
    """Render the clip into ``path``, a video of any kind that holds H.264 and AAC."""
    source = "mandelbrot=rate=24:size=1440x810:start_x=-0.743643887:start_y=-0.131825904:maxiter=120"
    picture = ffmpeg.input(f"{source}:start_scale=0.035:end_scale=0.002:end_pts=60", f="lavfi", t=SECONDS)
    # Three times too large and then shrunk, for smooth edges.
    picture = picture.filter("scale", 480, 270, flags="area")
    sound = ffmpeg.input("aevalsrc=0.2*sin(2*PI*(110+40*t)*t)*(1+sin(2*PI*3*t))/2", f="lavfi", t=SECONDS)
    made = ffmpeg.output(picture, sound, path, vcodec="libx264", pix_fmt="yuv420p", crf=16, acodec="aac")
    made.global_args("-loglevel", "error", "-y").run(cmd=ffmpeg_binary())


if __name__ == "__main__":
    main(sys.argv[1])
