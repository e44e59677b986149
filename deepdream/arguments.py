"""The command line as words, and as checked options: the parser is built from `deepdream.options`."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from deepdream import __version__
from deepdream.errors import UsageError
from deepdream.options import GROUPS, SETTINGS, Arguments
from deepdream.schedule import has_keyframes
from deepdream.settings import options_from

_DREAM_AWAY = re.compile(r"-\s*[\d.]+\s*\*")

EPILOG = """examples:
  %(prog)s -i clip.mov -o Video.mp4              extract, dream and create in one
  %(prog)s -e 1 -i clip.mov -o Input             1 extract the frames of a video
  %(prog)s -i Input -o Output --flow 1           2 dream over them
  %(prog)s -c 1 -i Output -o Video.mp4           3 create the video

A run that was stopped goes on after its last whole frame when the same command is given again."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are handled like all others: one line, exit status 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help lists the options)")


def build_parser() -> Parser:
    """The parser of all options in `deepdream.options`. What is not given is None among its values."""
    parser = Parser(
        prog="dreamer.py",
        description="DeepDream videos: dream over the frames of a video with a Caffe network.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    for group in GROUPS:
        titled = parser.add_argument_group(group.title)
        for setting in group.settings:
            help = setting.help.replace("%", "%%")
            titled.add_argument(*setting.names, dest=setting.destination, default=None, help=help, **setting.argument)
    return parser


def parse(words: Sequence[str]) -> Arguments:
    """A command line, checked option by option. Raises `UsageError`."""
    values = vars(build_parser().parse_args(_join_names(words)))
    given = tuple(setting.name for setting in SETTINGS if values[setting.destination] is not None)
    parsed = options_from(Arguments, values, given=given)
    return replace(parsed, render=replace(parsed.render, image_type=parsed.run.image_type))


def _join_names(words: Sequence[str]) -> list[str]:
    """``-i -clip.mov`` as ``--input=-clip.mov``: a name that starts with a dash is still a name.

    ``-itr 0:10, 48:16`` as one value, as it is with quotes. ``-l -0.5*conv1`` with a space before the minus, which a
    parser takes for no option then.
    """
    long_names = {name: setting.name for setting in SETTINGS if setting.takes_text for name in setting.names}
    lists = {name for setting in SETTINGS if setting.argument.get("nargs") == "+" for name in setting.names}
    known = {name for setting in SETTINGS for name in setting.names} | {"-h", "--help", "--version"}
    joined: list[str] = []
    for word in words:
        before = joined[-1] if joined else ""
        long_name = long_names.get(before)
        if long_name and word.startswith("-") and word not in known:
            joined[-1] = f"{long_name}={word}"
        elif has_keyframes(before) and before.endswith(",") and word not in known:
            joined[-1] += f" {word}"
        elif _DREAM_AWAY.match(word) or (before in lists and word.startswith("-") and word not in known):
            joined.append(f" {word}")
        else:
            joined.append(word)
    return joined
