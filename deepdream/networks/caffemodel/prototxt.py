"""A prototxt as a `NetParameter` in today's layout, with the layers that run in the TEST phase, and its inputs."""

from pathlib import Path

from google.protobuf import text_format

from deepdream.errors import ModelError
from deepdream.networks.caffemodel import caffemodel_pb2 as pb
from deepdream.networks.caffemodel.weights import read_file

MAX_PROTOTXT_BYTES = 10_000_000  # ResNet-152 has 100,000

# Layers that feed a net with data: their first top is the net's input.
DATA_TYPES = ("Input", "Data", "ImageData", "MemoryData", "DummyData", "HDF5Data", "WindowData", "AnnotatedData")

# The types of 2014 whose name in today's layout is not theirs in CamelCase.
_V1_NAMES = {
    "BNLL": "BNLL", "LRN": "LRN", "MVN": "MVN", "HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output",
    "RELU": "ReLU", "TANH": "TanH", "ABSVAL": "AbsVal", "ARGMAX": "ArgMax", "SOFTMAX_LOSS": "SoftmaxWithLoss",
}  # fmt: skip

_V0_NAMES = {
    "bnll": "BNLL", "concat": "Concat", "conv": "Convolution", "data": "Data", "dropout": "Dropout",
    "flatten": "Flatten", "innerproduct": "InnerProduct", "lrn": "LRN", "pool": "Pooling", "relu": "ReLU",
    "sigmoid": "Sigmoid", "softmax": "Softmax", "softmax_loss": "SoftmaxWithLoss", "split": "Split", "tanh": "TanH",
}  # fmt: skip


def read_prototxt(path: str | Path) -> pb.NetParameter:
    """Read a prototxt, see `parse_prototxt`. Raises `ModelError` that names the file and the line."""
    return parse_prototxt(read_file(path, MAX_PROTOTXT_BYTES).decode("utf-8", "replace"), path)


def parse_prototxt(text: str, source: str | Path = "prototxt") -> pb.NetParameter:
    """A `NetParameter` in today's layout, of the layers that run in the TEST phase. ``source`` names it in errors."""
    net = pb.NetParameter()
    try:
        text_format.Parse(text, net, allow_unknown_field=True)
    except (text_format.ParseError, UnicodeError, RecursionError) as error:
        raise ModelError(f"{source} is no prototxt that can be read: line {error}") from error
    layers = [*net.layer, *map(_upgrade, net.layers)]
    kept = [layer for layer in layers if _runs(layer, net.state)]
    del net.layers[:], net.layer[:]
    net.layer.extend(kept)
    return net


def find_inputs(net: pb.NetParameter) -> dict[str, tuple[int, ...] | None]:
    """The net's input blobs, those at the prototxt's head and those of its data layers: a shape for each, or None."""
    inputs = _declared_inputs(net)
    for layer in net.layer:
        # The first top of a layer that feeds data is an input; what follows it (labels) is not.
        if layer.type in DATA_TYPES and layer.top:
            inputs[layer.top[0]] = _data_layer_shape(layer)
    return inputs


def _declared_inputs(net: pb.NetParameter) -> dict[str, tuple[int, ...] | None]:
    """Inputs written at the head of a prototxt: `input` with `input_shape`, or four `input_dim` each."""
    inputs: dict[str, tuple[int, ...] | None] = {}
    for number, name in enumerate(net.input):
        inputs[name] = None
        if number < len(net.input_shape):
            inputs[name] = tuple(net.input_shape[number].dim)
        elif 4 * number + 4 <= len(net.input_dim):
            inputs[name] = tuple(net.input_dim[4 * number : 4 * number + 4])
    return inputs


def _data_layer_shape(layer: pb.LayerParameter) -> tuple[int, ...] | None:
    memory, dummy, crop = layer.memory_data_param, layer.dummy_data_param, layer.transform_param.crop_size
    if layer.input_param.shape:
        return tuple(layer.input_param.shape[0].dim)
    if dummy.shape:
        return tuple(dummy.shape[0].dim)
    if dummy.height:
        return dummy.num[0], dummy.channels[0], dummy.height[0], dummy.width[0]
    if crop:
        return 1, 3, crop, crop
    if memory.height:
        return 1, memory.channels, memory.height, memory.width
    return None


def _upgrade(old: pb.V1LayerParameter) -> pb.LayerParameter:
    """A layer of 2014 or 2013 in today's layout, without its weights."""
    if old.HasField("layer"):
        return _upgrade_v0(old)
    type_name = pb.V1LayerParameter.LayerType.Name(old.type)
    new = pb.LayerParameter(
        name=old.name,
        type=_V1_NAMES.get(type_name) or type_name.title().replace("_", ""),
        bottom=old.bottom,
        top=old.top,
        include=old.include,
        exclude=old.exclude,
    )
    for field, value in old.ListFields():
        if field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
    return new


def _upgrade_v0(old: pb.V1LayerParameter) -> pb.LayerParameter:
    flat = old.layer
    if flat.type not in _V0_NAMES:
        raise ModelError(f"layer {flat.name} has the type {flat.type!r} of 2013, which is not known here")
    new = pb.LayerParameter(name=flat.name, type=_V0_NAMES[flat.type], bottom=old.bottom, top=old.top)
    if new.type == "Convolution":
        convolution = new.convolution_param
        convolution.num_output, convolution.bias_term, convolution.group = flat.num_output, flat.biasterm, flat.group
        convolution.kernel_size.append(flat.kernelsize)
        convolution.stride.append(flat.stride)
        convolution.pad.append(flat.pad)
    elif new.type == "Pooling":
        pooling = new.pooling_param
        pooling.pool, pooling.kernel_size, pooling.stride, pooling.pad = (
            flat.pool, flat.kernelsize, flat.stride, flat.pad,
        )  # fmt: skip
    elif new.type == "InnerProduct":
        new.inner_product_param.num_output, new.inner_product_param.bias_term = flat.num_output, flat.biasterm
    elif new.type == "LRN":
        lrn = new.lrn_param
        lrn.local_size, lrn.alpha, lrn.beta, lrn.k = flat.local_size, flat.alpha, flat.beta, flat.k
    elif new.type == "Concat":
        new.concat_param.axis = flat.concat_dim
    return new


def _runs(layer: pb.LayerParameter, state: pb.NetState) -> bool:
    """Whether Caffe's rules of phase, level and stage keep a layer in a net that is run, not trained."""

    def holds(rule: pb.NetStateRule) -> bool:
        return (
            (not rule.HasField("phase") or rule.phase == pb.TEST)
            and (not rule.HasField("min_level") or state.level >= rule.min_level)
            and (not rule.HasField("max_level") or state.level <= rule.max_level)
            and set(rule.stage) <= set(state.stage)
            and not set(rule.not_stage) & set(state.stage)
        )

    if layer.include:
        return any(holds(rule) for rule in layer.include)
    return not any(holds(rule) for rule in layer.exclude)
