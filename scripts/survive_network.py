#!/usr/bin/env python3
"""Render with a worker on another "host", a network namespace, behind a link that breaks, or that is slow and lossy.

    sudo .venv/bin/python scripts/survive_network.py [--break SECONDS]

Each render must end with the bytes of one in one process. Needs Linux, root, and ip of iproute2.
"""

import argparse
import fcntl
import os
import random
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]

from helpers import moving_ramps, read_dreams, save_frames  # noqa: E402
from nets import SMALL, random_blobs, write_model  # noqa: E402

HOST = "dream-worker"  # the namespace
HERE, THERE = "10.77.0.1", "10.77.0.2"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000  # of <linux/if_tun.h>
MTU = 1500
POLL = 0.1  # seconds
DELAY, LOSS = 0.05, 0.01  # of the slow link: seconds, and the share of packets, both ways
FRAMES, SIZE = 12, (240, 320)
RENDER = "-i Input -t model -l mixed -oct 2 -itr 20 -j 4 -gpu 0 -v 1".split()


def ip(*words: str) -> None:
    """Run ip."""
    subprocess.run(["ip", *words], check=True)


class Link(Thread):
    """A link to the namespace `HOST`: two devices between which this thread carries the packets.

    ``delay`` in seconds, ``loss`` as a share of the packets: 1 is a broken link.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.delay = self.loss = 0.0
        self._is_over = False
        ip("netns", "add", HOST)
        self._here, self._there = _device("dream-here"), _device("dream-there")
        ip("link", "set", "dream-there", "netns", HOST)
        for device, mine, other, where in (
            ("dream-here", HERE, THERE, ()),
            ("dream-there", THERE, HERE, ("-n", HOST)),
            ("lo", "127.0.0.1", "127.0.0.1", ("-n", HOST)),
        ):
            ip(*where, "addr", "replace", mine, "peer", other, "dev", device)
            ip(*where, "link", "set", device, "up")

    def run(self) -> None:
        """Carry packets until `close`."""
        chance, on_the_way = random.Random(0), deque[tuple[float, int, bytes]]()
        while not self._is_over:
            wait = max(0, on_the_way[0][0] - time.monotonic()) if on_the_way else POLL
            for device in select.select([self._here, self._there], [], [], wait)[0]:
                packet, other = os.read(device, MTU), self._there if device == self._here else self._here
                if chance.random() >= self.loss:
                    on_the_way.append((time.monotonic() + self.delay, other, packet))
            while on_the_way and on_the_way[0][0] <= time.monotonic():
                _, device, packet = on_the_way.popleft()
                os.write(device, packet)

    def close(self) -> None:
        """Remove the namespace."""
        self._is_over = True
        self.join()
        ip("netns", "del", HOST)


def _device(name: str) -> int:
    """A network device whose packets are read from and written to a file."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def render(place: Path, output: str, disturb: Callable[[], None]) -> float:
    """Render with one worker on the other host, disturbed once two frames are there; the seconds it took."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    dask = [sys.executable, "-m", "dask"]
    address, started = f"tcp://{HERE}:8786", time.monotonic()
    # A worker that loses its scheduler for longer than TCP waits ends; whoever runs it starts it again.
    again = ["ip", "netns", "exec", HOST, "sh", "-c", 'while :; do "$@"; sleep 1; done', "worker"]

    @contextmanager
    def run(*words: str, log: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
        with ExitStack() as stack:
            said = None if log is None else stack.enter_context(open(place / log, "ab"))
            options = {"cwd": place, "env": environment, "stdout": said, "stderr": said}
            process = subprocess.Popen(words, start_new_session=True, **options)
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):  # it has ended by itself
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    with (
        run(*dask, "scheduler", "--host", HERE, "--port", "8786", "--no-dashboard", log="scheduler.log"),
        run(*again, *dask, "worker", address, "--nthreads", "1", "--no-dashboard", log="worker.log"),
        run(sys.executable, str(ROOT / "dreamer.py"), *RENDER, "-o", output, "--cluster", address) as client,
    ):
        while client.poll() is None and len(read_dreams(place / output)) < 2:
            time.sleep(0.1)
        disturb()
        status = client.wait()
    assert status == 0, f"{output}: exit status {status}"
    return time.monotonic() - started


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--break", dest="seconds", type=float, default=60, help="how long the link is broken (60)")
    seconds = parser.parse_args().seconds

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_model(place / "model", SMALL, random_blobs(SMALL))
        save_frames(moving_ramps(FRAMES, SIZE), place / "Input")
        subprocess.run([sys.executable, str(ROOT / "dreamer.py"), *RENDER, "-o", "Alone"], cwd=place, check=True)
        link = Link()
        link.start()

        def break_link() -> None:
            link.loss = 1.0
            time.sleep(seconds)
            link.loss = 0.0

        try:
            for output, disturb in (("whole", lambda: None), ("broken", break_link), ("slow", lambda: None)):
                if output == "slow":
                    link.delay, link.loss = DELAY, LOSS
                took = render(place, output, disturb)
                same = read_dreams(place / output) == read_dreams(place / "Alone")
                print(f"link {output}: {took:.0f} s, {'the same bytes' if same else 'OTHER BYTES'}", flush=True)
                if not same:
                    sys.exit(1)
        finally:
            link.close()


if __name__ == "__main__":
    main()
