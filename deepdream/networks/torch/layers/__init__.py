"""What each Caffe layer type computes, on PyTorch: one small function a type, in the table `LAYER_TYPES`.

`LAYER_TYPES` maps the name of a type to a function that takes a layer and its `Weights` and returns the layer's
function: bottoms (tensors of any device, (n, c, h, w)) to the top, or to a tuple of tops. Weights carry no gradient.
Where Caffe and PyTorch differ in a corner (how pooling rounds, which of two equal values a maximum takes), Caffe's
way holds.

A new layer type touches these places, and no others:

- its function, in the module here that suits, registered with `registry.layer_type`;
- `deepdream/networks/caffemodel/caffemodel.proto`, where the type has parameters of its own (field numbers as in
  Caffe's or the fork's caffe.proto), and `caffemodel_pb2.py`, which protoc makes of it;
- `fusion.py`, only where the layer runs faster together with its neighbours;
- its test: an entry in `SMALL_NETS` (tests/layer_nets.py), which compares it with real Caffe, or a formula in
  tests/test_fork_layers.py where real Caffe does not have it.
"""

from deepdream.networks.torch.layers import activation, convolution, normalisation, pooling, shape  # they register
from deepdream.networks.torch.layers.registry import LAYER_TYPES, LayerFunction, Weights

__all__ = ["LAYER_TYPES", "LayerFunction", "Weights", "activation", "convolution", "normalisation", "pooling", "shape"]
