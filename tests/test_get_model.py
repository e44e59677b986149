"""get_model.py as a user runs it, against a server on this machine; and the data it works from."""

import hashlib
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers import SCRIPTS

from deepdream.networks.models import MODELS, KnownModel, ModelFile, find_known

SCRIPT = SCRIPTS / "get_model.py"
PROTOTXT = b'name: "tiny"\n' * 40
WEIGHTS = bytes(range(256)) * 4000
PROTOTXT_PATH = "/tiny/deploy.prototxt"
WEIGHTS_PATH = "/tiny/tiny.caffemodel"

# The script with one small model instead of the real ones, for a test that needs a process.
WITH_TINY_MODEL = """
import sys
sys.path[:0] = sys.argv[1:3]
import get_model, test_get_model
get_model.MODELS = (test_get_model.tiny_model(sys.argv[3]),)
sys.exit(get_model.main(sys.argv[4:]))
"""


def tiny_model(server):
    """A model on a server; the first address of its prototxt is out of order."""
    return KnownModel(
        "tiny",
        (
            ModelFile(
                "deploy.prototxt",
                (f"{server}/gone", server + PROTOTXT_PATH),
                f"sha256:{hashlib.sha256(PROTOTXT).hexdigest()}",
                len(PROTOTXT),
            ),
            ModelFile(
                "tiny.caffemodel",
                (server + WEIGHTS_PATH,),
                f"sha1:{hashlib.sha1(WEIGHTS).hexdigest()}",
                len(WEIGHTS),
            ),
        ),
        ("conv1",),
        (104.0, 116.0, 122.0),
        "for the tests",
    )


class Server(ThreadingHTTPServer):
    """Answers each path of ``files`` with its bytes: all, or half of them and then ``halfway``."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {}
        self.halfway = {}
        self.asked = []
        self.closing = threading.Event()
        self.half_sent = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.path)
        if self.path not in server.files:
            self.send_error(404)
            return
        data = server.files[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.path not in server.halfway:
            self.wfile.write(data)
            return
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        server.half_sent.set()
        if server.halfway[self.path] == "stall":
            server.closing.wait()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    server.files = {PROTOTXT_PATH: PROTOTXT, WEIGHTS_PATH: WEIGHTS}
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def get_real(tmp_path, monkeypatch, capsys):
    """A function that runs the command line in an empty directory, within this process."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    script = importlib.import_module("get_model")
    monkeypatch.chdir(tmp_path)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")

    def run(*arguments):
        try:
            status = script.main(list(arguments))
        except SystemExit as end:  # argparse's
            status = end.code
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def get_tiny(server, get_real, monkeypatch):
    """The same, with one small model instead of the real ones, and little patience."""
    script = importlib.import_module("get_model")
    monkeypatch.setattr(script, "MODELS", (tiny_model(server.url),))
    monkeypatch.setattr(script, "TIMEOUT", 0.3)
    return lambda *arguments: get_real(*(arguments or ("tiny", "--base-url", server.url)))


def assert_one_line(result, status, *words):
    """The run failed with ``status`` and a single line on stderr that holds all ``words``."""
    assert result.returncode == status
    assert result.stderr.startswith("get_model.py: ") and result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert str(word) in result.stderr


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


WHOLE = {"deploy.prototxt": PROTOTXT, "tiny.caffemodel": WEIGHTS}


def test_downloads_checks_and_says_how_to_dream(server, tmp_path, get_tiny):
    result = get_tiny()
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert files_in(tmp_path / "models" / "tiny") == WHOLE
    assert result.stdout.count("its sum is right") == 2
    assert "dreamer.py -i clip.mov -o Video.mp4 -t models/tiny" in result.stdout


def test_keeps_what_is_there_and_asks_for_nothing(server, get_tiny):
    assert get_tiny().returncode == 0
    server.asked.clear()
    result = get_tiny()
    assert result.returncode == 0
    assert result.stdout.count("already there, its sum is right") == 2
    assert server.asked == []


def test_directory(server, tmp_path, get_tiny):
    result = get_tiny("tiny", "--directory", "my nets", "--base-url", server.url + "/")
    assert result.returncode == 0
    assert files_in(tmp_path / "my nets" / "tiny") == WHOLE
    assert "-t 'my nets/tiny'" in result.stdout


def test_tries_the_mirror(server, tmp_path, get_tiny):
    result = get_tiny("tiny")
    assert result.returncode == 0
    assert "404" in result.stderr and "trying a mirror" in result.stderr
    assert files_in(tmp_path / "models" / "tiny") == WHOLE


def test_wrong_sum(server, tmp_path, get_tiny):
    server.files[WEIGHTS_PATH] = WEIGHTS[:-1] + b"?"
    assert_one_line(get_tiny(), 1, "tiny.caffemodel", "its sum should be sha1:", "nothing was kept")
    assert files_in(tmp_path / "models" / "tiny") == {"deploy.prototxt": PROTOTXT}


