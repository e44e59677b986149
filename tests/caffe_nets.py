"""Caffe nets for the tests: the known architectures as their papers describe them, and one small net a layer type.

A net is a `NetParameter`; `save` gives it random weights that keep its activations alive and writes it as a model.
"""

import math
from pathlib import Path

import numpy as np
import torch
from google.protobuf import text_format

from deepdream.networks.caffemodel import DATA_TYPES, Layer, pb, write_caffemodel
from deepdream.networks.torch.layers import LAYER_TYPES, Weights

MEAN_DEVIATION = 70.0  # of a picture's values


class Net:
    """A net under construction. Every method adds a layer and returns the name of its top."""

    def __init__(self, name, size):
        self.message = pb.NetParameter(name=name)
        data = self.message.layer.add(name="data", type="Input", top=["data"])
        data.input_param.shape.add(dim=(1, 3, *size))

    def layer(self, name, type_name, *bottoms, top=None, **parameters):
        """``parameters``: one message, by the name of its field, as a dict."""
        layer = self.message.layer.add(name=name, type=type_name, bottom=bottoms, top=[top or name])
        for field, values in parameters.items():
            message = getattr(layer, field)
            for key, value in values.items():
                if isinstance(value, (list, tuple)):
                    getattr(message, key).extend(value)
                else:
                    setattr(message, key, value)
        return layer.top[0]

    def conv(self, name, bottom, count, kernel, stride=1, pad=0, group=1, bias=True, relu=True):
        kernel_h, kernel_w = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        pad_h, pad_w = pad if isinstance(pad, tuple) else (pad, pad)
        values = dict(num_output=count, stride=[stride], group=group, bias_term=bias)
        if isinstance(kernel, tuple):
            values.update(kernel_h=kernel_h, kernel_w=kernel_w, pad_h=pad_h, pad_w=pad_w)
        else:
            values.update(kernel_size=[kernel], pad=[pad])
        top = self.layer(name, "Convolution", bottom, convolution_param=values)
        return self.relu(name) if relu else top

    def relu(self, name):
        return self.layer(f"{name}/relu", "ReLU", name, top=name)

    def norm(self, name, bottom, top=None):
        """Batch normalisation and the scale after it, in place."""
        top = self.layer(f"{name}/bn", "BatchNorm", bottom, top=top or bottom)
        return self.layer(f"{name}/scale", "Scale", top, top=top, scale_param=dict(bias_term=True))

    def conv_norm(self, name, bottom, count, kernel, stride=1, pad=0, group=1, relu=True):
        self.conv(name, bottom, count, kernel, stride, pad, group, bias=False, relu=False)
        self.norm(name, name)
        return self.relu(name) if relu else name

    def pool(self, name, bottom, kernel, stride=1, pad=0, kind="MAX"):
        values = dict(pool=pb.PoolingParameter.PoolMethod.Value(kind), kernel_size=kernel, stride=stride, pad=pad)
        return self.layer(name, "Pooling", bottom, pooling_param=values)

    def mean(self, name, bottom):
        values = dict(pool=pb.PoolingParameter.AVE, global_pooling=True)
        return self.layer(name, "Pooling", bottom, pooling_param=values)

    def lrn(self, name, bottom):
        return self.layer(name, "LRN", bottom, lrn_param=dict(local_size=5, alpha=1e-4, beta=0.75))

    def full(self, name, bottom, count, relu=True):
        self.layer(name, "InnerProduct", bottom, inner_product_param=dict(num_output=count))
        return self.relu(name) if relu else name

    def concat(self, name, *bottoms):
        return self.layer(name, "Concat", *bottoms)

    def add(self, name, *bottoms):
        return self.layer(name, "Eltwise", *bottoms)

    def classify(self, bottom):
        self.layer("prob", "Softmax", bottom)
        return self.message


def _alexnet_like(name, size, norm_first):
    """Krizhevsky et al. 2012; CaffeNet pools before it normalises."""
    net = Net(name, size)
    top = "data"
    for number, (count, kernel, stride, pad, group) in enumerate(((96, 11, 4, 0, 1), (256, 5, 1, 2, 2)), 1):
        top = net.conv(f"conv{number}", top, count, kernel, stride, pad, group)
        for step in ("norm", "pool") if norm_first else ("pool", "norm"):
            top = net.lrn(f"norm{number}", top) if step == "norm" else net.pool(f"pool{number}", top, 3, 2)
    for number, count, group in ((3, 384, 1), (4, 384, 2), (5, 256, 2)):
        top = net.conv(f"conv{number}", top, count, 3, 1, 1, group)
    top = net.pool("pool5", top, 3, 2)
    for number in (6, 7):
        top = net.full(f"fc{number}", top, 4096)
        net.layer(f"drop{number}", "Dropout", top, top=top)
    return net.classify(net.full("fc8", top, 1000, relu=False))


