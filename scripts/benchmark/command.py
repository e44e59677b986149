"""The command line: what is measured by default, the tables and the plot."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from tables import table

import benchmark
from benchmark import clips, frames, steps, workers
from benchmark.frames import SEED_ITERATIONS, FrameCase, ShareCase, Size
from benchmark.workers import Simulation
from deepdream.errors import DreamError, UsageError
from deepdream.geometry import divide
from deepdream.options import DivideMode, DivideOptions

NETWORKS = ("googlenet", "vgg16", "default")
NO_FRAMES = ("vgg16",)  # it has no layer that stands for the old settings' own
SMALL, HD, FULL_HD, UHD = (270, 480), (720, 1280), (1080, 1920), (2160, 3840)
TILES = 1024  # -mw and -mh where tiles are measured
ROUNDS = 5
SIMULATED_FRAMES = {(1, 20): 2.0, (8, 240): 2.0, (64, 2_000): 2.0, (256, 3_600): 8.0}  # workers, frames: seconds each
SIMULATED_SHOTS = (1, 100), (8, 800), (64, 800), (256, 800)
FEW_ITERATIONS = 2  # at 4K, where sixteen take minutes a frame


def name_of(size: Size) -> str:
    """A (h, w) as people write it."""
    return f"{size[1]}x{size[0]}"


@dataclass(frozen=True)
class Plan:
    """What is measured: ``steps`` by network (layers, sizes by name), the frames and the shares of each network.

    ``looks``: the sizes at which steps of each look are measured, by name.
    """

    steps: dict[str, tuple[Sequence[str], dict[str, Size]]]
    frames: Sequence[FrameCase]
    shares: Sequence[ShareCase]
    looks: dict[str, Size]
    simulations: Sequence[Simulation]
    real_frames: int = 150
    clip_frames: int = 8
    rounds: int = ROUNDS
    start: Size = SMALL


def make_plan(full: bool) -> Plan:
    """What is measured by default, or all of it in ``full``: 4K with all iterations and octaves, VGG at 720p."""
    tiles = divide(*UHD, DivideOptions(DivideMode.TILES, TILES, TILES))
    sizes = {name_of(SMALL): SMALL, name_of(HD): HD}
    places = {**sizes, f"{name_of(tiles[0].size)} tile of 4K": tiles[0].size}
    iterations = SEED_ITERATIONS if full else FEW_ITERATIONS
    cases = [FrameCase(SMALL, count=4), FrameCase(HD), FrameCase(UHD, iterations)]
    if not full:
        cases.append(FrameCase(SMALL, iterations, count=6))  # what the few iterations are to be compared with
    for mode in (1, 3):
        cases.append(FrameCase(UHD, iterations, f"-d {mode} -mw {TILES} -mh {TILES}"))
    seed = (*frames.SEED, *frames.SEED_DIVISION.split(), "-itr", str(SEED_ITERATIONS))
    shares = [ShareCase(size, "old", seed) for size in (SMALL, HD)]
    shares += [ShareCase(size, "-flow 2", ("-flow", "2")) for size in (SMALL, HD)]
    # At 4K the largest octave takes nearly all the time.
    shares.append(ShareCase(UHD, "old", seed) if full else ShareCase(UHD, "old, 1 octave", (*seed, "-oct", "1")))
    layers = {
        "googlenet": (("inception_3b/output", "inception_4c/output", "inception_5b/output"), places),
        "vgg16": (("conv4_2",), sizes if full else {name_of(SMALL): SMALL}),
        "default": (("block_9/output",), places),
    }
    if full:
        many = [Simulation(workers, 20_000, shots, 5.0, HD) for shots in (True, False) for workers in (1, 8, 64, 256)]
    else:  # as many frames a second, in minutes
        many = [Simulation(*case, False, seconds, FULL_HD) for case, seconds in SIMULATED_FRAMES.items()]
        many += [Simulation(*case, True, 0.3, SMALL) for case in SIMULATED_SHOTS]
    return Plan(layers, cases, shares, {**sizes, name_of(FULL_HD): FULL_HD}, many)


def make_quick_plan() -> Plan:
    """The same on tiny pictures: whether it all works, not how fast."""
    size, larger = (64, 96), (96, 128)
    layers = {"googlenet": "inception_4c/output", "vgg16": "conv4_2", "default": "block_9/output"}
    tiles = "-d 3 -mw 64 -mh 64"
    return Plan(
        {name: ((layer,), {name_of(larger): larger}) for name, layer in layers.items()},
        [FrameCase(size, 2), FrameCase(larger, 2, tiles)],
        [ShareCase(size, "-flow 2, tiles", (*"-flow 2 -oct 2 -itr 2".split(), *tiles.split()))],
        {name_of(larger): larger},
        [Simulation(4, 20, True, 0.1, size)],
        real_frames=4,
        clip_frames=1,
        rounds=1,
        start=size,
    )


class Run:
    """One run of the benchmark: a method for each of `BLOCKS` gives its rows.

    ``tell`` gets a line before each thing that is measured.
    """

    def __init__(self, given: argparse.Namespace, tell: Callable[[str], None]):
        self._given, self._tell = given, tell
        self._plan = make_quick_plan() if given.quick else make_plan(given.full)
        self._rounds = given.rounds or self._plan.rounds
        self.machine = steps.measure_machine(self._rounds)

    def steps(self) -> list[dict]:
        rows = []
        for name in self._given.networks:
            layers, places = self._plan.steps[name]
            peer, peak_flops = self._given.peer_python, self.machine["sgemm"]
            rows += steps.measure_steps(name, layers, places, self._rounds, peak_flops, peer, self._tell)
        return rows

    def looks(self) -> list[dict]:
        self._tell("looks")
        return list(steps.measure_looks("block_9/output", self._plan.looks, self._rounds))

    def frames(self) -> list[dict]:
        rows = list(self._rows(frames.measure_frames, self._plan.frames))
        frames.relate_to_smallest(rows)
        return rows

    def share(self) -> list[dict]:
        return list(self._rows(frames.measure_share, self._plan.shares))

    def start(self) -> list[dict]:
        self._tell("the start")
        with tempfile.TemporaryDirectory() as folder:
            return [frames.measure_start(self._plan.start, Path(folder), self._rounds)]

    def clips(self) -> list[dict]:
        self._tell("whole clips")
        with tempfile.TemporaryDirectory() as folder:
            return list(clips.measure_clips(self._plan.clip_frames, self._given.peer_python, Path(folder)))

    def workers(self) -> list[dict]:
        """The rows of the real renders; see `benchmark.workers`."""
        self._tell("real workers")
        with tempfile.TemporaryDirectory() as folder:
            return list(workers.measure_real(Path(folder), self._plan.real_frames))

    def many(self) -> list[dict]:
        """Each row of the simulated workers."""
        rows = []
        for case in self._plan.simulations:
            self._tell(f"{case}")
            rows.append(workers.measure_simulation(case))
        return rows

    def _rows(self, measure: Callable[..., dict], cases: Sequence[FrameCase | ShareCase]) -> Iterator[dict]:
        """A row for each network and case, each measured in an empty folder."""
        for name in self._given.networks:
            if name in NO_FRAMES:
                continue
            with tempfile.TemporaryDirectory() as folder:
                model = steps.make_model(name, folder)
                for number, case in enumerate(cases):
                    self._tell(f"{name}: {case}")
                    row = measure(model, case, Path(folder, f"frames {number}"))
                    yield {"network": name, "size": name_of(case.size), **row}


@dataclass(frozen=True)
class Block:
    """A part of the benchmark: the title of its table, the columns (see `tables.table`), and how many are text."""

    title: str
    columns: dict[str, str]
    texts: int


BLOCKS = {
    "steps": Block(
        "Steps: forward, objective, gradient",
        {
            "network": "{network}", "layer": "{layer}", "size": "{size}", "engine": "{engine}",
            "ms a step": "{milliseconds:.1f}", "times dreamer.py's": "{ratio:.2f}", "of sgemm": "{of sgemm:.0%}",
            "runs": "{runs}",
        },
        4,
    ),
    "looks": Block(
        "Whole steps of the default network, smoothed ones against plain ones",
        {
            "layer": "{layer}", "size": "{size}", "ms a plain step": "{milliseconds:.1f}",
            "--smooth 1": "{smoothed:.3f}", "and --colors natural": "{natural:.3f}",
        },
        2,
    ),
    "frames": Block(
        f"Frames: dreamer.py {' '.join(frames.SEED)}",
        {
            "network": "{network}", "size": "{size}", "division": "{division}", "iterations": "{iterations}",
            "s a frame": "{seconds:.2f}", "peak MB": "{megabytes}", "time per pixel": "{per pixel:.2f}",
            "relative to": "{of}",
        },
        3,
    ),
    "share": Block(
        "Share of a frame's time outside the network; old settings as above",
        {
            "network": "{network}", "size": "{size}", "settings": "{settings}", "s a frame": "{seconds:.2f}",
            "no gradient at work": "{outside:.1%}", "and gradients slowed": "{overhead:.1%}",
        },
        3,
    ),
    "workers": Block(
        f"Workers of this machine: bikes, {' '.join(workers.REAL)}",
        {
            "workers": "{workers}", "frames": "{frames}", "s": "{seconds:.1f}", "frames a minute": "{a minute:.0f}",
            "s of the whole command": "{whole:.1f}", "its frames a minute": "{whole a minute:.0f}",
        },
        1,
    ),
    "many": Block(
        "Simulated workers, which sleep in place of dreaming; milliseconds of processor time a frame",
        {
            "what": "{what}", "workers": "{workers}", "frames": "{frames}", "s": "{seconds:.0f}",
            "of the bound": "{bound:.1%}", "longest chain of it": "{longest:.0%}", "client": "{client:.1f}",
            "its files": "{files:.1f}", "scheduler": "{scheduler:.1f}", "all workers": "{all workers:.1f}",
            "client's memory MB": "{grown:.0f}", "in the second half": "{late:.1f}", "sent MB a frame": "{sent:.1f}",
        },
        1,
    ),
    "clips": Block(
        f"Clips of {name_of(clips.SIZE)}: GoogLeNet, {clips.LAYER}, {clips.OCTAVES} octaves, {clips.ITERATIONS} steps",
        {"dreamer": "{dreamer}", "frames": "{frames}", "s": "{seconds:.1f}", "frames a minute": "{a minute:.1f}"},
        1,
    ),
    "start": Block(
        "Seconds until it starts", {"--help": "{help:.2f}", "from the command to the first step": "{first step:.2f}"}, 0
    ),
}  # fmt: skip


def show(block: str, rows: Sequence[dict]) -> str:
    """The table of a block's rows, under its title."""
    shown = [
        row
        | ({"milliseconds": row["seconds"] * 1e3} if "seconds" in row else {})
        | ({"megabytes": f"{row['memory'] / 2**20:.0f}" if row["memory"] else "-"} if "memory" in row else {})
        for row in rows
    ]
    return f"{BLOCKS[block].title}\n{table(shown, BLOCKS[block].columns, BLOCKS[block].texts)}"