@pytest.mark.parametrize("halfway, words", [("break off", "broke off"), ("stall", "silent for 0.3 seconds")])
def test_half_a_download_leaves_nothing_and_a_second_try_succeeds(server, tmp_path, halfway, words, get_tiny):
    server.halfway = {WEIGHTS_PATH: halfway}
    assert_one_line(get_tiny(), 1, WEIGHTS_PATH, words)
    assert files_in(tmp_path / "models" / "tiny") == {"deploy.prototxt": PROTOTXT}
    server.halfway = {}
    assert get_tiny().returncode == 0
    assert files_in(tmp_path / "models" / "tiny") == WHOLE


def test_not_found(server, get_tiny):
    del server.files[WEIGHTS_PATH]
    assert_one_line(get_tiny(), 1, WEIGHTS_PATH, "404 Not Found")


def test_no_network(server, get_tiny):
    with socket.socket() as deaf:  # holds a port, but does not listen
        deaf.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        result = get_tiny("tiny", "--base-url", f"http://{address}")
    assert_one_line(result, 1, f"no connection to {address}")


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_interrupted(server, tmp_path):
    server.halfway = {WEIGHTS_PATH: "stall"}
    places = [SCRIPT.parent, Path(__file__).parent]
    command = [sys.executable, "-c", WITH_TINY_MODEL, *places, server.url, "tiny", "--base-url", server.url]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert server.half_sent.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == "get_model.py: interrupted; run it again to go on\n"
    assert files_in(tmp_path / "models" / "tiny") == {"deploy.prototxt": PROTOTXT}


def test_a_changed_file_is_never_replaced(server, tmp_path, get_tiny):
    changed = tmp_path / "models" / "tiny" / "deploy.prototxt"
    changed.parent.mkdir(parents=True)
    changed.write_bytes(b"mine")
    assert_one_line(get_tiny(), 1, Path("models/tiny/deploy.prototxt"), "Delete or rename it")
    assert changed.read_bytes() == b"mine"


def test_unwritable(server, tmp_path, get_tiny):
    (tmp_path / "models").write_bytes(b"a file, not a folder")
    assert_one_line(get_tiny(), 1, "cannot make the directory", "models")


def test_without_a_published_sum_it_says_so(server, get_real):
    server.files = {
        f"/googlenet_places365/{name}": PROTOTXT for name in ("deploy.prototxt", "googlenet_places365.caffemodel")
    }
    result = get_real("googlenet_places365", "--base-url", server.url)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("could not be checked") == 2
    assert f"sha256:{hashlib.sha256(PROTOTXT).hexdigest()}" in result.stdout


def test_by_hand(tmp_path, get_real):
    folder = tmp_path / "models" / "googlenet_places205"
    result = get_real("googlenet_places205")
    assert_one_line(
        result,
        1,
        "googlenet_places205.tar.gz",
        "deploy_places205.protxt",
        Path("models/googlenet_places205/deploy.prototxt"),
    )
    for name in ("deploy.prototxt", "googlenet_places205.caffemodel"):
        (folder / name).write_bytes(PROTOTXT)
    assert get_real("googlenet_places205").returncode == 0


def test_unknown_name_offers_the_nearest(tmp_path, get_real):
    assert_one_line(get_real("googlnet"), 2, "googlnet", "bvlc_googlenet")
    assert list(tmp_path.iterdir()) == []


def test_address_of_a_mirror_is_checked(get_real):
    result = get_real("vgg16", "--base-url", "mirror.example")
    assert result.returncode == 2
    assert "mirror.example is not an address" in result.stderr


def test_list_as_typed(tmp_path):
    result = subprocess.run([sys.executable, SCRIPT, "--list"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0
    for line, model in zip(result.stdout.splitlines(), MODELS, strict=True):
        assert line.startswith(model.name) and line.endswith(model.about)
    assert " 54 MB " in result.stdout


def test_names_are_unique():
    assert len({model.name for model in MODELS}) == len(MODELS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_data(model):
    assert [file.name for file in model.files] == ["deploy.prototxt", f"{model.name}.caffemodel"]
    assert model.loop and all(isinstance(layer, str) for layer in model.loop)
    assert len(model.mean) == 3 and all(100 < value < 130 for value in model.mean)
    for file in model.files:
        assert file.urls or (file.page and file.original)
        assert all(re.fullmatch(r"https?://[^\s?]+", url) for url in file.urls)
        assert file.digest is None or re.fullmatch("sha256:[0-9a-f]{64}|sha1:[0-9a-f]{40}", file.digest)
        assert file.size is None or file.size > 0


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_models_that_cannot_be_told_apart_are_dreamed_alike(model):
    found = find_known(model.loop)
    assert (found.loop, found.mean) == (model.loop, model.mean)


def test_find_known():
    blocks = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    branches = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool", "pool_proj", "output")
    googlenet = ["data", "conv1/7x7_s2"] + [f"inception_{block}/{branch}" for block in blocks for branch in branches]
    found = find_known(googlenet)
    assert found.name == "bvlc_googlenet"
    assert found.loop == tuple(f"inception_{block}/output" for block in "4c 4d 4e 5a 5b 5a 4e 4d 4c".split())
    assert found.mean == (104.0, 116.0, 122.0)
    assert find_known(googlenet[:-1]) is None
    assert find_known([]) is None
