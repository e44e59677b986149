"""The compiled layers against PyTorch's own in float64, which take other ways to the same values."""

import math
import os

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT, run_python

from deepdream.compiling import CompileNotice, compile_loop
from deepdream.networks.torch import compiled, loops

# kernel, stride, pad, size of the picture; each with a channel count that no register divides
WINDOWS = [
    ((3, 3), (2, 2), (0, 0), (13, 18)),
    ((3, 3), (1, 1), (1, 1), (7, 9)),
    ((2, 2), (2, 2), (0, 0), (9, 8)),
    ((5, 2), (3, 1), (2, 1), (11, 6)),
    ((1, 1), (2, 2), (0, 0), (5, 6)),
    ((17, 15), (1, 1), (8, 7), (17, 9)),
]


def values(channels, height, width, seed=0):
    """Small whole numbers, so that windows hold many equal values."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-3, 4, (1, channels, height, width)) * 1.0)


def both_ways(function, x, gradient=None):
    """(top, derivative by ``x``) of a function, where the derivative at the top is ``gradient``."""
    x = x.clone().requires_grad_()
    top = function(x)
    gradient = torch.from_numpy(np.random.default_rng(1).standard_normal(top.shape)) if gradient is None else gradient
    return top.detach(), torch.autograd.grad(top, x, gradient.to(top))[0]


@pytest.mark.parametrize("kernel, stride, pad, size", WINDOWS)
def test_a_maximum_and_its_gradient_are_those_of_pytorch(kernel, stride, pad, size):
    x = values(7, *size)
    top, wanted = both_ways(lambda x: F.max_pool2d(x, kernel, stride, pad, ceil_mode=True), x)
    pooled, gradient = both_ways(lambda x: compiled.max_pool(x, kernel, stride, pad, tuple(top.shape[2:])), x.float())
    assert torch.equal(pooled.double(), top)
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-6, atol=1e-6)


def formula(x, reach, alpha, k):
    near = F.pad(x.square(), (0, 0, 0, 0, reach, reach)).unfold(1, 2 * reach + 1, 1).sum(-1)
    return x * (k + alpha * near) ** -0.75


@pytest.mark.parametrize("channels, reach, k", [(1, 2, 1.0), (7, 1, 2.0), (64, 2, 1.0), (3, 4, 0.5)])
def test_a_response_norm_and_its_gradient_are_those_of_the_formula(channels, reach, k):
    x = values(channels, 9, 17) * 4
    top, wanted = both_ways(lambda x: formula(x, reach, 0.02, k), x)
    normed, gradient = both_ways(lambda x: compiled.local_response_norm(x, reach, 0.02, k), x.float())
    torch.testing.assert_close(normed.double(), top, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-5, atol=1e-5)


def ours(x, normed, stops=True):
    if normed:
        return compiled.local_response_norm(x, 1, 0.02, 1, stops)
    return compiled.max_pool(x, (2, 2), (2, 2), (0, 0), (5, 6), stops)


@pytest.mark.parametrize("normed", [False, True])
def test_the_relu_before_it_is_differentiated_too(normed):
    """By its values alone, of which many are 0. What is no number passes, so that it shows at the picture."""
    before = values(7, 9, 12)

    def plain(x):
        return formula(F.relu(x), 1, 0.02, 1) if normed else F.max_pool2d(F.relu(x), 2, 2, ceil_mode=True)

    top, wanted = both_ways(plain, before)
    after = before.clamp(min=0).float()
    found, gradient = both_ways(lambda x: ours(x, normed), after)
    torch.testing.assert_close(found.double(), top, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-5, atol=1e-5)
    _, otherwise = both_ways(lambda x: ours(x, normed, False), after)
    assert (gradient == 0).sum() > (otherwise == 0).sum()
    lost = torch.full((1, 1, 9, 12), math.nan)
    assert both_ways(lambda x: ours(x, normed), lost)[1].any()


def pooled_by_twos(x):
    return compiled.max_pool(x, (2, 2), (2, 2), (0, 0), (4, 5))


def test_planes_and_a_spread_out_gradient_are_taken_as_well():
    """Not only channels_last, and not only gradients with memory of their own."""
    x, ones = values(5, 8, 10).float(), torch.ones(1).double().expand(1, 5, 4, 5)
    layouts = x.contiguous(), x.contiguous(memory_format=torch.channels_last)
    pooled = [both_ways(pooled_by_twos, x, ones) for x in layouts]
    assert torch.equal(pooled[0][1], pooled[1][1]) and pooled[0][1].sum() == ones.sum()
    normed = [both_ways(lambda x: compiled.local_response_norm(x, 1, 0.1, 1), x) for x in layouts]
    assert torch.equal(normed[0][0], normed[1][0]) and torch.equal(normed[0][1], normed[1][1])


def test_bfloat16_is_computed_in_float32_and_its_gradient_comes_back_as_it_went_in():
    x = values(6, 6, 6).bfloat16()
    top, gradient = both_ways(lambda x: compiled.local_response_norm(x, 2, 0.1, 1), x)
    assert top.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    assert torch.equal(top, compiled.local_response_norm(x.float(), 2, 0.1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ceiling", [math.inf, 3.0])
def test_an_activation_stops_what_pytorch_says_that_it_stops(dtype, ceiling):
    """At its ends too. Where a value is no number nothing stops, so that it shows at the picture."""
    ends = [0.0, -0.0, -1.0, 1e-30, 3.0, 2.984375, 3.015625, 1e30, math.inf, -math.inf, math.nan, -math.nan]
    y = torch.tensor(ends * 10, dtype=dtype).reshape(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(y.shape).to(y).contiguous(memory_format=torch.channels_last)
    wanted = torch.where(y.isnan(), gradient, torch.ops.aten.hardtanh_backward(gradient, y, 0, ceiling))
    stops = compiled.find_stops(y, ceiling)
    compiled.stop(gradient, stops)
    assert stops.dtype == torch.uint8 and torch.equal(gradient, wanted) and (gradient != 0).any()


@pytest.mark.parametrize(
    "kernel, stride, pad, size",
    [
        ((3, 3), (2, 2), (1, 1), (35, 18)),
        ((5, 5), (2, 2), (2, 2), (20, 21)),
        ((3, 5), (3, 1), (0, 2), (16, 9)),
        ((1, 2), (4, 3), (0, 1), (30, 8)),  # with pixels that no window takes
    ],
)
def test_a_strided_depthwise_convolution_in_bfloat16_is_differentiated(kernel, stride, pad, size):
    torch.manual_seed(3)
    weight = torch.randn(7, 1, *kernel).bfloat16()
    x = torch.randn(1, 7, *size).double().requires_grad_()
    y = F.conv2d(x, weight.double(), None, stride, pad, 1, 7)
    gradient = torch.randn(y.shape).bfloat16().contiguous(memory_format=torch.channels_last)
    (wanted,) = torch.autograd.grad(y, x, gradient.double())
    found = compiled.depthwise_backward(gradient, weight, x.shape, stride, pad)
    torch.testing.assert_close(found.double(), wanted, rtol=2**-8, atol=1e-6)  # half a step of bfloat16, and no more


def test_meta_stands_for_a_device_only_where_that_is_said():
    x = torch.empty(1, 5, 8, 10, device="meta")
    top, gradient = both_ways(pooled_by_twos, x)
    assert top.shape == (1, 5, 4, 5) and gradient.shape == x.shape
    with compiled.emulate_device(torch.device("cpu")):
        assert compiled.is_supported(x)
    with compiled.emulate_device(torch.device("cuda")):
        assert not compiled.is_supported(x)
    assert not compiled.is_supported(x) and compiled.is_supported(torch.empty(1, 5, 8, 10))


def dispatcher(module):
    """A loop of its own, of a module of that name; there is no file beside which its code could be kept."""
    namespace = {"__name__": module, "numba": numba}
    exec("def double(x):\n    for i in numba.prange(len(x)):\n        x[i] *= 2", namespace)
    return compile_loop(namespace["double"])


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same():
    x = np.ones(3)
    dispatcher("elsewhere")(x)
    assert list(x) == [2, 2, 2]


def test_compiling_is_announced_once():
    told = []
    own, foreign, later = dispatcher(loops.__name__), dispatcher("elsewhere"), dispatcher(loops.__name__)
    with CompileNotice(told.append) as notice:
        foreign(np.ones(3))
        assert not told
        own(np.ones(3))
        own(np.ones(4))
    later(np.ones(3))
    assert len(told) == 1 and "compiling" in told[0]
    with notice:
        dispatcher(loops.__name__)(np.ones(3))
    assert len(told) == 1


def test_the_first_run_of_a_network_says_that_it_compiles_and_takes_no_more_threads_than_pytorch(
    small_folder, tmp_path
):
    """Numba by itself would tell OpenMP, PyTorch's too, to take one for every processor."""
    code = (
        "import sys, torch, numba; from deepdream.networks import load_network;"
        "network = load_network(sys.argv[1], gpu=False, on_message=print);"
        "[network.activations(torch.zeros(3, 40, 48), 'pool1') for _ in range(2)];"
        "print(torch.get_num_threads(), numba.get_num_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    environment.pop("NUMBA_NUM_THREADS", None)
    first, second = (run_python("-c", code, small_folder, env=environment, cwd=tmp_path) for _ in range(2))
    assert first.stdout.count("\n") == 2 and first.stdout.startswith("compiling"), first.stderr
    assert first.stdout.endswith("\n1 1\n") and second.stdout == "1 1\n", second.stderr
