"""The program as ``pip install`` leaves it: a wheel in an environment of its own, run from elsewhere.

The new environment borrows the libraries of the one that runs the tests, which saves gigabytes of downloads. So this
proves that the wheel is complete and asks for what requirements.txt lists; that these can be downloaded is what
``scripts/check_wheels.py`` looks at.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from clips import make_clip
from PIL import Image

import deepdream
import dreamer

ROOT = Path(dreamer.__file__).parent
SOURCES = (
    "deepdream",
    "scripts",
    "dreamer.py",
    "setup.cfg",
    "pyproject.toml",
    "requirements.txt",
    "README.md",
    "LICENSE",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout. It is built from a copy, since building leaves files in the source."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "."]
    subprocess.run([*command, "."], cwd=source, check=True)
    return next(source.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of the commands of a new environment that has the wheel."""
    environment = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, wheel], check=True)
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


@pytest.fixture
def run(installed, tmp_path):
    """Run an installed command in an empty folder; what it said."""
    variables = {name: value for name, value in os.environ.items() if name not in ("CAFFE_ROOT", "PYTHONPATH")}
    variables["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    (tmp_path / "place").mkdir()

    def run(name, *arguments):
        command = [installed / name, *arguments]
        done = subprocess.run(command, cwd=tmp_path / "place", env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


def test_the_wheel_asks_for_what_requirements_lists(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = archive.read(name).decode()
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert sorted(re.findall(r"^Requires-Dist: (.+)$", metadata, re.M)) == sorted(filter(None, lines))
    assert re.findall(r"^Requires-Python: (.+)$", metadata, re.M) == [">=3.11"]
    assert re.findall(r"^Version: (.+)$", metadata, re.M) == [deepdream.__version__]


def test_the_installed_command_goes_from_a_video_to_a_video(run, tmp_path, installed):
    place = tmp_path / "place"
    make_clip(place / "clip.mp4", frames=2)
    where = run("python", "-c", "import deepdream, dreamer; print(deepdream.__file__, dreamer.__file__, sep='\\n')")
    assert all(installed.parent in Path(line).parents for line in where.splitlines())
    run("dreamer", "-e", "1", "-i", "clip.mp4", "-o", "Input")
    said = run("dreamer", "-i", "Input", "-o", "Output", "-oct", "1", "-itr", "1", "-flow", "2", "--report")
    assert "(get_model.py bvlc_googlenet fetches GoogLeNet)" in said
    run("dreamer", "-c", "1", "-i", "Output", "-o", "Video.mp4")
    source, dream = (Image.open(next((place / name).glob("*1.png"))).tobytes() for name in ("Input", "Output"))
    assert "Source and dream" in (place / "Output" / "report.html").read_text()
    assert source != dream and (place / "Video.mp4").stat().st_size


def test_the_installed_get_model_finds_the_package(run):
    assert "bvlc_googlenet" in run("get_model.py", "--list")
