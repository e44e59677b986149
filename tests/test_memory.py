"""Is the memory that a dream needs foretold, and do the tiles that are advised really fit?"""

import os
import platform
import re
import weakref
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import torch
from helpers import NIGHTLY, ROOT, run_python
from PIL import Image

import dreamer
from deepdream.errors import OutOfMemory
from deepdream.memory import available
from deepdream.memory import malloc as heap
from deepdream.memory import predict as memory
from deepdream.networks import load_network
from deepdream.networks.caffemodel import NetBuilder
from deepdream.networks.torch.peak import PeakMemory
from deepdream.options import DivideMode, DivideOptions, DreamOptions, RenderOptions
from deepdream.picture import ascent, objectives
from tests import architectures, nets

CPU = torch.device("cpu")
WIDE = (3840, 2160)
MEASURED_NETWORKS = None if NIGHTLY else 1


def options(mode=DivideMode.OFF, side=1500, **dream):
    return RenderOptions(dream=DreamOptions(**dream), divide=DivideOptions(mode, side, side))


def advised(text):
    """N of the -mw N -mh N in a line."""
    found = re.search(r"take -d 3 -mw (\d+) -mh (\d+)", text)
    assert found and found[1] == found[2], text
    return int(found[1])


# --- The estimate ----------------------------------------------------------------------------------


def test_the_peak_is_the_most_that_is_held_at_once():
    with PeakMemory() as peak:
        x = torch.empty(1000, device="meta")
        y = x * 2
        z = y.view(10, 100).exp_()  # neither a view nor what is done in place holds anything of its own
        del x, y, z
        torch.empty(1500, device="meta")
    assert peak.bytes == 2 * 1000 * 4


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory):
    """A net that computes little and keeps much: 64 channels at the picture's own size."""
    net = NetBuilder("wide", (32, 32))
    net.conv("second", net.conv("first", "data", 64, 1), 64, 1)
    return nets.save(tmp_path_factory.mktemp("wide"), net.message)


def test_the_memory_of_a_gradient_is_what_it_keeps_and_what_passes(wide_folder):
    """Both activations are kept; on the way back come the gradients at both ends of a ReLU, and a padded one may."""
    network = load_network(wide_folder, gpu=False, on_message=print)
    activation = 64 * 4 * 100 * 150
    found = network.memory("second/relu", (100, 150))
    assert 4 * activation < found < 5.2 * activation


@pytest.mark.parametrize("layer", ["block_3/output", "block_11/output"])
def test_memory_grows_with_the_pixels(default_network, layer):
    small, large = (default_network.memory(layer, size) / np.prod(size) for size in ((2160, 3840), (4320, 7680)))
    assert small == pytest.approx(large, rel=0.05)


def test_an_estimate_computes_nothing_and_leaves_the_network_as_it_was(small_network):
    picture = torch.rand(3, 40, 48) * 200 - 100
    before = small_network.gradient(picture, "mixed", objectives.l2)
    small_network.memory("mixed", (40, 48))
    assert torch.equal(small_network.gradient(picture, "mixed", objectives.l2), before)


START = """
import sys, torch
from deepdream.networks import load_network

network = load_network(gpu=False, on_message=lambda line: None)
network.check_size("block_9/output", (90, 120))
network.memory("block_9/output", (90, 120))
network.gradient(torch.zeros(3, 90, 120), "block_9/output", lambda top: top)
print("torch._dynamo" in sys.modules)
import torch._dynamo
print(torch._dynamo.disable.__module__.startswith("torch._dynamo"))
"""


def test_no_compiler_is_imported_until_somebody_wants_it():
    """It would take the start of every command more than half a second."""
    assert run_python("-c", START, cwd=ROOT, check=True).stdout.split() == ["False", "True"]


