#!/usr/bin/env python
"""Measure dreamed frames against their sources: flicker, strength, drift, seams. One table, one picture.

Flicker is the warping error of Lai et al. (ECCV 2018): the squared difference between a frame and its predecessor
warped to it, RGB in 0..1, over the pixels that both frames show. Flow and mask come from the source frames, by
TV-L1 (Zach, Pock and Bischof 2007), which dreamer.py uses nowhere, so that no render is judged by its own flow.

Seams are how much more the dream jumps across the tiles' borders than beside them, relative to the undivided dream: 1
is no seam. A few frames leave a few hundredths of noise; an undivided dream with another --seed shows how much.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the package is not installed: it lies beside the folder of this script

from deepdream.errors import DreamError, UsageError  # noqa: E402
from deepdream.files.atomic import make_directory  # noqa: E402
from deepdream.files.frames import check_sizes, open_frames, read_frame  # noqa: E402
from deepdream.geometry import divide  # noqa: E402
from deepdream.motion.cuts import is_cut  # noqa: E402
from deepdream.motion.flow import sample  # noqa: E402
from deepdream.options import DivideMode, DivideOptions  # noqa: E402

# Of 15 (skimage's default), 30, 60, 100 and 200 the one that explains real footage best: smoother, a still road
# follows the bus on it; rougher, the flow follows the noise.
ATTACHMENT = 60
# Pixels along a border that are averaged, and lines on either side of it that it is compared with.
REACH = 8


@dataclass(frozen=True)
class Pair:
    """Two successive source frames: the flow (h, w, 2) from the later to the earlier, and where it can be trusted."""

    number: int
    flow: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True)
class Measures:
    """What is measured of one render; those by frame are arrays. ``seams`` is (mean, worst) or None."""

    name: str
    warping: dict
    strength: np.ndarray
    luminance: np.ndarray
    objective: np.ndarray | None
    seams: tuple | None

    @property
    def drift(self):
        """Strength of the last fifth of the frames over that of the second fifth; NaN where there are under five."""
        fifth = len(self.strength) // 5
        return self.strength[-fifth:].mean() / self.strength[fifth : 2 * fifth].mean() if fifth else np.nan


def estimate(current, other):
    """The flow from one source frame (uint8 RGB) to another by TV-L1: float32 (h, w, 2), right and down."""
    from skimage.color import rgb2gray
    from skimage.registration import optical_flow_tvl1

    grey = rgb2gray(current), rgb2gray(other)
    down, right = optical_flow_tvl1(*grey, attachment=ATTACHMENT, prefilter=True, dtype=np.float64)
    return np.stack([right, down], -1).astype(np.float32)


def visible(to_previous, to_current):
    """Where the current frame shows what the previous one shows too, bool (h, w).

    The rules of Ruder et al. (2016): neither occluded (forward and backward flow disagree), nor on a motion
    boundary, nor from beyond the edge.
    """
    height, width = to_previous.shape[:2]
    back = sample(to_current, to_previous)
    length = (to_previous**2).sum(-1)
    occluded = ((to_previous + back) ** 2).sum(-1) > 0.01 * (length + (back**2).sum(-1)) + 0.5
    slope = sum((np.gradient(to_previous[..., part], axis=axis)) ** 2 for part in (0, 1) for axis in (0, 1))
    boundary = slope > 0.01 * length + 0.002
    rows, columns = np.indices((height, width))
    x, y = columns + to_previous[..., 0], rows + to_previous[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return ~occluded & ~boundary & inside


def match(sources):
    """A `Pair` for each two successive source frames (uint8 RGB, any iterable) with no scene cut between."""
    for number, (previous, current) in enumerate(pairwise(sources), 1):
        if not is_cut(previous, current):
            back = estimate(current, previous)
            yield Pair(number, back, visible(back, estimate(previous, current)))


def warping_error(previous, current, pair):
    """The mean squared difference, summed over RGB in 0..1, of a frame and its predecessor warped to it."""
    difference = (np.float32(current) - sample(previous, pair.flow)) / 255
    return float((difference**2).sum(-1)[pair.visible].mean())


def border_jumps(picture, source, tiles):
    """How far the hallucination jumps across each border of ``tiles``, and beside it: (borders, 2) in grey levels.

    The hallucination is ``picture`` - ``source``, both RGB (h, w, 3) in 0..255, so that edges of the source do not
    count. It is averaged over runs of `REACH` pixels along the border: what makes a border visible is that the jumps
    along it agree, while those of a texture cancel. Across: the mean absolute difference of the runs on its two
    sides. Beside: the same of the `REACH` lines on either side, since a divided dream is weaker along its borders.
    Raises `UsageError` where there is no border.
    """
    hallucination = np.float32(picture) - source
    jumps = []
    for axis, edges in ((0, {tile.top for tile in tiles}), (1, {tile.left for tile in tiles})):
        lines = np.moveaxis(hallucination, axis, 0)
        for edge in sorted(edges - {0}):
            start = max(edge - 1 - REACH, 0)
            around = lines[start : edge + 1 + REACH]
            runs = np.lib.stride_tricks.sliding_window_view(around, min(REACH, around.shape[1]), axis=1).mean(-1)
            steps = np.abs(np.diff(runs, axis=0)).mean((1, 2))
            across = edge - 1 - start
            jumps.append((steps[across], np.delete(steps, across).mean()))
    if not jumps:
        raise UsageError("frames of this size have no tile border; give --maxWidth and --maxHeight of the render")
    return np.array(jumps)


def seam_visibility(jumps, undivided):
    """How visible the tiles' borders are: (mean, worst) over the borders; 1 is not at all, 1.3 is 30 % more jump.

    ``jumps`` and ``undivided``: the `border_jumps` of a render and of the undivided one, each averaged over the
    frames, since a seam stays where it is. Of each border the jump across it over that beside it, relative to the same
    ratio of the undivided dream. Raises `UsageError` where nothing was dreamed beside a border.
    """
    if not (jumps[:, 1].all() and undivided.all()):
        raise UsageError("beside a tile border nothing is dreamed, so there is no seam to measure")
    visibility = (jumps[:, 0] / jumps[:, 1]) / (undivided[:, 0] / undivided[:, 1])
    return float(visibility.mean()), float(visibility.max())


def luminance(picture):
    """The mean luminance of a picture in grey levels (Rec. 709 weights on its values)."""
    return float((np.float32(picture).mean((0, 1)) * (0.2126, 0.7152, 0.0722)).sum())


def objective_values(paths, network, layers):
    """The mean over each frame of the L2 objective at its layer: half the squared activation."""
    from deepdream.picture.ascent import to_network

    for number, path in enumerate(paths):
        activations = network.activations(to_network(read_frame(path), network), layers[number % len(layers)])
        yield float(activations.square().mean()) / 2


def read_at(path, size):
    """A source frame, uint8 RGB, at the (w, h) of the dreams."""
    frame = read_frame(path)
    if frame.shape[1::-1] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def measure(directory, sources, pairs, options):
    """The `Measures` of a directory of dreams; ``pairs``: what `match` made of the ``sources``, paths."""
    paths = open_frames(directory).paths
    if len(paths) != len(sources):
        raise UsageError(f"{directory} holds {len(paths)} frames, and the source {len(sources)}; compare whole renders")
    size = check_sizes(paths)
    strength, bright, warping, jumps = [], [], {}, []
    by_number = {pair.number: pair for pair in pairs}
    undivided = open_frames(options.undivided).paths if options.undivided else None
    tiles = divide(size[1], size[0], DivideOptions(DivideMode.TILES, options.maxWidth, options.maxHeight))
    previous = None
    for number, path in enumerate(paths):
        source, dream = read_at(sources[number], size), read_frame(path)
        strength.append(np.abs(np.float32(dream) - source).mean())
        bright.append(luminance(dream))
        if number in by_number:
            error = warping_error(previous[1], dream, by_number[number])
            warping[number] = error - warping_error(previous[0], source, by_number[number])
        if undivided:
            jumps.append([border_jumps(picture, source, tiles) for picture in (dream, read_frame(undivided[number]))])
        previous = source, dream
    return Measures(
        Path(directory).name, warping, np.array(strength), np.array(bright),
        measure_objective(directory, paths, options), seam_visibility(*np.mean(jumps, 0)) if undivided else None,
    )  # fmt: skip


def measure_objective(directory, paths, options):
    """The objective by frame, at the layers that the render's own settings name; None where they are not there."""
    from deepdream.networks import load_network

    try:
        layers = json.loads((Path(directory) / "render.json").read_text(encoding="utf-8"))["--layers"]
    except (OSError, ValueError, KeyError):
        return None
    network = load_network(options.model_path, options.model_name, on_message=lambda line: None)
    return np.array(list(objective_values(paths, network, layers)))


