# For the other scripts to source: $root, the project's folder, and $python, that of its environment if it has one.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3
