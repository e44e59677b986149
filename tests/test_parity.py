"""Every layer type and architecture on PyTorch against real Caffe; `python -m tests.parity` prints the numbers."""

import pytest

from tests import layer_nets, parity

try:
    parity.import_caffe()
except ImportError as error:
    pytest.skip(f"NOT COMPARED WITH REAL CAFFE: {error}; scripts/build_caffe.sh builds it", allow_module_level=True)

ARCHITECTURES = {name: (build, size) for name, build, size in parity.whole_nets()}
TRAINED = {name: (folder, picture) for name, folder, picture in parity.trained_nets()}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_agrees_with_caffe(name, tmp_path):
    row = parity.compare_architecture(tmp_path, name, *ARCHITECTURES[name])
    assert row.holds, row
    assert row.blobs > 20 and row.gradients >= 5


@pytest.mark.parametrize("name", layer_nets.SMALL_NETS)
def test_layer_agrees_with_caffe(name, tmp_path):
    row = parity.compare_small(tmp_path, name)
    assert row.holds, row


@pytest.mark.parametrize("name", TRAINED)
def test_trained_net_agrees_with_caffe(name):
    row = parity.compare(name, *TRAINED[name])
    assert row.holds, row


def test_a_wrong_gradient_is_noticed(tmp_path, monkeypatch):
    """The treatment of near ties excuses no error: right values with a derivative that is 1% off fail."""
    from deepdream.networks.torch import layers as torch_layers

    def slanted(layer, weights):
        return lambda x: x.tanh() + 0.01 * (x - x.detach())

    monkeypatch.setitem(torch_layers.LAYER_TYPES, "TanH", slanted)
    row = parity.compare_small(tmp_path, "TanH")
    assert row.forward <= parity.FORWARD_BOUND and not row.holds
