"""Renders on many workers: real ones on this machine, and hundreds that sleep in place of dreaming.

A simulation runs in two processes of its own: one is the client, whose processor time and memory are measured, the
other the scheduler with all workers as threads.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import distributed
import numpy as np
import psutil
import torch
from clips import real_clip

from benchmark.frames import command, write_frames
from deepdream.files.frames import open_frames
from deepdream.machine import describe
from deepdream.networks import load_network
from deepdream.networks.portable import portable
from deepdream.options import ClusterOptions, DreamOptions, FlowMode, FlowOptions, NetworkOptions, RenderOptions
from deepdream.render import cluster
from deepdream.render.plan import Render, open_render

REAL = "--flow 2 --preview 320 --layers block_9/output --gpu 0 -v 0".split()
SHOT_SECONDS, SHOT_SPREAD, FRAME_RATE = 4.0, 0.8, 25  # median length of a shot, and the deviation of its logarithm
FRAME_SPREAD = 0.1  # deviation of the logarithm of a frame's time, within a render
START = (
    f"import sys; sys.path[:0] = {sys.path!r}; from benchmark import workers; workers.{{}}(*map(eval, sys.argv[1:]))"
)


@dataclass(frozen=True)
class Simulation:
    """``frames`` frames of ``size`` (h, w), in shots or each by itself, on so many workers that sleep ``seconds``."""

    workers: int
    frames: int
    in_shots: bool
    seconds: float
    size: tuple[int, int]


def measure_real(folder: Path, frames: int) -> Iterator[dict]:
    """The rows of a real render: in one process on all cores, and in as many workers as there are cores.

    The time is that from the first saved frame to the last, without the start.
    """
    _dreamer("-e", 1, "-i", real_clip("bikes.mp4"), "-o", folder / "Input", "-v", 0)
    for path in sorted((folder / "Input").glob("*.png"))[frames:]:
        path.unlink()
    cores = len(psutil.Process().cpu_affinity())
    for workers in (0, cores):
        output = folder / f"Output{workers}"
        _dreamer("-i", folder / "Input", "-o", output, *REAL, "--workers", workers)
        times = sorted(path.stat().st_mtime_ns for path in output.glob("frame_*"))
        seconds = (times[-1] - times[0]) / 1e9
        who = str(workers) if workers else f"none, {cores} threads"
        unknown = dict.fromkeys(("bound", "longest", "client", "files", "grown", "late", "sent"), float("nan"))
        yield {"what": "bikes, 320 wide", "workers": who, "frames": frames, "seconds": seconds,
               "a minute": 60 * (frames - 1) / seconds, **unknown}  # fmt: skip


def _dreamer(*words: object) -> None:
    line, environment = command(*words)
    subprocess.run(line, env=environment, check=True)


def measure_simulation(case: Simulation) -> dict:
    """The row of a simulation."""
    words = [sys.executable, "-c", START.format("run_client"), repr(asdict(case))]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def asleep(times: Sequence[float], job: cluster.Job, task: cluster.FrameTask) -> cluster.Dreamed:
    """Stands in for `cluster.dream_file`: takes as long and gives as much, and leaves the processor alone."""
    time.sleep(times[task.options.number])
    return cluster.Dreamed(task.source.content, 1.0, "", times[task.options.number], 1)


def bound(chains: Sequence[Sequence[float]], workers: int) -> float:
    """The seconds that no order of frames can beat: the longest chain, or all of the work shared evenly."""
    totals = [sum(chain) for chain in chains]
    return max(max(totals), sum(totals) / workers)


def shots(frames: int, rng: np.random.Generator) -> list[int]:
    """The frames at which shots start, but for the first."""
    starts = [0]
    while starts[-1] < frames:
        starts.append(starts[-1] + max(1, round(rng.lognormal(np.log(SHOT_SECONDS * FRAME_RATE), SHOT_SPREAD))))
    return starts[1:-1]


def run_client(values: dict) -> None:
    """Print the row of a simulation."""
    case, rng = Simulation(**values), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name, _many_workers(case.workers) as client:
        render = _open(case, Path(name), rng)
        times = (case.seconds * rng.lognormal(-(FRAME_SPREAD**2) / 2, FRAME_SPREAD, case.frames)).tolist()
        chains = [[times[number] for number in chain.numbers] for chain in cluster.chains_of(render)]
        cluster.dream_file = partial(asleep, times)  # type: ignore[assignment]
        network = portable(load_network(gpu=False, on_message=lambda line: None), NetworkOptions())
        about = describe(torch.device("cpu"))
        with render.journal, cluster.Team(client, render, network, about, lambda line: None) as team:
            client.wait_for_workers(case.workers)
            time.sleep(1)  # until all have been admitted
            memory, sent, used, started = _memory(), _sent(), time.process_time(), time.monotonic()
            memories = []
            for report in team.dream_frames():
                memories.append(_memory())
                os.truncate(report.path, 0)  # so many frames do not fit on every disk
            seconds, used = time.monotonic() - started, time.process_time() - used
            sent = (_sent() - sent) / case.frames
        least = bound(chains, case.workers)
        row = {"what": f"{len(chains)} {'shots' if case.in_shots else 'frames'} of {render.size[0]}x{render.size[1]}",
               "workers": str(case.workers), "frames": case.frames, "seconds": seconds,
               "a minute": 60 * case.frames / seconds, "bound": least / seconds,
               "longest": max(map(sum, chains)) / least, "client": 1e3 * used / case.frames,
               "files": 1e3 * _file_seconds(render), "grown": (max(memories) - memory) / 2**20,
               "late": (max(memories) - max(memories[: len(memories) // 2])) / 2**20, "sent": sent / 1e6}  # fmt: skip
    print(json.dumps(row))


def _open(case: Simulation, folder: Path, rng: np.random.Generator) -> Render:
    """A render of many frames, which are all one file."""
    write_frames(folder / "One", case.size, 1)
    (folder / "Input").mkdir()
    for number in range(case.frames):
        os.link(folder / "One" / "frame_000000.png", folder / "Input" / f"{number:06d}.png")
    flow = FlowOptions(FlowMode.STABLE) if case.in_shots else FlowOptions(blend_static=0)
    options = RenderOptions(DreamOptions(layers=("block_9/output",)), flow)
    network = load_network(gpu=False, on_message=lambda line: None)
    render = open_render(open_frames(folder / "Input"), folder / "Output", network, options.dream.layers, options)
    return replace(render, cuts=frozenset(shots(case.frames, rng) if case.in_shots else ()))


@contextmanager
def _many_workers(count: int) -> Iterator[distributed.Client]:
    """A client of a cluster of so many workers, which are threads of another process."""
    words = [sys.executable, "-c", START.format("serve"), str(count)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin and server.stdout
        options = ClusterOptions(cluster=server.stdout.readline().strip())
        with cluster.open_cluster(options, lambda line: None) as client:
            yield client
        server.stdin.close()


def serve(count: int) -> None:
    """Run so many workers until the standard input ends."""
    with distributed.LocalCluster(
        n_workers=count, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", memory_limit=0,
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    ) as local:  # fmt: skip
        print(local.scheduler_address, flush=True)
        sys.stdin.read()


def _memory() -> int:
    return psutil.Process().memory_info().rss


def _sent() -> int:
    """The bytes that went over this machine's own wire so far."""
    return psutil.net_io_counters(pernic=True)["lo"].bytes_sent


def _file_seconds(render: Render, frames: int = 20) -> float:
    """What it takes to read, sum, write and note a frame, in processor time."""
    source = render.frames.paths[0]
    used = time.process_time()
    for _ in range(frames):
        content = cluster._read_file(source).content
        cluster.write_whole(render.path(0), content)
        cluster.hashlib.sha256(content).hexdigest()
        cluster.hashlib.sha256(content).hexdigest()  # of the dream
    return (time.process_time() - used) / frames
