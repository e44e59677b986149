"""How far the networks on PyTorch are from real Caffe.  Usage: python -m tests.parity  prints the table.

Forward, every blob is compared; backward, the picture's gradient from several layers, by relative L2 error.

The two engines round differently. Where two values under a maximum, or a value and the zero of a ReLU, nearly tie,
they may decide differently, and from there on their gradients are those of two different functions. So a gradient
beyond its bound is looked into: the decisions that differ are counted, and the gradient is taken anew on PyTorch with
every layer's input set to Caffe's own, where the same decisions must fall. That one has to keep the bound, always;
and a gradient beyond it of which no decision differs is an error.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deepdream.networks import load_network
from deepdream.networks.caffe.child import Server
from deepdream.networks.caffemodel.prototxt import find_inputs, read_prototxt
from deepdream.networks.torch.layers.convolution import CONVOLUTIONS
from tests import nets
from tests.architectures import ARCHITECTURES
from tests.helpers import ZOO
from tests.layer_nets import SMALL_NETS, last_layers, small_net

FORWARD_BOUND, BACKWARD_BOUND = 1e-4, 1e-3
DECIDING = ("ReLU", "ReLU6", "PReLU", "Pooling", "Eltwise", "AbsVal")
GRADIENT_LAYERS = 6


@dataclass(frozen=True)
class Row:
    """The worst of a net: relative errors, the layers where they are, and what became of near ties."""

    name: str
    blobs: int
    forward: float
    forward_layer: str
    gradients: int
    backward: float
    backward_layer: str
    flips: int  # decisions that differ, where the gradient is beyond its bound
    same_decisions: float  # the gradient's error at Caffe's own values

    @property
    def holds(self):
        """Whether the net keeps its bounds."""
        free = self.backward <= BACKWARD_BOUND or self.flips > 0
        return self.forward <= FORWARD_BOUND and free and self.same_decisions <= BACKWARD_BOUND

    def __str__(self):
        note = f"  {self.flips} near ties" if self.flips else ""
        verdict = "" if self.holds else "  OVER ITS BOUND"
        return (
            f"{self.name:36} {self.blobs:4} {self.forward:9.1e} {self.gradients:4} {self.backward:9.1e} "
            f"{self.same_decisions:9.1e}{note}{verdict}"
        )


HEADER = (
    f"{'net or layer':36} {'blob':>4} {'forward':>9} {'grad':>4} {'backward':>9} {'same dec.':>9}\n"
    f"{'bound':41} {FORWARD_BOUND:9.0e} {'':4} {BACKWARD_BOUND:9.0e} {BACKWARD_BOUND:9.0e}"
)


def import_caffe():
    """ImportError where Caffe is not installed (the placeholder on PyPI is not Caffe)."""
    import caffe

    if not hasattr(caffe, "Net"):
        raise ImportError(f"{caffe.__path__} is not Caffe")


class Reference(Server):
    """A model run by pycaffe in this process, as the child process of `CaffeNetwork` runs it."""

    def __init__(self, folder, picture):
        prototxt, caffemodel = Path(folder, "deploy.prototxt"), next(Path(folder).glob("*.caffemodel"))
        blob = next(iter(find_inputs(read_prototxt(prototxt))))
        with tempfile.TemporaryDirectory() as place:
            super().__init__(str(prototxt), str(caffemodel), blob, *picture.shape, f"{place}/net.prototxt")
        self._picture = picture.numpy()

    def tops(self):
        """A dict from layer name to what it puts out, before a layer in place changes it."""
        self.forward([self._net._layer_names[0]], self._picture)
        tops = {}
        for name in self._net._layer_names:
            self._net.forward(start=name, end=name)
            tops[name] = [torch.from_numpy(self._net.blobs[top].data.copy()) for top in self._net.top_names[name]]
        return tops

    def gradient(self, layer):
        """The picture's gradient (3, h, w) where the gradient at the layer is its own output."""
        return torch.from_numpy(self.backward([layer], self.forward([layer], self._picture)).copy())


def error(found, expected):
    """Relative L2 error; the error itself where everything expected is zero."""
    if found.shape != expected.shape:
        return float("inf")
    difference = (found.double() - expected.double()).norm()
    size = expected.double().norm()
    return float(difference / size if size > 0 else difference)


def compare(name, folder, picture, gradient_layers=None):
    """The `Row` of a model in ``folder`` for a picture (3, h, w)."""
    network = load_network(folder, on_message=print)
    reference = Reference(folder, picture)
    theirs = reference.tops()
    ours = _values(network, picture)
    forward = {
        f"{step.layer.name}[{number}]": error(ours[value], theirs[step.layer.name][number])
        for step in network._steps
        for number, value in enumerate(step.outputs)
        if value in ours and step.layer.bottoms
    }
    forced = _values(network, picture, _numbered(network, picture, theirs))
    backward, flips, same = {}, 0, {}
    for layer in gradient_layers or _spread(network):
        expected = reference.gradient(layer)
        # As the product runs it, layers fused; `ours` has each layer's value on its own.
        forward[f"up to {layer}"] = error(network.activations(picture, layer), theirs[layer][0][0])
        backward[layer] = error(network.gradient(picture, layer, lambda top: top), expected)
        target = network._steps[network._places[layer]].outputs[0]
        same[layer] = error(_gradient(forced, target, theirs[layer][0]), expected)
        if backward[layer] > BACKWARD_BOUND:
            flips = max(flips, _count_flips(network, {**ours, **_fused_values(network, picture, layer)}, forced))
    worst, worst_backward = max(forward, key=forward.get), max(backward, key=backward.get)
    return Row(
        name, len(forward), forward[worst], worst, len(backward), backward[worst_backward], worst_backward,
        flips, max(same.values()),
    )  # fmt: skip


