"""How much memory there is left for this process."""

import math
from pathlib import Path, PurePosixPath

import psutil
import torch

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None


CONTROL_GROUPS = Path("/sys/fs/cgroup")
PROCESS_GROUPS = Path("/proc/self/cgroup")
# The files of a control group by the version of the interface: its limit, its use, and what of that is only cached.
_GROUP_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def available(device):
    """How many bytes this process can still have on a torch device; None where nobody tells."""
    if device.type == "cpu":
        return max(0, min(psutil.virtual_memory().available, _left_of_address_space(), *_left_of_groups()))
    try:
        free = torch.accelerator.get_memory_info(device)[0]
    except RuntimeError:  # not every accelerator knows
        return None
    return free + torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)


def _left_of_address_space():
    """What the limit on this process's address space (``ulimit -v``) leaves of it."""
    if resource is None or resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return math.inf
    return resource.getrlimit(resource.RLIMIT_AS)[0] - psutil.Process().memory_info().vms


def _left_of_groups():
    """What the control groups of this process, as of a container, leave of their limits; psutil does not look there."""
    try:
        lines = PROCESS_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CONTROL_GROUPS / "memory" if controllers else CONTROL_GROUPS
        # Inside of a container the path may be the host's, and what is mounted the container's own group.
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            yield _left_of_group(root / group.relative_to("/"), 1 if controllers else 2)


def _left_of_group(group, version):
    limit_file, use_file, cached = _GROUP_FILES[version]
    try:
        limit = (group / limit_file).read_text().strip()
        if limit == "max":
            return math.inf
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(limit) - int((group / use_file).read_text()) + int(counts.get(cached, 0))
    except OSError:  # not this one: a group without the controller, or not mounted here
        return math.inf
