"""The frames of a render on the workers of a Dask cluster, on this machine or many.

A frame is a task: plain data and `dream_frame`, as in one process, so that the bytes are the same. What a frame
inherits travels with its task: were it a dependency, the scheduler would keep all frames of the shot before it, and
dream them again where a worker is lost. Chains of frames that inherit from each other run side by side, the longest
first. This process alone reads sources and writes frames; few tasks a worker are in flight at a time.

A worker is given frames once it has shown that it rounds as this machine does (`Admission`): it then offers a resource
of Dask's, of which each frame takes one. So it dreams one frame at a time, on all its threads.
"""

import hashlib
import heapq
import json
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import dask
import distributed
import numpy as np
import torch
from distributed.comm import get_address_host
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.scheduler import KilledWorker

from deepdream.errors import DreamError, UsageError, first_line, is_out_of_memory
from deepdream.files.atomic import write_whole
from deepdream.files.frames import encode_frame, read_frame
from deepdream.files.masks import read_mask
from deepdream.geometry import divide
from deepdream.interface import Network, Objective
from deepdream.machine import describe, differences
from deepdream.motion.cuts import is_cut
from deepdream.motion.inheritance import cut_thumbnail, inherits
from deepdream.options import ClusterOptions, FlowMode, FlowOptions
from deepdream.picture.ascent import TileAscent
from deepdream.picture.objectives import WeightedSum, l2
from deepdream.render.frame import Dream, FrameOptions, Previous, Source, dream_frame, source_of
from deepdream.render.journal import sum_of_all
from deepdream.render.plan import Render
from deepdream.render.sequence import FrameReport
from deepdream.render.targets import objectives_at
from deepdream.threads import read_use

IN_FLIGHT = 2  # tasks a worker: one that it computes, and one that waits for it
ATTEMPTS = 3  # how often a frame may fail on a worker
WORKER_TTL = "60s"  # without a sign of life, of a worker on this machine
START_SECONDS = 300  # until workers on this machine count as broken
LOST_SECONDS = 30  # until a worker on this machine that does not start again counts as lost
POLL_SECONDS = 1.0  # Ctrl-C is noticed in between, on Windows too
# Frames whose tiles run elsewhere take a resource of their own, so that a worker that waits for tiles can take one too.
CONDUCT, CONDUCTED = " conduct", 8
OF_FRAME = "/"  # between the key of a frame's task and the rest of those of its tiles
NO_LIMIT = 10**6  # deaths of workers, of which Dask blames each task that was assigned to them: see `Team`
FEED_SECONDS = 0.01  # what this process spends on a frame, about
PATIENCE = 10  # such polls without a worker, until that is said
IGNORE_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # Ctrl-C is for this process alone
SILENT = logging.CRITICAL + 1
Contents = tuple[bytes, bytes]  # of a network's files
T = TypeVar("T")
OnMessage = Callable[[str], object]
_Event = tuple[float, dict[str, Any]]  # when, and what; see `distributed.Client.subscribe_topic`


class NetworkSource(Hashable, Protocol):
    """What a worker loads a network from: see `deepdream.networks.portable`."""

    def contents(self) -> Contents:
        """The bytes of its files."""
        ...

    def load(self, fetch: Callable[[], Contents]) -> Network:
        """The network; ``fetch`` gives the contents, where a worker has none of its files."""
        ...


# --- On a worker -----------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class File:
    """A picture file that was read: its name, for messages, and its bytes."""

    name: str
    content: bytes


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
class Dreamed:
    """A dreamed frame as the bytes of its file; which worker made it, how long it took, on how many threads."""

    content: bytes
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
        dream = Dream(read_frame(inherited.dream.name, inherited.dream.content), inherited.shot_strength)
        previous = Previous(_read(job, inherited.source, inherited.mask), dream)
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
    futures = [
        client.submit(
            ascend_tile, job, task.options.layer, task.guide, tile, pure=False, resources={task.tiles_on: 1},
            key=f"{stop.key}{OF_FRAME}{uuid4()}", retries=ATTEMPTS - 1,
        )
        for tile in tiles
    ]  # fmt: skip
    while waiting := [future for future in futures if not future.done()]:
        with suppress(TimeoutError):
            distributed.wait(waiting, timeout=POLL_SECONDS)
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
            return distributed.Future(job.network_key, client).result()

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
        about = {"worker": str(worker.name), "address": worker.address, "different": different}
        worker.log_event(self.resource, about)


