"""What the tests share: networks (each loaded once), photographs and real footage."""

import importlib.util
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

# Before PyTorch loads: on networks and pictures as small as these, threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell lets jobs in the background ignore SIGINT, and so would the processes that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

import av  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from clips import real_clip  # noqa: E402
from helpers import ROOT, SCRIPTS, ZOO, moving_ramps, run_python, save_frames  # noqa: E402
from nets import SMALL, random_blobs, write_model  # noqa: E402
from PIL import Image  # noqa: E402

import dreamer  # noqa: E402
from deepdream.networks import load_network  # noqa: E402

sys.path.insert(0, str(SCRIPTS))
PHOTOGRAPHS = Path(importlib.util.find_spec("skimage").origin).parent / "data"


@pytest.fixture(scope="session")
def default_network(tmp_path_factory):
    """The embedded network as a fresh machine gets it: no Caffe model around, nothing in the cache."""
    place = tmp_path_factory.mktemp("fresh") / "place"
    place.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CAFFE_ROOT", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(place.parent / "cache"))
        patch.chdir(place)
        return load_network(gpu=False, on_message=lambda line: None)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    """The folder of a small Caffe model with random weights."""
    folder = tmp_path_factory.mktemp("small")
    write_model(folder, SMALL, random_blobs(SMALL))
    return folder


@pytest.fixture(scope="session")
def small_network(small_folder):
    return load_network(small_folder, gpu=False, on_message=print)


@pytest.fixture(scope="session")
def googlenet_prototxt():
    return _zoo("bvlc_googlenet.prototxt").read_text()


@pytest.fixture(scope="session")
def googlenet_blobs(googlenet_prototxt):
    return random_blobs(googlenet_prototxt)


@pytest.fixture(scope="session")
def googlenet(googlenet_prototxt, googlenet_blobs, tmp_path_factory):
    """GoogLeNet with random weights."""
    folder = tmp_path_factory.mktemp("googlenet")
    write_model(folder, googlenet_prototxt, googlenet_blobs)
    return load_network(folder, gpu=False, on_message=print)


@pytest.fixture(scope="session")
def squeezenet():
    """A trained network of the Caffe Model Zoo."""
    return load_network(_zoo("squeezenet_v1.0"), gpu=False, on_message=print)


@pytest.fixture(scope="session")
def caffe_reference():
    """What Caffe itself computes with SqueezeNet."""
    return np.load(_zoo("squeezenet_v1.0/caffe_reference.npz"))


def _zoo(name):
    if not (ZOO / name).exists():
        pytest.skip(f"{ZOO / name} is not there: NOT TESTED with this real Caffe model")
    return ZOO / name


@pytest.fixture(scope="session")
def photograph():
    """A function from a name and a size (h, w) to a photograph: its centre, as uint8 RGB (h, w, 3)."""

    def read(name, size):
        with Image.open(PHOTOGRAPHS / name) as opened:
            picture = opened.convert("RGB")
        height, width = size
        scale = min(picture.width / width, picture.height / height)
        left, top = (picture.width - width * scale) / 2, (picture.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        return np.array(picture.resize((width, height), Image.Resampling.BICUBIC, box))

    return read


@pytest.fixture(scope="session")
def footage():
    """The first five frames of a man who talks in a moving car: uint8 RGB (h, w, 3)."""
    with av.open(str(real_clip("carphone_pristine.mp4"))) as container:
        return [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), 5)]


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """That of a user without Caffe models, whose cache is empty."""
    cache = tmp_path_factory.mktemp("cache")
    hidden = ("CAFFE_ROOT", "DISPLAY", "WAYLAND_DISPLAY")
    return {name: value for name, value in os.environ.items() if name not in hidden} | {"XDG_CACHE_HOME": str(cache)}


@pytest.fixture
def run(tmp_path, environment):
    """A function that runs dreamer.py in an empty folder; the finished process, whose stderr holds no traceback."""

    def run(*arguments, **more):
        done = run_python(ROOT / "dreamer.py", *arguments, cwd=tmp_path, env=environment, **more)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def run_here(tmp_path, environment, monkeypatch, capsys):
    """As `run`, but within this process, which has loaded everything."""
    monkeypatch.chdir(tmp_path)
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])

    def run_here(*arguments):
        status = dreamer.main(list(map(str, arguments)))
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return run_here


@pytest.fixture
def frames(tmp_path):
    """Four frames of a moving pattern in ``Input``, 60x40."""
    return save_frames(moving_ramps(4, (40, 60)), tmp_path / "Input", pattern="image-{:06d}.png", first=1)
