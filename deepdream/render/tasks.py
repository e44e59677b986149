"""What a worker of a Dask cluster does in a render: its tasks, and the plain data that they are given and give.

A frame is a task: `dream_frame`, as in one process, so that the bytes are the same. What a frame inherits travels with
its task: were it a dependency, the scheduler would keep all frames of the shot before it, and dream them again where a
worker is lost.
"""

import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache, partial
from pickle import PickleBuffer
from threading import Lock, Semaphore
from typing import Any, Protocol, SupportsIndex
from uuid import uuid4

import distributed
import numpy as np
import torch
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

from deepdream.errors import DreamError
from deepdream.files.frames import encode_frame, read_frame
from deepdream.files.masks import read_mask
from deepdream.interface import Network, Objective
from deepdream.machine import describe, differences
from deepdream.motion.inheritance import cut_thumbnail
from deepdream.options import FlowOptions
from deepdream.picture.ascent import TileAscent
from deepdream.picture.objectives import WeightedSum, l2
from deepdream.render.frame import FrameOptions, Source, dream_frame, previous_of, source_of
from deepdream.render.targets import objectives_at

ATTEMPTS = 3  # how often a frame may fail on a worker
POLL_SECONDS = 1.0  # a task that is cancelled is noticed in between, and Ctrl-C, on Windows too
# Frames whose tiles run elsewhere take a resource of their own, so that a worker that waits for tiles can take one too.
CONDUCT, CONDUCTED = " conduct", 8
OF_FRAME = "/"  # between the key of a frame's task and the rest of those of its tiles
Contents = tuple[bytes, bytes]  # of a network's files


class NetworkSource(Hashable, Protocol):
    """What a worker loads a network from: see `deepdream.networks.portable`."""

    def contents(self) -> Contents:
        """The bytes of its files."""
        ...

    def load(self, fetch: Callable[[], Contents]) -> Network:
        """The network; ``fetch`` gives the contents, where a worker has none of its files."""
        ...


@dataclass(frozen=True)
class Job:
    """What all tasks of a render share.

    ``network_key``: the task whose result is the network's contents, where a worker may lack its files. ``topic``:
    where workers tell what they begin. Sizes are (w, h).
    """

    network: NetworkSource
    network_key: str | None
    topic: str
    size: tuple[int, int]
    dream_size: tuple[int, int]
    panorama: bool
    image_type: str
    note: str | None


class Uncopied:
    """A dataclass whose bytes Dask sends from where they are, and receives into what they then stay in."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        send = PickleBuffer if int(protocol) >= 5 else bytes  # some of Dask's messages are pickled by protocol 4
        values = (getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]
        return type(self), tuple(send(value) if isinstance(value, (bytes, memoryview)) else value for value in values)


@dataclass(frozen=True)
class File(Uncopied):
    """A picture file that was read: its name, for messages, and its bytes."""

    name: str
    content: bytes | memoryview = field(hash=False)  # what Dask receives bytes into has no hash


@dataclass(frozen=True)
class Inherited:
    """What a frame inherits from: the source, the dream and the mask before it, as files."""

    source: File
    dream: File
    shot_strength: float | None
    mask: File | None


@dataclass(frozen=True)
class FrameTask:
    """A frame to dream: its options, and the files that they name."""

    options: FrameOptions
    source: File
    inherited: Inherited | None
    guide: File | None
    mask: File | None
    tiles_on: str | None  # the resource of the workers that its tiles run on; None for this one alone


@dataclass(frozen=True)
class Dreamed(Uncopied):
    """A dreamed frame as the bytes of its file; which worker made it, how long it took, on how many threads."""

    content: bytes | memoryview
    shot_strength: float | None
    worker: str
    seconds: float
    threads: int


def dream_file(job: Job, task: FrameTask) -> Dreamed:
    """The task of a frame."""
    started = time.monotonic()
    worker = _begin(job)
    threads = max(1, worker.state.nthreads)
    torch.set_num_threads(threads)
    if task.tiles_on:
        distributed.secede()  # while it waits, its worker may take a tile: a network serves one thread at a time
    network, previous = _load(job), None
    source = _read(job, task.source, task.mask)
    if task.inherited:
        inherited = task.inherited
        before = _read(job, inherited.source, inherited.mask)
        picture = read_frame(inherited.dream.name, inherited.dream.content)
        previous = previous_of(task.options, before, picture, inherited.shot_strength)
        del before, picture
    objective: Objective | WeightedSum
    stop, objective, tiles = _StopWhenCancelled(worker), l2, None
    if task.tiles_on:
        tiles = partial(_ascend_tiles, job, task, stop)
    else:
        objective = _objectives(network, task.guide)(task.options.layer)  # type: ignore[arg-type]  # told by identity
    dream = dream_frame(task.options, network, objective, source, previous, stop, ascend_tiles=tiles)
    content = encode_frame(dream.picture, job.image_type, job.note)
    return Dreamed(content, dream.shot_strength, str(worker.name), time.monotonic() - started, threads)


def _ascend_tiles(job: Job, task: FrameTask, stop: "_StopWhenCancelled", tiles: list[TileAscent]) -> list[np.ndarray]:
    """The tiles of an octave after their steps, each a task for whichever worker has time; this one waits."""
    client = distributed.get_client()
    _keep_no_messages(client.scheduler_comm)
    futures = [
        client.submit(
            ascend_tile, job, task.options.layer, task.guide, tile, pure=False, resources={task.tiles_on: 1},
            key=f"{stop.key}{OF_FRAME}{uuid4()}", retries=ATTEMPTS - 1,
        )
        for tile in tiles
    ]  # fmt: skip
    finished = Semaphore(0)  # `distributed.wait` fails where its time is up, in a cycle that keeps the frame's memory
    for future in futures:
        future.add_done_callback(lambda future: finished.release())
    for _ in futures:
        while not finished.acquire(timeout=POLL_SECONDS):
            stop()
    return client.gather(futures)


def ascend_tile(job: Job, layer: str, guide: File | None, tile: TileAscent) -> np.ndarray:
    """The task of a tile."""
    worker = _begin(job)
    torch.set_num_threads(max(1, worker.state.nthreads))
    network = _load(job)
    objective = _objectives(network, guide)(layer)  # type: ignore[arg-type]  # told by identity
    return tile.run(network, layer, objective, _StopWhenCancelled(worker))


def thumbnail_of(job: Job, source: File, options: FlowOptions) -> np.ndarray:
    """The task that prepares a frame for `is_cut`."""
    _begin(job)
    return cut_thumbnail(_read(job, source).small, options)


def _begin(job: Job) -> distributed.Worker:
    """This task's worker, once the scheduler knows that it has the task in hand, however it may end."""
    worker = distributed.get_worker()
    about = {"began": worker.get_current_task(), "address": worker.address}
    distributed.utils.sync(worker.loop, worker.scheduler.log_event, topic=job.topic, msg=about)
    return worker


