#!/usr/bin/env bash
# Create a video of dreamed frames.  Usage: 3-create.sh [DREAMS [VIDEO]]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
exec "$python" "$root/dreamer.py" -c 1 --input="${1:-Output}" --output="${2:-Video.mp4}"
