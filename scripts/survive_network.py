#!/usr/bin/env python3
"""Render with a worker on another "host", a network namespace, behind a link that breaks, or that is slow and lossy.

    sudo .venv/bin/python scripts/survive_network.py [--break SECONDS]

Each render must end with the bytes of one in one process. Needs Linux, root, and ip and tc of iproute2.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]

from helpers import moving_ramps, read_dreams, save_frames  # noqa: E402
from nets import SMALL, random_blobs, write_model  # noqa: E402

HOST, LINK = "dream-worker", "dream-link"  # the namespace, and this end of the link
HERE, THERE = "10.77.0.1", "10.77.0.2"
FRAMES = 12
RENDER = "-i Input -t model -l mixed -oct 2 -itr 400 -j 4 -gpu 0 -v 1".split()


def ip(*words: str) -> None:
    """Run ip."""
    subprocess.run(["ip", *words], check=True)


def make_host() -> None:
    """A namespace with a link to it."""
    ip("netns", "add", HOST)
    ip("link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", HOST)
    ip("addr", "add", f"{HERE}/24", "dev", LINK)
    ip("link", "set", LINK, "up")
    ip("-n", HOST, "addr", "add", f"{THERE}/24", "dev", "eth0")
    for device in ("eth0", "lo"):
        ip("-n", HOST, "link", "set", device, "up")


def render(place: Path, output: str, disturb: Callable[[], None]) -> float:
    """Render with one worker on the other host, disturbed once two frames are there; the seconds it took."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    quiet = {"cwd": place, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    address, started = f"tcp://{HERE}:8786", time.monotonic()
    # A worker that loses its scheduler for longer than TCP waits ends; whoever runs it starts it again.
    enter = ["ip", "netns", "exec", HOST, "sh", "-c", 'while :; do "$@"; done', "worker"]
    with (
        subprocess.Popen(
            [*dask, "scheduler", "--host", HERE, "--port", "8786", "--no-dashboard"], **quiet
        ) as scheduler,
        subprocess.Popen(
            [*enter, *dask, "worker", address, "--nthreads", "1", "--no-dashboard"], **quiet, start_new_session=True
        ) as worker,
    ):
        words = [sys.executable, str(ROOT / "dreamer.py"), *RENDER, "-o", output, "--cluster", address]
        with subprocess.Popen(words, cwd=place, env=environment) as client:
            while client.poll() is None and len(read_dreams(place / output)) < 2:
                time.sleep(0.1)
            disturb()
        os.killpg(worker.pid, signal.SIGTERM)
        scheduler.terminate()
    assert client.returncode == 0, f"{output}: exit status {client.returncode}"
    return time.monotonic() - started


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--break", dest="seconds", type=float, default=60, help="how long the link is broken (60)")
    seconds = parser.parse_args().seconds

    def break_link() -> None:
        ip("link", "set", LINK, "down")
        time.sleep(seconds)
        ip("link", "set", LINK, "up")

    def spoil_link() -> None:
        subprocess.run(f"tc qdisc add dev {LINK} root netem delay 50ms loss 1%".split(), check=True)

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_model(place / "model", SMALL, random_blobs(SMALL))
        save_frames(moving_ramps(FRAMES, (40, 48)), place / "Input")
        subprocess.run([sys.executable, str(ROOT / "dreamer.py"), *RENDER, "-o", "Alone"], cwd=place, check=True)
        make_host()
        try:
            for output, disturb in (("whole", lambda: None), ("broken", break_link), ("slow", spoil_link)):
                took = render(place, output, disturb)
                same = read_dreams(place / output) == read_dreams(place / "Alone")
                print(f"link {output}: {took:.0f} s, {'the same bytes' if same else 'OTHER BYTES'}", flush=True)
                if not same:
                    sys.exit(1)
        finally:
            ip("netns", "del", HOST)


if __name__ == "__main__":
    main()
