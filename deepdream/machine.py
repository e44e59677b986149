"""What a render runs on: the versions of the program and its libraries, and the machine, in words."""

import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from deepdream import __version__

_CPU_INFO = Path("/proc/cpuinfo")  # where Linux names its processors
_LIBRARIES = {"torch": "PyTorch", "opencv-python": "OpenCV", "opencv-python-headless": "OpenCV", "numpy": "NumPy",
              "pillow": "Pillow", "numba": "Numba", "rocket-fft": "Rocket-FFT"}  # fmt: skip
_ROUNDING = ("deepdream", *dict.fromkeys(_LIBRARIES.values()), "instructions", "GPU")


def describe(device: torch.device) -> dict[str, str]:
    """Names and values for a person to read. ``device``: what the network runs on."""
    about = {"deepdream": __version__, "Python": platform.python_version()}
    for package, name in _LIBRARIES.items():
        with suppress(PackageNotFoundError):
            about[name] = version(package)
    about["instructions"] = (
        f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"  # that PyTorch computes by
    )
    about |= {"system": platform.platform(terse=True), "processor": f"{_processor()}, {psutil.cpu_count()} cores"}
    if device.type != "cpu":
        about["GPU"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return about


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What two `describe` tell that can make frames round otherwise: ``name here, name there`` for each.

    A build of PyTorch (``+cpu``) is no difference, nor is what one of them does not tell.
    """
    pairs = ((name, here.get(name), there.get(name)) for name in _ROUNDING)
    return [
        f"{name} {mine} here, {other} there"
        for name, mine, other in pairs
        if mine and other and mine.partition("+")[0] != other.partition("+")[0]
    ]


def _processor() -> str:
    """The processor's name, or its architecture where the system tells no more."""
    text = _CPU_INFO.read_text(encoding="utf-8", errors="replace") if _CPU_INFO.exists() else ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return name[1] if name else platform.processor() or platform.machine()
