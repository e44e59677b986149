#!/usr/bin/env python
"""Check that a wheel of every requirement, and of all that these require, exists for each system that is supported.

Nothing but metadata is downloaded, and nothing is installed. Needs a way to PyPI. Exit status 1 where one is missing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"
PYTHONS = ("3.11", "3.13")
# pip does not know that a machine that takes manylinux_2_28 takes the older ones too.
MANYLINUX = (*(f"manylinux_2_{minor}" for minor in range(28, 16, -1)), "manylinux2014")
# The wheels' tags that a system takes, and what the markers of requirements see there.
SYSTEMS = {
    "Windows x86_64": (("win_amd64",), {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"}),
    "macOS arm64": (
        ("macosx_14_0_arm64",),
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"},
    ),
} | {
    f"Linux {machine}": (
        tuple(f"{tag}_{machine}" for tag in MANYLINUX),
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine, "os_name": "posix"},
    )
    for machine in ("x86_64", "aarch64")
}


def resolve(requirements, tags, python):
    """pip's report on the wheels it would take: a list of dictionaries. Raises `CalledProcessError`."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={python}", *(f"--platform={tag}" for tag in tags)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command += ["--target", folder, "--report", str(report), *requirements]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(report.read_text(encoding="utf-8"))["install"]


def find_wheels(requirements, tags, markers, python):
    """The names of the wheels of ``requirements`` and of all that these require: {project: file}."""
    markers = {**markers, "python_version": python, "python_full_version": f"{python}.0"}
    found, wanted = {}, [Requirement(text) for text in requirements]
    while wanted:
        wheels = resolve([str(each).partition(";")[0] for each in wanted], tags, python)
        found |= {project(wheel): wheel["download_info"]["url"].rsplit("/", 1)[1] for wheel in wheels}
        extras = {canonical(each.name): each.extras or {""} for each in wanted}
        required = [
            requirement
            for wheel in wheels
            for requirement in map(Requirement, wheel["metadata"].get("requires_dist", ()))
            if is_wanted(requirement, markers, extras[project(wheel)])
        ]
        # NVIDIA's libraries, two dozen, come with PyTorch for Linux and are its affair.
        wanted = [each for each in required if canonical(each.name) not in found and not is_nvidia(each.name)]
    return found


def is_wanted(requirement, markers, extras):
    """Whether a requirement holds for a system and for one of the extras that were asked for."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**markers, "extra": extra}) for extra in extras)


def is_nvidia(name):
    """Whether a project is one of NVIDIA's libraries."""
    return canonical(name).startswith(("nvidia-", "cuda-"))


def project(wheel):
    """The name of the project in an entry of pip's report."""
    return canonical(wheel["metadata"]["name"])


def canonical(name):
    """One spelling of a project's name."""
    return name.lower().replace("_", "-").replace(".", "-")


def main():
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="check_wheels.py", description=__doc__)
    parser.add_argument("-v", "--verbose", action="store_true", help="print every wheel")
    options = parser.parse_args()
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    requirements = [line for line in lines if line]
    cases = [(system, python) for system in SYSTEMS for python in PYTHONS]
    with ThreadPoolExecutor(4) as pool:
        checks = [pool.submit(find_wheels, requirements, *SYSTEMS[system], python) for system, python in cases]
    for (system, python), check in zip(cases, checks):
        error = check.exception()
        if isinstance(error, subprocess.CalledProcessError):
            reasons = [line for line in error.stderr.splitlines() if line.startswith("ERROR")]
            print(f"{system}, Python {python}: {' '.join(reasons) or error.stderr}")
            continue
        found = check.result()
        print(f"{system}, Python {python}: all {len(found)} wheels exist")
        if options.verbose:
            print(*(f"  {wheel}" for wheel in sorted(found.values())), sep="\n")
    return 1 if any(check.exception() for check in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
