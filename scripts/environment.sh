#!/usr/bin/env bash
# Make the project's environment in .venv and install what it needs.  Usage: environment.sh [REQUIREMENTS ...]
# Needs a Python of 3.11 or newer ($PYTHON names another than the newest found) and a way to PyPI, nothing else.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"

newest_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "no Python of 3.11 or newer found; install one, or name it: PYTHON=/path/to/python $0" >&2
  return 1
}

make_environment() {
  local base
  base="$(newest_python)"
  "$base" -m venv "$root/.venv" >/dev/null 2>&1 && return
  # Debian and Ubuntu keep the venv module in a package of its own.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -qq -y "$(basename "$base")-venv" >/dev/null || true
  fi
  rm -rf "$root/.venv"
  "$base" -m venv "$root/.venv" || { echo "cannot make $root/.venv; on Debian: apt-get install python3-venv" >&2; return 1; }
}

install_torch() {
  # Without an NVIDIA card the CPU build does, at a tenth of the size; PyPI has only the large one.
  local wanted
  wanted="$(grep '^torch==' "$root/requirements.txt")"
  "$pip" install --quiet --dry-run --no-deps --no-index "$wanted" 2>/dev/null && return
  if ! command -v nvidia-smi >/dev/null; then
    # Where that index cannot be reached the next line gets to say what is wrong, if anything still is.
    "$pip" install --quiet --retries 1 --timeout 15 --index-url https://download.pytorch.org/whl/cpu "$wanted" \
      2>/dev/null && return
  fi
  "$pip" install --quiet "$wanted"
}

install_opencv_without_windows() {
  # opencv-python needs libGL and others of a desktop; on a machine without them its headless twin does.
  local version
  version="$(grep '^opencv-python==' "$root/requirements.txt" | cut -d= -f3)"
  "$pip" uninstall --quiet --yes opencv-python
  "$pip" install --quiet "opencv-python-headless==$version"
}

[ -x "$root/.venv/bin/pip" ] || make_environment
pip="$root/.venv/bin/pip"
echo "installing what the project needs into $root/.venv …"
install_torch
for requirements in "$root/requirements.txt" "$@"; do
  "$pip" install --quiet --requirement "$requirements"
done
"$root/.venv/bin/python" -c 'import cv2' 2>/dev/null || install_opencv_without_windows
