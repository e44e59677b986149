"""Caffe's files read into plain data: three generations of layout, damage, rules, inputs and means."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_format import SMALL_2013, binaryproto, layout_2014
from caffe_format import caffemodel as encoded
from google.protobuf import descriptor_pb2, descriptor_pool
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import SMALL, SMALL_SIZE, random_blobs, write_model

from deepdream.errors import DreamError, ModelError
from deepdream.networks import caffemodel, load_network
from deepdream.networks.caffemodel import load_model, parse_prototxt, read_blobs, read_mean, write_caffemodel

BLOBS = random_blobs(SMALL)
PICTURE = np.random.default_rng(0).uniform(-120, 130, (3, *SMALL_SIZE)).astype(np.float32)


def write_layout(folder, prototxt, blobs, layout):
    """A model whose caffemodel is in the layout of a year."""
    files = write_model(folder, prototxt, {})
    files[1].write_bytes(encoded(blobs, layout))


def activations(folder, layer):
    return load_network(folder, gpu=False, on_message=print).activations(torch.from_numpy(PICTURE), layer).numpy()


# --- Layouts ---------------------------------------------------------------------------------------


def test_caffemodel_pb2_is_what_the_proto_file_says(tmp_path):
    folder, compiled = Path(caffemodel.__file__).parent, tmp_path / "descriptors"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--descriptor_set_out={compiled}"]
    subprocess.run([*command, "caffemodel.proto"], check=True)
    said = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file[0]
    # Through a pool of its own, for a pool writes default values in its own way.
    said = descriptor_pool.DescriptorPool().AddSerializedFile(said.SerializeToString())
    assert _as_lines(caffemodel.pb.DESCRIPTOR) == _as_lines(said)
    assert len(said.message_types_by_name) > 30


def _as_lines(descriptor):
    message = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(message)
    return [line for line in str(message).splitlines() if "json_name" not in line]  # only protoc fills those in


@pytest.mark.parametrize("layer", ["conv1", "norm1", "right", "mixed", "narrow", "prob"])
@pytest.mark.parametrize(
    "prototxt, layout",
    [(layout_2014(SMALL), "2014"), (SMALL_2013, "2013"), (SMALL, "2014"), (SMALL_2013, "today")],
    ids=["2014", "2013", "today's text with weights of 2014", "text of 2013 with today's weights"],
)
def test_a_net_computes_the_same_in_any_layout(prototxt, layout, layer, small_folder, tmp_path):
    write_layout(tmp_path, prototxt, BLOBS, layout)
    np.testing.assert_array_equal(activations(tmp_path, layer), activations(small_folder, layer))


def test_googlenet_computes_the_same_in_either_layout(googlenet, googlenet_prototxt, googlenet_blobs, tmp_path):
    write_layout(tmp_path, layout_2014(googlenet_prototxt), googlenet_blobs, "2014")
    old = load_network(tmp_path, gpu=False, on_message=print)
    assert set(old.layers) == set(googlenet.layers) - {"data"}  # `data` is no layer there
    assert old.input_size == googlenet.input_size == (224, 224)
    picture = torch.from_numpy(np.random.default_rng(0).uniform(-120, 130, (3, 96, 112)).astype(np.float32))
    # The last of these needs all that any other does.
    for layer in ("conv2/norm2", "inception_4d/pool", "inception_5b/output"):
        mine, others = googlenet.activations(picture, layer), old.activations(picture, layer)
        assert mine.abs().max() > 0
        np.testing.assert_array_equal(mine, others)


def test_googlenet_has_its_published_shapes(googlenet):
    assert googlenet.shape("conv1/7x7_s2", (224, 224)) == (64, 112, 112)
    assert googlenet.shape("inception_4d/pool", (224, 224)) == (512, 14, 14)
    assert googlenet.shape("inception_5b/output", (224, 224)) == (1024, 7, 7)
    assert googlenet.shape("prob", (224, 224))[0] == 1000


def test_written_weights_are_read_back(tmp_path):
    blobs = {"one": (np.arange(6, dtype=np.float32).reshape(1, 2, 3),), "two": (np.ones(4), np.zeros((2, 0)))}
    write_caffemodel(tmp_path / "a.caffemodel", "net", blobs)
    read = read_blobs(tmp_path / "a.caffemodel")
    assert list(read) == ["one", "two"]
    for name, arrays in blobs.items():
        for array, again in zip(arrays, read[name], strict=True):
            np.testing.assert_array_equal(array, again)
            assert again.dtype == np.float32


def test_weights_in_double_precision_are_read(tmp_path):
    net = caffemodel.pb.NetParameter()
    values = np.array([1.5, -2, 1 / 3])
    net.layer.add(name="a").blobs.add(shape=caffemodel.pb.BlobShape(dim=[3]), double_data=values.tobytes())
    (tmp_path / "a.caffemodel").write_bytes(net.SerializeToString())
    np.testing.assert_array_equal(read_blobs(tmp_path / "a.caffemodel")["a"][0], np.float32(values))


# --- Damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>404</html>", b"\x00" * 64, b"version https://git-lfs"],
    ids=["empty", "a web page", "zeros", "a pointer"],
)  # fmt: skip
def test_what_is_no_caffemodel_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.caffemodel"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="broken.caffemodel"):
        read_blobs(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match="no.caffemodel: No such file"):
        read_blobs(tmp_path / "no.caffemodel")


@given(st.integers(0, len(encoded(BLOBS)) - 1))
@settings(deadline=None, max_examples=40)
def test_a_caffemodel_that_is_cut_off_never_dreams(tmp_path_factory, length):
    folder = tmp_path_factory.mktemp("cut")
    _, weights = write_model(folder, SMALL, BLOBS)
    weights.write_bytes(encoded(BLOBS)[:length])
    with pytest.raises(ModelError):
        activations(folder, "prob")


@given(st.integers(0, len(encoded(BLOBS)) - 1), st.integers(1, 255))
@settings(deadline=None, max_examples=40)
def test_a_flipped_byte_ends_in_numbers_or_in_an_error_of_ours(tmp_path_factory, place, flip):
    folder = tmp_path_factory.mktemp("flipped")
    damaged = bytearray(encoded(BLOBS))
    damaged[place] ^= flip
    _, weights = write_model(folder, SMALL, BLOBS)
    weights.write_bytes(damaged)
    try:
        assert activations(folder, "prob").shape == (7,)
    except DreamError:
        pass


@pytest.mark.parametrize("shape", [(2, 2), (4, 2), (-1, -3), (1 << 40, 1 << 40)])
def test_a_blob_whose_shape_and_numbers_differ_is_refused_by_layer(tmp_path, shape):
    net = caffemodel.pb.NetParameter()
    blob = net.layer.add(name="conv9").blobs.add(data=np.zeros(3, np.float32).tobytes())
    blob.shape.dim.extend(shape)
    (tmp_path / "a.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(ModelError, match="layer conv9.*holds 3 numbers"):
        read_blobs(tmp_path / "a.caffemodel")


@pytest.mark.parametrize(
    "layer, shape, wanted",
    [("conv1", (6, 3, 4, 4), "6 x any x 5 x 5"), ("narrow", (4, 8, 4, 4), "5 x any x 4 x 4"),
     ("classes", (3, 10), "7 x any")],
)  # fmt: skip
def test_weights_of_another_shape_are_refused_with_both_shapes(tmp_path, layer, shape, wanted):
    blobs = BLOBS | {layer: (np.zeros(shape, np.float32), BLOBS[layer][1])}
    write_model(tmp_path, SMALL, blobs)
    there = " x ".join(map(str, shape))
    with pytest.raises(ModelError, match=rf"layer {layer} .*{wanted}, .*{there};"):
        activations(tmp_path, layer)


def test_missing_weights_are_told_by_layer(tmp_path):
    write_model(tmp_path, SMALL, {name: arrays for name, arrays in BLOBS.items() if name != "right"})
    with pytest.raises(ModelError, match=r"layer right \(Convolution\) has 0 blobs"):
        activations(tmp_path, "mixed")


# --- Prototxt --------------------------------------------------------------------------------------


def model_of(prototxt, folder):
    return load_model(*write_model(folder, prototxt, {"any": (np.zeros(1, np.float32),)}))


def test_a_syntax_error_is_told_with_its_file_and_line(tmp_path):
    lines = SMALL.splitlines()
    lines[6] = lines[6].replace("{", "", 1)
    with pytest.raises(ModelError, match=r"deploy.prototxt.* line 7:"):
        model_of("\n".join(lines), tmp_path)


@pytest.mark.parametrize("text", ["\x00\xff", "layer {" * 2000, "layer { name: 3 }", "<html>"])
def test_what_is_no_prototxt_is_refused(text, tmp_path):
    with pytest.raises(ModelError, match="deploy.prototxt"):
        model_of(text, tmp_path)


def test_parameters_that_do_not_matter_here_are_passed_over(tmp_path):
    text = SMALL.replace('name: "conv1"', 'name: "conv1" param { lr_mult: 1 } some_fork_param { a: "b" c { d: 1 } }')
    assert [layer.name for layer in model_of(text, tmp_path).layers][0] == "conv1"


def test_an_unknown_layer_type_is_told_with_layer_and_type(tmp_path):
    write_model(tmp_path, SMALL.replace('"LRN"', '"Marvel"'), BLOBS)
    assert activations(tmp_path, "pool1").shape[0] == 6  # what comes before it runs
    with pytest.raises(ModelError, match="layer norm1 has the type Marvel"):
        activations(tmp_path, "left")


def test_an_unknown_type_of_2013_is_told_with_layer_and_type(tmp_path):
    with pytest.raises(ModelError, match="layer norm1 has the type 'marvel'"):
        model_of(SMALL_2013.replace('"lrn"', '"marvel"'), tmp_path)


def test_a_dangling_bottom_is_told_with_its_layer(tmp_path):
    write_model(tmp_path, SMALL.replace('bottom: "left"', 'bottom: "lost"'), BLOBS)
    with pytest.raises(ModelError, match=r"layer mixed \(Concat\) needs lost"):
        load_network(tmp_path, gpu=False, on_message=print)


@pytest.mark.parametrize(
    "text, missing",
    [
        ('name: "a" input: "data"', "no layers"),
        ("", "no layers"),
        ('layer { name: "a" type: "ReLU" bottom: "b" top: "c" }', "no input"),
    ],
)
def test_a_net_without_layers_or_input_is_refused(tmp_path, text, missing):
    with pytest.raises(ModelError, match=missing):
        model_of(text, tmp_path)


@pytest.mark.parametrize(
    "rule, kept",
    [
        ("", True),
        ("phase: TEST", True),
        ("phase: TRAIN", True),  # no rule: such a layer runs, and as in training (see test_parity)
        ("include { phase: TEST }", True),
        ("include { phase: TRAIN }", False),
        ("include { phase: TRAIN } include { phase: TEST }", True),
        ("exclude { phase: TEST }", False),
        ("exclude { phase: TRAIN }", True),
        ("include { min_level: 1 }", False),
        ("include { max_level: 0 }", True),
        ('include { stage: "deploy" }', False),
        ('include { not_stage: "deploy" }', True),
        ('exclude { stage: "deploy" }', True),
    ],
)
def test_layers_of_training_are_left_out(rule, kept):
    net = parse_prototxt(f'input: "data" layer {{ name: "a" type: "ReLU" bottom: "data" top: "data" {rule} }}')
    assert [layer.name for layer in net.layer] == ["a"] * kept


def test_the_rules_hold_for_layers_of_2014_too():
    text = 'layers { name: "a" type: RELU %s } layers { name: "b" type: DROPOUT }'
    assert [layer.name for layer in parse_prototxt(text % "include: { phase: TRAIN }").layer] == ["b"]
    assert [layer.name for layer in parse_prototxt(text % "").layer] == ["a", "b"]


def test_a_training_net_reads_the_data_layer_of_its_test_phase(tmp_path):
    feeding = (
        'layer { name: "%s" type: "Data" top: "data" top: "label" include { phase: %s } '
        "transform_param { crop_size: %d } }"
    )
    text = SMALL.replace('input: "data"', feeding % ("train", "TRAIN", 99) + feeding % ("test", "TEST", 64))
    model = model_of(text.replace("input_shape { dim: 1 dim: 3 dim: 40 dim: 48 }", ""), tmp_path)
    assert model.inputs == {"data": (1, 3, 64, 64)}


RELU = 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }'


@pytest.mark.parametrize(
    "head, size",
    [
        ('input: "data" input_dim: 10 input_dim: 3 input_dim: 40 input_dim: 48', (40, 48)),
        ('input: "data" input_shape { dim: 10 dim: 3 dim: 40 dim: 48 }', (40, 48)),
        ('layer { name: "x" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 40 dim: 48 } } }',
         (40, 48)),
        ('layer { name: "x" type: "Data" top: "data" top: "label" transform_param { crop_size: 64 } }', (64, 64)),
        ('layer { name: "x" type: "ImageData" top: "data" }', None),
        ('layer { name: "x" type: "MemoryData" top: "data" memory_data_param { channels: 3 height: 40 width: 48 } }',
         (40, 48)),
        ('layer { name: "x" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 3 dim: 40 dim: 48 } } '
         "}", (40, 48)),
        ('input: "data"', None),
    ],
    ids=["input_dim", "input_shape", "Input", "Data", "ImageData", "MemoryData", "DummyData", "input alone"],
)  # fmt: skip
def test_each_form_of_input_feeds_the_net(tmp_path, head, size):
    write_model(tmp_path, f"{head} {RELU}", {"any": (np.zeros(1, np.float32),)})
    network = load_network(tmp_path, gpu=False, on_message=print)
    assert network.input_size == size
    np.testing.assert_array_equal(network.activations(torch.from_numpy(PICTURE), "r"), PICTURE.clip(0))


# --- Means -----------------------------------------------------------------------------------------


PLANES = np.random.default_rng(1).uniform(90, 130, (3, 8, 9)).astype(np.float32)


@pytest.mark.parametrize("mean", [PLANES, PLANES[None], PLANES.mean((1, 2))], ids=["planes", "with n", "three"])
@pytest.mark.parametrize("kind", ["npy", "binaryproto"])
def test_a_mean_is_read_as_one_number_a_channel(tmp_path, mean, kind):
    path = tmp_path / f"mean.{kind}"
    if kind == "npy":
        np.save(path, mean)
    elif mean.ndim == 1:
        path.write_bytes(binaryproto(mean[:, None, None]))
    else:
        path.write_bytes(binaryproto(mean))
    np.testing.assert_allclose(read_mean(path), PLANES.mean((1, 2)), atol=1e-4)


def test_the_mean_of_grey_pictures_is_that_of_every_channel(tmp_path):
    np.save(tmp_path / "mean.npy", np.full((1, 4, 5), 33.0))
    assert read_mean(tmp_path / "mean.npy").tolist() == [33, 33, 33]


@pytest.mark.parametrize(
    "values", [np.zeros(4), np.zeros((3, 4)), np.array([1, np.nan, 2]), np.zeros((2, 3, 4, 4)), np.array(5.0),
               np.array(["a", "b", "c"])],
    ids=["four channels", "no picture", "nan", "two pictures", "a number", "words"],
)  # fmt: skip
def test_what_is_no_mean_is_refused_by_name(tmp_path, values):
    np.save(tmp_path / "mean.npy", values)
    with pytest.raises(ModelError, match="mean.npy"):
        read_mean(tmp_path / "mean.npy")


@pytest.mark.parametrize("name", ["mean.npy", "mean.binaryproto"])
@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff", b"PK\x03\x04 cut", b"<html>"])
def test_a_damaged_mean_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        read_mean(tmp_path / name)
