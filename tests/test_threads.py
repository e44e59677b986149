"""How many threads compute: as many as other processes leave cores for, and the same bytes for any number."""

import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import torch
from helpers import ROOT, run_python

from deepdream import threads
from deepdream.memory import available
from deepdream.options import DivideOptions, DreamOptions
from deepdream.picture import ascent, objectives
from deepdream.render.sequence import FrameReport
from deepdream.show.live import Shown
from deepdream.show.progress import Screen
from deepdream.threads import Cores, ThreadBalance, Use, choose, free_cores


@pytest.fixture
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_each_thread_that_works_beside_takes_one_of_those_that_compute(monkeypatch, keep_threads):
    monkeypatch.setattr(threads._balance, "update", lambda: 3)
    background, done = threads.Background(), threading.Event()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        assert background.adapt_threads() == torch.get_num_threads() == 3
        working = [background.submit(executor, done.wait, 60) for executor in (reader, writer)]
        background.leave_cores()
        assert torch.get_num_threads() == 1
        working.append(background.submit(reader, done.wait, 60))
        background.leave_cores()
        assert torch.get_num_threads() == 1  # never none
        done.set()
        assert all(future.result() for future in working)
    background.leave_cores()
    assert torch.get_num_threads() == 3


def use(time, own, *pairs):
    return Use(time, own, tuple(Cores(*pair) for pair in pairs))


def test_free_is_what_others_do_not_use():
    before = use(10.0, 3.0, (4, 100.0))
    assert free_cores(before, use(12.0, 7.0, (4, 104.0))) == 4  # all use is its own
    assert free_cores(before, use(12.0, 7.0, (4, 107.0))) == 2.5
    assert free_cores(before, use(12.0, 7.0, (4, 103.9))) == 4  # the clocks of the system are coarse


def test_the_scarcest_cores_count():
    """A container of 2 cores on a machine of 16, of which half a core is used by another process inside."""
    assert free_cores(use(0.0, 0.0, (16, 0.0), (2, 0.0)), use(1.0, 1.0, (16, 9.0), (2, 1.5))) == 1.5


def test_a_limit_that_came_between_two_looks_waits_for_the_next():
    assert free_cores(use(0.0, 0.0, (2, 0.0)), use(1.0, 0.0, (2, 2.0), (1, 2.0))) == math.inf


@pytest.mark.parametrize(
    "now, free, wanted",
    [
        (2, 2.0, 2), (2, 1.6, 2), (2, 1.4, 1), (2, 0.1, 1), (2, -1.0, 1),  # at least one
        (1, 1.0, 1), (1, 1.6, 1), (1, 1.8, 2), (1, 2.0, 2),  # between 1.5 and 1.75 it stays what it was
        (16, 12.7, 13), (4, 12.7, 12), (12, 12.6, 12), (13, 12.6, 13),
    ],
)  # fmt: skip
def test_the_number_follows_what_is_free(now, free, wanted):
    assert choose(now, free) == wanted


def test_use_that_sways_does_not_make_the_number_change_back_and_forth():
    numbers = [2]
    for free in (1.4, 1.6, 1.45, 1.7, 1.4, 1.74):
        numbers.append(choose(numbers[-1], free))
    assert numbers == [2, 1, 1, 1, 1, 1, 1]


def numbers_of(limit, *others):
    """The numbers of a balance on two cores that finds, second by second, that others use so many of them."""
    used, balance, numbers = 0.0, ThreadBalance(limit, use(0.0, 0.0, (2, 0.0))), []
    for second, each in enumerate(others, 1):
        used += 0.5 + each
        balance.follow(use(second, 0.5 * second, (2, used)))
        numbers.append(balance.threads)
    return numbers


def test_two_renders_on_two_cores_take_one_each_and_the_last_takes_both():
    assert numbers_of(2, 0.9, 1.0, 1.0, 0.6, 0.1, 0.0) == [1, 1, 1, 1, 2, 2]


def test_the_limit_holds():
    assert numbers_of(1, 0.0, 0.0) == [1, 1]


def test_it_looks_no_more_often_than_the_system_counts(monkeypatch):
    looks = []
    monkeypatch.setattr(threads, "read_use", lambda: looks.append(1) or use(time.monotonic(), 0.0, (2, 0.0)))
    balance = ThreadBalance(2, threads.read_use())
    balance.update()
    assert len(looks) == 2  # before the first frame
    for _ in range(50):
        balance.update()
    assert len(looks) == 2


def group(folder, version, quota, used):
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        limit = "max" if quota is None else f"{quota * 100_000:.0f}"
        (folder / "cpu.max").write_text(f"{limit} 100000\n")
        (folder / "cpu.stat").write_text(f"usage_usec {used * 1_000_000:.0f}\nuser_usec 5\nsystem_usec 6\n")
    else:
        (folder / "cpu.cfs_quota_us").write_text("-1\n" if quota is None else f"{quota * 100_000:.0f}\n")
        (folder / "cpu.cfs_period_us").write_text("100000\n")


