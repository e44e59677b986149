#!/usr/bin/env bash
# From nothing to a dreamed video, on Linux with Python 3.11 or newer.
# Usage: quickstart.sh [VIDEO [OPTIONS of dreamer.py]]
# Leaves VIDEO-dream.mp4 in the current folder; without VIDEO it dreams over a clip that ffmpeg renders.
set -euo pipefail
scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
"$scripts/environment.sh"
source "$scripts/python.sh"

if [ $# -gt 0 ]; then
  video="$1"
  shift
else
  video="mandelbrot.mp4"
  "$python" "$scripts/demo_clip.py" "$video"
fi
name="$(basename "$video")"
# Small and quick for a first look; the same command with other options after VIDEO dreams larger and deeper.
exec "$python" "$root/dreamer.py" --input="$video" --output="${name%.*}-dream.mp4" \
  --preview 480 --octaves 3 --iterations 8 --flow 2 --layers inception_4c/output "$@"
