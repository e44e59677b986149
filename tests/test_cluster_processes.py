"""Workers as a user starts them, and what becomes of them when the render, its scheduler or its user ends."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import distributed
import psutil
import pytest
from helpers import ROOT, SCRIPTS, moving_ramps, read_dreams, save_frames
from PIL import Image

sys.path.insert(0, str(SCRIPTS))

pytestmark = pytest.mark.skipif(os.name == "nt", reason="NOT TESTED on Windows: signals of POSIX")
PATIENCE = 60  # seconds until what must happen counts as not happening


@pytest.fixture
def place(tmp_path):
    save_frames(moving_ramps(8, (40, 48)), tmp_path / "Input")
    return tmp_path


@pytest.fixture
def command(small_folder):
    """A function from an output and more arguments to the words of a render."""
    quick = "-gpu 0 -l mixed -oct 2 -itr 2 -j 4 -bs 0".split()
    return lambda output, *more: ["-i", "Input", "-o", output, "-t", str(small_folder), *quick, *more]


def start(place, *words, environment=None):
    """Start a Python program in ``place``, in a group of its own as a shell does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=place, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def dreamer(place, *words, environment=None):
    return start(place, ROOT / "dreamer.py", *words, environment=environment)


def end(process):
    """Wait for a program; its exit status and what it told."""
    told = process.communicate(timeout=PATIENCE)[1]
    assert "Traceback" not in told, told
    return process.returncode, told


