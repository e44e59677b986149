"""How a worker gets the network of a render."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepdream.errors import ModelError
from deepdream.networks import default
from deepdream.networks.portable import portable
from deepdream.options import NetworkOptions


@pytest.fixture
def distant(small_network, tmp_path, monkeypatch):
    """The small network as a worker gets it that has none of its files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = portable(small_network, NetworkOptions())
    nowhere = tmp_path / "nowhere"
    files = replace(here.files, prototxt=nowhere / "deploy.prototxt", caffemodel=nowhere / "small.caffemodel")
    return replace(here, files=files)


@pytest.fixture
def fetch(small_network):
    """Gives the contents of the small network's files, and counts."""
    contents = portable(small_network, NetworkOptions()).contents()

    def fetch():
        fetch.count += 1
        return contents

    fetch.count = 0
    return fetch


def never():
    raise AssertionError("fetched")


def gradient(network):
    picture = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 40, 48)).astype(np.float32))
    return network.gradient(picture, "mixed", lambda activations: activations)


def test_files_that_are_here_are_not_fetched(small_network):
    network = portable(small_network, NetworkOptions()).load(never)
    assert torch.equal(gradient(network), gradient(small_network))
    assert network.loop == small_network.loop and network.digest == small_network.digest


def test_contents_are_fetched_once_and_kept(distant, fetch, small_network):
    network = distant.load(fetch)
    assert torch.equal(gradient(network), gradient(small_network)) and torch.equal(network.mean, small_network.mean)
    distant.load(never)
    assert fetch.count == 1


def test_a_damaged_cache_is_mended(distant, fetch):
    path = distant.load(fetch).files.caffemodel
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    distant.load(fetch)
    assert fetch.count == 2
    distant.load(never)


def test_files_of_another_network_in_its_place_are_not_taken(distant, fetch, small_network):
    distant.files.prototxt.parent.mkdir()
    for path, content in zip((distant.files.prototxt, distant.files.caffemodel), fetch()):
        path.write_bytes(content + b" ")
    assert distant.load(fetch).digest == small_network.digest and fetch.count == 2


def test_a_cache_that_cannot_be_written_does_no_harm(distant, fetch, tmp_path, small_network):
    (tmp_path / "cache").write_bytes(b"a file")
    assert torch.equal(gradient(distant.load(fetch)), gradient(small_network))
    distant.load(fetch)
    assert fetch.count == 2


def test_contents_that_arrive_damaged_are_refused(distant, fetch):
    prototxt, caffemodel = fetch()
    with pytest.raises(ModelError, match="arrived with other bytes"):
        distant.load(lambda: (prototxt, caffemodel[:-1]))


def test_the_default_network_is_made_where_its_files_are_not(default_network, tmp_path, monkeypatch):
    here = portable(default_network, NetworkOptions())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = replace(here.files, prototxt=tmp_path / "no.prototxt", caffemodel=tmp_path / f"{default.NAME}.caffemodel")
    network = replace(here, files=files).load(never)
    assert network.digest == default_network.digest and tmp_path in network.files.prototxt.parents
