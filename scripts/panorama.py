#!/usr/bin/env python
"""Measure dreamed panoramas as they are seen: in six views of 90 degrees, four at the horizon and those of the poles.

`make` renders frames of a panorama to dream: six of scikit-image's photographs on the faces of a cube, which turns by a
degree a frame about an axis that is 15 degrees off. `measure` prints of each render, at the horizon and at the poles,

- the objective: the mean square of a layer's activations,
- the spokes: the power of what was added across the rays from the view's middle over that along them,
- the flicker (with several frames): the warping error of evaluate.py over the square of the strength, times a million,

and how much more the dream jumps across the border where the frame closes than beside it, and across other columns.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from common import exit_status
from judge import border_jumps, match_frames
from tables import table

from deepdream.files.atomic import make_directory
from deepdream.files.frames import open_frames, read_frame, write_frame
from deepdream.geometry import VIEW_REACH, Tile, view_side
from deepdream.show.measures import warping_error

PHOTOGRAPHS = ("chelsea.png", "rocket.jpg", "coffee.png", "astronaut.png", "grass.png", "hubble_deep_field.jpg")
AXIS_TILT, TURN = np.radians(15), np.radians(1)  # of the axis, and about it a frame
HORIZON, POLES = slice(0, 4), slice(4, 6)
COLUMN_STEP = 16  # pixels between the columns with which the closing border is compared
COLUMNS = {
    "render": "{render}", "objective": "{objective[0]:.1f} / {objective[1]:.1f}",
    "spokes": "{spokes[0]:.2f} / {spokes[1]:.2f}", "strength": "{strength[0]:.1f} / {strength[1]:.1f}",
    "flicker": "{flicker[0]:.2f} / {flicker[1]:.2f}", "border": "{border:.2f}", "columns": "{columns}",
}  # fmt: skip


def make(width, directory, count, photographs=PHOTOGRAPHS):
    """Write ``count`` frames of the turning cube, ``width`` pixels wide; ``photographs``: of its faces."""
    import skimage
    import torch
    from PIL import Image

    from deepdream.picture.sphere import Sphere

    side, folder, views = view_side(width), Path(skimage.__file__).parent / "data", []
    for name in photographs:
        with Image.open(folder / name) as opened:
            picture, least = opened.convert("RGB"), min(opened.size)
        left, top = (picture.width - least) // 2, (picture.height - least) // 2
        picture = picture.crop((left, top, left + least, top + least))
        inner = round(side / VIEW_REACH)  # of a face, without what a view shows beyond it
        face = np.asarray(picture.resize((inner, inner), Image.Resampling.LANCZOS), np.float32)
        before = (side - inner + 1) // 2
        face = np.pad(face, ((before, side - inner - before), (before, side - inner - before), (0, 0)), "edge")
        views.append(torch.from_numpy(face).permute(2, 0, 1))
    tilt = rotation(AXIS_TILT, 1, 2)
    for number in range(count):
        turn = tilt.T @ rotation(number * TURN, 0, 2) @ tilt
        frame = Sphere((width // 2, width), torch.device("cpu")).fetch(torch.stack(views), turn)
        picture = frame.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        write_frame(make_directory(directory) / f"frame_{number:06d}.png", picture, "png")


def rotation(angle, first, second):
    """The matrix that turns axis ``first`` towards ``second``."""
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[second, first], matrix[first, second] = np.sin(angle), -np.sin(angle)
    return matrix


def see(frame):
    """The middle 90 degrees of the six views of a panorama: (6, n, n, 3), float32."""
    import torch

    from deepdream.picture.sphere import Sphere

    views = Sphere(frame.shape[:2], torch.device("cpu")).views(
        torch.from_numpy(np.float32(frame)).permute(2, 0, 1), np.eye(3)
    )
    beyond = round(views.shape[-1] * (1 - 1 / VIEW_REACH) / 2)
    inside = slice(beyond, views.shape[-1] - beyond)
    return views[:, :, inside, inside].permute(0, 2, 3, 1).numpy()


def spokes(added):
    """Of what was added to a view (n, n, 3): the power of its slope round the middle over that away from it."""
    side = len(added)
    down, right = np.gradient(added.mean(-1))
    rows, columns = np.indices((side, side)) - (side - 1) / 2
    distance = np.hypot(rows, columns)
    around, away = columns * down - rows * right, columns * right + rows * down
    inside = (distance > side / 25) & (distance < side / 2)
    powers = [((slope[inside] / distance[inside]) ** 2).sum() for slope in (around, away)]
    return float(powers[0] / powers[1])


def border(dream, source):
    """(jump across the closing border over that beside it, the same of other columns)."""
    height, width = source.shape[:2]
    halves = Tile(0, height, 0, width // 2), Tile(0, height, width // 2, width)

    def at(column):
        across, beside = border_jumps(*(np.roll(one, width // 2 - column, 1) for one in (dream, source)), halves)[0]
        return across / beside

    return at(0), [at(column) for column in range(COLUMN_STEP, width, COLUMN_STEP)]


def objective(views, network, layer):
    """The mean square of the activations of each view."""
    from deepdream.picture.ascent import to_network

    return [float(network.activations(to_network(view, network), layer).square().mean()) for view in views]


def measure(name, sources, dreams, pairs, network, layer):
    """A row of the table. ``sources`` and ``dreams``: frames; ``pairs``: of the source's frames, by view."""
    before, after = np.stack([see(frame) for frame in sources]), np.stack([see(frame) for frame in dreams])
    strength = np.abs(after - before).mean((0, 2, 3, 4))
    errors = [
        [
            warping_error(after[pair.other, view], after[pair.number, view], pair)
            - warping_error(before[pair.other, view], before[pair.number, view], pair)
            for pair in pairs[view]
        ]
        for view in range(6)
    ]
    flicker = np.array([np.mean(each) if each else np.nan for each in errors]) / strength**2 * 1e6
    closing, others = zip(*(border(dream, source) for dream, source in zip(dreams, sources)))
    others = np.mean(others, 0)
    values = {
        "objective": np.mean([objective(views, network, layer) for views in after], 0),
        "spokes": np.mean([[spokes(view) for view in views] for views in after - before], 0),
        "strength": strength,
        "flicker": flicker,
    }
    halves = {key: (value[HORIZON].mean(), value[POLES].mean()) for key, value in values.items()}
    columns = f"{others.mean():.2f} +- {others.std():.2f}"
    return {"render": Path(name).name, "border": np.mean(closing), "columns": columns, **halves}


