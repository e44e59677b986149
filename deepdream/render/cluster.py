"""A Dask cluster to render on: one that is there, or workers on this machine, which end with the render."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dask
import distributed
from distributed.comm import get_address_host

from deepdream.errors import DreamError, UsageError, first_line
from deepdream.options import ClusterOptions
from deepdream.threads import read_use

WORKER_TTL = "60s"  # without a sign of life, of a worker on this machine
START_SECONDS = 300  # until workers on this machine count as broken
LOST_SECONDS = 30  # until a worker on this machine that does not start again counts as lost
NO_LIMIT = 10**6  # deaths of workers, of which Dask blames each task that was assigned to them: see `team.Team`
IGNORE_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # Ctrl-C is for this process alone
SILENT = logging.CRITICAL + 1
OnMessage = Callable[[str], object]


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
    settings: dict[str, object] = {
        "distributed.admin.large-graph-warning-threshold": "1TiB",  # frames may be large
        "distributed.admin.low-level-log-length": 2 * options.workers or 1,  # of messages too, with the frames in them
    }
    if options.cluster:
        with dask.config.set(settings), _connect(options.cluster, on_message) as client:
            yield client
        return
    cores = min((shared.count for shared in read_use().shared), default=os.cpu_count() or 1)
    settings |= {"distributed.scheduler.worker-ttl": WORKER_TTL, "distributed.scheduler.allowed-failures": NO_LIMIT}
    settings["distributed.deploy.lost-worker-timeout"] = f"{LOST_SECONDS}s"
    settings |= {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}  # nobody is to look on
    settings["distributed.worker.profile.enabled"] = False  # it stops what computes a hundred times a second
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
