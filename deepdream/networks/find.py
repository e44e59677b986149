"""The files of the Caffe model to dream with: where they are looked for, and which of a directory's files count."""

import atexit
import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from deepdream.errors import ModelError

GOOGLENET = "bvlc_googlenet"
MEAN_FILES = ("mean.npy", "mean.binaryproto")
LOOP_FILE = "customloop.txt"
LABEL_FILES = ("labels.txt", "synset_words.txt")
TEMPORARY = ExitStack()
atexit.register(TEMPORARY.close)


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model. ``mean`` (BGR, three numbers) and ``loop`` (layers) are None where it brings none.

    ``labels``: the names of its classes, in order, or ().
    """

    prototxt: Path
    caffemodel: Path
    mean: tuple[float, ...] | None = None
    loop: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()


def find_model(
    model_path: str | Path | None, model_name: str | None, on_message: Callable[[str], object]
) -> ModelFiles:
    """Find the model asked for; see `load_network` for the arguments. Raises `ModelError` where there is none."""
    if model_path is None and model_name is None:
        model_path = next((place for place in _usual_places() if any(place.glob("*.caffemodel"))), None)
        if model_path is None:
            return _find_default(on_message)
    if model_path is None:
        on_message(f"-m {model_name} without -t: looking for the model in the current directory")
    folder = Path(model_path or ".")
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a directory; -t takes the directory of a Caffe model")
    return ModelFiles(
        _find_prototxt(folder),
        _find_caffemodel(folder, model_name),
        _read_own_mean(folder),
        _read_own_loop(folder),
        _read_labels(folder),
    )


def _usual_places() -> list[Path]:
    roots = [Path("../caffe"), Path()]
    if os.environ.get("CAFFE_ROOT"):
        roots.insert(0, Path(os.environ["CAFFE_ROOT"]))
    return [root / "models" / GOOGLENET for root in roots]


def _find_default(on_message: Callable[[str], object]) -> ModelFiles:
    from deepdream.networks import default

    on_message(
        "no GoogLeNet found: dreaming with the embedded EfficientNet-Lite0 "
        f"({_get_model_command()} bvlc_googlenet fetches GoogLeNet)"
    )
    try:
        files = default.default_model_files()
    except default.CacheError as error:
        on_message(f"{error}: the network is made anew for this run alone")
        # Deleted when the program ends.
        files = default.default_model_files(TEMPORARY.enter_context(TemporaryDirectory(prefix="deepdream-")))
    return ModelFiles(*files, default.MEAN, default.LOOP)


def _get_model_command() -> str:
    in_checkout = Path(__file__).parents[2].joinpath("scripts", "get_model.py").exists()
    return "python scripts/get_model.py" if in_checkout else "get_model.py"  # as pip installs it


def _find_prototxt(folder: Path) -> Path:
    deploy = folder / "deploy.prototxt"
    if deploy.is_file():
        return deploy
    found = sorted(folder.glob("*.prototxt"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ModelError(f"{folder} needs a deploy.prototxt, or exactly one .prototxt (there: {names})")
    return found[0]


def _find_caffemodel(folder: Path, name: str | None) -> Path:
    found = sorted(folder.glob("*.caffemodel"))
    there = ", ".join(path.name for path in found) or "none"
    if name is None:
        if len(found) != 1:
            raise ModelError(f"{folder} holds {len(found)} caffemodels ({there}); name one with -m")
        return found[0]
    for path in (folder / name, folder / f"{name}.caffemodel"):
        if path.is_file():
            return path
    raise ModelError(f"{folder} holds no caffemodel {name} (there: {there})")


def _read_own_mean(folder: Path) -> tuple[float, ...] | None:
    from deepdream.networks.caffemodel import read_mean

    found = [folder / name for name in MEAN_FILES if (folder / name).is_file()]
    return tuple(read_mean(found[0]).tolist()) if found else None


def _read_own_loop(folder: Path) -> tuple[str, ...] | None:
    path = folder / LOOP_FILE
    if not path.is_file():
        return None
    loop = path.read_text(encoding="utf-8", errors="replace").split()
    if not loop:
        raise ModelError(f"{path} names no layers; write one name a line, or delete it")
    return tuple(loop)


def _read_labels(folder: Path) -> tuple[str, ...]:
    """The names of the classes, a line each, without the WordNet numbers (n01440764) that ImageNet's begin with."""
    for path in (folder / name for name in LABEL_FILES):
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            return tuple(re.sub(r"^n\d{8}\s+", "", line.strip()) for line in lines if line.strip())
    return ()