PEAK = """
import re, sys, torch
from deepdream.networks import load_network

def resident(what):
    return 1024 * int(re.search(rf"{what}:\\s+(\\d+)", open("/proc/self/status").read())[1])

torch.set_num_threads(1)
network = load_network(sys.argv[1], gpu=False, on_message=print)
network.gradient(torch.zeros(3, 64, 64), sys.argv[2], lambda top: top)
picture = torch.rand(3, 900, 1200)
before = resident("VmRSS")
network.gradient(picture, sys.argv[2], lambda top: top)
print(network.memory(sys.argv[2], (900, 1200)), resident("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="NOT TESTED: no /proc")
@pytest.mark.parametrize(
    "build, layer",
    [
        (architectures.squeezenet11, "fire5/concat"),
        (architectures.mobilenet1, "conv4/sep/relu"),
        (architectures.googlenet, "inception_3a/output"),
    ][:MEASURED_NETWORKS],
)
def test_the_estimate_is_what_a_process_takes(tmp_path, build, layer):
    folder = nets.save(tmp_path / "net", build(architectures.ARCHITECTURES[build]))
    tuned = {**os.environ, "GLIBC_TUNABLES": heap.TUNABLES}
    done = run_python("-c", PEAK, folder, layer, cwd=ROOT, check=True, env=tuned)
    estimated, taken = map(int, done.stdout.splitlines()[-1].split())
    assert 0.75 < memory.SPACING * estimated / taken < 1.4


# --- What there is ---------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="NOT TESTED: no /proc")
def test_what_is_available_is_what_the_system_says(monkeypatch):
    monkeypatch.setattr(available, "_cgroup_headroom", lambda: ())
    said = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]
    assert available.available(CPU) == pytest.approx(1024 * int(said), rel=0.2)


@pytest.mark.skipif(available.resource is None, reason="NOT TESTED: no limit on the address space here")
def test_a_limit_on_the_address_space_counts(monkeypatch):
    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(available, "_cgroup_headroom", lambda: ())
    monkeypatch.setattr(available.resource, "getrlimit", lambda which: (used + 50_000_000, used + 50_000_000))
    assert available.available(CPU) == pytest.approx(50_000_000, abs=20_000_000)


def group(folder, limit, use, cached, version):
    """A control group's files, as the kernel writes them."""
    names = available._GROUP_FILES[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{use}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\nfile 7\n")


@pytest.mark.parametrize(
    "version, line, place",
    [
        (2, "0::/user/job\n", "user/job"),
        (2, "0::/user/job\n", "user"),  # the limit of a group holds for those inside of it
        (2, "0::/\n", ""),  # a container sees its own group as the root
        (1, "3:cpu:/job\n4:memory:/docker/abc\n", "memory/docker/abc"),
        (1, "4:cpu,memory:/docker/abc\n", "memory"),
    ],
)
def test_a_containers_limit_counts(tmp_path, monkeypatch, version, line, place):
    monkeypatch.setattr(available, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(available, "PROCESS_GROUPS", tmp_path / "cgroup")
    (tmp_path / "cgroup").write_text(line)
    assert available.available(CPU) > 10_000_000
    group(tmp_path / place, 9_000_000, 4_000_000, 1_000_000, version)
    assert available.available(CPU) == 6_000_000
    group(tmp_path / place, "max" if version == 2 else 2**63 - 4096, 4_000_000, 1_000_000, version)
    assert available.available(CPU) > 10_000_000


def test_an_accelerator_is_asked_for_what_it_has(monkeypatch):
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (5_000, 9_000))
    monkeypatch.setattr(torch.accelerator, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.accelerator, "memory_allocated", lambda device: 300)
    assert available.available(device) == 5_400  # what PyTorch has set aside and does not use is free as well

    def refuse(device):
        raise NotImplementedError("this accelerator cannot tell")

    monkeypatch.setattr(torch.accelerator, "get_memory_info", refuse)
    assert available.available(device) is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="NOT TESTED: no glibc, which keeps freed memory")
def test_freed_memory_goes_back_to_the_system():
    pieces = [b"x" * (100_000 + number) for number in range(2000)]
    last = pieces[-1]  # keeps the heap from shrinking by itself
    del pieces
    before = psutil.Process().memory_info().rss
    heap.trim()
    assert before - psutil.Process().memory_info().rss > 100_000_000 and last