# --- In this process -------------------------------------------------------------------------------


class LocalCluster(distributed.LocalCluster):
    """Worker processes on this machine, which take turns with its ``gpus``, by number."""

    def __init__(self, gpus: int, **settings: Any) -> None:
        self._gpus = gpus
        super().__init__(n_workers=0, **settings)

    def new_worker_spec(self) -> dict[Any, Any]:
        """What Dask starts the next worker with."""
        ((name, spec),) = super().new_worker_spec().items()
        environment = {"CUDA_VISIBLE_DEVICES": str(name % self._gpus)} if self._gpus else {}
        return {name: spec | {"options": spec["options"] | {"env": environment}}}

    def mend(self) -> None:
        """Start workers again that Dask has given up: those that died as they started."""
        self.scale(len(self.worker_spec))


@contextmanager
def open_cluster(options: ClusterOptions, on_message: OnMessage, gpus: int = 0) -> Iterator[distributed.Client]:
    """A client of the cluster that ``options`` name, or of one on this machine, which ends with the block.

    ``gpus``: how many this machine has to dream on.
    """
    if not os.environ.get("DEEPDREAM_DEBUG"):
        for name in list(logging.root.manager.loggerDict):
            if name.partition(".")[0] in ("distributed", "tornado"):  # what concerns the user is told in a line
                logging.getLogger(name).setLevel(SILENT)
    settings: dict[str, object] = {"distributed.admin.large-graph-warning-threshold": "1TiB"}  # frames may be large
    if options.cluster:
        with dask.config.set(settings), _connect(options.cluster, on_message) as client:
            yield client
        return
    cores = min((shared.count for shared in read_use().shared), default=os.cpu_count() or 1)
    settings |= {"distributed.scheduler.worker-ttl": WORKER_TTL, "distributed.scheduler.allowed-failures": NO_LIMIT}
    settings["distributed.deploy.lost-worker-timeout"] = f"{LOST_SECONDS}s"
    settings |= {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}  # nobody is to look on
    with (
        dask.config.set(settings),
        LocalCluster(
            gpus,
            threads_per_worker=max(1, int(cores) // options.workers),
            host="127.0.0.1",
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            memory_limit=0,  # what PyTorch takes is not Dask's to move to disk; the system's limit holds
            silence_logs=SILENT,
            preload=[IGNORE_INTERRUPTS],
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        cluster.scale(options.workers)
        try:
            client.wait_for_workers(options.workers, timeout=START_SECONDS)
        except TimeoutError as error:
            raise DreamError(f"--workers {options.workers}: they did not start within {START_SECONDS} s") from error
        yield client


@contextmanager
def _connect(address: str, on_message: OnMessage) -> Iterator[distributed.Client]:
    is_file = "://" not in address
    if is_file and not Path(address).is_file():
        raise UsageError(f"--cluster {address}: neither an address such as tcp://host:8786 nor a scheduler file")
    if is_file:
        address = json.loads(Path(address).read_text(encoding="utf-8"))["address"]
    if address.startswith("tcp://") and not _is_loopback(address):
        on_message(
            f"--cluster {address}: whoever reaches it runs code on it, and reads the frames; tls:// keeps others out"
        )
    try:
        client = distributed.Client(address)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise DreamError(f"--cluster {address}: no scheduler answers ({first_line(error)})") from error
    with client:
        yield client


def _is_loopback(address: str) -> bool:
    host = get_address_host(address)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class _Task:
    """A task as it was submitted, about frame ``number``."""

    number: int
    priority: int
    function: Callable[..., object]
    data: tuple[object, ...]
    resource: str


@dataclass(eq=False)
class _Chain:
    """Frames that inherit from each other, of which one is in hand at a time, and what the next one inherits."""

    numbers: deque[int]
    inherited: Inherited | None = None

    def __lt__(self, other: "_Chain") -> bool:
        """The longest is first."""
        return (-len(self.numbers), self.numbers[0]) < (-len(other.numbers), other.numbers[0])


class Team:
    """The workers of a cluster that take part in a render, while this context lasts.

    ``about``: what this machine is, see `deepdream.machine.describe`. ``on_message`` gets lines for the user.
    """

    def __init__(
        self,
        client: distributed.Client,
        render: Render,
        network: NetworkSource,
        about: Mapping[str, str],
        on_message: OnMessage,
    ) -> None:
        self._client = client
        self.render = render
        self._network = network
        self._about = about
        self._on_message = on_message
        # Whoever admits other workers at the same time asks for another resource.
        self._resource = f"deepdream {hashlib.sha256(repr(sorted(about.items())).encode()).hexdigest()[:16]}"
        self._news: SimpleQueue[distributed.Future | _Event] = SimpleQueue()
        self._admitted: set[str] = set()
        self._refused: set[str] = set()
        self._in_hand: dict[str, str] = {}  # by a worker's address, the key of the task that it began last
        self._in_flight: dict[distributed.Future, _Task] = {}
        self._deaths: Counter[int] = Counter()  # of workers, by the number of the unfinished frame in hand
        self._deaths_in_vain = 0  # since a frame was finished

    def __enter__(self) -> "Team":
        begun = f"{self._resource} begun"
        for topic in (self._resource, begun, "all"):
            self._client.subscribe_topic(topic, self._news.put)
        self._admit()
        # A task whose result is bytes, so that it is made again where the worker that holds it is lost.
        is_local = self._client.cluster is not None
        self._contents = None if is_local else self._client.submit(_same, self._network.contents(), pure=False)
        render = self.render
        self._job = Job(
            self._network,
            None if self._contents is None else str(self._contents.key),
            begun,
            render.size,
            render.dream_size,
            render.options.dream.panorama,
            render.frames.image_type,
            render.note,
        )
        return self

    def _admit(self) -> None:
        """Let workers show how they round, those that are there and those that will come."""
        for left in reversed(range(ATTEMPTS)):
            try:
                self._client.register_plugin(Admission(self._resource, self._about))
                break
            except (ImportError, AttributeError) as error:
                reason = first_line(error)
                raise DreamError(f"a worker cannot load this program ({reason}); install it there too") from error
            except OSError as error:  # a worker has died meanwhile, or the scheduler
                if not left:
                    raise DreamError(f"the workers cannot be reached ({first_line(error)})") from error
        there = self._client.nthreads()
        for event in self._client.get_events(self._resource):  # the topic may not have been subscribed to as they came
            if event[1]["address"] in there:
                self._news.put(event)

    def __exit__(self, *error: object) -> None:
        with suppress(Exception):  # a scheduler that is gone has nothing left to stop
            self._client.cancel(list(self._in_flight), force=True)
            self._client.unregister_worker_plugin(self._resource)

    def find_cuts(self, on_progress: Callable[[int, int], object]) -> None:
        """Find the frames at which scenes start, for the render and its journal.

        ``on_progress`` gets how many frames have been looked at, and how many there are.
        """
        paths, cuts = self.render.frames.paths, []
        numbers, sums = iter(range(len(paths))), [""] * len(paths)
        small: dict[int, np.ndarray] = {}  # those that still wait for a neighbour

        def start() -> _Task | None:
            number = next(numbers, None)
            if number is None:
                return None
            source = _read_file(paths[number])
            sums[number] = hashlib.sha256(source.content).hexdigest()
            return self._submit(number, len(paths) - number, thumbnail_of, source, self.render.options.flow)

        waits = Counter(number for pair in pairwise(range(len(paths))) for number in pair)
        for done, (number, thumb) in enumerate(self._results(start), 1):
            small[number] = thumb
            for pair in ((number - 1, number), (number, number + 1)):
                if small.keys() >= set(pair):
                    cuts += [pair[1]] if is_cut(*(small[each] for each in pair)) else []
                    waits.subtract(pair)
                    for each in pair:
                        if not waits[each]:
                            del small[each]
            on_progress(done, len(paths))
        self.render.journal.record_cuts(sorted(cuts), sum_of_all(sums))
        self.render = replace(self.render, cuts=frozenset(cuts))

    def dream_frames(self) -> Iterator[FrameReport]:
        """As `sequence.dream_frames`: dream and save the frames that are still to do; yields a report for each.

        The frames of a chain come in order, chains in any.
        """
        render = self.render
        if render.todo:
            render.journal.begin_run(dict(self._about))
        chains = chains_of(render)
        heapq.heapify(chains)
        workers, is_told = len(self._client.nthreads()), False
        width, height = render.dream_size
        has_tiles = len(divide(height, width, render.options.divide)) > 1
        if len(chains) < workers and not has_tiles:
            self._on_message(_few_chains(render, len(chains), workers))
        in_hand: dict[int, tuple[_Chain, File]] = {}  # by the frame's number, with its source

        def start() -> _Task | None:
            if not chains:
                return None
            chain = heapq.heappop(chains)
            left, number = len(chain.numbers), chain.numbers.popleft()
            source = _read_file(render.frames.paths[number])
            in_hand[number] = chain, source
            if chain.inherited is None and render.inherits_at(number):
                chain.inherited = self._saved(number - 1)
            options = render.options_at(number)
            guide = _read_file(Path(options.guide)) if options.guide else None
            mask = self._mask(number)
            in_tiles = has_tiles and len(chains) + len(in_hand) < len(self._admitted)
            task = FrameTask(options, source, chain.inherited, guide, mask, self._resource if in_tiles else None)
            return self._submit(number, left, dream_file, task, resource=CONDUCT if in_tiles else "")

        for number, dreamed in self._results(start):
            chain, source = in_hand.pop(number)
            path, failure = render.path(number), None
            if chain.numbers:
                chain.inherited = Inherited(
                    source, File(str(path), dreamed.content), dreamed.shot_strength, self._mask(number)
                )
                heapq.heappush(chains, chain)
                try:
                    start()  # before the disk is waited for
                except DreamError as error:
                    failure = error  # what is finished is saved first
                if chain in chains:
                    chain.inherited = None  # is read again when it is this chain's turn: there may be many
            write_whole(path, dreamed.content)
            if dreamed.seconds < FEED_SECONDS * workers and not is_told:
                is_told = True
                self._on_message(f"a frame takes {dreamed.seconds:.2f} s: {workers} workers are more than can be fed")
            layer, source_sum = render.options_at(number).layer, hashlib.sha256(source.content).hexdigest()
            render.journal.record(number, path, source_sum, dreamed.shot_strength, layer, round(dreamed.seconds, 3))
            is_cut, work = number in (render.cuts or ()), render.pixel_steps_at(number)
            yield FrameReport(number, path, layer, dreamed.seconds, is_cut, dreamed.threads, dreamed.worker, work)
            if failure:
                raise failure

    def _saved(self, number: int) -> Inherited:
        """What the frame after a finished one inherits."""
        render = self.render
        source, dream = (_read_file(path) for path in (render.frames.paths[number], render.path(number)))
        return Inherited(source, dream, render.journal.shot_strength(number), self._mask(number))

    def _mask(self, number: int) -> File | None:
        """The mask of a frame."""
        return _read_file(self.render.masks[number]) if self.render.masks else None

    def _submit(
        self, number: int, priority: int, function: Callable[..., object], *data: object, resource: str = ""
    ) -> _Task:
        task = _Task(number, priority, function, data, resource)
        resources = {self._resource + resource: 1}
        future = self._client.submit(
            function, self._job, *data, pure=False, priority=priority, resources=resources, retries=ATTEMPTS - 1
        )
        self._in_flight[future] = task
        future.add_done_callback(self._news.put)
        return task

    def _results(self, start: Callable[[], _Task | None]) -> Iterator[tuple[int, Any]]:
        """Number and result of each task that ``start`` submits, until it gives None with none in flight.

        Few are in flight at a time, so that memory does not grow with the video.
        """
        waited, looked = 0, time.monotonic()
        while True:
            if isinstance(self._client.cluster, LocalCluster) and time.monotonic() - looked > LOST_SECONDS:
                looked = time.monotonic()
                self._client.cluster.mend()
            while len(self._in_flight) < IN_FLIGHT * len(self._admitted) and start():
                pass
            if self._admitted and not self._in_flight:
                return
            try:
                news = self._news.get(timeout=POLL_SECONDS)
            except Empty:
                waited += 1
                self._check_workers(waited)
                continue
            waited = 0
            if not isinstance(news, distributed.Future):
                self._on_event(news[1])
                continue
            if news.status in ("lost", "pending"):  # its worker has died since, and it is made again
                news.add_done_callback(self._news.put)
                continue
            task = self._in_flight.pop(news)
            if isinstance(error := self._error(news), KilledWorker):  # `_on_death` decides
                self._submit(task.number, task.priority, task.function, *task.data, resource=task.resource)
            elif error:
                raise self._explained(error, task.number) from error
            else:
                self._deaths.pop(task.number, None)
                self._deaths_in_vain = 0
                yield task.number, news.result()

    def _check_workers(self, waited: int) -> None:
        """Say that no worker is there, or raise `DreamError` where none that is can be used."""
        if self._admitted:
            return
        if self._refused:
            raise DreamError("no worker of the cluster rounds as this machine does; start some with the same versions")
        if waited == PATIENCE:
            self._on_message("no worker is there; the render goes on when one comes")

    @staticmethod
    def _error(future: distributed.Future) -> BaseException | None:
        if future.cancelled():
            return DreamError("the scheduler is lost; the same command goes on from here")
        return future.exception() if future.status == "error" else None

    def _explained(self, error: BaseException, number: int) -> BaseException:
        """The error of a task as one for the user."""
        if isinstance(error, DreamError) or is_out_of_memory(error):
            return error
        reason = f"{type(error).__name__}: {first_line(error)}"
        return DreamError(f"{self.render.frames.paths[number]}: a worker could not dream it ({reason})")

    def _on_event(self, about: dict[str, Any]) -> None:
        """What a worker tells of a task or `Admission` of a worker, or the scheduler of one that has left."""
        if "began" in about:
            self._in_hand[about["address"]] = about["began"]
        elif "different" in about:
            different, address = about["different"], about["address"]
            if different and address not in self._refused:
                self._refused.add(address)
                self._on_message(f"worker {about['worker']} ({address}) is not used: {', '.join(different)}")
            elif not different:
                self._admitted.add(address)
        elif about.get("action") == "remove-worker":
            self._admitted.discard(about["worker"])
            self._refused.discard(about["worker"])
            in_hand = self._in_hand.pop(about["worker"], None)
            if not about["expected"]:
                self._on_death(about["processing-tasks"], in_hand)

    def _on_death(self, keys: Collection[str], in_hand: str | None) -> None:
        """A worker has ended to which these tasks were assigned, of which it began one last, unless it began none.

        Raises `DreamError` for a frame that ends its workers. Workers that come and go end with some frame in hand,
        too, so it must have been that of more deaths than all other unfinished frames; or none is finished any more.
        """
        frames = {key.partition(OF_FRAME)[0] for key in keys}
        lost = {str(future.key): task.number for future, task in self._in_flight.items() if future.key in frames}
        if not lost:
            return
        self._deaths[lost.get((in_hand or "").partition(OF_FRAME)[0], next(iter(lost.values())))] += 1
        self._deaths_in_vain += 1
        number, deaths = self._deaths.most_common(1)[0]
        alone = 2 * deaths - self._deaths.total() >= ATTEMPTS
        if alone or self._deaths_in_vain >= ATTEMPTS * len(self._in_flight):
            raise DreamError(
                f"{self.render.frames.paths[number]}: {deaths} workers ended while they dreamed it (out of memory?); "
                "the same command goes on from here"
            )


def chains_of(render: Render) -> list[_Chain]:
    """The frames still to do, in chains that inherit nothing from each other."""
    chains: list[_Chain] = []
    for number in render.todo:
        if chains and chains[-1].numbers[-1] == number - 1 and render.inherits_at(number):
            chains[-1].numbers.append(number)
        else:
            chains.append(_Chain(deque([number])))
    return chains


def _few_chains(render: Render, count: int, workers: int) -> str:
    """Why some workers have nothing to do, and what would give them something."""
    if not inherits(render.options.flow):
        return f"{workers} workers, and {count} frames to dream: the others have nothing to do"
    parts = f"{count} shot{'s' if count > 1 else ''}" if render.options.flow.mode == FlowMode.STABLE else "one chain"
    hint = "-flow 0 -bs 0 lets all frames run side by side"
    if render.options.flow.mode != FlowMode.STABLE:
        hint = f"-flow 2 lets shots run side by side, {hint.removesuffix(' run side by side')}"
    return f"{workers} workers, and {parts} in which each frame waits for the one before it: no more help; {hint}"


def _read_file(path: Path) -> File:
    """Raises `UsageError` where it cannot be read."""
    try:
        return File(str(path), path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def _same(value: T) -> T:
    """The task that gives what it is given."""
    return value
