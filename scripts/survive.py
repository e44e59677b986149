#!/usr/bin/env python
"""Kill renders at random moments, start them again, and compare what they end with to the byte: a nightly test."""

import argparse
import os
import tempfile

import common  # noqa: F401 - the way to the package

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch loads: forks have no threads


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="survive.py", description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="of each command (default: %(default)s)")
    options = parser.parse_args()
    from survival import survive_all

    with tempfile.TemporaryDirectory() as folder:
        survive_all(folder, options.kills, tell=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