def alexnet(size):
    return _alexnet_like("AlexNet", size, norm_first=True)


def caffenet(size):
    return _alexnet_like("CaffeNet", size, norm_first=False)


def googlenet(size):
    """Szegedy et al. 2014."""
    net = Net("GoogLeNet", size)
    top = net.pool("pool1", net.conv("conv1", "data", 64, 7, 2, 3), 3, 2)
    top = net.conv("conv2/reduce", net.lrn("norm1", top), 64, 1)
    top = net.pool("pool2", net.lrn("norm2", net.conv("conv2", top, 192, 3, 1, 1)), 3, 2)
    modules = {
        "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
        "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
        "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
    }  # fmt: skip
    for name, (one, reduce3, three, reduce5, five, pooled) in modules.items():
        if name in ("4a", "5a"):
            top = net.pool(f"pool{int(name[0]) - 1}", top, 3, 2)
        at = f"inception_{name}"
        top = net.concat(
            f"{at}/output",
            net.conv(f"{at}/1x1", top, one, 1),
            net.conv(f"{at}/3x3", net.conv(f"{at}/3x3_reduce", top, reduce3, 1), three, 3, 1, 1),
            net.conv(f"{at}/5x5", net.conv(f"{at}/5x5_reduce", top, reduce5, 1), five, 5, 1, 2),
            net.conv(f"{at}/pool_proj", net.pool(f"{at}/pool", top, 3, 1, 1), pooled, 1),
        )
    return net.classify(net.full("classes", net.mean("pool5", top), 1000, relu=False))


def nin(size):
    """Lin et al. 2013."""
    net = Net("NIN", size)
    top = "data"
    stages = ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1), (1024, 3, 1, 1))
    for number, (count, kernel, stride, pad) in enumerate(stages, 1):
        top = net.conv(f"conv{number}", top, count, kernel, stride, pad)
        top = net.conv(f"cccp{number}a", top, count, 1)
        top = net.conv(f"cccp{number}b", top, 1000 if number == 4 else count, 1)
        if number < 4:
            top = net.pool(f"pool{number}", top, 3, 2)
    return net.classify(net.mean("pool4", top))


def vgg16(size):
    """Simonyan and Zisserman 2014."""
    net = Net("VGG-16", size)
    top = "data"
    for stage, (depth, count) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for number in range(1, depth + 1):
            top = net.conv(f"conv{stage}_{number}", top, count, 3, 1, 1)
        top = net.pool(f"pool{stage}", top, 2, 2)
    top = net.full("fc7", net.full("fc6", top, 4096), 4096)
    return net.classify(net.full("fc8", top, 1000, relu=False))


def resnet50(size):
    """He et al. 2015."""
    net = Net("ResNet-50", size)
    top = net.pool("pool1", net.conv_norm("conv1", "data", 64, 7, 2, 3), 3, 2)
    for stage, (blocks, count) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 2):
        for number in range(blocks):
            at = f"res{stage}{'abcdef'[number]}"
            stride = 2 if stage > 2 and number == 0 else 1
            aside = top if number else net.conv_norm(f"{at}/1", top, 4 * count, 1, stride, relu=False)
            top = net.conv_norm(f"{at}/2a", top, count, 1, stride)
            top = net.conv_norm(f"{at}/2b", top, count, 3, 1, 1)
            top = net.conv_norm(f"{at}/2c", top, 4 * count, 1, relu=False)
            top = net.relu(net.add(at, aside, top))
    return net.classify(net.full("fc1000", net.mean("pool5", top), 1000, relu=False))


