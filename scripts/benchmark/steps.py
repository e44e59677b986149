"""Steps of several engines that take turns, and what the machine can do at best."""

import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import architectures
import nets
import numpy as np
import torch
import torch.nn.functional as F

from benchmark import engines
from benchmark.engines import OURS, Engine, Peer, PlainTorch
from deepdream.errors import DreamError
from deepdream.networks import load_network
from deepdream.networks.caffemodel import Model, load_model
from deepdream.networks.default import default_model_files
from deepdream.options import PRECISIONS, Colors, DreamOptions
from deepdream.picture import ascent, objectives

Tell = Callable[[str], None]

SGEMM_SIDE = 2048
WINDOW = (256, 256, 128)  # channels in and out, and height and width, of the convolution that shows the peak
WARM_UP = 3, 2.0  # steps that are not counted, and the seconds after which fewer do
TURN = 5, 0.4  # steps of a turn at the most, and the seconds that it may last where there is more than one
PAUSE = 0.1  # seconds before a turn: the threads of the one before, in another process, may still spin
MIN_ROUNDS, LONG_RACE = 3, 8.0  # after so many seconds only the least number of rounds is made
SAME_ACTIVATIONS, SAME_GRADIENT = 1e-3, 5e-2  # relative errors; ties under a maximum part gradients by some percent
# The test nets name the layers before the inception modules shorter than the model zoo's GoogLeNet does.
ZOO_NAMES = {"conv1": "conv1_7x7_s2", "conv2/reduce": "conv2_3x3_reduce", "conv2": "conv2_3x3"}


def make_model(name: str, folder: str | Path) -> Path | None:
    """The folder of a model with random weights, without fully connected layers; None for the default network."""
    if name == "default":
        return None
    net = getattr(architectures, name)((224, 224))
    flat = next((number for number, layer in enumerate(net.layer) if layer.type == "InnerProduct"), len(net.layer))
    del net.layer[flat:]  # VGG's would be 500 MB, which Caffe refuses; a dream never gets there
    return nets.save(Path(folder, name), net)


def model_files(folder: Path | None) -> tuple[Path, Path]:
    """(prototxt, caffemodel) of what `make_model` has made."""
    return default_model_files() if folder is None else (folder / "deploy.prototxt", folder / "net.caffemodel")


def state_dict(model: Model) -> dict[str, torch.Tensor]:
    """The convolutions' weights of our GoogLeNet by the names of neural-dream's module for the zoo's."""
    state = {}
    for layer in model.layers:
        if layer.type == "Convolution":
            name = ZOO_NAMES.get(layer.name, layer.name.replace("/", "_"))
            state[f"{name}.weight"], state[f"{name}.bias"] = map(torch.tensor, layer.blobs)
    return state


def open_engines(
    name: str, folder: Path | None, peer_python: str | None, stack: ExitStack, tell: Tell
) -> tuple[Model, list[Engine]]:
    """A model and the engines that there are for it, this project's first. ``stack`` ends their processes."""
    prototxt, caffemodel = model_files(folder)
    model = load_model(prototxt, caffemodel)
    networks = [load_network(folder, gpu=False, precision=name, on_message=lambda line: None) for name in PRECISIONS]
    if networks[1].precision == networks[0].precision:
        tell("this CPU has no bfloat16; it is left out")
        del networks[1]
    found: list[Engine] = [*map(engines.Ours, networks), PlainTorch(model), engines.Convolutions(model)]
    relu6 = PlainTorch(model, relu6=True)
    if any(layer.type == "ReLU6" for layer in relu6.layers):
        found.insert(-1, relu6)
    work_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    # Otherwise Caffe skips the picture's gradient.
    (work_dir / "net.prototxt").write_text(f"force_backward: true\n{Path(prototxt).read_text()}")
    try:
        found.append(Peer(engines.CAFFE, sys.executable, work_dir, "net.prototxt", str(Path(caffemodel).resolve())))
    except DreamError as error:
        tell(f"{error}; it is left out")
    if peer_python and name == "googlenet":
        torch.save(state_dict(model), work_dir / "bvlc_googlenet.pth")
        # neural-dream recognises nets by words in the path, so it gets a relative one.
        found.append(Peer(engines.NEURAL_DREAM, peer_python, work_dir, "bvlc_googlenet.pth"))
    for engine in found:
        if isinstance(engine, Peer):
            stack.callback(engine.close)
    return model, found


def race(racers: Sequence[Engine], rounds: int) -> dict[str, list[float]]:
    """The seconds of each engine's steps, by name; the engines take turns, ``rounds`` times."""
    turns, seconds = {}, {engine.name: [] for engine in racers}
    for engine in racers:
        warm = engine.steps(1)
        while len(warm) < WARM_UP[0] and sum(warm) < WARM_UP[1]:
            warm += engine.steps(1)
        turns[engine.name] = max(1, min(TURN[0], int(TURN[1] / warm[-1])))
    started = time.monotonic()
    for number in range(rounds):
        if number >= MIN_ROUNDS and time.monotonic() - started > LONG_RACE:
            break
        for engine in racers:
            time.sleep(PAUSE)
            seconds[engine.name] += engine.steps(turns[engine.name])
    return seconds


