"""A network as plain data that other processes, here or on other machines, load it from.

A worker takes the files that it has: those of the same path, the embedded default, or what an earlier render left in
its cache. Where none of them has the digest of the network, the bytes of the files are sent, and kept in the cache.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pooch
from filelock import FileLock

from deepdream.errors import DreamError, ModelError
from deepdream.files.atomic import make_directory, write_whole
from deepdream.networks import default
from deepdream.networks.find import TEMPORARY, ModelFiles
from deepdream.networks.load import digest_of, load_files
from deepdream.networks.network import Network
from deepdream.options import NetworkOptions

Contents = tuple[bytes, bytes]  # of the prototxt and the caffemodel


@dataclass(frozen=True)
class PortableNetwork:
    """A network that `load_network` gave for ``options``, as other processes load it."""

    digest: str
    files: ModelFiles
    options: NetworkOptions

    def contents(self) -> Contents:
        """What `load` may ask for."""
        return self.files.prototxt.read_bytes(), self.files.caffemodel.read_bytes()

    def load(self, fetch: Callable[[], Contents]) -> Network:
        """The network, from files that are here; ``fetch`` is called for their contents where there are none."""
        for files in self._places():
            if self._is_whole(files):
                return self._load(files)
        contents = fetch()
        try:
            folder = make_directory(self._cache())
            with FileLock(folder / ".lock"):  # other workers of this machine fetch it too
                files = self._write(contents, folder)
        except (OSError, DreamError):  # the cache cannot be written
            files = self._write(contents, Path(TEMPORARY.enter_context(TemporaryDirectory(prefix="deepdream-"))))
        if not self._is_whole(files):
            raise ModelError(f"the network {self.digest} arrived with other bytes in {files.caffemodel.parent}")
        return self._load(files)

    def _places(self) -> Iterator[ModelFiles]:
        yield self.files
        if self.files.caffemodel.stem == default.NAME:
            with suppress(DreamError):  # its package is missing, or the cache cannot be written
                yield self._at(*default.default_model_files())
        folder = self._cache()
        yield self._at(folder / self.files.prototxt.name, folder / self.files.caffemodel.name)

    def _cache(self) -> Path:
        return Path(pooch.os_cache("deepdream"), "networks", self.digest)

    def _at(self, prototxt: Path, caffemodel: Path) -> ModelFiles:
        return replace(self.files, prototxt=prototxt, caffemodel=caffemodel)

    def _write(self, contents: Contents, folder: Path) -> ModelFiles:
        paths = folder / self.files.prototxt.name, folder / self.files.caffemodel.name
        for path, content in zip(paths, contents):
            write_whole(path, content)
        return self._at(*paths)

    def _is_whole(self, files: ModelFiles) -> bool:
        """Whether the files are there, and those of the network."""
        try:
            return digest_of(files, self.files.mean or (), self.options.engine) == self.digest
        except OSError:
            return False

    def _load(self, files: ModelFiles) -> Network:
        options = self.options
        network = load_files(
            files,
            gpu=bool(options.gpu),
            engine=options.engine,
            precision=options.precision,
            on_message=lambda line: None,
        )
        return network


def portable(network: Network, options: NetworkOptions) -> PortableNetwork:
    """What other processes load ``network`` from, which `load_network` gave for ``options``."""
    files = network.files
    # Absolute, since they have other work directories; and what the network brings itself need not be guessed again.
    files = replace(
        files,
        prototxt=files.prototxt.absolute(),
        caffemodel=files.caffemodel.absolute(),
        mean=tuple(network.mean.flatten().tolist()),
        loop=network.loop,
    )
    gpu = int(network.device.type != "cpu")
    return PortableNetwork(network.digest, files, replace(options, gpu=gpu, precision=network.precision))