def inception_v3(size):
    """Szegedy et al. 2015."""
    net = Net("Inception-v3", size)
    top = "data"
    for number, (count, kernel, stride, pad) in enumerate(((32, 3, 2, 0), (32, 3, 1, 0), (64, 3, 1, 1)), 1):
        top = net.conv_norm(f"conv{number}", top, count, kernel, stride, pad)
    top = net.conv_norm("conv4", net.pool("pool1", top, 3, 2), 80, 1)
    top = net.pool("pool2", net.conv_norm("conv5", top, 192, 3), 3, 2)

    def chain(at, bottom, *windows):
        for number, (count, kernel, stride, pad) in enumerate(windows):
            bottom = net.conv_norm(f"{at}{number}", bottom, count, kernel, stride, pad)
        return bottom

    def sides(count, pair):
        wide, high = (count, (1, 7), 1, (0, 3)), (count, (7, 1), 1, (3, 0))
        return {"wide": wide, "high": high}[pair]

    for number, pooled in enumerate((32, 64, 64)):
        at = f"mixed_a{number}"
        top = net.concat(
            f"{at}/output",
            chain(f"{at}/one", top, (64, 1, 1, 0)),
            chain(f"{at}/five", top, (48, 1, 1, 0), (64, 5, 1, 2)),
            chain(f"{at}/three", top, (64, 1, 1, 0), (96, 3, 1, 1), (96, 3, 1, 1)),
            chain(f"{at}/pool", net.pool(f"{at}/mean", top, 3, 1, 1, "AVE"), (pooled, 1, 1, 0)),
        )
    top = net.concat(
        "reduce_a/output",
        chain("reduce_a/three", top, (384, 3, 2, 0)),
        chain("reduce_a/double", top, (64, 1, 1, 0), (96, 3, 1, 1), (96, 3, 2, 0)),
        net.pool("reduce_a/pool", top, 3, 2),
    )
    for number, count in enumerate((128, 160, 160, 192)):
        at = f"mixed_b{number}"
        wide, high = sides(count, "wide"), sides(count, "high")
        last_wide, last_high = sides(192, "wide"), sides(192, "high")
        top = net.concat(
            f"{at}/output",
            chain(f"{at}/one", top, (192, 1, 1, 0)),
            chain(f"{at}/seven", top, (count, 1, 1, 0), wide, last_high),
            chain(f"{at}/double", top, (count, 1, 1, 0), high, wide, high, last_wide),
            chain(f"{at}/pool", net.pool(f"{at}/mean", top, 3, 1, 1, "AVE"), (192, 1, 1, 0)),
        )
    top = net.concat(
        "reduce_b/output",
        chain("reduce_b/three", top, (192, 1, 1, 0), (320, 3, 2, 0)),
        chain("reduce_b/seven", top, (192, 1, 1, 0), sides(192, "wide"), sides(192, "high"), (192, 3, 2, 0)),
        net.pool("reduce_b/pool", top, 3, 2),
    )
    for number in range(2):
        at = f"mixed_c{number}"
        three = chain(f"{at}/three", top, (384, 1, 1, 0))
        double = chain(f"{at}/double", top, (448, 1, 1, 0), (384, 3, 1, 1))
        top = net.concat(
            f"{at}/output",
            chain(f"{at}/one", top, (320, 1, 1, 0)),
            net.conv_norm(f"{at}/three_wide", three, 384, (1, 3), 1, (0, 1)),
            net.conv_norm(f"{at}/three_high", three, 384, (3, 1), 1, (1, 0)),
            net.conv_norm(f"{at}/double_wide", double, 384, (1, 3), 1, (0, 1)),
            net.conv_norm(f"{at}/double_high", double, 384, (3, 1), 1, (1, 0)),
            chain(f"{at}/pool", net.pool(f"{at}/mean", top, 3, 1, 1, "AVE"), (192, 1, 1, 0)),
        )
    return net.classify(net.full("classes", net.mean("pool", top), 1000, relu=False))


def _squeezenet(name, size, first, pool_after):
    """Iandola et al. 2016. ``first``: filters, kernel; ``pool_after``: the numbers of the modules before a pooling."""
    net = Net(name, size)
    top = net.pool("pool1", net.conv("conv1", "data", *first, 2), 3, 2)
    for number, (squeeze, expand) in enumerate(
        ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)), 2
    ):
        at = f"fire{number}"
        top = net.conv(f"{at}/squeeze1x1", top, squeeze, 1)
        one, three = net.conv(f"{at}/expand1x1", top, expand, 1), net.conv(f"{at}/expand3x3", top, expand, 3, 1, 1)
        top = net.concat(f"{at}/concat", one, three)
        if number in pool_after:
            top = net.pool(f"pool{number}", top, 3, 2)
    return net.classify(net.mean("pool10", net.conv("conv10", top, 1000, 1)))


def squeezenet10(size):
    return _squeezenet("SqueezeNet-1.0", size, (96, 7), (4, 8))


def squeezenet11(size):
    return _squeezenet("SqueezeNet-1.1", size, (64, 3), (3, 5))


