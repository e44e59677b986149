"""Many workers, one render: the same bytes as from one process, whatever becomes of the workers."""

import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from threading import Timer

import distributed
import faulty
import numpy as np
import psutil
import pytest
import torch
from distributed.protocol import deserialize, serialize
from faulty import FaultyNetwork
from helpers import (
    ROOT,
    moving_ramps,
    nightly,
    open_small_render,
    read_dreams,
    render,
    run_python,
    save_frames,
)

from deepdream.errors import DreamError, UsageError, is_out_of_memory
from deepdream.machine import describe
from deepdream.networks.portable import portable
from deepdream.options import ClusterOptions, DivideMode, DivideOptions, FlowMode, FlowOptions, NetworkOptions
from deepdream.picture import ascent
from deepdream.render import cluster, tasks, team
from deepdream.render.cluster import open_cluster
from deepdream.render.team import Team, _Task, chains_of

STABLE, INDEPENDENT = FlowOptions(FlowMode.STABLE), FlowOptions(FlowMode.OFF, blend_static=0)
HERE = describe(torch.device("cpu"))


@pytest.fixture(scope="module")
def client():
    """Two workers on this machine, which the tests share."""
    with open_cluster(ClusterOptions(workers=2), print) as client:
        yield client


def pictures():
    """Three shots, of five, two and four frames."""
    first, second, third = (moving_ramps(count, (40, 48)) for count in (5, 2, 4))
    return [*first, *(255 - frame // 3 for frame in second), *(frame[::-1, :, ::-1] // 2 for frame in third)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save_frames(pictures(), tmp_path_factory.mktemp("source") / "frames")


@pytest.fixture
def small(small_network):
    """What a worker loads the small network from."""
    return portable(small_network, NetworkOptions(gpu=0))


def dream(client, opened, network, about=HERE, on_message=print, on_frame=lambda report: None):
    """Dream an open render on the workers; returns the reports, in order of the frames."""
    reports = []
    wait_for_all_workers(client)
    with opened.journal, Team(client, opened, network, about, on_message) as team:
        if opened.lacks_cuts:
            team.find_cuts(lambda done, count: None)
        for report in team.dream_frames():
            reports.append(report)
            on_frame(report)
    return sorted(reports, key=lambda report: report.number)


def wait_for_all_workers(client):
    """A test before may have killed some. Of one that died as it started Dask takes a while to see that it is lost."""
    for _ in range(12):
        client.cluster.mend()
        with suppress(TimeoutError):
            client.wait_for_workers(len(client.cluster.worker_spec), timeout=10)
            return
    pytest.fail("not all workers came back")


def kill_workers(choose):
    """Send SIGKILL to those of this process's workers that ``choose`` chooses."""
    for worker in choose([child for child in psutil.Process().children() if is_worker(child)]):
        worker.kill()


def is_worker(process):
    with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):  # it has just been killed
        return "spawn_main" in " ".join(process.cmdline())


# --- The same bytes --------------------------------------------------------------------------------

MODES = {
    "independent": dict(flow=INDEPENDENT, layers=("mixed", "left")),
    "static": dict(flow=FlowOptions()),
    "blend": dict(flow=FlowOptions(FlowMode.BLEND), zoom=1.1),
    "stable": dict(flow=STABLE, iterations=4, seed=3),
    "jpg": dict(flow=STABLE, preview=40),
    "guided": dict(flow=STABLE, dream_width=40, guide=True),
    "tiles": dict(flow=STABLE, divide=DivideOptions(DivideMode.TILES, 30, 30)),
    "masked": dict(flow=STABLE, mask=True),
    "opening": dict(flow=STABLE, iterations=8),
    "panorama": dict(flow=STABLE, panorama=True, preview=36),
    "seamless": dict(flow=FlowOptions(), divide=DivideOptions(DivideMode.SEAMLESS, 30, 30)),
}


@pytest.mark.parametrize("mode", MODES)
def test_workers_give_the_bytes_of_one_process(client, source, small_network, small, tmp_path, mode):
    if mode == "jpg":
        source = save_frames(pictures(), tmp_path / "jpg", pattern="{}.jpg")
    options = dict(MODES[mode])
    options |= {name: str(source / "6.png") for name in ("guide", "mask") if name in options}
    if mode == "panorama":
        source = save_frames(pictures(), tmp_path / "wide", (80, 40))
    if mode == "opening":
        halves = np.repeat([[255] * 24 + [0] * 24], 40, 0)
        masks = [halves if number % 3 else halves | 255 for number in range(len(pictures()))]
        options["mask"] = str(save_frames(masks, tmp_path / "masks"))
    reports = dream(client, open_small_render(source, tmp_path / "many", small_network, **options), small)
    alone = render(source, tmp_path / "one", small_network, **options)
    assert read_dreams(tmp_path / "many") == read_dreams(tmp_path / "one")
    assert [(each.number, each.layer, each.is_cut) for each in reports] == [
        (each.number, each.layer, each.is_cut) for each in alone
    ]
    assert {report.worker for report in reports} <= {"0", "1"} and sum(each.is_cut for each in reports) in (0, 2)


@pytest.mark.parametrize("flow", [FlowOptions(), STABLE], ids=["static", "stable"])
def test_tiles_of_a_chain_run_side_by_side(client, small_network, small, tmp_path, flow):
    source = save_frames(pictures()[:4], tmp_path / "source")
    options = dict(flow=flow, divide=DivideOptions(DivideMode.TILES, 20, 30), iterations=5, mask=str(source / "0.png"))
    faults = FaultyNetwork(small, "mixed", faulty.slow_down, tmp_path)
    dream(client, open_small_render(source, tmp_path / "many", small_network, **options), faults)
    render(source, tmp_path / "one", small_network, **options)
    assert read_dreams(tmp_path / "many") == read_dreams(tmp_path / "one")
    steps = sorted(path.name.split("-") for path in tmp_path.glob("*-*"))
    assert sum(before[1] != after[1] for before, after in pairwise(steps)) > len(steps) / 2  # the workers in turn
    assert len({process for _, process in steps[: len(steps) // 4]}) == 2  # from the first frame on


def test_a_frame_whose_tiles_were_waited_for_is_not_kept(client, source, small_network, small, tmp_path):
    def poll_often():
        tasks.POLL_SECONDS = 0.001
        gc.disable()

    def poll_seldom():
        tasks.POLL_SECONDS = 1.0
        gc.enable()

    def count():
        return sum(type(each) is ascent.TileAscent for each in gc.get_objects())

    opened = open_small_render(source, tmp_path / "out", small_network, divide=DivideOptions(DivideMode.TILES, 30, 30))
    client.run(poll_often)
    try:
        dream(client, opened, small)
        deadline = time.monotonic() + 20
        while any(client.run(count).values()) and time.monotonic() < deadline:
            time.sleep(0.1)  # the last ones are let go a little later
        assert not any(client.run(count).values())
    finally:  # other tests have these workers too
        client.run(poll_seldom)


def test_a_tile_that_ends_its_workers_ends_the_render(client, small_network, small, tmp_path):
    source = save_frames(pictures()[:4], tmp_path / "source")
    opened = open_small_render(source, tmp_path / "out", small_network, divide=DivideOptions(DivideMode.TILES, 20, 30))
    with pytest.raises(DreamError, match="0.png: 3 workers ended while they dreamed it"):
        dream(client, opened, FaultyNetwork(small, "mixed", faulty.end, tmp_path))


def test_the_work_is_what_the_reports_say(client, source, small_network, small, tmp_path):
    opened = open_small_render(source, tmp_path / "out", small_network, STABLE)
    with opened.journal, Team(client, opened, small, HERE, print) as team:
        team.find_cuts(lambda done, count: None)
        assert team.render.pixel_steps == sum(report.pixels for report in team.dream_frames())


def test_a_render_goes_from_workers_to_one_process_and_back(client, source, small_network, small, tmp_path):
    render(source, tmp_path / "whole", small_network, STABLE, iterations=4)

    def opened():
        return open_small_render(source, tmp_path / "out", small_network, STABLE, iterations=4)

    with opened().journal:
        pass
    whole = read_dreams(tmp_path / "whole")
    dream(client, opened(), small)
    for number in (1, 5, 9):
        (tmp_path / "out" / f"frame_{number:06d}.png").unlink()
    assert opened().todo == (1, 2, 3, 4, 5, 6, 9, 10)  # up to the end of each one's shot
    (tmp_path / "out" / ".lock").unlink()
    render(source, tmp_path / "out", small_network, STABLE, iterations=4)
    assert read_dreams(tmp_path / "out") == whole
    for number in (3, 6, 7):
        (tmp_path / "out" / f"frame_{number:06d}.png").unlink()
    reports = dream(client, opened(), small)
    assert [report.number for report in reports] == [3, 4, 6, 7, 8, 9, 10]
    assert read_dreams(tmp_path / "out") == whole


def test_cuts_are_looked_for_anew_where_a_source_has_changed(client, small_network, small, tmp_path):
    source = save_frames(pictures(), tmp_path / "source")
    dream(client, open_small_render(source, tmp_path / "out", small_network, STABLE), small)
    opened = open_small_render(source, tmp_path / "out", small_network, STABLE)
    opened.journal.close()
    assert opened.cuts == {5, 7} and not opened.lacks_cuts
    (tmp_path / "out" / "frame_000010.png").unlink()
    (source / "10.png").write_bytes((source / "9.png").read_bytes())
    opened = open_small_render(source, tmp_path / "out", small_network, STABLE)
    opened.journal.close()
    assert opened.lacks_cuts and opened.todo == (10,)


def test_frames_that_inherit_nothing_from_each_other_are_chains_of_their_own(source, small_network, tmp_path):
    def chains(flow, cuts=None):
        opened = open_small_render(source, tmp_path / f"{flow.mode}{flow.blend_static}", small_network, flow)
        opened.journal.close()
        return [list(chain.numbers) for chain in sorted(chains_of(replace(opened, cuts=cuts)))]

    assert chains(INDEPENDENT) == [[number] for number in range(11)]
    assert chains(FlowOptions(FlowMode.BLEND)) == [list(range(11))]
    assert chains(STABLE, frozenset({5, 7})) == [[0, 1, 2, 3, 4], [7, 8, 9, 10], [5, 6]]  # the longest first


@pytest.mark.parametrize(
    "sent", [tasks.File("name", b"content"), tasks.Dreamed(b"content", 1.0, "worker", 2.0, 1)], ids=type
)
def test_pictures_are_sent_from_where_they_are(sent):
    header, (text, content) = serialize(sent)
    assert content.obj is sent.content
    received = memoryview(bytearray(content))
    copy = deserialize(header, [text, received])
    assert copy == sent and copy.content.obj is received.obj
    assert deserialize(*serialize(copy, context={"pickle-protocol": 4})) == sent


def test_dreams_come_straight_from_workers_that_are_reached_else_by_way_of_the_scheduler(
    client, source, small_network, small, tmp_path, monkeypatch
):
    monkeypatch.setattr(team, "REACH_SECONDS", 0.2)
    opened = open_small_render(source, tmp_path / "out", small_network)
    with opened.journal, Team(client, opened, small, HERE, print) as workers:
        assert workers._is_near and not client.sync(workers._reaches, "tcp://127.0.0.1:9")
        workers._is_near = False
        assert len(list(workers.dream_frames())) == 11
    render(source, tmp_path / "one", small_network)
    assert read_dreams(tmp_path / "out") == read_dreams(tmp_path / "one")


def test_what_is_in_memory_does_not_grow_with_the_render(client, small_network, small, tmp_path):
    def count(report):
        counts.append(sum(type(each) is tasks.FrameTask for each in gc.get_objects()))

    source, counts = save_frames(moving_ramps(24, (40, 48)), tmp_path / "source"), []
    dream(client, open_small_render(source, tmp_path / "out", small_network), small, on_frame=count)
    dream(client, open_small_render(source, tmp_path / "more", small_network, INDEPENDENT), small, on_frame=count)
    assert max(counts) <= 24
    assert len(client.scheduler_comm.recent_message_log) <= 4  # frames are in what the client has sent


def test_no_frame_waits_at_a_worker_where_all_wait_for_the_longest_shot(client, small_network, small, tmp_path):
    """Else the next frame of that shot may have to wait behind it."""
    source = save_frames(pictures(), tmp_path / "source")

    def in_flight(cuts):
        opened = open_small_render(source, tmp_path / str(len(cuts)), small_network, STABLE)
        opened = replace(opened, cuts=frozenset(cuts))
        with opened.journal, Team(client, opened, small, HERE, print) as team:
            return [len(team._in_flight) for _ in team.dream_frames()]

    assert max(in_flight([8, 9, 10])[:3]) <= 2  # later the first shot may be ahead
    assert max(in_flight(range(1, 11))) > 2


def test_one_process_needs_nothing_of_dask(source, small_folder, tmp_path):
    words = ["-i", str(source), "-o", "out", "-t", str(small_folder), *"-l mixed -oct 1 -itr 1 -flow 2 -v 0".split()]
    code = f"import dreamer, sys; print(dreamer.main({words!r}), sorted({{'dask', 'distributed'}} & set(sys.modules)))"
    done = run_python("-c", code, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.stdout == "0 []\n"


# --- Workers that fail -----------------------------------------------------------------------------


def test_a_worker_that_dies_costs_what_it_had_in_hand(client, source, small_network, small, tmp_path):
    faults = FaultyNetwork(small, "mixed", faulty.end_once, tmp_path)
    dream(client, open_small_render(source, tmp_path / "many", small_network, STABLE), faults)
    render(source, tmp_path / "one", small_network, STABLE)
    assert read_dreams(tmp_path / "many") == read_dreams(tmp_path / "one")
    steps = 11 * 2  # octaves
    assert steps < len(list(tmp_path.glob("*-*"))) <= steps + 2


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=nightly)])
def test_workers_killed_at_random_moments(client, source, small_network, small, tmp_path, kills):
    rng, done = random.Random(kills), []
    faults = FaultyNetwork(small, "mixed", faulty.slow_down, tmp_path)

    def kill():
        kill_workers(lambda workers: [rng.choice(workers)])
        done.append(1)

    renders = 0
    while len(done) < kills:
        renders += 1
        timers = [Timer(rng.uniform(0.2, 3), kill) for _ in range(min(3, kills - len(done)))]
        for timer in timers:
            timer.start()
        dream(client, open_small_render(source, tmp_path / f"many{renders}", small_network, INDEPENDENT), faults)
        for timer in timers:
            timer.join()
    render(source, tmp_path / "one", small_network, INDEPENDENT)
    for number in range(1, renders + 1):
        assert read_dreams(tmp_path / f"many{number}") == read_dreams(tmp_path / "one")
    steps = renders * 11 * 2
    assert len(list(tmp_path.glob("*-*"))) <= steps + 2 * kills  # nothing twice but what was in hand


def test_all_workers_go_and_others_come(client, source, small_network, small, tmp_path):
    def kill_all(report):
        if report.number == 2:
            kill_workers(list)

    opened = open_small_render(source, tmp_path / "many", small_network, FlowOptions())
    dream(client, opened, small, on_frame=kill_all)
    render(source, tmp_path / "one", small_network)
    assert read_dreams(tmp_path / "many") == read_dreams(tmp_path / "one")


def test_a_worker_that_is_never_heard_of_again(source, small_network, small, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "WORKER_TTL", "2s")
    faults = FaultyNetwork(small, "mixed", faulty.stop_once, tmp_path)
    with open_cluster(ClusterOptions(workers=2), print) as client:
        dream(client, open_small_render(source, tmp_path / "many", small_network, INDEPENDENT), faults)
    render(source, tmp_path / "one", small_network, INDEPENDENT)
    assert read_dreams(tmp_path / "many") == read_dreams(tmp_path / "one")
    assert not psutil.pid_exists(int((tmp_path / "stopped").read_text()))


def test_a_frame_that_ends_its_workers_ends_the_render(source, small_network, small, tmp_path):
    layers = [*["mixed"] * 4, "left", *["mixed"] * 6]
    faults = FaultyNetwork(small, "left", faulty.end, tmp_path)
    opened = open_small_render(source, tmp_path / "out", small_network, INDEPENDENT, layers=layers)
    with open_cluster(ClusterOptions(workers=1), print) as client:  # no other begins it before it hears of the end
        with pytest.raises(DreamError, match=r"4.png: 3 workers ended while they dreamed it"):
            dream(client, opened, faults)
        assert len(list(tmp_path.glob("*-*"))) == 3
        assert "frame_000004.png" not in read_dreams(tmp_path / "out")
        again = open_small_render(source, tmp_path / "out", small_network, INDEPENDENT, layers=layers)
        dream(client, again, small)
    assert len(read_dreams(tmp_path / "out")) == 11


def test_a_death_is_blamed_on_the_frame_that_the_worker_began_last(client, source, small_network, small, tmp_path):
    opened = open_small_render(source, tmp_path / "out", small_network, INDEPENDENT)
    opened.journal.close()
    blaming, future = Team(client, opened, small, HERE, print), namedtuple("Future", "key")
    blaming._in_flight = {future(f"frame {number}"): _Task(number, 0, print, (), "") for number in (3, 4, 5)}

    def die(began):
        for key in began:
            blaming._on_event({"began": key, "address": "tcp://127.0.0.1:1"})
        lost = {"processing-tasks": ["frame 3", "frame 4", "another's"], "worker": "tcp://127.0.0.1:1"}
        blaming._on_event({"action": "remove-worker", "expected": False, **lost})

    die(["frame 3", "frame 4"])
    die(["frame 4/tile 1"])
    die([])  # it had begun none
    assert blaming._deaths == {4: 2}
    with pytest.raises(DreamError, match="4.png: 3 workers ended while they dreamed it"):
        die(["frame 4"])


def test_where_workers_end_before_they_begin_anything_the_render_ends(client, source, small_network, small, tmp_path):
    opened = open_small_render(source, tmp_path / "out", small_network, INDEPENDENT)
    opened.journal.close()
    dying, key = Team(client, opened, small, HERE, print), "frame 3"
    dying._in_flight, dying._most_workers = {namedtuple("Future", "key")(key): _Task(3, 0, print, (), "")}, 2
    lost = {"processing-tasks": [key], "worker": "tcp://127.0.0.1:1"}
    for _ in range(5):  # all workers may go at once, and those that come after them
        dying._on_event({"action": "remove-worker", "expected": False, **lost})
    with pytest.raises(DreamError, match="3.png: 6 workers ended"):
        dying._on_event({"action": "remove-worker", "expected": False, **lost})


def test_where_all_frames_end_their_workers_the_render_ends(client, source, small_network, small, tmp_path):
    opened = open_small_render(source, tmp_path / "out", small_network, INDEPENDENT)
    with pytest.raises(DreamError, match="workers ended while they dreamed it"):
        dream(client, opened, FaultyNetwork(small, "mixed", faulty.end, tmp_path))


def test_too_little_memory_is_told_as_in_one_process(client, source, small_network, small, tmp_path):
    opened = open_small_render(source, tmp_path / "out", small_network)
    with pytest.raises(Exception, match="memory") as failed:
        dream(client, opened, FaultyNetwork(small, "mixed", faulty.run_out_of_memory, tmp_path))
    assert is_out_of_memory(failed.value)
    assert len(list(tmp_path.glob("*-*"))) == 3  # another worker may have more


def test_an_error_of_a_worker_names_the_frame(client, source, small_network, small, tmp_path):
    opened = open_small_render(source, tmp_path / "out", small_network)
    with pytest.raises(DreamError, match=r"0.png: a worker could not dream it \(ZeroDivisionError: division by zero"):
        dream(client, opened, FaultyNetwork(small, "mixed", faulty.break_down, tmp_path))


def test_a_scheduler_that_is_lost_while_a_result_is_asked_for(
    client, source, small_network, small, tmp_path, monkeypatch
):
    async def ask_in_vain(*about, **options):
        raise distributed.comm.CommClosedError("in <TCP>: ConnectionResetError: [Errno 104] Connection reset by peer")

    opened = open_small_render(source, tmp_path / "out", small_network)
    monkeypatch.setattr(client, "gather", ask_in_vain)
    with pytest.raises(DreamError, match="^the scheduler is lost; the same command goes on from here$"):
        dream(client, opened, small)


def test_workers_stop_when_a_render_is_left(client, source, small_network, small, tmp_path):
    faults = FaultyNetwork(small, "mixed", faulty.slow_down, tmp_path)
    opened = open_small_render(source, tmp_path / "out", small_network, iterations=1000)
    with opened.journal, Team(client, opened, faults, HERE, print) as team:
        frames = team.dream_frames()
        Timer(3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(frames)
    deadline = time.monotonic() + 30
    while any(client.run(lambda dask_worker: dask_worker.state.executing_count).values()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


# --- Files that fail -------------------------------------------------------------------------------


def test_a_source_that_disappears_leaves_what_is_finished(client, small_network, small, tmp_path):
    source = save_frames(pictures(), tmp_path / "source")
    opened = open_small_render(source, tmp_path / "out", small_network)
    (source / "4.png").unlink()
    with pytest.raises(UsageError, match="4.png"):
        dream(client, opened, small)
    assert list(read_dreams(tmp_path / "out")) == [f"frame_{number:06d}.png" for number in range(4)]


def test_a_damaged_source_names_its_file(client, small_network, small, tmp_path):
    source = save_frames(pictures(), tmp_path / "source")
    opened = open_small_render(source, tmp_path / "out", small_network)
    (source / "1.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="1.png is not a picture"):
        dream(client, opened, small)


def test_a_full_disk_leaves_what_is_finished(client, source, small_network, small, tmp_path, monkeypatch):
    whole = team.write_whole

    def write(path, content):
        if path.stem == "frame_000003":
            raise DreamError(f"cannot write {path}: No space left on device")
        whole(path, content)

    monkeypatch.setattr(team, "write_whole", write)
    with pytest.raises(DreamError, match="frame_000003.png: No space"):
        dream(client, open_small_render(source, tmp_path / "out", small_network), small)
    monkeypatch.undo()
    reports = dream(client, open_small_render(source, tmp_path / "out", small_network), small)
    assert [report.number for report in reports] == list(range(3, 11))


# --- Which workers are used ------------------------------------------------------------------------

ODD_WORKER = """
import sys, torch
from distributed.cli.dask_worker import main
torch.backends.cpu.get_cpu_capability = lambda: "ODD"
main([sys.argv[1], "--no-nanny", "--name", "odd", "--no-dashboard"])
"""


def test_a_worker_that_rounds_otherwise_is_refused(client, source, small_network, small, tmp_path):
    told, environment = [], os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", ODD_WORKER, client.scheduler.address], env=environment)
    try:
        client.wait_for_workers(3, timeout=60)
        opened = open_small_render(source, tmp_path / "out", small_network, INDEPENDENT)
        reports = dream(client, opened, small, on_message=told.append)
    finally:
        process.kill()
        process.wait()
    (line,) = (line for line in told if "is not used" in line)
    assert line.startswith("worker odd (tcp://127.0.0.1:") and "ODD there" in line
    assert {report.worker for report in reports} <= {"0", "1"}


def test_where_no_worker_rounds_alike_the_render_ends(client, source, small_network, small, tmp_path):
    told = []
    opened = open_small_render(source, tmp_path / "out", small_network)
    with pytest.raises(DreamError, match="no worker of the cluster"):
        dream(client, opened, small, HERE | {"PyTorch": "1.0", "OpenCV": "1.0"}, told.append)
    lines = [line for line in told if "is not used" in line]
    assert lines and all("PyTorch 1.0 here" in line and "OpenCV 1.0 here" in line for line in lines)


def test_where_no_worker_is_there_that_is_said_and_the_render_goes_on_when_one_comes(
    source, small_network, small, tmp_path, monkeypatch
):
    monkeypatch.setattr(team, "POLL_SECONDS", 0.05)
    local = distributed.LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None)
    with local, distributed.Client(local) as client:
        told = []

        def tell(line):
            told.append(line)
            local.scale(1)

        opened = open_small_render(source, tmp_path / "out", small_network, INDEPENDENT)
        with opened.journal, Team(client, opened, small, HERE, tell) as crew:
            frames = [report.number for report in crew.dream_frames()]
    assert sorted(frames) == list(range(11))
    lines = [line for line in told if "no worker" in line]
    assert set(lines) == {"no worker is there; the render goes on when one comes"}
    assert len(lines) <= 3  # not at every poll: again only after the scheduler has told something


def test_each_worker_has_a_gpu_of_its_own():
    with open_cluster(ClusterOptions(workers=3), print, gpus=2) as client:
        seen = client.run(lambda dask_worker: (dask_worker.name, os.environ.get("CUDA_VISIBLE_DEVICES")))
    assert sorted(seen.values()) == [(0, "0"), (1, "1"), (2, "0")]
