#!/usr/bin/env bash
# Extract the frames of a video.  Usage: 1-extract.sh [VIDEO [FRAMES]]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
exec "$python" "$root/dreamer.py" -e 1 --input="${1:-RHI-20Sec.mov}" --output="${2:-Input}"