def mobilenet1(size):
    """Howard et al. 2017."""
    net = Net("MobileNet-v1", size)
    top, width = net.conv_norm("conv1", "data", 32, 3, 2, 1), 32
    counts = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    for number, count in enumerate(counts, 2):
        stride = 2 if number in (3, 5, 7, 13) else 1
        top = net.conv_norm(f"conv{number}/dw", top, width, 3, stride, 1, group=width)
        top, width = net.conv_norm(f"conv{number}/sep", top, count, 1), count
    return net.classify(net.conv("fc7", net.mean("pool6", top), 1000, 1, relu=False))


def mobilenet2(size):
    """Sandler et al. 2018."""
    net = Net("MobileNet-v2", size)
    top, width = net.conv_norm("conv1", "data", 32, 3, 2, 1), 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (factor, count, depth, first_stride) in enumerate(stages, 1):
        for number in range(depth):
            at, stride, inside = f"block{stage}_{number}", 1 if number else first_stride, factor * width
            x = net.conv_norm(f"{at}/expand", top, inside, 1) if factor > 1 else top
            x = net.conv_norm(f"{at}/dw", x, inside, 3, stride, 1, group=inside)
            x = net.conv_norm(f"{at}/project", x, count, 1, relu=False)
            top, width = net.add(at, top, x) if number else x, count
    top = net.mean("pool", net.conv_norm("conv_last", top, 1280, 1))
    return net.classify(net.conv("classes", top, 1000, 1, relu=False))


def densenet121(size):
    """Huang et al. 2016."""
    net = Net("DenseNet-121", size)
    top, width = net.pool("pool1", net.conv_norm("conv1", "data", 64, 7, 2, 3), 3, 2, 1), 64

    def norm_relu(name, bottom):
        net.norm(name, bottom, top=name)
        return net.relu(name)

    for stage, depth in enumerate((6, 12, 24, 16), 1):
        for number in range(1, depth + 1):
            at = f"dense{stage}_{number}"
            x = net.conv(f"{at}/x1", norm_relu(f"{at}/norm1", top), 128, 1, bias=False, relu=False)
            x = net.conv(f"{at}/x2", norm_relu(f"{at}/norm2", x), 32, 3, 1, 1, bias=False, relu=False)
            top, width = net.concat(f"{at}/concat", top, x), width + 32
        top = norm_relu(f"norm{stage}", top)
        if stage < 4:
            width //= 2
            top = net.conv(f"transit{stage}", top, width, 1, bias=False, relu=False)
            top = net.pool(f"transit{stage}/pool", top, 2, 2, 0, "AVE")
    return net.classify(net.conv("fc6", net.mean("pool5", top), 1000, 1, relu=False))


# (h, w): small enough for a quick test, odd, and large enough that every layer still has something to see.
ARCHITECTURES = {
    alexnet: (97, 131), caffenet: (99, 127), googlenet: (97, 131), nin: (99, 131), vgg16: (65, 97),
    resnet50: (97, 131), inception_v3: (107, 139), squeezenet10: (97, 131), squeezenet11: (99, 129),
    mobilenet1: (97, 131), mobilenet2: (97, 131), densenet121: (97, 131),
}  # fmt: skip


def zoo_net(path, size):
    """A prototxt of the Caffe Model Zoo, for pictures of ``size``."""
    from deepdream.networks.caffemodel import parse_prototxt

    net = parse_prototxt(Path(path).read_text(encoding="utf-8"), path)
    del net.input_dim[:], net.input_shape[:]
    inputs = [layer for layer in net.layer if layer.type == "Input"]
    for layer in inputs:
        del layer.input_param.shape[:]
        layer.input_param.shape.add(dim=(1, 3, *size))
    if not inputs:
        net.input_shape.add(dim=(1, 3, *size))
    return net


def small_net(text, size=(11, 13)):
    """A net about the layers in ``text``. They find x and y, six channels each, and put out what they like."""
    net = Net("small", size)
    net.conv("x", "data", 6, 3, relu=False)
    net.conv("y", "data", 6, 3, relu=False)
    text_format.Merge(text, net.message)
    return net.message


def save(folder, net, seed=0):
    """Write ``net`` with random weights into ``folder`` as deploy.prototxt and net.caffemodel."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "deploy.prototxt").write_text(text_format.MessageToString(net))
    write_caffemodel(folder / "net.caffemodel", net.name, random_blobs(net, seed))
    return folder


def picture(size, seed=0):
    """A smooth random picture less its mean, float32 (3, h, w)."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.standard_normal((1, 3, size[0] // 3 + 2, size[1] // 3 + 2)))
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0] * MEAN_DEVIATION
    noise = torch.from_numpy(rng.standard_normal((3, *size))) * MEAN_DEVIATION / 10
    return (smooth + noise).clamp(-128, 127).float()


