"""The known architectures as their papers describe them, as Caffe nets."""

from deepdream.networks import caffemodel
from deepdream.networks.caffemodel import pb


class NetBuilder(caffemodel.NetBuilder):
    """The layers of known architectures, besides those of the embedded network."""

    def norm(self, name, bottom, top=""):
        """Batch normalisation and the scale after it, in place by default."""
        top = self.layer(f"{name}/bn", "BatchNorm", bottom, top=top or bottom)
        return self.layer(f"{name}/scale", "Scale", top, top=top, scale_param=dict(bias_term=True))

    def conv_norm(self, name, bottom, count, kernel, stride=1, pad=0, group=1, relu=True):
        """A convolution without bias, batch normalisation, and a ReLU unless told otherwise."""
        self.conv(name, bottom, count, kernel, stride, pad, group, bias=False, relu=False)
        self.norm(name, name)
        return self.relu(name) if relu else name

    def pool(self, name, bottom, kernel, stride=1, pad=0, kind="MAX"):
        """Max pooling, or average pooling where ``kind`` is AVE."""
        values = dict(pool=pb.PoolingParameter.PoolMethod.Value(kind), kernel_size=kernel, stride=stride, pad=pad)
        return self.layer(name, "Pooling", bottom, pooling_param=values)

    def lrn(self, name, bottom):
        """Local response normalisation with the values of Krizhevsky et al. 2012."""
        return self.layer(name, "LRN", bottom, lrn_param=dict(local_size=5, alpha=1e-4, beta=0.75))

    def concat(self, name, *bottoms):
        """The channels of ``bottoms``, one after another."""
        return self.layer(name, "Concat", *bottoms)


def _alexnet_like(name, size, norm_first):
    """Krizhevsky et al. 2012; CaffeNet pools before it normalises."""
    net = NetBuilder(name, size)
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
    net = NetBuilder("GoogLeNet", size)
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
    net = NetBuilder("NIN", size)
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
    net = NetBuilder("VGG-16", size)
    top = "data"
    for stage, (depth, count) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for number in range(1, depth + 1):
            top = net.conv(f"conv{stage}_{number}", top, count, 3, 1, 1)
        top = net.pool(f"pool{stage}", top, 2, 2)
    top = net.full("fc7", net.full("fc6", top, 4096), 4096)
    return net.classify(net.full("fc8", top, 1000, relu=False))


def resnet50(size):
    """He et al. 2015."""
    net = NetBuilder("ResNet-50", size)
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
    net = NetBuilder("Inception-v3", size)
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
    net = NetBuilder(name, size)
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
    net = NetBuilder("MobileNet-v1", size)
    top, width = net.conv_norm("conv1", "data", 32, 3, 2, 1), 32
    counts = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    for number, count in enumerate(counts, 2):
        stride = 2 if number in (3, 5, 7, 13) else 1
        top = net.conv_norm(f"conv{number}/dw", top, width, 3, stride, 1, group=width)
        top, width = net.conv_norm(f"conv{number}/sep", top, count, 1), count
    return net.classify(net.conv("fc7", net.mean("pool6", top), 1000, 1, relu=False))


def mobilenet2(size):
    """Sandler et al. 2018."""
    net = NetBuilder("MobileNet-v2", size)
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
    net = NetBuilder("DenseNet-121", size)
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