KEEPING = """
import resource, torch
from deepdream.memory import malloc as heap

heap.disable_trim()
faults = []
for _ in range(40):
    torch.ones(16_000_000)  # 64 MB: freed at once
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[4])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="NOT TESTED: no glibc, which can be told to keep memory")
def test_freed_memory_is_kept_from_step_to_step():
    """Pages that are touched for the first time are faults: 35 tensors anew would be 546,875 of them."""
    done = run_python("-c", KEEPING, cwd=ROOT, check=True)
    assert int(done.stdout) < 150_000


@pytest.mark.skipif(platform.system() != "Linux", reason="NOT TESTED: not Linux")
@pytest.mark.parametrize("given, found", [({}, heap.TUNABLES), ({"GLIBC_TUNABLES": "mine"}, "mine")])
def test_a_program_is_started_again_with_the_tunables_unless_some_are_set(given, found):
    code = "import os, sys; print(os.getpid()); from deepdream.memory.malloc import tune; tune(); "
    code += "print(sys.argv[1:], os.environ['GLIBC_TUNABLES'], os.environ['OTHER'])"
    inherited = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = run_python("-u", "-c", code, "a b", cwd=ROOT, env=inherited | given | {"OTHER": "kept"}, check=True)
    *numbers, last = done.stdout.splitlines()
    assert last == f"['a b'] {found} kept"
    assert len(numbers) == (1 if given else 2) and len(set(numbers)) == 1


@pytest.mark.skipif(platform.system() != "Linux", reason="NOT TESTED: not Linux")
def test_a_program_that_may_not_start_again_goes_on(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    tried = []

    def refuse(*arguments):
        tried.append(arguments)
        raise PermissionError

    monkeypatch.setattr(os, "execve", refuse)
    heap.tune()
    assert len(tried) == 1


# --- The warning -----------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch):
    """Set how many bytes are free."""
    return lambda count: monkeypatch.setattr(memory, "available", lambda device: count)


LAYERS = ("block_5/output", "block_9/output", "block_2/output")


def test_a_dream_that_does_not_fit_is_told_with_the_tiles_that_do(default_network, free):
    free(1.5e9)
    line = memory.warning(default_network, LAYERS, WIDE, options())
    assert re.match(r"frames of 3840x2160 need about \d\.\d GB at block_9/output, and 1\.5 GB are free: take", line)
    side = advised(line)
    assert memory.warning(default_network, LAYERS, WIDE, options(DivideMode.SEAMLESS, side)) is None
    free(0.8 * 1.5e9)  # what is left over is a fifth, and not much more
    assert memory.warning(default_network, LAYERS, WIDE, options(DivideMode.SEAMLESS, side)) is None
    larger = (side + memory.TILE_STEP,) * 2
    assert memory._needed(default_network, LAYERS[1], WIDE, larger, options()) > 0.8 * 1.5e9


def test_a_dream_that_fits_is_not_told(default_network, free):
    free(3e9)
    assert memory.warning(default_network, LAYERS, (1280, 720), options()) is None


def test_where_nobody_tells_there_is_no_warning(default_network, free):
    free(None)
    assert memory.warning(default_network, LAYERS, WIDE, options()) is None


@pytest.mark.parametrize(
    "mode, side, part",
    [
        (DivideMode.OFF, 1500, "frames of 3840x2160 need"),
        (DivideMode.TILES, 2500, "in tiles of 1920x2160"),
        # The second octave, of 2743 columns, is within the limit and stays whole.
        (DivideMode.HALVES, 3000, "in tiles of 2743x1543"),
        (DivideMode.SEAMLESS, 2000, "in tiles of 1959x1102"),
    ],
)
def test_the_largest_part_of_all_octaves_counts(default_network, free, mode, side, part):
    free(1.12e9)
    line = memory.warning(default_network, LAYERS, WIDE, options(mode, side))
    assert part in line and advised(line) < side


def test_a_panorama_is_told_of_its_views_and_a_smaller_dream(default_network, free):
    free(1e9)
    line = memory.warning(default_network, LAYERS, (4096, 2048), options(panorama=True))
    assert "in views of 1372x1372 need" in line and line.endswith("are free: dream smaller (--dreamwidth)")
    error = memory.explain(MemoryError("full"), default_network, LAYERS, (4096, 2048), options(panorama=True))
    assert error.endswith("; dream smaller (--dreamwidth)") and "-d" not in error.replace("--dreamwidth", "")
    whole, flat = (memory._fixed_bytes((4096, 2048), options(panorama=value)) for value in (True, False))
    assert 1.5 < whole / flat < 2  # measured: 3.6 GB in all, and the gradient of a view takes 1.2 of them
    smaller = options(panorama=True, dream_width=1024)
    assert memory.warning(default_network, LAYERS, (4096, 2048), smaller) is None


@pytest.mark.parametrize("count", [1.0e9, 1e6])
def test_where_no_tile_fits_a_smaller_dream_is_advised(default_network, free, count):
    free(count)
    line = memory.warning(default_network, LAYERS, WIDE, options())
    assert line.endswith("no tiles would be small enough; dream smaller (--dreamwidth)")


@pytest.mark.parametrize("level, lines", [(0, 0), (1, 1), (2, 1)])
def test_the_warning_is_one_line_and_the_run_goes_on(small_folder, tmp_path, free, capsys, level, lines):
    (tmp_path / "Input").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / "Input" / name)
    free(1e5)
    command = ["-i", str(tmp_path / "Input"), "-o", str(tmp_path / "Output"), "-t", str(small_folder), "-l", "mixed"]
    assert dreamer.main([*command, "-oct", "1", "-itr", "1", "-v", str(level)]) == 0
    told = [line for line in re.split("[\r\n]+", capsys.readouterr().err) if "are free" in line]
    assert len(told) == lines and all(line.startswith("frames of 64x48 need about") for line in told)
    assert len(list((tmp_path / "Output").glob("frame_*.png"))) == 2
    assert dreamer.main([*command, "-oct", "1", "-itr", "1"]) == 0
    assert "are free" not in capsys.readouterr().err  # all is done: nothing needs memory


# --- Out of memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [None, 1e12])
def test_what_failed_is_halved_at_least(default_network, free, count):
    free(count)
    line = memory.explain(OutOfMemory("no room"), default_network, LAYERS, WIDE, options())
    assert line.startswith("no room; take")
    part = memory._largest_part(WIDE, options(DivideMode.SEAMLESS, advised(line)))
    assert np.prod(part) <= np.prod(WIDE) / 2


def test_an_engine_without_an_estimate_halves_what_failed(default_network, free, monkeypatch):
    monkeypatch.setattr(default_network, "memory", lambda layer, size: None)
    free(1e12)
    assert memory.warning(default_network, LAYERS, WIDE, options()) is None
    line = memory.explain(MemoryError(), default_network, LAYERS, WIDE, options())
    assert line.startswith("not enough memory (MemoryError); take") and advised(line) == 2000


def test_what_the_failed_step_holds_counts_as_free(default_network, monkeypatch):
    """Else the memory is full when it is asked how much there is."""
    held = []

    class Tensor:
        pass

    def fail():
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        raise OutOfMemory("no room")

    monkeypatch.setattr(memory, "available", lambda device: None if held[0]() is None else pytest.fail("still held"))
    with pytest.raises(OutOfMemory) as raised:
        fail()
    memory.explain(raised.value, default_network, LAYERS, WIDE, options())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nmore lines"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        cv2.error("OpenCV: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_wherever_memory_runs_out_it_is_one_line(small_folder, tmp_path, monkeypatch, capsys, error):
    (tmp_path / "Input").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "Input" / "1.png")

    def fail(*arguments):
        raise error

    monkeypatch.setattr(ascent, "resize", fail)
    assert dreamer.main(["-i", str(tmp_path / "Input"), "-o", str(tmp_path / "Output"), "-t", str(small_folder)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("dreamer.py: not enough memory (") and last.endswith("; dream smaller (--dreamwidth)")


def test_another_error_is_not_taken_for_it(small_folder, tmp_path, monkeypatch):
    (tmp_path / "Input").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "Input" / "1.png")
    monkeypatch.setattr(ascent, "resize", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dreamer.main(["-i", str(tmp_path / "Input"), "-o", str(tmp_path / "Output"), "-t", str(small_folder)])


LIMITED = """
import resource, sys, psutil, torch, cv2
import dreamer, deepdream.picture.waves
from deepdream.networks import load_network
from deepdream.networks.torch import compiled

