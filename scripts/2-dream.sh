#!/usr/bin/env bash
# Dream over a directory of frames.  Usage: 2-dream.sh [FRAMES [DREAMS]]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
exec "$python" "$root/dreamer.py" --input="${1:-Input}" --output="${2:-Output}" \
  --octaves 3 --octavescale 1.8 --iterations 16 --jitter 32 --zoom 1 --stepsize 1.5 \
  --flow 1 --flowthresh 6 --blendflow 0.9 --blendstatic 0.1 --layers inception_4d/pool --gpu 1 -d 2 -mw 1500
