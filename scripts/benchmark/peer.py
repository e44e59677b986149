"""Another dreamer in a process of its own, in its own environment: takes steps when asked, and times them itself.

    peer.py caffe PROTOTXT CAFFEMODEL       (the prototxt with force_backward)
    peer.py neural-dream STATE_DICT         (a .pth whose name says bvlc_googlenet)
    peer.py torch-dreams STEPS PICTURE ...  (dreams the pictures into the folder torch-dreams, and ends)

Nothing of this project is imported. Once ready it says so, and then answers every line of JSON on its input with
one on its output: {"open": [picture, layer]} sets what a step is of (a .npy file of float32 (3, h, w), as the nets
take it), {"steps": n} takes n steps and gives the seconds of each, {"result": file} writes the activations at the
layer and the gradient of the last step (.npz).
"""

import json
import os
import sys
import time

import numpy as np


class Caffe:
    """Real Caffe through pycaffe, called as the dreamers of 2015 call it."""

    def __init__(self, prototxt, caffemodel):
        import caffe

        self._net = caffe.Net(prototxt, caffe.TEST, weights=caffemodel)

    def open(self, picture, layer):
        """Set the picture and the layer of the next steps."""
        self._picture, self._layer = picture, layer
        self._net.blobs["data"].reshape(1, *picture.shape)

    def step(self):
        """Forward to the layer, its activations as their own gradient, backward to the picture."""
        self._net.blobs["data"].data[...] = self._picture
        self._net.forward(end=self._layer)
        top = self._net.blobs[self._layer]
        top.diff[...] = top.data
        self._net.backward(start=self._layer)

    def result(self):
        """(activations, gradient)"""
        return self._net.blobs[self._layer].data[0], self._net.blobs["data"].diff[0]


class NeuralDream:
    """neural-dream 0.0.4: its loader, its GoogLeNet, its hook and its L2 loss; the lines of its `feval` in a step."""

    def __init__(self, state_dict):
        from neural_dream.neural_dream_core.CaffeLoader import loadCaffemodel

        self._cnn, _ = loadCaffemodel(state_dict, "max", "c", True)

    def open(self, picture, layer):
        """Set the picture and the layer of the next steps."""
        import torch
        from neural_dream.neural_dream_core.dream_model import build_net

        self._name = layer.replace("/", "_")
        loss = ("l2", 1, "-1", "all")
        more = {"channel_capture": "once", "scale": 0, "sigma": "1", "use_fft": (False, 25)}
        whole, losses, *_ = build_net(self._cnn, [self._name], True, None, 0, (torch.FloatTensor,), loss, more)
        self._net, self._loss = whole.net, losses[0]  # without the jitter before it, which no other engine has here
        self._loss.mode = "loss"
        for parameter in self._net.parameters():
            parameter.requires_grad = False
        self._image = torch.nn.Parameter(torch.from_numpy(picture)[None])

    def step(self):
        """What neural-dream does for a step: it runs the whole net forward, and backward from the layer."""
        self._image.grad = None
        self._net(self._image)
        (-self._loss.loss).backward()

    def result(self):
        """(activations, gradient): it descends the negative loss, so the gradient's sign is flipped."""
        seen = []
        hook = getattr(self._net, self._name).register_forward_hook(lambda module, given, top: seen.append(top))
        self._net(self._image)
        hook.remove()
        return seen[0][0].detach().numpy(), -self._image.grad[0].numpy()


def torch_dreams(steps, paths):
    """torch-dreams 4.0.0 as its README uses it, on torchvision's GoogLeNet with random weights."""
    import torchvision
    from torch_dreams import CustomImageParam, Dreamer

    model = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False)
    dreamer = Dreamer(model, quiet=True, device="cpu")
    for path in paths:
        picture = CustomImageParam(image=path, device="cpu")
        dreamt = dreamer.render(layers=[model.inception4c], image_parameter=picture, iters=steps)
        dreamt.save(os.path.join("torch-dreams", os.path.basename(path)))


def answer(peer, asked):
    """Do what one line asks for; returns the answer."""
    if "open" in asked:
        picture, layer = asked["open"]
        return peer.open(np.load(picture, allow_pickle=False), layer)
    if "result" in asked:
        activations, gradient = peer.result()
        return np.savez(asked["result"], activations=activations, gradient=gradient)
    seconds = []
    for _ in range(asked["steps"]):
        started = time.perf_counter()
        peer.step()
        seconds.append(time.perf_counter() - started)
    return seconds


def main(name, *arguments):
    """Load the peer, then answer until the input ends."""
    if name == "torch-dreams":
        return torch_dreams(int(arguments[0]), arguments[1:])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what peers print must not mix with the answers
    peer = {"caffe": Caffe, "neural-dream": NeuralDream}[name](*arguments)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(peer, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
