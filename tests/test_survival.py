"""What a render survives: kills, disk faults, bad input, and names, links and files made to mislead it."""

import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import survival
from helpers import NIGHTLY, ROOT, SCRIPTS, read_dreams, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import SMALL
from PIL import Image

import dreamer
from deepdream.arguments import build_parser
from deepdream.errors import ModelError, UsageError
from deepdream.files.frames import missing_numbers, open_frames
from deepdream.networks import caffemodel, load_network
from deepdream.render.journal import read_records
from deepdream.video import create as creating
from deepdream.video import extract as extracting

KILLS = 30 if NIGHTLY else 2
FUZZ_CASES = 2000 if NIGHTLY else 60
IN_CI = ("flow 2 divide 0 png -g", "create", "all three")


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A folder with input of each kind. Tests work in a copy."""
    folder = tmp_path_factory.mktemp("inputs")
    survival.prepare(folder)
    return folder


@pytest.fixture
def place(inputs, tmp_path, monkeypatch):
    """A folder with input of each kind, in which the commands run."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    signal.signal(signal.SIGINT, signal.default_int_handler)


def command(*more, source="png", output="Output"):
    return ["-i", source, "-o", output, "-t", "model", "-gpu", "0", "-l", "mixed", "-oct", "2", "-itr", "2", *more]


def refused(capsys, status, said, arguments):
    """Run a command that must end with ``status`` and one line that says ``said``."""
    capsys.readouterr()
    assert dreamer.main([*arguments, "-v", "0"]) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0], lines


# --- Kills -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IN_CI)
def test_killed_renders_end_with_the_same_bytes(tmp_path, name):
    assert name in survival.cases()
    survival.survive_all(tmp_path, KILLS, [name])