def wait_for(condition):
    """Wait until a function gives something true, and return that."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def frames_in(place, name):
    return lambda: len(read_dreams(place / name)) >= 2


@contextmanager
def dask(place, environment=None, workers=2):
    """A scheduler and workers, started by Dask's commands; gives the scheduler's process."""
    file = place / "scheduler.json"
    quiet = ("--no-dashboard", "--scheduler-file", file)
    told = open(place / "dask.log", "w")  # noqa: SIM115 - of processes that outlive this line
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})

    def run(*words):
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *map(str, words)], cwd=place, env=environment, stdout=told, stderr=told
        )

    scheme = ("--protocol", "tls") if "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in environment else ()
    scheduler = run("scheduler", "--host", "127.0.0.1", "--port", 0, *scheme, *quiet)
    processes = [scheduler]
    try:
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))
        processes += [run("worker", "--nthreads", 1, "--name", f"w{number}", *quiet) for number in range(workers)]
        yield scheduler
    finally:
        for process in processes:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
                child.kill()
            process.kill()
            process.wait()
        told.close()


@pytest.fixture
def alone(place, command):
    """The frames of one process."""
    assert end(dreamer(place, *command("Alone")))[0] == 0
    return read_dreams(place / "Alone")


def test_a_cluster_dreams_what_one_process_dreams(place, command, alone):
    """Also where the client was killed and started again."""
    with dask(place):
        slow = command("Killed", "--cluster", "scheduler.json", "-itr", 40)
        client = dreamer(place, *slow)
        wait_for(frames_in(place, "Killed"))
        os.killpg(client.pid, signal.SIGKILL)
        client.communicate()
        status, told = end(dreamer(place, *command("Many", "--cluster", "scheduler.json", "-v", 2)))
        assert status == 0, told
        assert read_dreams(place / "Many") == alone
        assert {word for line in told.splitlines() if "on worker" in line for word in line.split()[-1:]} <= {"w0", "w1"}
        assert "on worker" in told
        status, told = end(dreamer(place, *slow))
        assert status == 0 and "going on" in told
    assert end(dreamer(place, *command("Slow", "-itr", 40)))[0] == 0
    assert read_dreams(place / "Killed") == read_dreams(place / "Slow")


def test_a_scheduler_that_was_there_keeps_no_frames(place, command):
    def messages(dask_scheduler):
        return [len(comm.recent_message_log) for comm in dask_scheduler.stream_comms.values()]

    with dask(place), distributed.Client(scheduler_file=str(place / "scheduler.json")) as client:
        client.wait_for_workers(1, timeout=60)
        assert end(dreamer(place, *command("Many", "--cluster", "scheduler.json")))[0] == 0
        client.wait_for_workers(2, timeout=60)
        kept = client.run_on_scheduler(messages)
        client.restart(timeout=60)  # other workers come in their place
        client.gather(client.map(abs, range(4)))
        kept_for_others = client.run_on_scheduler(messages)
    assert kept == kept_for_others == [0, 0]


def test_workers_that_were_there_keep_no_tiles(place, command):
    def messages():
        with suppress(ValueError):  # this worker has waited for no tiles
            return len(distributed.Client.current().scheduler_comm.recent_message_log)

    words = command("Many", "--cluster", "scheduler.json", "-bs", 0.5, "-d", 1, "-mw", 30, "-mh", 30)
    with dask(place), distributed.Client(scheduler_file=str(place / "scheduler.json")) as client:
        client.wait_for_workers(2, timeout=60)
        assert end(dreamer(place, *words))[0] == 0
        kept = {*client.run(messages).values()} - {None}
    assert kept == {0}


@pytest.mark.parametrize("lacking", ["scheduler", "worker"])
def test_who_lacks_the_program_is_told_in_a_line(place, command, lacking):
    (place / "lacking").mkdir()
    (place / "lacking" / "deepdream.py").write_text("raise ModuleNotFoundError('none here')")
    without = {"PYTHONPATH": str(place / "lacking")}
    with dask(place, without if lacking == "scheduler" else None, workers=0):
        file = str(place / "scheduler.json")
        bare = [sys.executable, "-m", "dask", "worker", "--no-dashboard", "--scheduler-file", file]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | (without if lacking == "worker" else {})
        worker = subprocess.Popen(bare, cwd=place, env=environment, stderr=subprocess.DEVNULL)
        try:
            with distributed.Client(scheduler_file=file) as client:
                client.wait_for_workers(1, timeout=60)
                status, told = end(dreamer(place, *command("Output", "--cluster", file)))
                left = client.run_on_scheduler(lambda dask_scheduler: [*dask_scheduler.worker_plugins])
        finally:
            worker.terminate()
            worker.wait()
    assert status == 1
    assert not [name for name in left if "deepdream" in name]  # workers that have the program may still come
    assert "cannot load this program" in told.splitlines()[-1] and "none here" in told.splitlines()[-1]


@pytest.mark.skipif(
    not os.path.exists("/proc/self/cwd"), reason="NOT TESTED without a path that each process has its own of"
)
@pytest.mark.parametrize("can_keep", [True, False], ids=["kept", "not kept"])
def test_workers_that_lack_the_network_are_sent_it(place, command, small_folder, can_keep):
    shutil.copytree(small_folder, place / "network")
    (elsewhere := place / "elsewhere").mkdir()
    cache, theirs = place / "cache", ("-t", "/proc/self/cwd/network")
    if not can_keep:
        cache.write_bytes(b"a file")
    with dask(elsewhere, {"XDG_CACHE_HOME": str(cache)}):
        words = command("Many", "--cluster", elsewhere / "scheduler.json", *theirs)
        assert end(dreamer(place, *words))[0] == 0
    assert end(dreamer(place, *command("Alone", *theirs)))[0] == 0
    assert read_dreams(place / "Many") == read_dreams(place / "Alone")
    assert len(list(cache.rglob("*.caffemodel"))) == can_keep


def test_a_live_picture_shows_what_the_workers_have_saved(place, command):
    hidden = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}
    assert end(dreamer(place, *command("Output", "--workers", 1, "-v", 3), environment=hidden))[0] == 0
    assert Image.open(place / "Output" / "preview.jpg").size == (96, 40)


def test_an_interrupted_render_leaves_the_workers_idle(place, command):
    with dask(place):
        client = dreamer(place, *command("Output", "--cluster", "scheduler.json", "-itr", 2000))
        with distributed.Client(scheduler_file=place / "scheduler.json") as watch:
            wait_for(lambda: any(watch.processing().values()))
            time.sleep(1)
            os.killpg(client.pid, signal.SIGINT)
            status, told = end(client)
            assert status == 130 and told.endswith("the same command goes on from here\n")
            wait_for(lambda: not any(watch.run(lambda dask_worker: dask_worker.state.executing_count).values()))


def test_a_lost_scheduler_ends_the_render_with_a_line(place, command):
    with dask(place) as scheduler:
        client = dreamer(place, *command("Output", "--cluster", "scheduler.json", "-itr", 60))
        wait_for(frames_in(place, "Output"))
        scheduler.kill()
        status, told = end(client)
    assert status == 1
    assert told.splitlines()[-1] == "dreamer.py: the scheduler is lost; the same command goes on from here"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_of_this_machine_end_with_the_render(place, command, number):
    client = dreamer(place, *command("Output", "--workers", 2, "-itr", 100))
    wait_for(frames_in(place, "Output"))
    family = psutil.Process(client.pid).children(recursive=True)
    assert len(family) >= 2
    listening = [each.laddr.ip for process in [psutil.Process(client.pid), *family]
                 for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]  # fmt: skip
    assert listening and set(listening) == {"127.0.0.1"}
    (os.killpg if number == signal.SIGINT else os.kill)(client.pid, number)  # as Ctrl-C does
    status, told = end(client)
    assert status == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert number == signal.SIGKILL or told.splitlines()[-1].endswith("the same command goes on from here"), told
    wait_for(lambda: not any(process.is_running() for process in family))


@pytest.fixture
def connect():
    """A function that connects to a port from another host, as it seems, and gives the error, or nothing."""
    if not (os.path.exists("/dev/net/tun") and shutil.which("ip") and os.geteuid() == 0):
        pytest.skip("needs /dev/net/tun, ip and root: NOT TESTED from another host")
    from survive_network import HERE, HOST, Link

    def connect(port):
        code = f"import socket; socket.create_connection(({HERE!r}, {port}), 10)"
        words = "ip", "netns", "exec", HOST, sys.executable, "-c", code
        return subprocess.run(words, capture_output=True, text=True).stderr.strip().rpartition("\n")[2]

    link = Link()
    link.start()
    yield connect
    link.close()


def test_no_other_host_reaches_the_workers_of_this_machine(place, command, connect):
    client = dreamer(place, *command("Output", "--workers", 2, "-itr", 100))
    wait_for(frames_in(place, "Output"))
    family = [psutil.Process(client.pid), *psutil.Process(client.pid).children(recursive=True)]
    ports = [each.laddr.port for process in family for each in process.net_connections("inet")
             if each.status == psutil.CONN_LISTEN]  # fmt: skip
    with socket.create_server(("", 0)) as open_to_all:
        assert connect(open_to_all.getsockname()[1]) == ""
    assert len(ports) >= 3  # of the scheduler and two workers
    assert {connect(port).partition(":")[0] for port in ports} == {"ConnectionRefusedError"}
    assert end(client)[0] == 0


def test_an_address_without_a_scheduler_is_a_line(place, command):
    quick = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
    client = dreamer(place, *command("Output", "--cluster", "tcp://127.0.0.1:9"), environment=quick)
    status, told = end(client)
    assert status == 1 and "--cluster tcp://127.0.0.1:9: no scheduler answers" in told.splitlines()[-1]
    assert "runs code on it" not in told
    status, told = end(dreamer(place, *command("Output", "--cluster", "tcp://192.0.2.1:9"), environment=quick))
    assert status == 1 and "--cluster tcp://192.0.2.1:9: whoever reaches it runs code on it" in told
    status, told = end(dreamer(place, *command("Output", "--cluster", "nowhere")))
    assert status == 2 and "neither an address such as" in told.splitlines()[-1]
    status, told = end(dreamer(place, *command("Output", "--cluster", "nowhere", "--workers", 2)))
    assert status == 2 and "give one of them" in told


@pytest.fixture
def certificates(place):
    """The environment of whoever may take part: an authority of one's own, and a certificate of it."""

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=worker",
            "-keyout", "key.pem", "-out", "request.pem")  # fmt: skip
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-out", "cert.pem")
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    whole = {f"{tls}CA_FILE": str(place / "ca.pem")}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        whole |= {f"{tls}{role}__CERT": str(place / "cert.pem"), f"{tls}{role}__KEY": str(place / "key.pem")}
    return whole


def test_only_who_has_a_certificate_takes_part(place, command, alone, certificates):
    with dask(place, certificates, workers=1):
        use = command("Many", "--cluster", "scheduler.json")
        quick = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
        status, told = end(dreamer(place, *use, environment=quick))
        assert status == 1 and "no scheduler answers" in told.splitlines()[-1]
        assert end(dreamer(place, *use, environment=certificates))[0] == 0
    assert read_dreams(place / "Many") == alone