resource.setrlimit(resource.RLIMIT_AS, (1 << 46,) * 2)  # from the start it is known that there is one
network = load_network(sys.argv[1], gpu=False, on_message=print)
network.gradient(torch.zeros(3, 32, 32), "second/relu", lambda top: top)  # threads and libraries are there
y = torch.zeros(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
compiled.stop(y, compiled.find_stops(y, float("inf")))  # and the loops of large pictures
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + int(sys.argv[2]),) * 2)
sys.exit(dreamer.main(sys.argv[3:]))
"""


@pytest.mark.skipif(available.resource is None, reason="NOT TESTED: no limit on the address space here")
def test_the_tiles_that_are_advised_really_fit(wide_folder, tmp_path):
    """A process that may have 500 MB more than it has, and a frame that asks for three times as much."""
    (tmp_path / "Input").mkdir()
    Image.effect_noise((1120, 840), 90).convert("RGB").save(tmp_path / "Input" / "1.png")
    command = ["-i", "Input", "-o", "Output", "-t", str(wide_folder), "-l", "second/relu", "-oct", "1", "-itr", "1"]

    def run(*more):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return run_python("-c", LIMITED, wide_folder, 5 * 10**8, *command, *more, cwd=tmp_path, env=environment)

    failed = run()
    assert failed.returncode == 1 and "Traceback" not in failed.stderr, failed.stderr
    warning, *_, error = failed.stderr.splitlines()
    assert "frames of 1120x840 need about 1.2 GB at second/relu" in warning
    assert error.startswith("dreamer.py: not enough memory at layer")
    for side in {str(advised(line)) for line in (warning, error)}:
        done = run("--overwrite", "-d", "3", "-mw", side, "-mh", side)
        assert done.returncode == 0, done.stderr
        assert "are free" not in done.stderr
