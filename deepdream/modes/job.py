"""What all modes share: a command under way, its options with the files they name, its network."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepdream.errors import UsageError
from deepdream.options import Arguments, RenderOptions
from deepdream.schedule import has_keyframes, keyframes, parse_texts
from deepdream.settings import NO_FILE
from deepdream.show.progress import Screen, show_duration

if TYPE_CHECKING:
    from deepdream.networks.network import Network
    from deepdream.schedule import Schedule

    Loaded = tuple[Network, tuple[str, ...] | Schedule]


@dataclass(frozen=True)
class Job:
    """A command that makes ``target`` of ``source``, and the screen on which its user follows it."""

    arguments: Arguments
    screen: Screen
    source: Path
    target: Path
    started: float = field(default_factory=time.monotonic)

    def step(self, source: Path, target: Path) -> "Job":
        """A part of this job, which starts now."""
        return Job(self.arguments, self.screen, source, target)

    def tell_done(self, what: str) -> None:
        """Tell what has been made, in which time."""
        self.screen.tell(f"{what} in {show_duration(time.monotonic() - self.started)}: {self.target}")

    def options(self, directory: Path, **more: Any) -> RenderOptions:
        """The render's options, with the path of the guide, which may lie in ``directory``. ``more``: fields to set."""
        return replace(self.arguments.render, guide=_find_guide(self.arguments.render.guide, directory), **more)

    def load_network(self) -> "Loaded":
        """The network, and its layers that ``--layers`` means."""
        from deepdream.networks import load_network, resolve_layers

        network = load_network(**vars(self.arguments.network), on_message=self.screen.tell)
        return network, resolve_layers(network, self.arguments.render.dream.layers, on_message=self.screen.tell)


def _find_guide(name: str | None, directory: Path) -> str | None:
    """The path of the guide: as given, else of that name inside the input directory; None where none is given.

    A `Schedule` of paths where guides change over time; ``none`` is none there.
    """
    if name is None:
        return None
    if has_keyframes(name) and not Path(name).exists():
        guides = parse_texts("--guide", name, "0:cats.jpg, 48:dogs.jpg")
        paths = (None if guide == NO_FILE else _find_guide(guide, directory) for guide in guides.values)
        return keyframes(dict(zip(guides.frames, paths)))
    for path in (Path(name), directory / name):
        if path.is_file():
            return str(path)
    raise UsageError(f"-g {name}: no such file, neither here nor inside {directory}")
