"""Run the benchmark.  Usage: python scripts/benchmark --help"""

import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
# This package, the project's own modules, and the nets of its tests: none of them is installed.
sys.path[:1] = [str(SCRIPTS), str(SCRIPTS.parent), str(SCRIPTS.parent / "tests")]

from benchmark.command import main  # noqa: E402
from deepdream.memory.malloc import tune  # noqa: E402

if __name__ == "__main__":
    tune()
    sys.exit(main())
