#!/usr/bin/env bash
# Make the environment and pass the tests.  Usage: test.sh [OPTIONS of pytest]
set -euo pipefail
scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
"$scripts/environment.sh" "$scripts/../tests/requirements.txt"
cd "$scripts/.."
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy
exec .venv/bin/python -m pytest -n logical --dist worksteal "$@"
