#!/usr/bin/env python
"""Write the report page of a directory of dreams, as dreamer.py --report does, and measure all of its frames.

The page is DIRECTORY/report.html: one file that needs nothing else. A render may be under way: the page then shows what
there is so far.
"""

import argparse
import sys
from pathlib import Path

from common import exit_status

from deepdream.show.progress import Screen
from deepdream.show.report import write_report
from deepdream.show.survey import Survey
from deepdream.video.formats import CONTAINERS


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", metavar="DIRECTORY", type=Path, help="the directory of the dreamed frames")
    parser.add_argument("--input", metavar="DIRECTORY", type=Path, help="the source frames, where they have moved")
    parser.add_argument(
        "--video", metavar="VIDEO", type=Path, help="the video made of the frames (default: that of Video.frames)"
    )
    return parser.parse_args(arguments)


def find_video(directory: Path) -> Path | None:
    """The video beside which the frames in ``directory`` lie, where all three steps were one."""
    work = directory.resolve().parent
    found = (work.with_suffix(ending) for ending in CONTAINERS if work.suffix == ".frames")
    return next((path for path in found if path.is_file()), None)


def run(options: argparse.Namespace) -> None:
    """Measure the frames and write the page."""
    survey, screen = Survey(options.directory, options.input), Screen(1)
    with screen.counter("report") as on_progress:
        survey.measure(on_progress=on_progress)
    screen.tell(str(write_report(survey, options.video or find_video(options.directory))))


if __name__ == "__main__":
    sys.exit(exit_status("report.py", lambda: run(parse(None))))
