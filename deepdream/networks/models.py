"""Caffe models that are known by name: where their files are, how to check them, how to dream with them.

Data only. A sum or a size stands here if somebody has published it, and is None otherwise: the
sha1 of the BVLC models is in their readme.md, most others are in OpenVINO's Open Model Zoo. The
first address of a file is its publisher's; those after it are mirrors of the same bytes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# Models whose layers have the same names must have the same loop and mean, since `find_known` cannot
# distinguish them. DREAM_MEAN is the DeepDream notebook's. It does for the Places models too, whose
# authors themselves run them with ImageNet's mean.
DREAM_MEAN = (104.0, 116.0, 122.0)
CAFFE_MEAN = (104.0, 117.0, 123.0)
VGG_MEAN = (103.939, 116.779, 123.68)

GITHUB = "https://raw.githubusercontent.com"
BVLC = f"{GITHUB}/BVLC/caffe/88c96189bcbf3853b93e2b65c7b5e4948f9d5f67/models"
GISTS = "https://gist.githubusercontent.com/ksimonyan"
BERKELEY = "http://dl.caffe.berkeleyvision.org"
OXFORD = "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe"
OPENVINO = "https://storage.openvinotoolkit.org/repositories/open_model_zoo/public/2022.1"
MXNET = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/caffe/models"
SQUEEZENET = "forresti/SqueezeNet/a47b6f13d30985279789d08053d37013d67d131b"
PLACES205_ARCHIVE = "http://places.csail.mit.edu/model/googlenet_places205.tar.gz"


@dataclass(frozen=True)
class ModelFile:
    """One file of a model.

    ``name`` is its name here; ``urls`` are tried in turn; ``digest`` is "algorithm:hexadecimal sum";
    ``size`` is in bytes. A file without ``urls`` has no address of its own: it is to be fetched by
    hand from ``page``, where it is called ``original``.
    """

    name: str
    urls: tuple[str, ...] = ()
    digest: str | None = None
    size: int | None = None
    page: str | None = None
    original: str | None = None


@dataclass(frozen=True)
class KnownModel:
    """A model: its files, the layers of its customloop in their order, its mean (blue, green, red)."""

    name: str
    files: tuple[ModelFile, ...]
    loop: tuple[str, ...]
    mean: tuple[float, float, float]
    about: str


def _model(name: str, about: str, loop: tuple, mean: tuple, prototxt: dict, weights: dict) -> KnownModel:
    """A known model; ``prototxt`` and ``weights`` are the fields of its two `ModelFile`, but for their names."""
    files = ModelFile("deploy.prototxt", **prototxt), ModelFile(f"{name}.caffemodel", **weights)
    return KnownModel(name, files, loop, mean, about)


def _file(urls: str, digest: str | None = None, size: int | None = None) -> dict:
    return dict(urls=tuple(urls.split()), digest=digest, size=size)


def _up_and_down(*layers: str) -> tuple[str, ...]:
    return layers + layers[-2::-1]


GOOGLENET_LOOP = _up_and_down(*(f"inception_{block}/output" for block in ("4c", "4d", "4e", "5a", "5b")))
ALEXNET_LOOP = _up_and_down("conv3", "conv4", "conv5", "pool5")
SQUEEZENET_LOOP = _up_and_down("fire5/concat", "fire6/concat", "fire8/concat")
VGG_LOOP = _up_and_down("conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3")
RESNET50_LOOP = _up_and_down("res4b", "res4d", "res4f", "res5a", "res5b")

MODELS = (
    _model(
        "bvlc_googlenet", "GoogLeNet on ImageNet, DeepDream's own network: dogs, birds, eyes, pagodas",
        GOOGLENET_LOOP, DREAM_MEAN,
        _file(f"{BVLC}/bvlc_googlenet/deploy.prototxt",
              "sha256:fa36cd4112a3240a29600a5aa35333f31bec33daa1a6085b0af308a9f50f0c50", 35862),
        _file(f"{BERKELEY}/bvlc_googlenet.caffemodel {OPENVINO}/googlenet-v1/bvlc_googlenet.caffemodel",
              "sha1:405fc5acd08a3bb12de8ee5e23a96bec22f08204", 53533754),
    ),
    _model(
        "bvlc_alexnet", "AlexNet on ImageNet: shallow and quick", ALEXNET_LOOP, DREAM_MEAN,
        _file(f"{BVLC}/bvlc_alexnet/deploy.prototxt",
              "sha256:b564ba76416b4ac1e062c6621cbd80d9c19304ba152d9d791c75870f3182c4fa", 3629),
        _file(f"{BERKELEY}/bvlc_alexnet.caffemodel {OPENVINO}/alexnet/bvlc_alexnet.caffemodel",
              "sha1:9116a64c0fbe4459d18f4bb6b56d647b63920377", 243862414),
    ),
    _model(
        "bvlc_reference_caffenet", "CaffeNet on ImageNet: AlexNet with pooling before normalisation",
        ALEXNET_LOOP, DREAM_MEAN,
        _file(f"{GITHUB}/BVLC/caffe/2cc3844cb2a4a72de10d321781dc8f994bef95c7"
              "/models/bvlc_reference_caffenet/deploy.prototxt",
              "sha256:922248a4d2f6aac1cc8e7e5dbd996cc2ecd3356480d67c198f6cf96b12311a04", 2878),
        _file(f"{BERKELEY}/bvlc_reference_caffenet.caffemodel",
              "sha1:4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46", 243862418),
    ),
    _model(
        "googlenet_places205", "GoogLeNet on 205 kinds of places: buildings, landscapes", GOOGLENET_LOOP, DREAM_MEAN,
        dict(page=PLACES205_ARCHIVE, original="deploy_places205.protxt"),
        dict(page=PLACES205_ARCHIVE, original="googlelet_places205_train_iter_2400000.caffemodel"),
    ),
    _model(
        "googlenet_places365", "GoogLeNet on 365 kinds of places: buildings, landscapes", GOOGLENET_LOOP, DREAM_MEAN,
        _file(f"{GITHUB}/CSAILVision/places365/master/deploy_googlenet_places365.prototxt"),
        _file("http://places2.csail.mit.edu/models_places365/googlenet_places365.caffemodel"),
    ),
    _model(
        "squeezenet_v1.0", "SqueezeNet 1.0 on ImageNet: tiny and quick", SQUEEZENET_LOOP, CAFFE_MEAN,
        _file(f"{GITHUB}/{SQUEEZENET}/SqueezeNet_v1.0/deploy.prototxt",
              "sha256:6e4ecef2a27347e226a5ef8be31d6d1b9d19f5a40afa1986ec259fd5fa3bd91c", 9640),
        _file(f"{GITHUB}/{SQUEEZENET}/SqueezeNet_v1.0/squeezenet_v1.0.caffemodel "
              f"{OPENVINO}/squeezenet1.0/squeezenet_v1.0.caffemodel",
              "sha256:9ff8035aada1f9ffa880b35252680d971434b141ec9fbacbe88309f0f9a675ce", 5001403),
    ),
    _model(
        "squeezenet_v1.1", "SqueezeNet 1.1 on ImageNet: less than half the work of 1.0", SQUEEZENET_LOOP, CAFFE_MEAN,
        _file(f"{GITHUB}/{SQUEEZENET}/SqueezeNet_v1.1/deploy.prototxt",
              "sha256:d041bfb2ab4b32fda4ff6c6966684132f2924e329916aa5bfe9285c6b23e3d1c", 9678),
        _file(f"{GITHUB}/{SQUEEZENET}/SqueezeNet_v1.1/squeezenet_v1.1.caffemodel",
              "sha256:72b912ace512e8621f8ff168a7d72af55910d3c7c9445af8dfbff4c2ee960142", 4950080),
    ),
    _model(
        "vgg16", "VGG, 16 layers, on ImageNet: large and slow", VGG_LOOP, VGG_MEAN,
        _file(f"{GISTS}/211839e770f7b538e2d8/raw/0067c9b32f60362c74f4c445a080beed06b07eb3"
              f"/VGG_ILSVRC_16_layers_deploy.prototxt {MXNET}/vgg/VGG_ILSVRC_16_layers_deploy.prototxt",
              "sha256:9fdb04e3f5b9224af473e82441b05b76368dfa6dc841e80655303823e9770962", 4776),
        _file(f"{OXFORD}/VGG_ILSVRC_16_layers.caffemodel {MXNET}/vgg/VGG_ILSVRC_16_layers.caffemodel",
              "sha256:a6196bc498e45ea4cb2637114ae8db9410cf1556fd60a55ae93272371beba197", 553432081),
    ),
    _model(
        "vgg19", "VGG, 19 layers, on ImageNet: larger and slower still", VGG_LOOP, VGG_MEAN,
        _file(f"{GISTS}/3785162f95cd2d5fee77/raw/f02f8769e64494bcd3d7e97d5d747ac275825721"
              f"/VGG_ILSVRC_19_layers_deploy.prototxt {MXNET}/vgg/VGG_ILSVRC_19_layers_deploy.prototxt",
              "sha256:e7c9da46d837dd91049ddab46a57933a488e3d8a42162cdef51ab1edeff99725", 5499),
        _file(f"{OXFORD}/VGG_ILSVRC_19_layers.caffemodel {MXNET}/vgg/VGG_ILSVRC_19_layers.caffemodel",
              "sha256:31b4c627c40c6ee151325f079b7ac557fddbd1f79af932888796127a4f4f6954", 574671192),
    ),
    _model(
        "resnet50", "ResNet, 50 layers, on ImageNet", RESNET50_LOOP, CAFFE_MEAN,
        _file(f"{GITHUB}/KaimingHe/deep-residual-networks/master/prototxt/ResNet-50-deploy.prototxt "
              f"{MXNET}/resnet/ResNet-50-deploy.prototxt",
              "sha256:2f8fb64f68c6bcda94eb2640f80aed94efb91664122e72a6b7587012cc57dedc", 32500),
        # Its publisher offers the weights only in a browser, on OneDrive: both addresses are mirrors.
        _file(f"https://dl.opencv.org/models/ResNet-50-model.caffemodel {MXNET}/resnet/ResNet-50-model.caffemodel",
              "sha256:44ee2b08816cede2b7aaa047888df07dcab52f73399aa1c8bef05a17bfdd4888", 102462397),
    ),
)  # fmt: skip


def find_known(layer_names: Iterable[str]) -> KnownModel | None:
    """Return the known model that a network with these layers is, or is built like; None if there is none.

    All layers of its loop are there. Where several models fit, the one whose loop names most layers
    is the surest; among equals the first of `MODELS` represents all.
    """
    there = set(layer_names)
    fitting = [model for model in MODELS if there.issuperset(model.loop)]
    return max(fitting, key=lambda model: len(set(model.loop)), default=None)
