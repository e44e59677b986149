"""Renders on many workers: real ones on this machine, and hundreds that sleep in place of dreaming.

A simulation runs in three processes of its own: the client, the scheduler, and all workers as threads. The processor
time of each is measured, which on a real cluster would be that of three machines and more.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import dask
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
from deepdream.render import cluster, tasks, team
from deepdream.render.plan import Render, open_render

REAL = "--flow 2 --preview 320 --layers block_9/output --gpu 0 -v 0".split()
SHOT_SECONDS, SHOT_SPREAD, FRAME_RATE = 4.0, 0.8, 25  # median length of a shot, and the deviation of its logarithm
# What each worker does a hundred times, or twice, a second, which hundreds do not do on two cores elsewhere.
ALONE = {"distributed.worker.profile.enabled": False, "distributed.admin.system-monitor.interval": "1h"}
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

    ``seconds`` are those from the first saved frame to the last, ``whole`` those of the whole command.
    """
    _dreamer("-e", 1, "-i", real_clip("bikes.mp4"), "-o", folder / "Input", "-v", 0)
    for path in sorted((folder / "Input").glob("*.png"))[frames:]:
        path.unlink()
    cores = len(psutil.Process().cpu_affinity())
    for workers in (0, cores):
        output, started = folder / f"Output{workers}", time.monotonic()
        _dreamer("-i", folder / "Input", "-o", output, *REAL, "--workers", workers)
        whole = time.monotonic() - started
        times = sorted(path.stat().st_mtime_ns for path in output.glob("frame_*"))
        seconds = (times[-1] - times[0]) / 1e9
        who = str(workers) if workers else f"none, {cores} threads"
        yield {"workers": who, "frames": frames, "seconds": seconds, "a minute": 60 * (frames - 1) / seconds,
               "whole": whole, "whole a minute": 60 * frames / whole}  # fmt: skip


def _dreamer(*words: object) -> None:
    line, environment = command(*words)
    subprocess.run(line, env=environment, check=True)


def measure_simulation(case: Simulation) -> dict:
    """The row of a simulation."""
    words = [sys.executable, "-c", START.format("run_client"), repr(asdict(case))]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def asleep(times: Sequence[float], job: tasks.Job, task: tasks.FrameTask) -> tasks.Dreamed:
    """Stands in for `tasks.dream_file`: takes as long and gives as much, and leaves the processor alone."""
    tasks._begin(job)
    time.sleep(times[task.options.number])
    return tasks.Dreamed(task.source.content, 1.0, "", times[task.options.number], 1)


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
    with tempfile.TemporaryDirectory() as name, _many_workers(case.workers) as (client, *others):
        render = _open(case, Path(name), rng)
        times = (case.seconds * rng.lognormal(-(FRAME_SPREAD**2) / 2, FRAME_SPREAD, case.frames)).tolist()
        chains = [[times[number] for number in chain.numbers] for chain in team.chains_of(render)]
        team.dream_file = partial(asleep, times)  # type: ignore[assignment]
        network = portable(load_network(gpu=False, on_message=lambda line: None), NetworkOptions())
        about = describe(torch.device("cpu"))
        with render.journal, team.Team(client, render, network, about, lambda line: None) as workers:
            client.wait_for_workers(case.workers)
            time.sleep(1)  # until all have been admitted
            processes = [psutil.Process(), *others]
            used, memories, sent, started = _used(processes), [_memory()], _sent(), time.monotonic()
            for report in workers.dream_frames():
                memories.append(_memory())
                os.truncate(report.path, 0)  # so many frames do not fit on every disk
            seconds = time.monotonic() - started
            spent = [1e3 * (after - before) / case.frames for before, after in zip(used, _used(processes))]
            sent = (_sent() - sent) / case.frames
        files, half = 1e3 * _file_seconds(render), len(memories) // 2
    least, longest = bound(chains, case.workers), max(map(sum, chains))
    what = (
        f"{len(chains)} {'shots' if case.in_shots else 'frames'} of {case.size[1]}x{case.size[0]}, {case.seconds:g} s"
    )
    row = asdict(case) | {
        "what": what, "seconds": seconds, "seconds a frame": case.seconds, "bound": least / seconds,
        "longest": longest / least, "client": spent[0] - files, "files": files, "scheduler": spent[1],
        "all workers": spent[2], "grown": (max(memories) - memories[0]) / 2**20,
        "late": (max(memories[half:]) - max(memories[:half])) / 2**20, "sent": sent / 1e6,
    }  # fmt: skip
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
def _many_workers(count: int) -> Iterator[tuple[distributed.Client, psutil.Process, psutil.Process]]:
    """A client of a cluster of so many workers; the processes of its scheduler and of all its workers."""
    with (
        _server("serve_scheduler") as (scheduler, address),
        _server("serve_workers", address, count) as (workers, _),
        cluster.open_cluster(ClusterOptions(cluster=address), lambda line: None) as client,
    ):
        yield client, scheduler, workers


@contextmanager
def _server(function: str, *arguments: object) -> Iterator[tuple[psutil.Process, str]]:
    """A process that runs a function of this module until the block ends; and the line that it says first."""
    words = [sys.executable, "-c", START.format(function), *map(repr, arguments)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin and server.stdout
        yield psutil.Process(server.pid), server.stdout.readline().strip()
        server.stdin.close()


def serve_scheduler() -> None:
    """Run a scheduler until the standard input ends."""
    asyncio.run(_serve(1, distributed.Scheduler, port=0))


def serve_workers(address: str, count: int) -> None:
    """Run so many workers of a scheduler, as threads, until the standard input ends."""
    asyncio.run(_serve(count, distributed.Worker, address, nthreads=1, memory_limit=0))


async def _serve(count: int, kind: Callable[..., distributed.core.Server], *where: str, **settings: int) -> None:
    logging.disable()
    dask.config.set(ALONE)
    servers = [kind(*where, host="127.0.0.1", dashboard=False, **settings) for _ in range(count)]
    await asyncio.gather(*servers)
    print(servers[0].address, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await asyncio.gather(*(server.close() for server in servers))


def _used(processes: Sequence[psutil.Process]) -> list[float]:
    """The seconds of processor time that each process has taken."""
    return [times.user + times.system for times in (process.cpu_times() for process in processes)]


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
        content = team._read_file(source).content
        team.write_whole(render.path(0), content)
        team.hashlib.sha256(content).hexdigest()
        team.hashlib.sha256(content).hexdigest()  # of the dream
    return (time.process_time() - used) / frames
