"""The frames of a render on the workers of a Dask cluster.

Each frame is a task, see `deepdream.render.tasks`. Chains of frames that inherit from each other run side by side, the
longest first. This process alone reads sources and writes frames; few tasks a worker are in flight at a time.

A worker is given frames once it has shown that it rounds as this machine does (`tasks.Admission`): it then offers a
resource of Dask's, of which each frame takes one. So it dreams one frame at a time, on all its threads.
"""

import hashlib
import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import distributed
import numpy as np
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from deepdream.errors import DreamError, UsageError, first_line, is_out_of_memory
from deepdream.files.atomic import write_whole
from deepdream.geometry import divide
from deepdream.motion.cuts import is_cut
from deepdream.motion.inheritance import inherits
from deepdream.options import FlowMode
from deepdream.render.cluster import LOST_SECONDS, LocalCluster, OnMessage
from deepdream.render.journal import sum_of_all
from deepdream.render.plan import Render
from deepdream.render.sequence import FrameReport
from deepdream.render.tasks import (
    ATTEMPTS,
    CONDUCT,
    OF_FRAME,
    POLL_SECONDS,
    Admission,
    File,
    FrameTask,
    Inherited,
    Job,
    NetworkSource,
    ShortLogs,
    dream_file,
    thumbnail_of,
)

