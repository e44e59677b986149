"""The process that holds a Caffe net for `CaffeNetwork`, since Caffe ends its process where a check of its own fails.

Run as a script, without the rest of the package: with the file number of a `multiprocessing` connection, the prototxt,
the caffemodel, the picture's blob, its channels, height and width, and a file for the prototxt as Caffe gets it.
Answers every (command, arguments) with (True, result) or (False, text of the error).
"""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from google.protobuf import text_format

os.environ["GLOG_minloglevel"] = "2"  # glog reads it when caffe is imported: no line a layer


class Server:
    """A net, and the commands that it obeys."""

    def __init__(
        self,
        prototxt: str,
        caffemodel: str,
        blob: str,
        channels: int | str,
        height: int | str,
        width: int | str,
        prepared: str,
    ) -> None:
        import caffe

        self._blob = blob
        prototxt = _prepare(prototxt, blob, (int(channels), int(height), int(width)), prepared)
        self._net = caffe.Net(prototxt, caffe.TEST, weights=caffemodel)

    def forward(self, layers: Sequence[str], picture: np.ndarray) -> list[np.ndarray]:
        """Run the net for a picture (3, h, w) up to the last of ``layers``, which are in the net's order.

        Returns their blobs (1, c, h', w'), each as it is before a layer in place changes it.
        """
        self._net.blobs[self._blob].reshape(1, *picture.shape)
        self._net.blobs[self._blob].data[...] = picture
        names, tops, start = list(self._net._layer_names), [], 0
        for layer in layers:
            # Never net.reshape(): a classifier's last layers may not fit. forward() shapes each layer as it comes.
            self._net.forward(start=names[start], end=layer)
            tops.append(self._top(layer).data.copy())
            start = names.index(layer) + 1
        return tops

    def backward(self, layers: Sequence[str], diffs: Sequence[np.ndarray]) -> np.ndarray:
        """The picture's gradient (3, h, w) for the gradients at ``layers``, up to the last of which `forward` has run.

        A gradient joins what has come back from the layers behind its own.
        """
        names = list(self._net._layer_names)
        for name in names[: names.index(layers[-1]) + 1]:
            for top in self._net.top_names[name]:
                self._net.blobs[top].diff[...] = 0  # a branch that leads past the layer keeps its last one otherwise
        ends = [names[names.index(layer) + 1] for layer in layers[:-1]]
        for layer, diff, end in reversed(list(zip(layers, diffs, [names[0], *ends]))):
            self._top(layer).diff[...] += diff
            self._net.backward(start=layer, end=end)
        return self._net.blobs[self._blob].diff[0]

    def _top(self, layer: str) -> Any:
        return self._net.blobs[self._net.top_names[layer][0]]


def _prepare(prototxt: str, blob: str, shape: tuple[int, int, int], prepared: str) -> str:
    """The file for Caffe: the user's prototxt with force_backward, and with the picture instead of Data layers."""
    from caffe.proto import caffe_pb2

    net = caffe_pb2.NetParameter()
    try:
        with open(prototxt, encoding="utf-8") as file:
            text_format.Parse(file.read(), net)
    except text_format.ParseError:
        return prototxt  # Caffe itself says what is wrong with it
    net.force_backward = True
    _feed_picture(net, blob, shape)
    with open(prepared, "w", encoding="utf-8") as file:
        file.write(text_format.MessageToString(net))
    return prepared


def _feed_picture(net: Any, blob: str, shape: tuple[int, int, int]) -> None:
    """Remove the layers that feed data, and all that depends on labels; declare the picture as input instead."""
    layers = net.layer or net.layers
    feeding = [layer for layer in layers if not layer.bottom and layer.type not in ("Input", "Parameter")]
    if not feeding:
        return
    gone = {top for layer in feeding for top in layer.top} - {blob}
    kept = []
    for layer in layers:
        if layer in feeding or gone.intersection(layer.bottom):
            gone.update(set(layer.top) - {blob})
        else:
            gone.difference_update(layer.top)
            kept.append(layer)
    del layers[:]
    layers.extend(kept)
    if any(blob in layer.top for layer in feeding):
        net.input.append(blob)
        net.input_shape.add(dim=(1, *shape))


def _answer(connection: Connection, command: Callable, *arguments: Any) -> Any:
    try:
        result = command(*arguments)
    except Exception as error:  # whatever it is, it belongs to the process that asked
        connection.send((False, f"{type(error).__name__}: {error}"))
        return None
    connection.send((True, None if isinstance(result, Server) else result))
    return result


def main(number: str, *arguments: str) -> None:
    """Load the net, then obey until the connection ends."""
    connection = Connection(int(number))
    server = _answer(connection, Server, *arguments)
    while server:
        try:
            command, *values = connection.recv()
        except EOFError:
            # The parent removes the directory where it can; killed, it cannot.
            shutil.rmtree(os.path.dirname(arguments[-1]), ignore_errors=True)
            return
        _answer(connection, getattr(server, command), *values)


if __name__ == "__main__":
    main(*sys.argv[1:])