def test_a_kill_amid_a_repair_leaves_the_rest_to_repair(place, monkeypatch):
    """Even where the frames made again are other ones, as another machine would make them."""
    assert dreamer.main(command("-flow")) == 0
    wanted = read_dreams("Output")
    Path("Output", "frame_000001.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("deepdream.render.journal.Journal.record", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert dreamer.main(command("-flow")) == 130
    assert list(read_records("Output").entries) == [0]  # nothing that came after the lost frame counts as done
    assert dreamer.main(command("-flow")) == 0
    assert read_dreams("Output") == wanted


def test_more_frames_go_on_and_fewer_are_refused(place, capsys):
    assert dreamer.main(command()) == 0
    before = read_dreams("Output")
    last = Path("png", "image-000005.png")
    last.write_bytes(Path("png", "image-000001.png").read_bytes())
    assert dreamer.main(command()) == 0
    assert len(read_dreams("Output")) == 5 and before.items() < read_dreams("Output").items()
    last.unlink()
    refused(capsys, 2, "dreams of 5 frames, and the input has 4 now", command())


def test_the_frames_are_the_same_at_every_level_of_verbosity(place):
    """And so a render can be resumed at another level."""
    for level in "0123":
        assert dreamer.main(command("-v", level, output=level)) == 0
        assert read_dreams(level) == read_dreams("0") and len(read_dreams(level)) == 4
    Path("0", "frame_000001.png").unlink()
    assert dreamer.main(command("-v", "2", output="0")) == 0
    assert read_dreams("0") == read_dreams("1")


def test_a_second_run_of_extract_or_create_is_refused(place, capsys):
    from deepdream.files.atomic import lock_directory

    assert dreamer.main(command()) == 0
    with lock_directory("Output"):
        refused(capsys, 2, "another run is at work in Output", ["-c", "-i", "Output", "-o", "Video.mp4"])
        refused(capsys, 2, "another run is at work in Output", command("--overwrite"))
    Path("Frames").mkdir()
    with lock_directory("Frames"):
        refused(capsys, 2, "another run is at work in Frames", ["-e", "-i", "clip.mp4", "-o", "Frames"])


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_with_how_to_go_on(place, number, status):
    folder = place / "run"
    words = [word.replace("png", "../png").replace("model", "../model") for word in command("-itr", "99999")]
    process = survival.start(words, folder)
    while not (folder / "Output" / "render.json").exists():
        time.sleep(0.01)
    os.kill(process.pid, number)
    assert survival.finish(process) == status
    lines = (folder / "log.txt").read_text().splitlines()
    assert lines == ["dreamer.py: interrupted; the same command goes on from here"]


INTERRUPTED_CALLBACK = """
import os, signal, sys, time, weakref
import dreamer

class Freed:
    pass

def run(arguments, screen):
    weakref.finalize(Freed(), os.kill, os.getpid(), int(sys.argv[1]))  # called as it is freed: at once
    time.sleep(60)

dreamer._run = run
sys.exit(dreamer.main(["-i", "png", "-o", "Output"]))
"""


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_a_callback_swallows_ends_it_all_the_same(place, number, status):
    """Python ignores what is raised in a callback while memory is freed, and a run went on after Ctrl-C."""
    done = run_python("-c", INTERRUPTED_CALLBACK, int(number), env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=50)
    assert done.returncode == status
    assert done.stderr.splitlines() == ["dreamer.py: interrupted; the same command goes on from here"]


# --- Faults ----------------------------------------------------------------------------------------


@pytest.fixture
def full_disk():
    """A file of more than so many bytes cannot be written: what a full disk does to a process."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_leaves_no_half_frame_and_the_rerun_completes(place, capsys, full_disk):
    assert dreamer.main(command(output="Whole")) == 0
    full_disk(2000)
    refused(capsys, 1, "cannot write Output/frame_000000.png: File too large", command())
    assert not read_dreams("Output") and not list(Path("Output").glob(".*.part"))
    full_disk(resource.RLIM_INFINITY)
    assert dreamer.main(command()) == 0 and read_dreams("Output") == read_dreams("Whole")


def test_a_full_disk_leaves_no_half_video(place, capsys, full_disk):
    arguments = ["-c", "-i", "png", "-o", "Video.mp4"]
    full_disk(1000)
    refused(capsys, 1, "ffmpeg failed", arguments)
    assert not list(place.glob("*Video*"))
    refused(capsys, 1, "ffmpeg failed", ["-e", "-i", "clip.mp4", "-o", "Frames"])
    assert not list(Path("Frames").glob("image-*"))
    full_disk(resource.RLIM_INFINITY)
    assert dreamer.main(arguments) == 0
    assert dreamer.main(["-e", "-i", "clip.mp4", "-o", "Frames"]) == 0


@pytest.mark.parametrize(
    "what, status, said",
    [
        ("Output", 1, "cannot write Output/frame_000001.png: No such file"),
        ("png/image-000004.png", 2, "image-000004.png does not exist"),
    ],
)
def test_what_vanishes_midway_is_named_and_the_rerun_completes(place, capsys, monkeypatch, what, status, said):
    assert dreamer.main(command(output="Whole")) == 0
    from deepdream.render.journal import Journal

    record = Journal.record

    def vanish(journal, number, *sums):
        record(journal, number, *sums)
        if number == 0:
            Path(what).rename("gone")

    monkeypatch.setattr(Journal, "record", vanish)
    refused(capsys, status, said, command())
    assert what == "Output" or len(read_dreams("Output")) == 3  # all before it are saved
    monkeypatch.setattr(Journal, "record", record)
    Path("gone").rename(what)
    assert dreamer.main(command()) == 0 and read_dreams("Output") == read_dreams("Whole")


@pytest.fixture
def disk(place):
    """A function that mounts a disk of so many bytes as ``disk``, or changes its options."""
    if os.geteuid():
        pytest.skip("NOT TESTED: only root may mount a disk")
    (place / "disk").mkdir()

    def mount(options):
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place / "disk"]).returncode:
            pytest.skip("NOT TESTED: no disk can be mounted here")

    yield mount
    subprocess.run(["umount", "-l", place / "disk"])


def test_a_disk_that_runs_full(place, capsys, disk):
    assert dreamer.main(command(output="Whole")) == 0
    disk("size=16k")
    refused(capsys, 1, "No space left on device", command(output="disk/Output"))
    whole, kept = read_dreams("Whole"), read_dreams("disk/Output")
    assert kept.items() <= whole.items() and not list(Path("disk/Output").glob(".*.part"))
    disk("remount,size=1m")
    assert dreamer.main(command(output="disk/Output")) == 0 and read_dreams("disk/Output") == whole


def test_a_disk_that_is_read_only(place, capsys, disk):
    disk("size=1m")
    assert dreamer.main(command(output="disk/Output")) == 0
    Path("disk", "Output", "frame_000002.png").unlink()
    disk("remount,ro")
    refused(capsys, 1, "Read-only file system", command(output="disk/Output"))
    disk("remount,rw")
    assert dreamer.main(command(output="disk/Output")) == 0 and len(read_dreams("disk/Output")) == 4


def test_an_interrupt_amid_create_and_extract_goes_on(place, monkeypatch):
    for arguments in (["-c", "-i", "png", "-o", "Video.mp4"], ["-e", "-i", "clip.mp4", "-o", "Frames"]):
        with monkeypatch.context() as patch:
            for module in (creating.atomic, extracting):
                patch.setattr(module, "sync", lambda path: os.kill(os.getpid(), signal.SIGTERM))
            assert dreamer.main(arguments) == 143
        assert not Path(arguments[-1]).is_file() and not list(Path(arguments[-1]).glob("image-*"))
        assert dreamer.main(arguments) == 0


def test_a_cache_that_cannot_be_written_is_a_line_and_the_dream_runs(place, monkeypatch):
    (place / "cache").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.delenv("CAFFE_ROOT", raising=False)
    told = []
    network = load_network(gpu=False, on_message=told.append)
    assert network.name == "efficientnet_lite0"
    assert sum("for this run alone" in line for line in told) == 1


def test_a_damaged_cache_is_made_again(place, tmp_path):
    from deepdream.networks.default import default_model_files

    files = default_model_files(tmp_path / "cache")
    whole = [path.read_bytes() for path in files]
    for path in files:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        assert [made.read_bytes() for made in default_model_files(tmp_path / "cache")] == whole


def test_no_clock_and_no_time_of_a_file_matters(place):
    assert dreamer.main(command("-flow")) == 0
    assert dreamer.main(["-e", "-i", "clip.mp4", "-o", "Frames"]) == 0
    create = ["-c", "-i", "Output", "-o", "Video.mp4", "--audio", "none"]
    assert dreamer.main(create) == 0
    inodes = {path: path.stat().st_ino for path in place.rglob("*") if path.suffix in (".png", ".mp4")}
    for path in place.rglob("*"):
        os.utime(path, (1, 1))  # 1970
    assert dreamer.main(command("-flow")) == dreamer.main(["-e", "-i", "clip.mp4", "-o", "Frames"]) == 0
    assert dreamer.main(create) == 0
    assert inodes == {path: path.stat().st_ino for path in inodes}


# --- Bad input -------------------------------------------------------------------------------------


def bomb():
    """A PNG of a few bytes that promises 100,000 x 100,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def spoil(name, kind="png"):
    path = Path(kind, f"image-000003.{kind}")
    if name == "cut off":
        path.write_bytes(path.read_bytes()[:-40])
    elif name == "text":
        path.write_text("no picture")
    elif name == "bomb":
        path.write_bytes(bomb())
    elif name == "other size":
        Image.new("RGB", (7, 9)).save(path)
    elif name == "animated":
        pictures = [Image.new("RGB", (48, 40), colour) for colour in ("red", "blue")]
        pictures[0].save(path, save_all=True, append_images=pictures[1:])
    elif name == "program":
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 40\nshowpage\n")


@pytest.mark.parametrize(
    "name, kind, said",
    [
        ("cut off", "png", "image-000003.png is damaged"),
        ("cut off", "jpg", "image-000003.jpg is damaged"),
        ("text", "png", "image-000003.png is not a picture"),
        ("bomb", "png", "image-000003.png has more than 268,435,456 pixels"),
        ("other size", "png", "image-000001.png is 48x40, png/image-000003.png is 7x9"),
        ("animated", "png", "image-000003.png is animated"),
        ("program", "png", "image-000003.png is not a picture"),
    ],
)
def test_bad_frames_are_named_before_the_network_loads(place, capsys, monkeypatch, name, kind, said):
    monkeypatch.setattr("deepdream.networks.load_network", None)
    spoil(name, kind)
    refused(capsys, 2, said, command(source=kind))
    assert not Path("Output").exists()


def test_a_frame_of_one_pixel_is_too_small(place, capsys):
    Path("dot").mkdir()
    Image.new("RGB", (1, 1)).save("dot/1.png")
    refused(capsys, 2, "frames of 1x1 are too small", command(source="dot"))


@pytest.mark.parametrize(
    "words, said",
    [
        ("-i png -o png/Output", "lies inside the input"),
        ("-i clip.mp4 -o clip.mp4", "needed to make the new video"),
        ("-i clip.mp4 -o clip.mp4 --overwrite", "needed to make the new video"),
        ("-i clip.mp4 -o Video.mp4 --audio nowhere.mp3", "nowhere.mp3 does not exist"),
        ("-i clip.mp4 -o Video.mp4 -g log.txt", "log.txt: no such file"),
        ("-i clip.mp4 -o Video.mp4 -t model -l nope", "no layer nope"),
        ("-i clip.mp4 -o mine.mp4", "was not made here"),
        ("-i png -o mine.mp4", "create the video with -c 1"),
        ("-i png -o guide.png", "guide.png"),
    ],
)
def test_mistakes_stop_before_any_work(place, capsys, words, said):
    Path("mine.mp4").write_bytes(b"mine")
    before = sorted(place.rglob("*"))
    refused(capsys, 2, said, words.split())
    assert sorted(place.rglob("*")) == before and Path("mine.mp4").read_bytes() == b"mine"


@pytest.fixture
def limit_memory():
    """A function that limits the address space of this process to so many bytes more than it has."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    yield lambda more: resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + more, old[1]))
    resource.setrlimit(resource.RLIMIT_AS, old)


RELU = 'type: "ReLU" bottom: "conv1"'


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("num_output: 6", "num_output: 4000000000", "asks for a blob of 4000000000 x any x 5 x 5"),
        ("dim: 40 dim: 48", "dim: 4000000000 dim: 4000000000", "has the impossible shape"),
        (RELU, 'type: "Tile" tile_param { tiles: 2000000000 } bottom: "conv1"', "(Tile) asks for too much"),
        (RELU, 'type: "Interp" interp_param { height: 99999 width: 99999 } bottom: "conv1"', "(Interp) asks for too"),
        (RELU, 'type: "Upsample" upsample_param { scale: 9999 } bottom: "conv1"', "(Upsample) asks for too much"),
        ("kernel_size: 3 stride: 2 }", "kernel_size: 200000 stride: 1 pad: 199999 }", "(Pooling) asks for too much"),
        ('bottom: "conv1" top: "conv1"', 'bottom: "mixed" top: "conv1"', "needs mixed, which no layer before it"),
        ('bottom: "left" bottom: "right"', 'bottom: "left" bottom: "nothing"', "needs nothing, which no layer before"),
        ('top: "pool1"', 'top: "pool1" top: "more" top: "again"', "has 3 tops: too many"),
    ],
)  # fmt: skip
def test_a_net_that_asks_for_the_impossible_is_refused(place, capsys, limit_memory, old, new, said):
    assert SMALL.count(old) >= 1
    Path("model", "deploy.prototxt").write_text(SMALL.replace(old, new, 1))
    limit_memory(1 << 30)
    refused(capsys, 2, said, command())
    assert not Path("Output").exists()


# --- Nothing let in --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["http:localhost", "concat:clip.mp4", "pipe:0", "list.m3u8", "f%d.png", "*.mp4"])
def test_no_protocol_playlist_or_pattern_is_opened(place, capsys, name):
    Path("list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nclip.mp4\n")
    refused(capsys, 2, name, ["-e", "-i", name, "-o", "Frames"])


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_no_pickled_code_runs(place):
    np.save("model/mean.npy", np.array([Evil()], object), allow_pickle=True)
    with pytest.raises(ModelError, match="mean.npy"):
        load_network("model", gpu=False, on_message=print)
    Path("model", "mean.npy").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match="mean.npy"):
        caffemodel.read_mean("model/mean.npy")
    assert not Path("ran").exists()


def test_nothing_is_written_outside_the_output(place):
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert dreamer.main([*command("-v", "3", source="clip.mp4", output="out/Video.mp4")]) == 0
    after = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert {path: content for path, content in after.items() if path in before} == before
    new = {path.relative_to(place).parts[:2] for path in after if path not in before}
    assert new == {("out", "Video.mp4"), ("out", "Video.frames")}


def test_links_in_the_output_lead_nowhere(place, capsys):
    treasure = place / "treasure"
    treasure.write_bytes(b"mine")
    names = ["frame_000000.png", ".frame_000000.png.part", "render.json", "clip.json", "preview.jpg", "frames.jsonl"]
    Path("Output").mkdir()
    for name in names:
        Path("Output", name).symlink_to(treasure)
    assert dreamer.main(command("--overwrite", "-v", "3")) == 0
    assert treasure.read_bytes() == b"mine"
    Path("Output", ".lock").unlink()
    Path("Output", ".lock").symlink_to(treasure)
    refused(capsys, 1, "cannot write Output/.lock", command())
    Path("Video.mp4").symlink_to(treasure)
    assert dreamer.main(["-c", "-i", "png", "-o", "Video.mp4", "--overwrite"]) == 0
    assert treasure.read_bytes() == b"mine"


def test_linked_folders_lead_nowhere(place, capsys):
    treasure = place / "treasure"
    treasure.mkdir()
    (treasure / "image-000001.png").write_bytes(b"mine")
    for link in (".Video.mp4.part", "Frames/.extract.part", "Other.frames"):
        Path(link).parent.mkdir(exist_ok=True)
        Path(link).symlink_to(treasure)
    assert dreamer.main(["-c", "-i", "png", "-o", "Video.mp4"]) == 0
    assert dreamer.main(["-e", "-i", "clip.mp4", "-o", "Frames"]) == 0
    refused(capsys, 2, "is a link that leads elsewhere", command(source="clip.mp4", output="Other.mp4"))
    assert [path.name for path in treasure.iterdir()] == ["image-000001.png"]


def test_a_name_cannot_speak_to_the_terminal(place, capsys):
    refused(capsys, 2, r"a\x1b[2J\nb does not exist", command(source="a\x1b[2J\nb"))


# --- Fuzz ------------------------------------------------------------------------------------------


def test_damaged_models_end_in_an_error_of_ours():
    done = run_python(SCRIPTS / "fuzz.py", "--cases", FUZZ_CASES)
    assert done.returncode == 0 and done.stdout.startswith(f"{FUZZ_CASES} cases, 0 failures"), done.stdout


@given(st.lists(st.one_of(
    st.sampled_from([word for action in build_parser()._actions for word in action.option_strings]),
    st.text(max_size=8), st.integers().map(str), st.floats().map(str), st.sampled_from(["nowhere", "9" * 400, "1/0"]),
), max_size=8))  # fmt: skip
@settings(deadline=None, max_examples=300)
def test_whatever_is_typed_ends_in_options_or_in_an_error_of_ours(words):
    words = [word for word in words if word not in ("-h", "--help", "--version")]
    with suppress(UsageError):
        dreamer.parse(words)


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(NAMES, unique=True, max_size=8))
@settings(deadline=None, max_examples=100)
def test_whatever_frames_are_called_each_is_taken_once(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        (folder / f"a{name}.png").touch()
    if names:
        found = open_frames(folder).paths
        assert sorted(path.name for path in found) == sorted(f"a{name}.png" for name in names)
        missing_numbers(found)  # raises nothing


@given(st.sets(st.integers(0, 300), min_size=1))
@settings(deadline=None, max_examples=100)
def test_the_missing_numbers_are_those_between_the_present_ones(numbers):
    between = set(range(min(numbers), max(numbers)))
    assert missing_numbers(f"shot2_{number:04d}.png" for number in numbers) == sorted(between - numbers)
