"""Caffe nets made in Python: a builder with a method for each common layer."""

from collections.abc import Sequence

import numpy as np

from deepdream.networks.caffemodel import caffemodel_pb2 as pb


class NetBuilder:
    """A net under construction. Every method adds a layer and returns the name of its top.

    ``message``: the net so far. ``blobs``: the weights of the layers that were given some, by layer name.
    """

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        """``size``: (h, w) of the picture, which is called data."""
        self.message = pb.NetParameter(name=name)
        self.blobs: dict[str, Sequence[np.ndarray]] = {}
        self.layer("data", "Input")
        self.message.layer[0].input_param.shape.add(dim=(1, 3, *size))

    def layer(
        self, name: str, type_name: str, *bottoms: str, top: str = "", blobs: Sequence[np.ndarray] = (),
        **parameters: dict,
    ) -> str:  # fmt: skip
        """Any layer. ``top``: its name by default. ``parameters``: a message of its own, by its field's name."""
        message = self.message.layer.add(name=name, type=type_name, bottom=bottoms, top=[top or name])
        for field, values in parameters.items():
            for key, value in values.items():
                if isinstance(value, (list, tuple)):
                    getattr(getattr(message, field), key).extend(value)
                else:
                    setattr(getattr(message, field), key, value)
        if blobs:
            self.blobs[name] = blobs
        return message.top[0]

    def conv(
        self, name: str, bottom: str, count: int, kernel: int | tuple[int, int], stride: int = 1,
        pad: int | tuple[int, int] = 0, group: int = 1, bias: bool = True, relu: bool = True,
        blobs: Sequence[np.ndarray] = (),
    ) -> str:  # fmt: skip
        """A convolution to ``count`` channels, with a ReLU in place unless told otherwise. Pairs are (h, w)."""
        values: dict = dict(num_output=count, stride=[stride], group=group)
        if isinstance(kernel, tuple):
            pad_h, pad_w = pad if isinstance(pad, tuple) else (pad, pad)
            values.update(kernel_h=kernel[0], kernel_w=kernel[1], pad_h=pad_h, pad_w=pad_w)
        else:
            values.update(kernel_size=[kernel], pad=[pad])
        if not bias:
            values.update(bias_term=False)
        top = self.layer(name, "Convolution", bottom, blobs=blobs, convolution_param=values)
        return self.relu(name) if relu else top

    def relu(self, name: str) -> str:
        """A ReLU in place."""
        return self.layer(f"{name}/relu", "ReLU", name, top=name)

    def mean(self, name: str, bottom: str) -> str:
        """Average pooling over the whole picture."""
        return self.layer(
            name, "Pooling", bottom, pooling_param=dict(pool=pb.PoolingParameter.AVE, global_pooling=True)
        )

    def full(self, name: str, bottom: str, count: int, relu: bool = True, blobs: Sequence[np.ndarray] = ()) -> str:
        """A fully connected layer, with a ReLU in place unless told otherwise."""
        self.layer(name, "InnerProduct", bottom, blobs=blobs, inner_product_param=dict(num_output=count))
        return self.relu(name) if relu else name

    def add(self, name: str, *bottoms: str) -> str:
        """The sum of ``bottoms``."""
        return self.layer(name, "Eltwise", *bottoms)

    def classify(self, bottom: str) -> pb.NetParameter:
        """The probabilities of the classes, and with them the finished net."""
        self.layer("prob", "Softmax", bottom)
        return self.message
