"""Finding and loading a model: where it is looked for, which files count, and what its layers are called."""

import shutil

import numpy as np
import pytest
from caffe_format import binaryproto
from nets import SMALL, random_blobs, write_model

from deepdream.errors import ModelError
from deepdream.networks import default as embedded
from deepdream.networks import load_network, resolve_layers
from deepdream.networks.caffemodel import write_caffemodel
from deepdream.options import CUSTOM_LOOP


class Told(list):
    """Collects the lines for the user."""

    def __call__(self, line):
        self.append(line)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current directory in which nothing is found."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("CAFFE_ROOT", raising=False)
    return here


@pytest.fixture
def folder(small_folder, tmp_path):
    """A copy of the small model to change."""
    return shutil.copytree(small_folder, tmp_path / "model")


def named(name):
    return SMALL.replace('name: "small"', f'name: "{name}"')


def mean_of(network):
    return network.mean.flatten().tolist()


# --- Where a model is looked for -------------------------------------------------------------------


def test_the_usual_places_are_searched_in_order(place, monkeypatch, default_network):
    root = place / "caffe_root"
    monkeypatch.setenv("CAFFE_ROOT", str(root))
    monkeypatch.setattr(embedded, "default_model_files", lambda: pytest.fail("there is a model to use"))
    places = {
        "in models": place / "models",
        "beside": place.parent / "caffe" / "models",
        "in caffe_root": root / "models",
    }
    for name, models in places.items():  # the last to come is the first in the order
        write_model(models / "bvlc_googlenet", named(name), random_blobs(SMALL))
        told = Told()
        assert load_network(gpu=False, on_message=told).name == name
        assert told == []
    monkeypatch.delenv("CAFFE_ROOT")
    assert load_network(gpu=False, on_message=print).name == "beside"


def test_a_usual_place_without_weights_is_passed_over(place):
    write_model(place / "models" / "bvlc_googlenet", named("whole"), random_blobs(SMALL))
    unfinished = place.parent / "caffe" / "models" / "bvlc_googlenet"
    unfinished.mkdir(parents=True)
    (unfinished / "deploy.prototxt").write_text(named("unfinished"))
    assert load_network(gpu=False, on_message=print).name == "whole"


def test_without_a_model_the_embedded_one_is_used_and_said_so(place, monkeypatch, default_network, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    told = Told()
    network = load_network(gpu=False, on_message=told)
    assert network.name == embedded.NAME and network.digest == default_network.digest
    assert len(told) == 1 and "EfficientNet-Lite0" in told[0] and "get_model.py bvlc_googlenet" in told[0]


# --- Which files count -----------------------------------------------------------------------------


def test_the_only_caffemodel_needs_no_name(folder):
    assert load_network(folder, gpu=False, on_message=print).name == "small"


@pytest.mark.parametrize("name", ["second", "second.caffemodel"])
def test_a_caffemodel_is_named_with_or_without_its_ending(folder, name):
    other = random_blobs(SMALL, seed=1)
    write_model(folder, SMALL, other, "second")
    first, second = (load_network(folder, which, gpu=False, on_message=print) for which in ("net", name))
    assert first.digest != second.digest
    picture = first.mean.expand(3, 30, 30).contiguous()
    bias = second.activations(picture * 0, "conv1")[:, 0, 0]
    np.testing.assert_array_equal(bias, other["conv1"][1])


def test_a_name_with_dots_is_still_a_name(folder):
    (folder / "net.caffemodel").rename(folder / "net_iter_2.5.caffemodel")
    assert load_network(folder, "net_iter_2.5", gpu=False, on_message=print).name == "small"


def test_several_caffemodels_are_listed_where_none_is_named(folder):
    shutil.copy(folder / "net.caffemodel", folder / "other.caffemodel")
    with pytest.raises(ModelError, match="net.caffemodel, other.caffemodel.*-m"):
        load_network(folder, gpu=False, on_message=print)


def test_a_caffemodel_that_is_not_there_is_named_with_those_that_are(folder):
    with pytest.raises(ModelError, match="no caffemodel ghost.*net.caffemodel"):
        load_network(folder, "ghost", gpu=False, on_message=print)


def test_a_name_alone_is_looked_for_in_the_current_directory_and_said_so(folder, monkeypatch):
    monkeypatch.chdir(folder)
    told = Told()
    assert load_network(model_name="net", gpu=False, on_message=told).name == "small"
    assert len(told) == 1 and "-m net" in told[0] and "current directory" in told[0]


def test_deploy_prototxt_comes_before_others(folder):
    (folder / "a_train_val.prototxt").write_text(named("training"))
    assert load_network(folder, gpu=False, on_message=print).name == "small"


def test_the_only_prototxt_serves_whatever_its_name(folder):
    (folder / "deploy.prototxt").rename(folder / "my_net.prototxt")
    assert load_network(folder, gpu=False, on_message=print).name == "small"
    (folder / "another.prototxt").write_text(SMALL)
    with pytest.raises(ModelError, match="another.prototxt, my_net.prototxt"):
        load_network(folder, gpu=False, on_message=print)


@pytest.mark.parametrize("name, reason", [("nowhere", "is not a directory"), ("empty", "deploy.prototxt.*none")])
def test_a_folder_that_holds_no_model_is_named(tmp_path, name, reason):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=f"{name}.*{reason}"):
        load_network(tmp_path / name, gpu=False, on_message=print)


