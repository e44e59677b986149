"""What the scripts share: they find the package, and an error of theirs is one line and an exit status."""

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # where the package is not installed, it lies beside this folder


def exit_status(program: str, run: Callable[[], object]) -> int:
    """Run a script's command line; its exit status."""
    from deepdream.errors import DreamError, one_line

    try:
        run()
    except DreamError as error:
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        return error.exit_status
    return 0
