"""How much memory is left for this process: of the machine, its limits and its control groups, or of an accelerator.

Control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html beside it.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil
import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]  # stands for a module that is not there

CONTROL_GROUPS = Path("/sys/fs/cgroup")
PROCESS_GROUPS = Path("/proc/self/cgroup")
# The files of a control group by the version of the interface: its limit, its use, and what of that is only cached.
_GROUP_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def available(device: torch.device) -> int | None:
    """How many bytes this process can still have on a torch device; None where that is unknown."""
    if device.type == "cpu":
        headrooms = (psutil.virtual_memory().available, _address_space_headroom(), *_cgroup_headroom())
        return max(0, int(min(headrooms)))
    try:
        free = torch.accelerator.get_memory_info(device)[0]
    except RuntimeError:  # not every accelerator knows
        return None
    return free + torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)


def _address_space_headroom() -> float:
    """How many bytes the limit on this process's address space (``ulimit -v``) leaves."""
    if resource is None or resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return math.inf
    return resource.getrlimit(resource.RLIMIT_AS)[0] - psutil.Process().memory_info().vms


def _cgroup_headroom() -> Iterator[float]:
    """How many bytes each control group of this process (a container is one) leaves; psutil does not look there."""
    for group, version in control_groups("memory"):
        yield _group_headroom(group, version)


def control_groups(controller: str) -> Iterator[tuple[Path, int]]:
    """The directories in which control groups of this process may have the files of a controller.

    Each with the version of the interface, from the innermost group outwards.
    """
    try:
        lines = os.fsdecode(PROCESS_GROUPS.read_bytes()).splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CONTROL_GROUPS / controller if controllers else CONTROL_GROUPS
        # Inside a container the path may be the host's while the container's own group is what is mounted.
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            yield root / group.relative_to("/"), 1 if controllers else 2


def _group_headroom(group: Path, version: int) -> float:
    limit_file, use_file, cached = _GROUP_FILES[version]
    try:
        limit = (group / limit_file).read_text(encoding="utf-8").strip()
        if limit == "max":
            return math.inf
        counts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        return int(limit) - int((group / use_file).read_text(encoding="utf-8")) + int(counts.get(cached, 0))
    except OSError:  # a group without the memory controller, or not mounted here
        return math.inf
