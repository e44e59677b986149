"""How many threads to compute with: as many as there are cores that other processes leave free, at least one.

OpenMP's threads wait for each other by spinning. Where one of them has no core, the others spin until it has had a
turn: two renders of two threads each on two cores took five to six times as long as one after the other, and two of
one thread each half as long. So the use of the cores is looked at again before every frame. Cores are those that the
process may use: of the machine, its affinity mask leaves some, and a container's CPU quota a part of the time.
Frames do not depend on the number of threads.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil
import torch

from deepdream.memory import available

T = TypeVar("T")

# A thread less where less than half of a core is free for the last one, one more where at least three quarters are:
# the space between is there so that the number does not change back and forth.
FREE_TO_KEEP, FREE_TO_ADD = 0.5, 0.75
MIN_SECONDS = 0.25  # between two looks: the system counts in hundredths of a second
MAX_SHARE = 0.003  # of the time, spent looking


@dataclass(frozen=True)
class Cores:
    """Cores that processes share: how many, and the seconds that all processes together have used them so far."""

    count: float
    used: float


@dataclass(frozen=True)
class Use:
    """What has been used at a time in seconds: ``own`` by this process and those it has started, in core seconds."""

    time: float
    own: float
    shared: tuple[Cores, ...]


def read_use() -> Use:
    """The use of all cores that this process shares with others."""
    return Use(time.monotonic(), _own_use(), (*_machine_use(), *_quota_use()))


def _own_use() -> float:
    process = psutil.Process()
    seconds = sum(process.cpu_times()[:4])  # those that have ended count in its children_user and children_system
    for child in process.children(recursive=True):
        try:
            seconds += sum(child.cpu_times()[:4])
        except psutil.Error:  # it has ended since
            pass
    return seconds


def _machine_use() -> Iterator[Cores]:
    """The cores that the affinity mask allows; nothing where the system does not tell."""
    try:
        times = psutil.cpu_times(percpu=True)
    except (OSError, psutil.Error):
        return
    process = psutil.Process()
    mask = process.cpu_affinity() if hasattr(process, "cpu_affinity") else range(len(times))  # macOS has no masks
    allowed = [times[number] for number in mask if number < len(times)] or times
    yield Cores(len(allowed), sum(map(_busy_seconds, allowed)))


def _busy_seconds(times: object) -> float:
    """Of one core. Guests count in its user time as well."""
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(times) - sum(getattr(times, name, 0.0) for name in idle)  # type: ignore[call-overload]


def _quota_use() -> Iterator[Cores]:
    """The cores that each control group of this process (a container is one) may use at a time, where it has a limit.

    https://docs.kernel.org/admin-guide/cgroup-v2.html and scheduler/sched-bwc.html
    """
    for group, version in available.control_groups("cpu"):
        try:
            if version == 2:
                quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
                stat = (group / "cpu.stat").read_text(encoding="utf-8").split()
                used = int(stat[stat.index("usage_usec") + 1]) / 1e6
            else:
                quota, period = (
                    (group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip() for name in ("quota", "period")
                )
                accounting = available.CONTROL_GROUPS / "cpuacct" / group.relative_to(available.CONTROL_GROUPS / "cpu")
                used = int((accounting / "cpuacct.usage").read_text(encoding="utf-8")) / 1e9
        except (OSError, ValueError):  # a group without this controller, or not mounted here
            continue
        if quota not in ("max", "-1"):
            yield Cores(int(quota) / int(period), used)


class ThreadBalance:
    """The number of threads, adapted to what other processes use.

    ``limit``: the most of them. ``use``: that so far.
    """

    def __init__(self, limit: int, use: Use) -> None:
        self.threads = limit
        self._limit = limit
        self._last = use
        self._wait = MIN_SECONDS  # until the next look is worth its time
        self._is_first = True

    def update(self) -> int:
        """Look at the use since the last look, if that was long enough ago; the number of threads from now on."""
        if self._limit > 1:
            elapsed = time.monotonic() - self._last.time
            if self._is_first and elapsed < self._wait:
                time.sleep(self._wait - elapsed)  # a frame that spins takes longer
            if self._is_first or elapsed >= self._wait:
                use = read_use()
                self._wait = max(MIN_SECONDS, (time.monotonic() - use.time) / MAX_SHARE)
                self.follow(use)
        return self.threads

    def follow(self, use: Use) -> None:
        """Adapt the number to ``use`` since the last."""
        self.threads = choose(self.threads, min(free_cores(self._last, use), self._limit))
        self._last = use
        self._is_first = False


def free_cores(before: Use, after: Use) -> float:
    """How many cores other processes have left free between two looks."""
    seconds = after.time - before.time
    own = after.own - before.own
    if len(before.shared) != len(after.shared):  # a limit has come or gone: the next look knows
        return math.inf
    pairs = zip(before.shared, after.shared)
    return min((now.count - max(0.0, now.used - then.used - own) / seconds for then, now in pairs), default=math.inf)


def choose(threads: int, free: float) -> int:
    """The number of threads for so many free cores, where it has been ``threads``."""
    fewer, more = math.floor(free + 1 - FREE_TO_KEEP), math.floor(free + 1 - FREE_TO_ADD)
    return max(1, fewer if fewer < threads else max(threads, more))


_balance = ThreadBalance(torch.get_num_threads(), read_use())  # OMP_NUM_THREADS is the limit, where it is set


class Background:
    """Work of this process that goes on beside what computes: as many threads fewer compute meanwhile, at least one."""

    def __init__(self) -> None:
        self._threads = 1
        self._running: set[Future[Any]] = set()

    def submit(self, executor: Executor, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Start ``work`` on an executor of one thread."""
        future = executor.submit(work, *arguments)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def adapt_threads(self) -> int:
        """Let PyTorch, and the compiled loops with it, compute on as many threads as `ThreadBalance` says.

        Returns their number. OpenCV computes on one thread in any case.
        """
        self._threads = _balance.update()
        self.leave_cores()
        return self._threads

    def leave_cores(self) -> None:
        """Compute on those threads less one for each executor that works just now."""
        threads = max(1, self._threads - len(self._running))
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