def table(measured):
    """The measures as lines of text; the warping error relative to the first render's."""
    rows = [("render", "warping error", "ratio", "strength", "objective", "drift", "luminance", "seams", "worst seam")]
    first = _mean(measured[0].warping)
    for one in measured:
        error = _mean(one.warping)
        objective = "-" if one.objective is None else f"{one.objective.mean():.4g}"
        seams = [f"{value:.3f}" for value in one.seams] if one.seams else ["-", "-"]
        rows.append(
            (one.name, f"{error:.6f}", f"{error / first:.3f}", f"{one.strength.mean():.2f}", objective,
             f"{one.drift:.3f}", f"{one.luminance.mean():.1f}", *seams)
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _mean(by_frame):
    return float(np.mean(list(by_frame.values()))) if by_frame else np.nan


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
        both.plot(one.strength.mean(), _mean(one.warping), "o", label=one.name)
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
    parser = argparse.ArgumentParser(prog="evaluate.py", description=__doc__.partition("\n")[0])
    parser.add_argument("source", metavar="SOURCE", help="the directory of source frames")
    parser.add_argument("dreams", metavar="DREAMS", nargs="+", help="directories of dreamed frames")
    parser.add_argument("--plot", metavar="PNG", help="draw the measures by frame")
    parser.add_argument(
        "--undivided",
        metavar="DIR",
        help="the dream without -d: tells how visible the tiles' borders are in the others, 1 is not "
        "at all; one with another --seed among them shows the noise",
    )
    parser.add_argument(
        "-mw",
        "--maxWidth",
        type=int,
        default=default.max_width,
        metavar="N",
        help="largest width of a tile where seams are looked for (default: %(default)s)",
    )
    parser.add_argument(
        "-mh",
        "--maxHeight",
        type=int,
        default=default.max_height,
        metavar="N",
        help="largest height of such a tile (default: %(default)s)",
    )
    parser.add_argument("-t", "--model_path", metavar="DIR", help="the Caffe model of the dreams, as for dreamer.py")
    parser.add_argument("-m", "--model_name", metavar="NAME", help="its caffemodel, as for dreamer.py")
    return parser.parse_args(arguments)


def run(options):
    """Measure what the command line names: prints the table, draws the picture."""
    sources = open_frames(options.source).paths
    sizes = {check_sizes(open_frames(directory).paths) for directory in options.dreams}
    if options.undivided:
        sizes.add(check_sizes(open_frames(options.undivided).paths))
        if len(open_frames(options.undivided).paths) != len(sources):
            raise UsageError(f"{options.undivided} holds another number of frames than {options.source}")
    if len(sizes) > 1:
        listed = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise UsageError(f"the dreams differ in size ({listed}); compare renders of one size")
    size = sizes.pop()
    if options.plot:
        make_directory(Path(options.plot).parent)
    pairs = list(match(read_at(path, size) for path in sources))
    measured = [measure(directory, sources, pairs, options) for directory in options.dreams]
    print(table(measured))
    if options.plot:
        plot(measured, options.plot)


def main(arguments=None):
    """Run the command line and return its exit status."""
    try:
        run(parse(arguments))
    except DreamError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
