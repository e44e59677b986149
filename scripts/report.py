#!/usr/bin/env python
"""Write the report page of a directory of dreams, as dreamer.py --report does, and measure all of its frames.

The page is DIRECTORY/report.html: one file that needs nothing else. A render may be under way: the page then shows what
there is so far.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # where the package is not installed, it lies beside the folder of this script

from deepdream.errors import DreamError, one_line  # noqa: E402
from deepdream.show.progress import Screen  # noqa: E402
from deepdream.show.report import find_video, write_report  # noqa: E402
from deepdream.show.survey import Survey  # noqa: E402


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", metavar="DIRECTORY", type=Path, help="the directory of the dreamed frames")
    parser.add_argument(
        "--input",
        metavar="DIRECTORY",
        type=Path,
        help="the source frames, where they have moved",
    )
    parser.add_argument(
        "--video",
        metavar="VIDEO",
        type=Path,
        help="the video made of the frames (default: that of Video.frames)",
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Measure the frames and write the page."""
    survey, screen = Survey(options.directory, options.input), Screen(1)
    with screen.counter("report") as on_progress:
        survey.measure(on_progress=on_progress)
    screen.tell(str(write_report(survey, options.video or find_video(options.directory))))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        run(parse(arguments))
    except DreamError as error:
        print(f"report.py: {one_line(error)}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