def parse(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    making = modes.add_parser("make")
    making.add_argument("width", type=int)
    making.add_argument("directory")
    making.add_argument("--frames", type=int, default=1)
    making.add_argument(
        "--photographs", nargs=6, default=PHOTOGRAPHS, metavar="FILE",
        help="of scikit-image, ahead, to the right, behind, to the left, underfoot and overhead",
    )  # fmt: skip
    measuring = modes.add_parser("measure")
    measuring.add_argument("source")
    measuring.add_argument("dreams", nargs="+")
    measuring.add_argument("--layer", default="block_9/output")
    measuring.add_argument("--model_path")
    return parser.parse_args(arguments)


def run(options):
    """Make or measure what the command line names."""
    if options.mode == "make":
        make(options.width, options.directory, options.frames, options.photographs)
        return
    from deepdream.networks import load_network

    network = load_network(options.model_path, gpu=False, on_message=lambda line: None)
    frames = {name: [read_frame(path) for path in open_frames(name).paths] for name in options.dreams}
    sources = [read_frame(path) for path in open_frames(options.source).paths]
    seen = np.uint8(np.rint([see(frame) for frame in sources]))
    pairs = [list(match_frames(seen[:, view], "tvl1")) for view in range(6)]
    with np.errstate(invalid="ignore"):  # of the source itself, to which nothing was added
        rows = [measure(name, sources, dreams, pairs, network, options.layer) for name, dreams in frames.items()]
    print(table(rows, COLUMNS))


def main(arguments=None):
    """Run the command line and return its exit status."""
    return exit_status("panorama.py", lambda: run(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
