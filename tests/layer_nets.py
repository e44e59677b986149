"""One small Caffe net a layer type, in every corner of its parameters that a gradient passes."""

from google.protobuf import text_format

from deepdream.networks.caffemodel import NetBuilder, pb


def small_net(text, size=(11, 13)):
    """A net about the layers in ``text``. They find x and y, six channels each, and put out what they like."""
    net = NetBuilder("small", size)
    net.conv("x", "data", 6, 3, relu=False)
    net.conv("y", "data", 6, 3, relu=False)
    text_format.Merge(text, net.message)
    return net.message


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