def _read(job: Job, file: File, mask: File | None = None) -> Source:
    where = None if mask is None else read_mask(mask.name, job.size, mask.content)
    return source_of(read_frame(file.name, file.content), job.size, job.dream_size, where, job.panorama)


class _StopWhenCancelled:
    """Called after each step, it ends a task that nobody waits for any more."""

    def __init__(self, worker: distributed.Worker) -> None:
        self._tasks, self.key = worker.state.tasks, worker.get_current_task()

    def __call__(self, report: object = None) -> None:
        task = self._tasks.get(self.key)
        if task is None or task.state == "cancelled":
            raise DreamError("cancelled")


_networks: dict[NetworkSource, Network] = {}  # the last one
_LOADING = Lock()


def _load(job: Job) -> Network:
    """The network of a render, which a worker keeps from frame to frame."""

    def fetch() -> Contents:
        if job.network_key is None:
            raise DreamError("the files of the network have changed since the render began")
        with distributed.worker_client() as client:
            contents: distributed.Future[Contents] = distributed.Future(job.network_key, client)
            client._inform_scheduler_of_futures()  # that this one waits: to make a future of a key does not tell it
            return contents.result()

    with _LOADING:
        if job.network not in _networks:
            _networks.clear()
            _networks[job.network] = job.network.load(fetch)
        return _networks[job.network]


@lru_cache(2)
def _objectives(network: Network, guide: File | None) -> Callable[[str], Objective | WeightedSum]:
    return objectives_at(network, None if guide is None else read_frame(guide.name, guide.content))


class Admission(WorkerPlugin):
    """Lets a worker offer ``resource`` if it rounds as the machine that ``about`` describes.

    It tells under the topic of that name. Dask gives it to every worker, also to those that come later.
    """

    def __init__(self, resource: str, about: Mapping[str, str]) -> None:
        self.name = self.resource = resource
        self.about = about

    async def setup(self, worker: distributed.Worker) -> None:
        """Called by Dask on a worker."""
        device = torch.accelerator.current_accelerator(check_available=True) if "GPU" in self.about else None
        different = differences(self.about, describe(device or torch.device("cpu")))
        if "GPU" in self.about and device is None:
            different.append("no GPU there")
        if not different:
            await worker.set_resources(**{self.resource: 1, self.resource + CONDUCT: CONDUCTED})
            # Tasks that found no worker are looked at again when one changes its status, not when it offers resources.
            worker.status = distributed.Status.paused
            worker.status = distributed.Status.running
        about = {"name": str(worker.name), "address": worker.address, "different": different}
        worker.log_event(self.resource, about)


class ShortLogs(SchedulerPlugin):
    """Lets a scheduler forget what it has sent to workers."""

    name = "deepdream short logs"
    idempotent = True  # once for all renders

    async def start(self, scheduler: distributed.Scheduler) -> None:
        """Called by Dask on the scheduler."""
        for address in scheduler.workers:
            self.add_worker(scheduler, address)

    def add_worker(self, scheduler: distributed.Scheduler, worker: str) -> None:
        """Called by Dask for each worker that comes later."""
        _keep_no_messages(scheduler.stream_comms[worker])


def _keep_no_messages(sent: distributed.batched.BatchedSend) -> None:
    """Dask keeps the last thousand messages of up to a megabyte to each receiver; frames and tiles are in them."""
    sent.recent_message_log = deque(maxlen=0)
