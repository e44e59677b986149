#!/usr/bin/env python
"""Measure dreamed frames against their sources: flicker, strength, drift, seams. One table, one picture.

Flicker is the warping error of Lai et al. (ECCV 2018): the squared difference between a frame and an earlier one
warped to it, RGB in 0..1, over the pixels that both frames show, less that of the source frames themselves. Flow and
mask come from the source frames by --judge, never from a render: TV-L1 (Zach, Pock and Bischof 2007) is used nowhere
in dreamer.py; Farneback (2003) is kin to -flow 1's own, and much faster. Only which frames belong to one scene is
decided as dreamer.py decides it, alike for all renders.

Seams are how much more the dream jumps across the tiles' borders than beside them, relative to the undivided dream: 1
is no seam. A few frames leave a few hundredths of noise; an undivided dream with another --seed shows how much.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import exit_status
from judge import JUDGES, match_frames, measure_render
from tables import table

from deepdream.errors import DreamError, UsageError
from deepdream.files.atomic import make_directory
from deepdream.files.frames import check_sizes, open_frames, read_frame
from deepdream.geometry import divide
from deepdream.options import DivideMode, DivideOptions
from deepdream.show.measures import read_at

COLUMNS = {
    "render": "{render}", "warping error": "{warping error:.6f}", "ratio": "{ratio:.3f}", "strength": "{strength:.2f}",
    "objective": "{objective}", "drift": "{drift:.3f}", "luminance": "{luminance:.1f}",
    "seams": "{seams}", "worst seam": "{worst seam}",
}  # fmt: skip


def objective_values(paths, network, layers):
    """The mean over each frame of the L2 objective at its layer: half the squared activation."""
    from deepdream.picture.ascent import to_network

    for number, path in enumerate(paths):
        activations = network.activations(to_network(read_frame(path), network), layers[number % len(layers)])
        yield float(activations.square().mean()) / 2


def measure_objective(directory, options):
    """The objective by frame, at the layers that the render's own settings name; None where they are not there."""
    from deepdream.networks import load_network

    try:
        layers = json.loads((Path(directory) / "render.json").read_text(encoding="utf-8"))["--layers"]
    except (OSError, ValueError, KeyError):
        return None
    network = load_network(options.model_path, options.model_name, on_message=lambda line: None)
    if not set(layers) <= set(network.layers):  # channels, or sums of layers
        return None
    return np.array(list(objective_values(open_frames(directory).paths, network, layers)))


def summarise(measured):
    """A row (dict) for each render; the warping error relative to the first one's, what is unknown None."""
    for one in measured:
        mean, worst = one.seams or (None, None)
        yield {
            "render": one.name, "warping error": one.warping_error,
            "ratio": one.warping_error / measured[0].warping_error, "strength": float(one.strength.mean()),
            "objective": None if one.objective is None else float(one.objective.mean()), "drift": one.drift,
            "luminance": float(one.luminance.mean()), "seams": mean, "worst seam": worst,
        }  # fmt: skip


def as_text(row):
    """The row with text in place of what may be unknown."""
    texts = {"objective": ".4g", "seams": ".3f", "worst seam": ".3f"}
    return row | {key: "-" if row[key] is None else format(row[key], form) for key, form in texts.items()}


def by_frame(one):
    """The measures of a render by frame, as plain data."""
    return {
        "warping error": {number: _known(value) for number, value in one.warping.items()},
        "strength": one.strength.tolist(), "luminance": one.luminance.tolist(),
        "objective": None if one.objective is None else one.objective.tolist(),
    }  # fmt: skip


def write_json(path, options, rows, measured):
    """Write the rows, each with its measures by frame, and how they were measured."""
    renders = [{key: _known(value) for key, value in row.items()} | {"frames": by_frame(one)}
               for row, one in zip(rows, measured)]  # fmt: skip
    figures = {"source": options.source, "judge": options.judge, "apart": options.apart, "renders": renders}
    try:
        Path(path).write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise DreamError(f"cannot write {path}: {error.strerror}") from error


def _known(value):
    return None if isinstance(value, float) and np.isnan(value) else value