def random_blobs(net, seed=0):
    """Weights for every layer of ``net``, of the shapes that the values passing through it ask for."""
    rng = np.random.default_rng(seed)
    values, blobs = {}, {}
    for name, shape in zip(net.input, net.input_shape):
        values[name] = picture(shape.dim[2:])[None]
    for message in net.layer:
        if message.type in DATA_TYPES:
            values[message.top[0]] = picture(message.input_param.shape[0].dim[2:])[None]
            continue
        bottoms = [values[name] for name in message.bottom]
        made = tuple(array.astype(np.float32) for array in _random_weights(message, bottoms, rng))
        if made:
            blobs[message.name] = made
        layer = Layer(message.name, message.type, tuple(message.bottom), tuple(message.top), message, made)
        with torch.no_grad():
            tops = LAYER_TYPES[message.type](layer, Weights(layer, "cpu"))(*bottoms)
        values.update(zip(message.top, tops if isinstance(tops, tuple) else (tops,)))
    return blobs


def _random_weights(message, bottoms, rng):
    """He's initialisation where there are weights to multiply, statistics of the values where they are normalised."""
    x = bottoms[0]
    channels = x.shape[1]
    if message.type in ("Convolution", "Deconvolution", "InnerProduct"):
        return _filters(message, x, rng)
    if message.type == "BatchNorm":
        axes = [axis for axis in range(x.ndim) if axis != 1]
        factor = 999.98  # as training leaves it: the sums are stored, not the means
        # The statistics of a data set, not of this picture: what its pixels have in common is not all taken away, and
        # a channel that it leaves dark is not brought up. Else every layer would double the relative error of the one
        # before, in either engine, which no trained net does.
        mean = x.mean(axes).numpy() * rng.uniform(0, 0.4, channels)
        variance = (x.square().mean(axes).numpy() + float(x.square().mean())) / 2
        return [mean * factor, variance * factor, np.array([factor])]
    if message.type in ("Scale", "Bias") and len(bottoms) == 1:
        p = message.scale_param if message.type == "Scale" else message.bias_param
        first = p.axis % x.ndim
        shape = x.shape[first:] if p.num_axes == -1 else x.shape[first : first + p.num_axes]
        weight, bias = rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.6, shape)
        return ([weight, bias] if p.bias_term else [weight]) if message.type == "Scale" else [bias]
    if message.type == "Scale" and message.scale_param.bias_term:
        return [rng.normal(0, 0.3, bottoms[1].shape)]
    if message.type == "PReLU":
        return [rng.uniform(0.1, 0.5, () if message.prelu_param.channel_shared else channels)]
    if message.type == "Normalize":
        return [rng.uniform(5, 20, () if message.norm_param.channel_shared else channels)]
    return []