def machine_line(machine: dict) -> str:
    """What was measured on, in a line."""
    return (
        f"{machine['cpu']}, {machine['threads']} threads, PyTorch {machine['torch']}; "
        f"sgemm {machine['sgemm'] / 1e9:.0f} GFLOP/s, a large 3x3 convolution {machine['convolution'] / 1e9:.0f}"
    )


def plot(rows: Sequence[dict], path: str) -> None:
    """Draw the frames' time and peak memory against their pixels into a PNG."""
    pyplot = _pyplot()
    figure, (time_axes, memory_axes) = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    networks, divisions = (list(dict.fromkeys(row[key] for row in rows)) for key in ("network", "division"))
    for network, division in dict.fromkeys((row["network"], row["division"]) for row in rows):
        alike = [row for row in rows if row["network"] == network and row["division"] == division]
        by_pixels = {row["pixels"]: row for row in reversed(alike)}  # the first where a size is there twice
        line = [by_pixels[pixels] for pixels in sorted(by_pixels)]
        million = [row["pixels"] / 1e6 for row in line]
        colour, marker = f"C{networks.index(network)}", "ov^s"[divisions.index(division)]
        style = dict(color=colour, marker=marker, label=f"{network}, {division}")
        time_axes.plot(million, [row["seconds"] / row["iterations"] for row in line], **style)
        memory_axes.plot(million, [(row["memory"] or float("nan")) / 2**30 for row in line], **style)
    time_axes.set(title="time", ylabel="seconds a frame and iteration", yscale="log")
    memory_axes.set(title="peak memory", ylabel="GB")
    memory_axes.set_yscale("log", base=2)
    for axes in (time_axes, memory_axes):
        axes.set(xscale="log", xlabel="million pixels a frame")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.grid(which="both", alpha=0.3)
    memory_axes.legend(fontsize="small")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def plot_workers(rows: Sequence[dict], path: str) -> None:
    """Draw how near simulated workers come to their bound, against their number."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
    for in_shots, name in ((False, "frames that inherit nothing"), (True, "frames in shots")):
        alike = sorted((row for row in rows if row["in_shots"] == in_shots), key=itemgetter("workers"))
        shares = [100 * row["bound"] for row in alike]
        label = f"{name}, {alike[0]['seconds a frame']:g} s each"
        axes.plot([row["workers"] for row in alike], shares, marker="o", label=label)
    axes.set(xscale="log", xlabel="workers", ylabel="% of the bound", ylim=(0, 105))
    axes.set_xticks(sorted({row["workers"] for row in rows}))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _pyplot():
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise UsageError(f"--plot: {error}; pip install -r scripts/requirements.txt") from error
    return pyplot


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; what would fail only after minutes fails here, with `UsageError`."""
    parser = argparse.ArgumentParser(
        prog="benchmark", description=benchmark.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=BLOCKS, default=tuple(BLOCKS), metavar="BLOCK",
        help=f"measure these alone: {', '.join(BLOCKS)}",
    )  # fmt: skip
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME",
        help=f"all but the start for these alone: {', '.join(NETWORKS)}",
    )  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="tiny pictures: whether it works, not how fast it is")
    length.add_argument(
        "--full", action="store_true",
        help=f"4K with all {SEED_ITERATIONS} iterations (else {FEW_ITERATIONS}), and VGG at 720p too; "
        "takes hours, the default about a quarter of one",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, metavar="N", help=f"turns of each engine (default: {ROUNDS})")
    parser.add_argument("--peer-python", metavar="PYTHON", help="a Python whose environment has neural-dream (above)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to a file as well")
    parser.add_argument("--plot", metavar="PNG", help="draw time and memory of the frames against their pixels")
    parser.add_argument("--plot-workers", metavar="PNG", help="draw how near the many workers come to the bound")
    given = parser.parse_args(arguments)
    drawings = (("--plot", given.plot, "frames"), ("--plot-workers", given.plot_workers, "many"))
    for option, path, block in (("--json", given.json, None), *drawings):
        if path and not Path(path).absolute().parent.is_dir():
            raise UsageError(f"{option} {path}: there is no directory {Path(path).parent}")
        if path and block and block not in given.only:
            raise UsageError(f"{option} draws {block}; measure them too (--only {block})")
        if path and block:
            _pyplot()
    if given.rounds is not None and given.rounds < 1:
        raise UsageError(f"--rounds {given.rounds}: expected at least 1")
    if given.peer_python:
        found = shutil.which(given.peer_python)
        if not found:
            raise UsageError(f"--peer-python {given.peer_python}: no such program")
        given.peer_python = os.path.abspath(found)  # it runs in another folder
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        given = parse(arguments)
        run = Run(given, tell=lambda line: print(f"… {line}", file=sys.stderr, flush=True))
        print(machine_line(run.machine))
        figures = {"machine": run.machine}
        for block in given.only:
            figures[block] = getattr(run, block)()
            print("", show(block, figures[block]), sep="\n", flush=True)
        if given.json:
            Path(given.json).write_text(json.dumps(figures, indent=2) + "\n")
        if given.plot:
            plot(figures["frames"], given.plot)
        if given.plot_workers:
            plot_workers(figures["many"], given.plot_workers)
    except DreamError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return error.exit_status
    return 0
