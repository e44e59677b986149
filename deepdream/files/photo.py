"""A picture by itself, such as a photograph: what its file says of colours and transparency is kept or applied."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from deepdream.errors import UsageError
from deepdream.files.atomic import write_whole
from deepdream.files.frames import FrameDirectory, encode_frame, open_picture, to_rgb
from deepdream.geometry import at_width
from deepdream.options import image_type_of

SOURCE_DIRECTORY = "Source"


@dataclass(frozen=True)
class Photo:
    """``pixels``: upright uint8 RGB (h, w, 3). ``alpha``: uint8 (h, w), where it is not opaque.

    ``profile``: the ICC profile of the pixels' colours, where the file has one for RGB.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None

    def at_width(self, width: int) -> "Photo":
        """The same, so wide; 0 leaves it as it is."""
        size = at_width(self.pixels.shape[1::-1], width)
        pixels, alpha = (
            None if each is None else np.array(Image.fromarray(each).resize(size, Image.Resampling.LANCZOS))
            for each in (self.pixels, self.alpha)
        )
        assert pixels is not None
        return replace(self, pixels=pixels, alpha=alpha)

    @property
    def srgb(self) -> np.ndarray:
        """The pixels in sRGB, which videos and frames are taken to be in."""
        return to_rgb(_in_srgb(Image.fromarray(self.pixels), self.profile))


def read_photo(path: str | Path) -> Photo:
    """Read a picture. Colours that are no RGB (CMYK, grey) are brought into sRGB by their profile.

    Raises `UsageError` where the file is missing, damaged, animated, or no picture.
    """
    with open_picture(path) as opened:
        profile = opened.info.get("icc_profile")
        picture = ImageOps.exif_transpose(opened)
        alpha = np.array(picture.convert("RGBA").getchannel("A")) if picture.has_transparency_data else None
        if alpha is not None and alpha.min() == 255:
            alpha = None
        if picture.mode in ("CMYK", "L"):
            return Photo(to_rgb(_in_srgb(picture, profile)), alpha)
        return Photo(to_rgb(picture), alpha, profile)


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    if profile is None:
        return picture
    try:
        source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, source, target, outputMode="RGB") or picture
    except (ImageCms.PyCMSError, OSError):
        return picture  # a broken profile, or one of other colours, tells nothing


def check_photo(path: Path, source: Path, overwrite: bool) -> None:
    """Raise `UsageError` where the picture ``path`` cannot be made of ``source``."""
    if not image_type_of(path.suffix):
        raise UsageError(
            f"{source} is a picture, so -o {path} must be one too (.png, .jpg); "
            "with --frames N it may be a video or a directory: a dive"
        )
    if path.is_dir():
        raise UsageError(f"{path} is a directory; -o takes the name of the picture")
    if path.exists() and path.samefile(source):
        raise UsageError(f"{path} is the input; choose another name for the dream")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; replace it with --overwrite, or choose another name")


def dive_frames(source: Path, count: int, image_type: str | None) -> FrameDirectory:
    """The frames of a dive into the picture ``source``; ``image_type``: that of its dreams, None for PNG."""
    return FrameDirectory(source, (source,) * count, image_type or "png")


def source_frame(source: Path, directory: Path) -> tuple[Path, bytes]:
    """The picture into which a dive goes as a frame inside the output: where it belongs, and what it holds."""
    return directory / SOURCE_DIRECTORY / f"{source.stem}.png", encode_frame(read_photo(source).srgb, "png")


def write_photo(path: Path, photo: Photo, note: str | None) -> None:
    """Write a picture, whole or not at all, as its ending says. ``note``: text that it carries."""
    image_type = image_type_of(path.suffix)
    assert image_type, "the name was chosen by its ending"
    write_whole(path, encode_frame(photo.pixels, image_type, note, photo.alpha, photo.profile))
