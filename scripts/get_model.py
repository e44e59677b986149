#!/usr/bin/env python
"""Download a Caffe model for dreamer.py, and check that it is the published one.

A file gets its name only when all of it has come and its sum is right; a file that is already
there is checked and kept. Run it again after a failure: it goes on with the file that is missing.
"""

import argparse
import difflib
import hashlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
from tqdm import tqdm
from urllib3.exceptions import ReadTimeoutError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # where the package is not installed, it lies beside the folder of this script

from deepdream.errors import DreamError, UsageError  # noqa: E402
from deepdream.files.atomic import make_directory, whole_file  # noqa: E402
from deepdream.networks.models import MODELS, KnownModel, ModelFile  # noqa: E402

TIMEOUT = 30  # seconds of silence after which a server counts as stalled
CHUNK = 1 << 18


class DownloadError(DreamError):
    """An address did not give the file: another one may."""


def find_model(name: str) -> KnownModel:
    models = {model.name: model for model in MODELS}
    if name not in models:
        near = difflib.get_close_matches(name.lower(), models, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(f"no model is called {name}: {hint}--list shows them all")
    return models[name]


def check(file: ModelFile, path: Path) -> tuple[bool, str]:
    """Whether ``path`` is as published for ``file``, and in words how that is known."""
    algorithm = file.digest.partition(":")[0] if file.digest else "sha256"
    try:
        with open(path, "rb") as opened:
            found = f"{algorithm}:{hashlib.file_digest(opened, algorithm).hexdigest()}"
    except OSError as error:
        raise DreamError(f"cannot read {path}: {error.strerror}") from error
    if file.digest is None:
        return True, f"no sum is published for it, so it could not be checked; it has {found}"
    if found != file.digest:
        return False, f"its sum should be {file.digest}, but is {found}"
    return True, "its sum is right"


def download(url: str, path: Path) -> None:
    """Download ``url`` to ``path``, with a progress bar where there is a terminal."""
    # The total is set by pooch; until then it must not be 0 or unknown, or pooch takes the bar for none.
    name = urlsplit(url).path.split("/")[-1]
    with tqdm(total=1, unit="B", unit_scale=True, ncols=79, desc=name, disable=None) as bar:
        try:
            pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK, timeout=TIMEOUT)(url, str(path), None)
        except requests.RequestException as error:
            raise DownloadError(f"cannot download {url}: {network_reason(error, urlsplit(url).netloc)}") from error


def network_reason(error: requests.RequestException, host: str) -> str:
    """An error of requests in words for the user."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    # A server that stalls in mid-file is a ConnectionError with the time-out inside.
    if isinstance(error, requests.Timeout) or any(isinstance(cause, ReadTimeoutError) for cause in error.args):
        return f"the server was silent for {TIMEOUT} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the download broke off before its end"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no safe connection to {host} ({error})"
    return f"no connection to {host}" if isinstance(error, requests.ConnectionError) else str(error)


def fetch(file: ModelFile, urls: Sequence[str], path: Path) -> str:
    """Download ``file`` to ``path`` from the first address that gives it; returns how it is known to be right."""
    url, *mirrors = urls
    try:
        # Not pooch.retrieve: it replaces an existing file and leaves one that only its owner can read.
        with whole_file(path) as part:
            download(url, part)
            right, words = check(file, part)
            if not right:
                raise DownloadError(f"{url} is not {path.name} as published, nothing was kept: {words}")
        return words
    except DownloadError as error:
        if not mirrors:
            raise
        print(f"{error}; trying a mirror", file=sys.stderr)
        return fetch(file, mirrors, path)


def get_file(file: ModelFile, urls: Sequence[str], path: Path) -> None:
    """Have ``file`` at ``path``: keep it if it is there already, else download it."""
    if not path.exists():
        print(f"{path}: downloaded, {fetch(file, urls, path)}")
        return
    right, words = check(file, path)
    if not right:
        raise DreamError(
            f"{path} is there already, but is not the published file: {words}. Delete or rename it, then run this again"
        )
    print(f"{path}: already there, {words}")


def get_model(model: KnownModel, directory: str, base_url: str | None) -> Path:
    """Have all files of ``model`` in ``directory``/NAME; returns that folder."""
    folder = make_directory(Path(directory) / model.name)
    base = f"{base_url.rstrip('/')}/{model.name}" if base_url else None
    urls = {file: (f"{base}/{file.name}",) if base else file.urls for file in model.files}
    missing = [file for file in model.files if not urls[file] and not (folder / file.name).exists()]
    if missing:
        steps = [f"from {file.page} take {file.original} and save it as {folder / file.name}" for file in missing]
        raise DreamError(f"this model has no direct download. By hand: {'; '.join(steps)}. Then run this again")
    for file in model.files:
        get_file(file, urls[file], folder / file.name)
    return folder


def dream_command(folder: Path) -> str:
    """A command that dreams with the model in ``folder``."""
    program = ["python", "dreamer.py" if Path.cwd() == ROOT else str(ROOT / "dreamer.py")]
    if not (ROOT / "dreamer.py").exists():
        program = ["dreamer"]  # as pip installs it
    is_found_without = folder.resolve() == Path("models", "bvlc_googlenet").resolve()
    model = [] if is_found_without else ["-t", folder.as_posix()]
    return shlex.join([*program, "-i", "clip.mov", "-o", "Video.mp4", *model])


def list_models() -> None:
    for model in MODELS:
        sizes = [file.size for file in model.files]
        size = "size unknown" if None in sizes else f"{sum(filter(None, sizes)) / 1e6:.0f} MB"
        print(f"{model.name:24} {size:>12}  {model.about}")


def http_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise argparse.ArgumentTypeError(f"{text} is not an address such as http://mirror.example/models")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="get_model.py", description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="?", metavar="NAME", help="the model, for example bvlc_googlenet")
    parser.add_argument("--directory", default="models", help="the files go into DIRECTORY/NAME (default: %(default)s)")
    parser.add_argument(
        "--base-url",
        type=http_address,
        metavar="URL",
        help="download from a mirror instead: every file from URL/NAME/FILE. A copy of the models"
        " directory on a web server is such a mirror; the sums are checked all the same",
    )
    parser.add_argument("--list", action="store_true", help="print the models that can be had, then exit")
    options = parser.parse_args(arguments)
    if not options.name and not options.list:
        parser.error("which model? Give its NAME, or --list to see them all")
    try:
        if options.list:
            list_models()
        else:
            folder = get_model(find_model(options.name), options.directory, options.base_url)
            print(f"To dream with it: {dream_command(folder)}")
    except DreamError as error:
        print(f"get_model.py: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("get_model.py: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