def test_the_path_of_a_file_is_refused(folder):
    with pytest.raises(ModelError, match="-t takes the directory"):
        load_network(folder / "net.caffemodel", gpu=False, on_message=print)


# --- Mean, loop and digest -------------------------------------------------------------------------


def test_without_a_mean_of_its_own_a_model_has_the_usual_one(small_network):
    assert mean_of(small_network) == [104, 116, 122]


def test_a_model_brings_its_own_mean(folder):
    (folder / "mean.binaryproto").write_bytes(binaryproto(np.full((3, 2, 2), 99, np.float32)))
    assert mean_of(load_network(folder, gpu=False, on_message=print)) == [99, 99, 99]
    np.save(folder / "mean.npy", np.array([1.0, 2.0, 3.0]))
    assert mean_of(load_network(folder, gpu=False, on_message=print)) == [1, 2, 3]  # npy comes first


def test_a_model_brings_its_own_loop(folder):
    (folder / "customloop.txt").write_text("mixed\nleft\n\nmixed\n")
    network = load_network(folder, gpu=False, on_message=print)
    assert resolve_layers(network, ["conv1", CUSTOM_LOOP], on_message=print) == ("conv1", "mixed", "left", "mixed")


def test_an_empty_loop_is_refused(folder):
    (folder / "customloop.txt").write_text("\n \n")
    with pytest.raises(ModelError, match="customloop.txt names no layers"):
        load_network(folder, gpu=False, on_message=print)


def test_a_loop_of_unknown_layers_is_refused(folder):
    (folder / "customloop.txt").write_text("mixxed\n")
    with pytest.raises(ModelError, match="no layer mixxed.*mixed"):
        resolve_layers(load_network(folder, gpu=False, on_message=print), [CUSTOM_LOOP], on_message=print)


def test_every_network_has_a_loop_of_its_own_layers(small_network, default_network):
    for network in (small_network, default_network):
        assert network.loop
        assert resolve_layers(network, [CUSTOM_LOOP], on_message=print) == network.loop


def test_googlenet_has_its_documented_loop_and_mean(googlenet):
    blocks = ("4c", "4d", "4e", "5a", "5b", "5a", "4e", "4d", "4c")
    assert googlenet.loop == tuple(f"inception_{block}/output" for block in blocks)
    assert mean_of(googlenet) == [104, 116, 122]


def test_squeezenet_is_known_by_its_layers(squeezenet):
    assert mean_of(squeezenet) == [104, 117, 123]
    assert set(squeezenet.loop) == {"fire5/concat", "fire6/concat", "fire8/concat"}


def test_whatever_changes_the_dream_changes_the_digest(folder):
    digests = [
        load_network(folder, gpu=False, on_message=print).digest,
        load_network(folder, gpu=False, on_message=print).digest,
    ]
    assert digests[0] == digests[1]
    np.save(folder / "mean.npy", np.array([1.0, 2.0, 3.0]))
    digests.append(load_network(folder, gpu=False, on_message=print).digest)
    (folder / "deploy.prototxt").write_text(SMALL.replace("beta: 0.75", "beta: 0.5"))
    digests.append(load_network(folder, gpu=False, on_message=print).digest)
    write_caffemodel(folder / "net.caffemodel", "net", random_blobs(SMALL, seed=1))
    digests.append(load_network(folder, gpu=False, on_message=print).digest)
    assert len(set(digests)) == len(digests) - 1


# --- Names of layers -------------------------------------------------------------------------------


@pytest.mark.parametrize("name, near", [("mixd", "mixed"), ("Conv1", "conv1"), ("norm", "norm1")])
def test_an_unknown_layer_is_told_with_the_nearest_names(small_network, name, near):
    with pytest.raises(ModelError, match=f"small has no layer {name}; near it: .*{near}.*--list-layers"):
        resolve_layers(small_network, ["conv1", name], on_message=print)


def test_names_of_googlenet_mean_nothing_in_another_model(small_network):
    with pytest.raises(ModelError, match="no layer inception_4d/pool"):
        resolve_layers(small_network, ["inception_4d/pool"], on_message=print)


def test_in_googlenet_its_names_are_its_own(googlenet):
    told = Told()
    assert resolve_layers(googlenet, ["inception_4d/pool"], on_message=told) == ("inception_4d/pool",)
    assert told == []


# --- Device ----------------------------------------------------------------------------------------


@pytest.fixture
def without_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


@pytest.mark.parametrize("gpu, lines", [(None, 0), (False, 0), (True, 1)])
def test_only_a_gpu_that_was_asked_for_is_missed(small_folder, without_gpu, gpu, lines):
    told = Told()
    assert load_network(small_folder, gpu=gpu, on_message=told).device.type == "cpu"
    assert len(told) == lines and all("--gpu 1" in line for line in told)
