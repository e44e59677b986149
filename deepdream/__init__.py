"""DeepDream videos: extract frames, dream over them with optical flow, create the video.

A Python program uses the names below; see `deepdream.api`. They are loaded when they are first used: what needs none of
them, such as ``dreamer.py --help``, does not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepdream.api import dive, dream, dream_directory
    from deepdream.errors import DreamError
    from deepdream.networks import load_network
    from deepdream.options import DivideMode, DivideOptions, DreamOptions, FlowMode, FlowOptions, RenderOptions
    from deepdream.schedule import keyframes

__version__ = "1.0.0"
__all__ = [
    "DivideMode", "DivideOptions", "DreamError", "DreamOptions", "FlowMode", "FlowOptions", "RenderOptions",
    "dive", "dream", "dream_directory", "keyframes", "load_network",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {"keyframes": "schedule", "DreamError": "errors", "load_network": "networks"}
    home = homes.get(name, "api" if name.islower() else "options")
    return getattr(import_module(f"deepdream.{home}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