def _filters(message, x, rng):
    if message.type == "InnerProduct":
        p = message.inner_product_param
        fan_in = math.prod(x.shape[p.axis % x.ndim :])
        shape = (fan_in, p.num_output) if p.transpose else (p.num_output, fan_in)
    else:
        p = message.convolution_param
        sizes = list(p.kernel_size)
        kernel = (p.kernel_h, p.kernel_w) if p.HasField("kernel_h") else (sizes[0], sizes[-1])
        forward = message.type == "Convolution"
        ends = (p.num_output, x.shape[1]) if forward else (x.shape[1], p.num_output)
        shape = (ends[0], ends[1] // p.group, *kernel)
        fan_in = x.shape[1] // p.group * math.prod(kernel)
    # The first layer meets pixels of up to 128 and brings them to about 1, as trained nets do.
    spread = float(x.square().mean().sqrt())
    weight = rng.standard_normal(shape, dtype=np.float32) * math.sqrt(2 / fan_in) / max(spread / 1.5, 1e-6)
    return [weight, rng.normal(0, 0.1, p.num_output)] if p.bias_term else [weight]


def _one(type_name, parameters="", bottoms="x", name="out", tops=None):
    """The text of a layer."""
    ends = "".join(f' bottom: "{bottom}"' for bottom in bottoms.split())
    ends += "".join(f' top: "{top}"' for top in (tops or name).split())
    return f'layer {{ name: "{name}" type: "{type_name}"{ends} {parameters} }}\n'


_POSITIVE = _one("Exp", "exp_param { scale: 0.2 }", name="positive")
_FLAT = _one("Flatten", name="flat")
_VECTOR = _one("Reduction", "reduction_param { axis: 2 operation: MEAN }", name="vector")  # one number a channel


def _normalising(type_name, parameters=""):
    """A layer whose output has the same length whatever it gets: it has no gradient, so another layer follows."""
    return _one(type_name, parameters, name="normal") + _one("TanH", bottoms="normal")


def _pooling(parameters):
    return _one("Pooling", f"pooling_param {{ {parameters} }}")


def _convolution(parameters):
    return _one("Convolution", f"convolution_param {{ {parameters} }}")


def _deconvolution(parameters):
    return _one("Deconvolution", f"convolution_param {{ {parameters} }}")


def _reshape(parameters):
    return _one("Reshape", f"reshape_param {{ {parameters} }}")


# Each finds x and y, (6, 9, 11); the one who reads it finds every corner of Caffe's parameters that a gradient passes.
SMALL_NETS = {
    "Convolution group": _convolution("num_output: 4 group: 2 kernel_size: 3"),
    "Convolution depthwise": _convolution("num_output: 12 group: 6 kernel_size: 3 pad: 1"),
    "Convolution dilation": _convolution("num_output: 4 kernel_size: 3 dilation: 2 pad: 2 stride: 2"),
    "Convolution dilation h w": _convolution("num_output: 4 kernel_size: 3 dilation: 1 dilation: 3"),
    "Convolution h w": _convolution(
        "num_output: 4 kernel_h: 1 kernel_w: 5 pad_h: 0 pad_w: 4 stride_h: 2 stride_w: 3 bias_term: false"
    ),
    "Convolution two sizes": _convolution("num_output: 4 kernel_size: 2 kernel_size: 3 stride: 1 stride: 2 pad: 2"),
    "Deconvolution": _deconvolution("num_output: 4 kernel_size: 4 stride: 2 pad: 1"),
    "Deconvolution group": _deconvolution("num_output: 6 group: 3 kernel_size: 3 stride: 3 bias_term: false"),
    "Deconvolution depthwise": _deconvolution("num_output: 6 group: 6 kernel_size: 4 stride: 2 pad: 1"),
    "Deconvolution dilation": _deconvolution("num_output: 4 kernel_h: 3 kernel_w: 2 dilation: 2 stride: 2"),
    "Pooling MAX": _pooling("kernel_size: 3 stride: 2"),
    "Pooling MAX pad": _pooling("kernel_size: 3 stride: 2 pad: 1"),
    "Pooling MAX pad > kernel/2": _pooling("kernel_size: 3 stride: 2 pad: 2"),
    "Pooling MAX kernel 2 stride 2": _pooling("kernel_size: 2 stride: 2"),
    "Pooling MAX stride > kernel": _pooling("kernel_size: 2 stride_h: 4 stride_w: 3"),
    "Pooling MAX h w": _pooling("kernel_h: 2 kernel_w: 4 stride_h: 3 stride_w: 2 pad_h: 1 pad_w: 0"),
    "Pooling MAX floor": _pooling("kernel_size: 2 stride: 2 ceil_mode: false"),
    "Pooling MAX floor pad": _pooling("kernel_size: 4 stride: 3 pad: 2 ceil_mode: false"),
    "Pooling MAX global": _pooling("global_pooling: true"),
    "Pooling AVE": _pooling("pool: AVE kernel_size: 3 stride: 2"),
    "Pooling AVE pad": _pooling("pool: AVE kernel_size: 3 stride: 2 pad: 1"),
    "Pooling AVE pad > kernel/2": _pooling("pool: AVE kernel_size: 3 stride: 2 pad: 2"),
    "Pooling AVE clipped": _pooling("pool: AVE kernel_size: 5 stride: 4"),
    "Pooling AVE h w": _pooling("pool: AVE kernel_h: 4 kernel_w: 2 stride_h: 3 stride_w: 2 pad_h: 3 pad_w: 1"),
    "Pooling AVE floor": _pooling("pool: AVE kernel_size: 2 stride: 2 ceil_mode: false"),
    "Pooling AVE global": _pooling("pool: AVE global_pooling: true"),
    "Pooling global MAX of ties": _one("ReLU", name="zero") + _one(
        "Power", "power_param { scale: -1 }", "zero", "low") + _one(
        "Pooling", "pooling_param { global_pooling: true }", "low"),
    "LRN": _one("LRN", "lrn_param { local_size: 3 alpha: 2 beta: 0.75 }"),
    "LRN wide": _one("LRN", "lrn_param { local_size: 11 alpha: 0.5 beta: 0.6 k: 2 }"),
    "LRN within channel": _one("LRN", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 2 beta: 0.75 }"),
    "LRN within channel 5": _one("LRN", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 5 alpha: 0.7 k: 3 }"),
    "ReLU": _one("ReLU"),
    "ReLU slope": _one("ReLU", "relu_param { negative_slope: 0.1 }"),
    "ReLU in place": _one("ReLU", name="r", tops="x") + _one("Power", "power_param { scale: 2 }"),
    "ReLU6": _one("Power", "power_param { scale: 4 }", name="wide") + _one("ReLU6", bottoms="wide"),
    "PReLU": _one("PReLU"),
    "PReLU shared": _one("PReLU", "prelu_param { channel_shared: true }"),
    "PReLU of a vector": _FLAT + _one("PReLU", bottoms="flat"),
    "ELU": _one("ELU") + _one("ELU", "elu_param { alpha: 0.3 }", name="other"),
    "Sigmoid": _one("Sigmoid"),
    "TanH": _one("TanH"),
    "AbsVal": _one("AbsVal"),
    "BNLL": _one("Power", "power_param { scale: 30 }", name="wide") + _one("BNLL", bottoms="wide"),
    "Power square": _one("Power", "power_param { power: 2 scale: -3 shift: 0.5 }"),
    "Power root": _POSITIVE + _one("Power", "power_param { power: 0.5 }", "positive"),
    "Power fraction": _POSITIVE + _one("Power", "power_param { power: -1.5 scale: 2 shift: 0.1 }", "positive"),
    "Power line": _one("Power", "power_param { scale: -2 shift: 7 }"),
    "Power 0": _one("Power", "power_param { power: 0 scale: 2 shift: 1 }") + _one("Power", name="other"),
    "Power scale 0": _one("Power", "power_param { power: 3 scale: 0 shift: 2 }") + _one("Power", name="other"),
    "Exp": _one("Exp", "exp_param { scale: 0.5 shift: -0.3 }"),
    "Exp base": _one("Exp", "exp_param { base: 2 scale: -0.5 shift: 1.5 }"),
    "Log": _POSITIVE + _one("Log", "log_param { scale: 2 shift: 0.1 }", "positive"),
    "Log base": _POSITIVE + _one("Log", "log_param { base: 10 }", "positive"),
    "InnerProduct": _one("InnerProduct", "inner_product_param { num_output: 7 }"),
    "InnerProduct axis": _one("InnerProduct", "inner_product_param { num_output: 5 axis: -1 bias_term: false }"),
    "InnerProduct axis 2": _one("InnerProduct", "inner_product_param { num_output: 5 axis: 2 }"),
    "InnerProduct transpose": _one("InnerProduct", "inner_product_param { num_output: 7 transpose: true }"),
    "BatchNorm": _one("BatchNorm", "batch_norm_param { eps: 0.01 }"),
    "BatchNorm of its own": _normalising("BatchNorm", "batch_norm_param { use_global_stats: false }"),
    "BatchNorm of the TRAIN phase": _normalising("BatchNorm", "phase: TRAIN"),
    "BatchNorm of a vector": _FLAT + _one("BatchNorm", bottoms="flat"),
    "BatchNorm in place": _one("BatchNorm", name="n", tops="x") + _one("Scale", bottoms="x"),
    "Scale": _one("Scale", "scale_param { bias_term: true }"),
    "Scale axis": _one("Scale", "scale_param { axis: -2 num_axes: 2 bias_term: true }"),
    "Scale to the end": _one("Scale", "scale_param { axis: 1 num_axes: -1 bias_term: true }"),
    "Scale by one number": _one("Scale", "scale_param { num_axes: 0 bias_term: true }"),
    "Scale two bottoms": _one("Scale", "scale_param { axis: 0 }", "x y"),
    "Scale each channel": _VECTOR + _one("Scale", "scale_param { axis: 0 bias_term: true }", "x vector"),
    "Bias": _one("Bias"),
    "Bias axis": _one("Bias", "bias_param { axis: 2 num_axes: -1 }"),
    "Bias by one number": _one("Bias", "bias_param { num_axes: 0 }"),
    "Bias two bottoms": _VECTOR + _one("Bias", "bias_param { axis: 0 }", "x vector"),
    "Eltwise SUM": _one("Eltwise", bottoms="x y x"),
    "Eltwise SUM coeff": _one("Eltwise", "eltwise_param { coeff: -1.5 coeff: 0.5 }", "x y"),
    "Eltwise PROD": _one("Eltwise", "eltwise_param { operation: PROD }", "x y"),
    "Eltwise PROD of three": _one("Eltwise", "eltwise_param { operation: PROD }", "x y x"),
    "Eltwise MAX": _one("Eltwise", "eltwise_param { operation: MAX }", "x y"),
    "Eltwise MAX of ties": _one("ReLU", name="a") + _one("ReLU", bottoms="y", name="b") + _one(
        "Power", "power_param { scale: 0.5 }", "y", "c") + _one(
        "Eltwise", "eltwise_param { operation: MAX }", "a b c"),
    "Concat": _one("Concat", bottoms="x y x"),
    "Concat axis": _one("Concat", "concat_param { axis: -1 }", "x y"),
    "Concat concat_dim": _one("Concat", "concat_param { concat_dim: 2 }", "x y"),
    "Slice": _one("Slice", name="s", tops="a b c") + _one("Eltwise", bottoms="a c b"),
    "Slice points": _one("Slice", "slice_param { axis: 2 slice_point: 2 slice_point: 7 }", name="s", tops="a b c")
    + _one("Concat", "concat_param { axis: -2 }", "c a"),
    "Slice slice_dim": _one("Slice", "slice_param { slice_dim: 1 slice_point: 4 }", name="s", tops="a b")
    + _one("Concat", bottoms="b a"),
    "Split": _one("Split", name="s", tops="a b") + _one("Eltwise", bottoms="a b"),
    "Flatten": _FLAT,
    "Flatten axes": _one("Flatten", "flatten_param { axis: 2 end_axis: -1 }")
    + _one("Flatten", "flatten_param { axis: 1 end_axis: 2 }", name="other"),
    "Reshape": _reshape("shape { dim: 0 dim: -1 dim: 9 }"),
    "Reshape copies": _reshape("shape { dim: 0 dim: 3 dim: -1 dim: 11 }"),
    "Reshape axis": _reshape("axis: 1 num_axes: 1 shape { dim: 2 dim: 3 }"),
    "Reshape from the end": _reshape("axis: -3 num_axes: 1 shape { dim: 3 dim: -1 }"),
    "Reshape inserts": _reshape("axis: -1 num_axes: 0 shape { dim: 1 }"),
    "Crop": _one("Pooling", "pooling_param { kernel_size: 4 }", name="like")
    + _one("Crop", "crop_param { offset: 1 offset: 2 }", "x like"),
    "Crop axis": _one("Pooling", "pooling_param { kernel_size: 4 }", name="like")
    + _one("Crop", "crop_param { axis: -1 offset: 3 }", "x like"),
    "Crop channels": _one("Convolution", "convolution_param { num_output: 3 kernel_size: 3 }", name="like")
    + _one("Crop", "crop_param { axis: 1 offset: 1 }", "x like"),
    "MVN": _normalising("MVN"),
    "MVN across channels": _normalising("MVN", "mvn_param { across_channels: true eps: 0.001 }"),
    "MVN mean": _one("MVN", "mvn_param { normalize_variance: false }"),
    "Reduction SUM": _one("Reduction", "reduction_param { axis: 1 coeff: 0.5 }"),
    "Reduction MEAN": _one("Reduction", "reduction_param { operation: MEAN axis: 2 }"),
    "Reduction ASUM": _one("Reduction", "reduction_param { operation: ASUM axis: -1 coeff: -2 }"),
    "Reduction SUMSQ": _one("Reduction", "reduction_param { operation: SUMSQ axis: 3 }"),
    "Tile": _one("Tile", "tile_param { tiles: 3 }"),
    "Tile axis": _one("Tile", "tile_param { tiles: 2 axis: -1 }"),
    "Softmax": _one("Softmax"),
    "Softmax axis": _one("Softmax", "softmax_param { axis: -1 }"),
    "Dropout": _one("Dropout", name="d", tops="x") + _one("Dropout"),
    "Permute": _one("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
    "Permute in part": _one("Permute", "permute_param { order: 0 order: 3 }"),
    "Normalize": _normalising("Normalize", "norm_param { across_spatial: false }"),
    "Normalize across": _normalising("Normalize", "norm_param { across_spatial: true channel_shared: true }"),
    "a branch that leads past": _one("Power", "power_param { scale: 3 }", "x", "aside")
    + _one("Power", "power_param { scale: 2 }", "x", "on") + _one("TanH", bottoms="on"),
}  # fmt: skip


def last_layers(text):
    """The layers of a small net whose tops nothing reads: the gradient is taken from there."""
    net = pb.NetParameter()
    text_format.Merge(text, net)
    read = {bottom for layer in net.layer for bottom in layer.bottom}
    return [layer.name for layer in net.layer if not read.intersection(layer.top) or layer is net.layer[-1]]