def measure_machine(rounds: int) -> dict:
    """What the machine is, and the floating point operations a second of a matrix product and of a convolution."""
    a, b = torch.rand(2, SGEMM_SIDE, SGEMM_SIDE)
    channels, count, side = WINDOW
    weight = torch.rand(count, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    x = torch.rand(1, channels, side, side).contiguous(memory_format=torch.channels_last)
    flops = {"sgemm": 2 * SGEMM_SIDE**3, "convolution": 2 * weight.numel() * side**2}
    product, convolution = lambda: a @ b, lambda: F.conv2d(x, weight, padding=1)
    seconds = race([Engine("sgemm", product), Engine("convolution", convolution)], rounds)
    rates = {name: flops[name] / statistics.median(times) for name, times in seconds.items()}
    return {"cpu": _cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__, **rates}


def _cpu_name() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure_steps(
    name: str, layers: Sequence[str], places: Mapping[str, tuple[int, int]], rounds: int, peak_flops: float,
    peer_python: str | None, tell: Tell,
) -> Iterator[dict]:  # fmt: skip
    """A row for each layer, size and engine of a network. ``places``: (h, w) by what to call it.

    ``peak_flops``: operations a second, to which those of the convolutions are compared; ``tell`` gets
    what comes next, and which engine is missing. Raises `DreamError` where an engine computes something else.
    """
    with ExitStack() as stack:
        folder = make_model(name, stack.enter_context(tempfile.TemporaryDirectory()))
        model, racers = open_engines(name, folder, peer_python, stack, tell)
        for layer in layers:
            apart = None
            for place, size in places.items():
                tell(f"steps of {name} to {layer} at {place}")
                picture = nets.picture(size)
                for engine in racers:
                    engine.open(picture.clone(), layer)
                apart = apart or compare(racers, f"{name} {layer}")
                flops = engines.convolution_flops(model, layer, size)
                for row in step_rows(race(racers, rounds), flops, peak_flops):
                    yield {"network": name, "layer": layer, "size": place, **row, "apart": apart.get(row["engine"])}


def measure_looks(layer: str, sizes: Mapping[str, tuple[int, int]], rounds: int) -> Iterator[dict]:
    """A row for each size, (h, w) by name: the seconds of a whole step of the default network, and of smoothed ones."""
    network = load_network(gpu=False, on_message=lambda line: None)
    looks = {"plain": DreamOptions(), "smoothed": DreamOptions(smooth=1.0)}
    looks["natural"] = replace(looks["smoothed"], colors=Colors.NATURAL)
    for name, size in sizes.items():
        racers = []
        for look, options in looks.items():
            steps = ascent.ascend(
                nets.picture(size),
                network,
                layer,
                objectives.l2,
                replace(options, iterations=100_000),
                np.random.default_rng(0),
            )
            racers.append(Engine(look, steps.__next__))
        medians = {look: statistics.median(times) for look, times in race(racers, rounds).items()}
        ratios = {look: seconds / medians["plain"] for look, seconds in medians.items()}
        yield {"size": name, "layer": layer, **ratios, "seconds": medians["plain"]}


def step_rows(seconds: Mapping[str, Sequence[float]], flops: int, peak_flops: float) -> Iterator[dict]:
    """A row for each engine by the seconds of its steps, of which each has ``flops``."""
    first = statistics.median(seconds[OURS])
    for engine, times in seconds.items():
        median = statistics.median(times)
        yield {
            "engine": engine, "seconds": median, "ratio": median / first, "of sgemm": flops / median / peak_flops,
            "flops": flops, "runs": len(times),
        }  # fmt: skip


def compare(racers: Sequence[Engine], what: str) -> dict[str, list[float]]:
    """How far the engines' (activations, gradient) are from the first one's: relative errors, by engine.

    Gradients are compared by direction, since objectives differ in scale. Raises `DreamError` where it is too far.
    """
    apart, reference = {}, None
    for engine in racers:
        if engine.name in engines.OTHER_NUMBERS:
            continue
        engine.steps(1)
        activations, gradient = engine.result()
        found = activations, gradient / np.linalg.norm(gradient)
        reference = reference or found
        errors = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(found, reference)]
        if errors[0] > SAME_ACTIVATIONS or errors[1] > SAME_GRADIENT:
            raise DreamError(
                f"{what}: {engine.name} does other work, so it is not compared: its activations are off by "
                f"{errors[0]:.1e}, its gradient by {errors[1]:.1e}"
            )
        apart[engine.name] = errors
    return apart