def plot(measured, path):
    """Draw flicker, strength and luminance by frame, and the warping error against the strength, into one PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ((flicker, strength), (bright, both)) = pyplot.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
    for one in measured:
        flicker.plot(list(one.warping), list(one.warping.values()), label=one.name)
        strength.plot(one.strength, label=one.name)
        bright.plot(one.luminance, label=one.name)
        both.plot(one.strength.mean(), one.warping_error, "o", label=one.name)
    labels = ("warping error", "strength (grey levels)", "mean luminance (grey levels)")
    for axes, label in zip((flicker, strength, bright), labels):
        axes.set(xlabel="frame", ylabel=label)
    strongest = max(one.strength.mean() for one in measured)
    both.set(xlabel="strength (grey levels)", ylabel="warping error", xlim=(0, 1.1 * strongest))
    for axes in (flicker, strength, both):
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    flicker.legend()
    try:
        figure.savefig(path, dpi=90)
    except (OSError, ValueError) as error:
        raise DreamError(f"cannot draw {path}: {error}") from error
    pyplot.close(figure)


def parse(arguments):
    """Read the command line."""
    default = DivideOptions()
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE", help="the directory of source frames")
    parser.add_argument("dreams", metavar="DREAMS", nargs="+", help="directories of dreamed frames")
    parser.add_argument(
        "--judge", choices=JUDGES, default="tvl1", help="the flow that frames are compared by (default: %(default)s)"
    )
    parser.add_argument(
        "--apart", type=int, default=1, metavar="K", help="compare frames K frames apart (default: %(default)s)"
    )
    parser.add_argument("--plot", metavar="PNG", help="draw the measures by frame")
    parser.add_argument("--json", metavar="FILE", help="write all figures, those by frame too")
    parser.add_argument(
        "--undivided",
        metavar="DIR",
        help="the dream without -d: tells how visible the tiles' borders are in the others, 1 is not "
        "at all; one with another --seed among them shows the noise",
    )
    for short, name, value in (("-mw", "Width", default.max_width), ("-mh", "Height", default.max_height)):
        parser.add_argument(
            short, f"--max{name}", type=int, default=value, metavar="N",
            help=f"largest {name.lower()} of a tile where seams are looked for (default: %(default)s)",
        )  # fmt: skip
    parser.add_argument("-t", "--model_path", metavar="DIR", help="the Caffe model of the dreams, as for dreamer.py")
    parser.add_argument("-m", "--model_name", metavar="NAME", help="its caffemodel, as for dreamer.py")
    return parser.parse_args(arguments)


def run(options):
    """Measure what the command line names: prints the table, draws the picture."""
    if options.apart < 1:
        raise UsageError(f"--apart {options.apart}: expected at least 1")
    sources = open_frames(options.source).paths
    undivided = open_frames(options.undivided).paths if options.undivided else None
    sizes = {check_sizes(open_frames(directory).paths) for directory in options.dreams}
    if undivided:
        sizes.add(check_sizes(undivided))
        if len(undivided) != len(sources):
            raise UsageError(f"{options.undivided} holds another number of frames than {options.source}")
    if len(sizes) > 1:
        listed = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise UsageError(f"the dreams differ in size ({listed}); compare renders of one size")
    size = sizes.pop()
    for path in (options.plot, options.json):
        if path:
            make_directory(Path(path).parent)
    tiles = divide(size[1], size[0], DivideOptions(DivideMode.TILES, options.maxWidth, options.maxHeight))
    pairs = list(match_frames((read_at(path, size) for path in sources), options.judge, options.apart))
    measured = [
        replace(
            measure_render(directory, sources, pairs, undivided, tiles), objective=measure_objective(directory, options)
        )
        for directory in options.dreams
    ]
    rows = list(summarise(measured))
    print(table([as_text(row) for row in rows], COLUMNS))
    if options.json:
        write_json(options.json, options, rows, measured)
    if options.plot:
        plot(measured, options.plot)


def main(arguments=None):
    """Run the command line and return its exit status."""
    return exit_status("evaluate.py", lambda: run(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
