"""Caffe models on disk: a prototxt (the layers) and a caffemodel (their weights), read into plain data and written.

Three generations of the format are read: today's ``layer``, the ``layers`` with numbered types of 2014,
and the flat ``layers { layer { } }`` of 2013.
"""

from deepdream.networks.caffemodel import caffemodel_pb2 as pb
from deepdream.networks.caffemodel.builder import NetBuilder
from deepdream.networks.caffemodel.model import Layer, Model, load_model
from deepdream.networks.caffemodel.prototxt import DATA_TYPES, parse_prototxt
from deepdream.networks.caffemodel.weights import read_blobs, read_mean, write_caffemodel

__all__ = [
    "DATA_TYPES", "Layer", "Model", "NetBuilder", "load_model", "parse_prototxt", "pb", "read_blobs", "read_mean",
    "write_caffemodel",
]  # fmt: skip