IN_FLIGHT = 2  # tasks a worker: one that it computes, and one that waits for it
REACH_SECONDS = 3  # in which a worker answers that can be reached at all
FEED_SECONDS = 0.01  # what this process spends on a frame, about
PATIENCE = 10  # such polls without a worker, until that is said
T = TypeVar("T")
_Event = tuple[float, dict[str, Any]]  # when, and what; see `distributed.Client.subscribe_topic`


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
        assert client.loop
        self._client, self._loop = client, client.loop
        self.render = render
        self._network = network
        self._about = about
        self._on_message = on_message
        # Whoever admits other workers at the same time asks for another resource.
        self._resource = f"deepdream {hashlib.sha256(repr(sorted(about.items())).encode()).hexdigest()[:16]}"
        self._news: SimpleQueue[tuple[distributed.Future, object] | _Event] = SimpleQueue()
        self._is_near: bool | None = None  # whether workers can be reached, not by way of the scheduler alone
        self._admitted: set[str] = set()
        self._refused: set[str] = set()
        self._in_hand: dict[str, str] = {}  # by a worker's address, the key of the task that it began last
        self._in_flight: dict[distributed.Future, _Task] = {}
        self._deaths: Counter[int] = Counter()  # of workers, by the number of the unfinished frame in hand
        self._deaths_in_vain = 0  # since a frame was finished
        self._most_workers = 0  # that were there at a time

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
        """Let workers show how they round, those that are there, which is waited for, and those that will come."""
        for left in reversed(range(ATTEMPTS)):
            try:
                self._client.register_plugin(ShortLogs())
                self._client.register_plugin(Admission(self._resource, self._about))
                break
            except OSError as error:  # a worker has died meanwhile, or the scheduler
                if not left:
                    raise DreamError(f"the workers cannot be reached ({first_line(error)})") from error
            except Exception as error:  # of a worker's errors the scheduler passes on no more than the text
                reason = first_line(error)
                self._leave()  # else workers that come later could not join this cluster
                raise DreamError(
                    f"a worker or the scheduler cannot load this program ({reason}); install it there too"
                ) from error
        there = self._client.nthreads()
        for event in self._client.get_events(self._resource):  # the topic may not have been subscribed to as they came
            if event[1]["address"] in there:
                self._news.put(event)
        polls = 0  # the first frame would not be shared out among workers that are known a moment later
        while polls < PATIENCE and self._client.nthreads().keys() - self._admitted - self._refused:
            try:
                self._on_event(self._news.get(timeout=POLL_SECONDS)[1])  # type: ignore[arg-type]  # no task is in flight
            except Empty:
                polls += 1

    def __exit__(self, *error: object) -> None:
        with suppress(Exception):  # a scheduler that is gone has nothing left to stop
            self._client.cancel(list(self._in_flight), force=True)
        self._leave()

    def _leave(self) -> None:
        """Let no more workers be admitted."""
        with suppress(Exception):  # the scheduler is gone, or a worker knows nothing of admission
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
        unfinished = len(render.todo)

        def start() -> _Task | None:
            if not chains:
                return None
            longest = max(len(chain.numbers) for chain in (chains[0], *(chain for chain, _ in in_hand.values())))
            # Where all wait for the longest chain in the end, its next frame must not wait at a worker.
            if longest * len(self._admitted) >= unfinished and len(in_hand) >= len(self._admitted):
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
            unfinished -= 1
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
        self._loop.add_callback(self._watch, future)
        return task

    async def _watch(self, future: distributed.Future) -> None:
        """Put what becomes of a task among the news. In the client's event loop, so that results arrive meanwhile."""
        result: object
        try:
            result = await self._client.gather(future, direct=self._is_near, asynchronous=True)
        except Exception as error:
            result = error
        self._news.put((future, result))

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
            if not isinstance(news[0], distributed.Future):
                self._on_event(news[1])
                continue
            task, result = self._in_flight.pop(news[0]), news[1]
            if isinstance(result, KilledWorker):  # `_on_death` decides
                self._submit(task.number, task.priority, task.function, *task.data, resource=task.resource)
            elif isinstance(result, BaseException):
                raise self._explained(result, task.number) from result
            else:
                self._deaths.pop(task.number, None)
                self._deaths_in_vain = 0
                yield task.number, result

    def _check_workers(self, waited: int) -> None:
        """Say that no worker is there, or raise `DreamError` where none that is can be used."""
        if self._admitted:
            return
        if self._refused:
            raise DreamError("no worker of the cluster rounds as this machine does; start some with the same versions")
        if waited == PATIENCE:
            self._on_message("no worker is there; the render goes on when one comes")

    def _explained(self, error: BaseException, number: int) -> BaseException:
        """The error of a task as one for the user."""
        if isinstance(error, CancelledError | CommClosedError):  # the latter where a result was just asked for
            return DreamError("the scheduler is lost; the same command goes on from here")
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
                self._on_message(f"worker {about['name']} ({address}) is not used: {', '.join(different)}")
            elif not different:
                if self._is_near is None:
                    self._is_near = self._client.sync(self._reaches, address)
                self._admitted.add(address)
                self._most_workers = max(self._most_workers, len(self._admitted))
        elif about.get("action") == "remove-worker":
            self._loop.add_callback(self._client.rpc.remove, about["worker"])  # else results are waited for
            self._admitted.discard(about["worker"])
            self._refused.discard(about["worker"])
            in_hand = self._in_hand.pop(about["worker"], None)
            if not about["expected"]:
                self._on_death(about["processing-tasks"], in_hand)

    async def _reaches(self, address: str) -> bool:
        try:
            connection = await distributed.comm.connect(address, timeout=REACH_SECONDS, **self._client.connection_args)
        except OSError:
            return False
        await connection.close()
        return True

    def _on_death(self, keys: Collection[str], in_hand: str | None) -> None:
        """A worker has ended to which these tasks were assigned, of which it began one last, unless it began none.

        Raises `DreamError` for a frame that ends its workers. Workers that come and go end with some frame in hand,
        too, so it must have been that of more deaths than all other unfinished frames; or none is finished any more,
        though each worker and each frame had its turns. A frame that waited is not to blame.
        """
        frames = {key.partition(OF_FRAME)[0] for key in keys}
        lost = {str(future.key): task.number for future, task in self._in_flight.items() if future.key in frames}
        if not lost:
            return
        self._deaths_in_vain += 1
        begun = (in_hand or "").partition(OF_FRAME)[0]
        if begun in lost:
            self._deaths[lost[begun]] += 1
        number, deaths = (*self._deaths.most_common(1), (next(iter(lost.values())), self._deaths_in_vain))[0]
        alone = 2 * self._deaths[number] - self._deaths.total() >= ATTEMPTS
        if alone or self._deaths_in_vain >= ATTEMPTS * max(len(self._in_flight), self._most_workers):
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