def _values(network, picture, given=None):
    """All values of a net by number. ``given``: Caffe's, which then stand in for what each layer gets."""
    x = picture[None].clone().requires_grad_()
    values = {network._first_input: x}
    with torch.set_grad_enabled(given is not None):
        for step in network._steps:
            if not step.layer.bottoms or not set(step.inputs) <= values.keys():
                continue
            if given is None:
                network.run_step(step, values)
                continue
            # The value is Caffe's, the derivative passes through.
            tops = {number: _Replaced.apply(values[number], given[number]) for number in step.inputs}
            network.run_step(step, tops)
            values.update({number: tops[number] for number in step.outputs})
    return values


@torch.no_grad()
def _fused_values(network, picture, layer):
    """The values by number as the product runs the net up to ``layer``: fused layers round a little differently.

    What lies within fused layers is computed from what goes into them.
    """
    values = {network._first_input: picture[None]}
    for step in network._select(layer)[0]:
        network.run_step(step, values)
    for step in network._steps[: network._places[layer]]:
        if step.layer.bottoms and step.outputs and step.outputs[0] not in values:
            if step.layer.type in CONVOLUTIONS:  # as it is where the run stops right after it
                steps, (target,) = network._select(step.layer.name)
                step = next(step for step in steps if target in step.outputs)
            if set(step.inputs) <= values.keys():
                network.run_step(step, values)
    return values


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, replacement):
        return replacement.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def _numbered(network, picture, tops):
    numbered = {network._first_input: picture[None]}
    for step in network._steps:
        if step.layer.bottoms:
            numbered.update(zip(step.outputs, tops[step.layer.name]))
    return numbered


def _gradient(values, target, diff):
    return torch.autograd.grad(values[target], values[min(values)], diff, retain_graph=True)[0][0]


def _count_flips(network, ours, theirs):
    """How many elements of all deciding layers pass the gradient on in one engine and not in the other."""
    flips = 0
    for step in network._steps:
        if step.layer.type not in DECIDING or not set(step.inputs) <= ours.keys():
            continue
        function = network._function(step, network.device, torch.float32)
        slopes = []
        for values in (ours, theirs):
            inputs = [values[number].detach().requires_grad_() for number in step.inputs]
            slopes.append(torch.autograd.grad(function(*inputs).sum(), inputs))
        flips += sum(int((a - b).abs().gt(1e-3).sum()) for a, b in zip(*slopes))
    return flips


def _spread(network):
    """Layers from one end of a net to the other that a gradient can start from."""
    types = ("Convolution", "Concat", "Eltwise", "Pooling", "LRN", "InnerProduct")
    fit = [step.layer.name for step in network._steps if step.layer.type in types]
    return [fit[round(i * (len(fit) - 1) / (GRADIENT_LAYERS - 1))] for i in range(GRADIENT_LAYERS)]


def whole_nets():
    """(name, function that makes the net, (h, w)) of every net that is compared as a whole."""
    for build, size in ARCHITECTURES.items():
        yield build.__name__, build, size
    for path in sorted(ZOO.glob("*.prototxt")):
        # Its last pooling asks for maps of at least 7 x 7.
        size = (223, 239) if "googlenet" in path.stem else (97, 131)
        yield f"zoo {path.stem}", lambda size, path=path: nets.zoo_net(path, size), size


def compare_architecture(folder, name, build, size):
    """The `Row` of one of `whole_nets`, its model saved in ``folder``."""
    return compare(name, nets.save(folder, build(size)), nets.picture(size))


def compare_small(folder, name):
    """The `Row` of one of `SMALL_NETS`, its model saved in ``folder``."""
    text = SMALL_NETS[name]
    return compare(name, nets.save(folder, small_net(text)), nets.picture((11, 13)), last_layers(text))


def trained_nets():
    """(name, folder, picture) of the trained models that are there, with the picture of their reference."""
    for path in sorted(ZOO.glob("*/caffe_reference.npz")):
        yield f"trained {path.parent.name}", path.parent, torch.from_numpy(np.load(path)["input"]).float()


def rows():
    """Every `Row`, one after another."""
    with tempfile.TemporaryDirectory() as folder:
        for name, build, size in whole_nets():
            yield compare_architecture(Path(folder, name), name, build, size)
        for name in SMALL_NETS:
            yield compare_small(Path(folder, name.replace("/", " over ")), name)
    for name, model, picture in trained_nets():
        yield compare(name, model, picture)


def main():
    """Print the table; 1 where a row is over its bound."""
    print(HEADER)
    holds = True
    for row in rows():
        print(row, flush=True)
        holds = holds and row.holds
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
