#!/usr/bin/env python
"""Download a Caffe model for dreamer.py, and check that it is the published one.

A file gets its name only when all of it has come and its sum is right; a file that is already
there is checked and kept. Run it again after a failure: it goes on with the file that is missing.
"""

import argparse
import difflib
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pooch
from requests import exceptions as requests_errors
from tqdm import tqdm
from urllib3.exceptions import ReadTimeoutError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the package is not installed: it lies beside the folder of this script

from deepdream.errors import DreamError, UsageError  # noqa: E402
from deepdream.files.atomic import make_directory, whole_file  # noqa: E402
from deepdream.networks.models import MODELS  # noqa: E402

TIMEOUT = 30  # seconds of silence after which a server counts as stalled
CHUNK = 1 << 18


class DownloadError(DreamError):
    """An address did not give the file: another one may."""


def find_model(name):
    """Return the known model of that name."""
    models = {model.name: model for model in MODELS}
    if name not in models:
        near = difflib.get_close_matches(name.lower(), models, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(f"no model is called {name}: {hint}--list shows them all")
    return models[name]


def checksum(path, algorithm):
    """Return the sum of a file as "algorithm:hexadecimal"."""
    try:
        return f"{algorithm}:{pooch.file_hash(str(path), algorithm)}"
    except OSError as error:
        raise DreamError(f"cannot read {path}: {error.strerror}") from error


def difference(file, path):
    """Say how the sum of ``path`` differs from the published one of ``file``; "" where it does not or none is known."""
    if file.digest is None:
        return ""
    found = checksum(path, pooch.hashes.hash_algorithm(file.digest))
    return "" if found == file.digest else f"its sum should be {file.digest}, but is {found}"


def assurance(file, path):
    """Say how sure it is that ``path``, which passed `difference`, is ``file``."""
    if file.digest:
        return "its sum is right"
    return f"no sum is published for it, so it could not be checked; it has {checksum(path, 'sha256')}"


def network_reason(error, url):
    """Put an error of requests into words for the user."""
    if isinstance(error, requests_errors.HTTPError):
        return f"the server answers {error.response.status_code} {error.response.reason}"
    # A server that stalls in mid-file is a ConnectionError with the time-out inside.
    if isinstance(error, requests_errors.Timeout) or any(isinstance(cause, ReadTimeoutError) for cause in error.args):
        return f"the server was silent for {TIMEOUT} seconds"
    if isinstance(error, requests_errors.ChunkedEncodingError):
        return "the download broke off before its end"
    if isinstance(error, requests_errors.SSLError):
        return f"no safe connection to {urlsplit(url).netloc} ({error})"
    if isinstance(error, requests_errors.ConnectionError):
        return f"no connection to {urlsplit(url).netloc}"
    return str(error)


def fetch(url, path):
    """Download ``url`` to ``path`` with a progress bar, if somebody sits at a terminal to see it."""
    # The total is set by pooch; until then it must not be 0 or unknown, or pooch takes the bar for none.
    name = urlsplit(url).path.split("/")[-1]
    with tqdm(total=1, unit="B", unit_scale=True, ncols=79, desc=name, disable=None) as bar:
        download = pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK, timeout=TIMEOUT)
        try:
            download(url, str(path), None)
        except requests_errors.RequestException as error:
            raise DownloadError(f"cannot download {url}: {network_reason(error, url)}") from error


def fetch_whole(file, url, path):
    """Give ``path`` its name only once all of ``file`` has come from ``url`` and is right."""
    # Not pooch.retrieve: it replaces an existing file and leaves one that only its owner can read.
    with whole_file(path) as part:
        fetch(url, part)
        wrong = difference(file, part)
        if wrong:
            raise DownloadError(f"{url} is not {path.name} as published, nothing was kept: {wrong}")


def fetch_from_any(file, urls, path):
    """Take ``file`` from the first address that gives it."""
    *others, last = urls
    for url in others:
        try:
            return fetch_whole(file, url, path)
        except DownloadError as error:
            print(f"{error}; trying a mirror", file=sys.stderr)
    return fetch_whole(file, last, path)


def get_file(file, urls, path):
    """Have ``file`` at ``path``: keep it if it is there already, else download it."""
    if not path.exists():
        fetch_from_any(file, urls, path)
        print(f"{path}: downloaded, {assurance(file, path)}")
        return
    wrong = difference(file, path)
    if wrong:
        raise DreamError(
            f"{path} is there already, but is not the published file: {wrong}. Delete or rename it, then run this again"
        )
    print(f"{path}: already there, {assurance(file, path)}")


def by_hand(files, folder):
    """Say which ``files`` to fetch from where, and where to put them."""
    steps = [f"from {file.page} take {file.original} and save it as {folder / file.name}" for file in files]
    return "this model has no direct download. By hand: " + "; ".join(steps) + ". Then run this again"


def get_model(model, directory, base_url=None):
    """Have all files of ``model`` in ``directory``/NAME, and return that folder."""
    folder = make_directory(Path(directory) / model.name)
    urls = {
        file: (f"{base_url.rstrip('/')}/{model.name}/{file.name}",) if base_url else file.urls for file in model.files
    }
    homeless = [file for file in model.files if not urls[file] and not (folder / file.name).exists()]
    if homeless:
        raise DreamError(by_hand(homeless, folder))
    for file in model.files:
        get_file(file, urls[file], folder / file.name)
    return folder


def dream_command(model, folder):
    """Return a command that dreams with the model in ``folder``."""
    dreamer = "dreamer.py" if Path.cwd() == ROOT else str(ROOT / "dreamer.py")
    command = ["python", dreamer, "-i", "clip.mov", "-o", "Video.mp4"]
    # This one is found without being told.
    if folder.resolve() != Path("models", "bvlc_googlenet").resolve():
        command += ["-t", folder.as_posix()]
    return shlex.join(command)


def listing():
    """Return a line for every model: name, size, what it is."""

    def size(model):
        sizes = [file.size for file in model.files]
        return "size unknown" if None in sizes else f"{sum(sizes) / 1e6:.0f} MB"

    return "\n".join(f"{model.name:24} {size(model):>12}  {model.about}" for model in MODELS)


def http_address(text):
    """Check the address of a mirror."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise argparse.ArgumentTypeError(f"{text} is not an address such as http://mirror.example/models")
    return text


def parse(arguments):
    """Read the command line."""
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
    return options


def main(arguments=None):
    """Run the command line and return its exit status."""
    options = parse(arguments)
    try:
        if options.list:
            print(listing())
        else:
            model = find_model(options.name)
            folder = get_model(model, options.directory, options.base_url)
            print(f"To dream with it: {dream_command(model, folder)}")
    except DreamError as error:
        print(f"get_model.py: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("get_model.py: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