@pytest.mark.parametrize(
    "version, line, place",
    [
        (2, "0::/user/job\n", "user/job"),
        (2, "0::/user/job\n", "user"),  # the limit of a group holds for those inside of it
        (2, "0::/\n", ""),  # a container sees its own group as the root
        (1, "3:memory:/job\n4:cpu,cpuacct:/docker/abc\n", "docker/abc"),
        (1, "4:cpu:/docker/abc\n5:cpuacct:/docker/abc\n", ""),
    ],
)
def test_a_containers_quota_counts(tmp_path, monkeypatch, version, line, place):
    monkeypatch.setattr(available, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(available, "PROCESS_GROUPS", tmp_path / "cgroup")
    (tmp_path / "cgroup").write_text(line)
    folder = tmp_path / place if version == 2 else tmp_path / "cpu" / place
    group(folder, version, 1.5, 42.0)
    if version == 1:
        (tmp_path / "cpuacct" / place).mkdir(parents=True)
        (tmp_path / "cpuacct" / place / "cpuacct.usage").write_text("42000000000\n")
    machine, quota = threads.read_use().shared
    assert quota == Cores(1.5, 42.0) and machine.count >= 1
    group(folder, version, None, 42.0)
    assert len(threads.read_use().shared) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="NOT TESTED: this system has no affinity masks here")
def test_the_affinity_mask_counts():
    code = (
        "import os; from deepdream.threads import read_use; before = read_use().shared[0].count;"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); print(before, read_use().shared[0].count)"
    )
    assert run_python("-c", code, cwd=ROOT).stdout.split()[1] == "1"


def test_a_mask_may_name_cores_that_the_system_does_not_list(monkeypatch):
    """Such as those that are switched off."""
    core = threads.psutil.cpu_times()
    monkeypatch.setattr(threads.psutil, "cpu_times", lambda percpu: [core, core])
    for mask, count in (([1, 2], 1), ([0, 1, 2], 2), ([2, 3], 2)):
        monkeypatch.setattr(threads.psutil.Process, "cpu_affinity", lambda self, mask=mask: mask, raising=False)
        assert threads.read_use().shared[0].count == count


def test_what_a_child_uses_is_its_own():
    """Of a child that lives, and of one that has ended."""
    resource = pytest.importorskip("resource")
    before = threads.read_use().own, resource.getrusage(resource.RUSAGE_CHILDREN)
    run_python("-c", "sum(range(10 ** 7))")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = ended.ru_utime + ended.ru_stime - before[1].ru_utime - before[1].ru_stime
    assert threads.read_use().own - before[0] > used - 0.02 > 0.05  # it counts in hundredths


def test_the_compiled_loops_take_as_many_as_pytorch(small_network, keep_threads):
    """In a thread of its own, too: the number is a thread's."""

    def numbers_at(count):
        torch.set_num_threads(count)
        small_network.activations(torch.zeros(3, 40, 48), "pool1")
        return torch.get_num_threads(), numba.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        for count in (2, 1):
            wanted = count, min(count, numba.config.NUMBA_NUM_THREADS)
            assert numbers_at(count) == pool.submit(numbers_at, count).result() == wanted


@pytest.mark.parametrize("fixture, layer", [("default_network", "block_5/output"), ("small_network", "mixed")])
def test_a_dream_does_not_depend_on_the_number_of_threads(request, photograph, keep_threads, fixture, layer):
    """Nor does it where the number changes between two dreams of one network."""
    network, dreams = request.getfixturevalue(fixture), []
    for count in (1, 2, 3, 1):
        torch.set_num_threads(count)
        picture, rng = photograph("coffee.png", (120, 160)), np.random.default_rng(0)
        options = DreamOptions(octaves=2, iterations=2)
        dreams.append(ascent.dream(picture, network, layer, options, DivideOptions(), objectives.l2, rng))
    assert all(np.array_equal(dream, dreams[0]) for dream in dreams[1:])


def test_a_change_is_told_at_level_2(tmp_path, capsys):
    with Screen(2).dream(1, lambda number: 0, tmp_path, Shown([tmp_path] * 4, (8, 8), str)) as progress:
        for number, count in enumerate((2, 2, 1, 1)):
            progress.on_frame(FrameReport(number, tmp_path / "frame.png", "mixed", 1.0, threads=count))
    told = [line for line in capsys.readouterr().err.splitlines() if "thread" in line]
    assert told == ["frame 1/4: on 2 threads", "frame 3/4: on 1 thread"]
