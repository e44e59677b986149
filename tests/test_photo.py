"""One picture, dreamed by one command: its colours and transparency, and what it does not overwrite."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import deepdream
from deepdream.files.frames import is_picture, read_frame, read_note
from deepdream.files.photo import Photo, read_photo, write_photo

QUICK = "-l mixed -oct 2 -itr 2 -j 4 -gpu 0".split()
RAMP = np.add.outer(4 * np.arange(30), 2 * np.arange(44)) % 256
PIXELS = np.stack([RAMP, 255 - RAMP, RAMP // 2], -1).astype(np.uint8)


def profile_of(kind):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes()


def swapped_profile():
    """An RGB profile of other primaries: sRGB's, of which red and blue have changed places."""
    profile = bytearray(profile_of("sRGB"))
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


@pytest.fixture
def dream(run_here, small_folder):
    """A function that runs dreamer.py with the small network."""

    def dream(source, target, *arguments):
        return run_here("-i", source, "-o", target, "-t", small_folder, *QUICK, *arguments)

    return dream


@pytest.mark.parametrize("name", ["dream.png", "dream.jpg", "dream.jpeg", "Dream.PNG"])
def test_a_picture_is_dreamed_like_a_first_frame(dream, tmp_path, small_network, name):
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    done = dream("photo.png", name, "-s", "3")
    assert done.returncode == 0 and "dreamed in" in done.stderr
    options = deepdream.RenderOptions(deepdream.DreamOptions(("mixed",), 2, iterations=2, jitter=4, step_size=3))
    wanted = deepdream.dream(PIXELS, small_network, options)
    assert np.abs(np.float32(read_frame(name)) - wanted).mean() < (5 if "j" in name else 0.001)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["photo.png", name])
    assert "--input photo.png" in read_note(name)


def test_the_printed_command_makes_it_again(dream, run_here, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "photo.webp", lossless=True)
    assert dream("photo.webp", "dream.png", "-itr", "0:3, 9:1").returncode == 0
    line = run_here("--settings", "dream.png").stdout
    assert "--iterations '0:3, 9:1'" in line and line.strip().endswith("--output dream.png")


@pytest.mark.parametrize("orientation, turns", [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_it_comes_out_upright(dream, tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "photo.png", exif=exif)
    assert dream("photo.png", "dream.png", "-itr", "0").returncode == 0
    np.testing.assert_array_equal(read_frame("dream.png"), np.rot90(PIXELS, turns))
    assert 0x0112 not in Image.open("dream.png").getexif()


def test_transparency_stays_in_a_png_and_lies_on_white_in_a_jpeg(dream, tmp_path):
    alpha = np.zeros((30, 44), np.uint8)
    alpha[:, 22:] = 255
    Image.fromarray(np.dstack([PIXELS, alpha])).save(tmp_path / "photo.png")
    assert dream("photo.png", "dream.png").returncode == dream("photo.png", "dream.jpg").returncode == 0
    with Image.open("dream.png") as picture:
        assert picture.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(picture)[..., 3], alpha)
        assert (np.asarray(picture)[..., :3] != PIXELS).any()
    assert read_frame("dream.jpg")[:, :20].min() > 240 > read_frame("dream.jpg")[:, 24:].mean()


@pytest.mark.parametrize("name", ["dream.png", "dream.jpg"])
def test_the_profile_of_its_colours_is_kept(dream, tmp_path, name):
    profile = swapped_profile()
    Image.fromarray(PIXELS).save(tmp_path / "photo.png", icc_profile=profile)
    assert dream("photo.png", name, "-itr", "0").returncode == 0
    with Image.open(name) as picture:
        assert picture.info["icc_profile"] == profile
    assert np.abs(np.float32(read_frame(name)) - PIXELS).mean() < 3


def test_into_srgb_a_profile_is_applied_and_a_broken_one_is_not():
    plain = Photo(PIXELS)
    np.testing.assert_array_equal(plain.srgb, PIXELS)
    np.testing.assert_array_equal(Photo(PIXELS, None, b"no profile").srgb, PIXELS)
    same = Photo(PIXELS, None, profile_of("sRGB")).srgb
    assert np.abs(np.float32(same) - PIXELS).max() <= 1
    swapped = Photo(PIXELS, None, swapped_profile()).srgb
    assert np.abs(np.float32(swapped) - PIXELS[..., ::-1]).mean() < 3


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "LA", "I;16", "1"])
def test_other_colours_become_rgb(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    path = tmp_path / f"photo.{suffix}"
    grey = Image.fromarray(PIXELS).convert("L")
    if mode == "I;16":
        Image.fromarray(np.asarray(grey, dtype=np.uint16) * 257).save(path)
    else:
        Image.fromarray(PIXELS).convert(mode).save(path)
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, read_frame(path))
    assert photo.alpha is None and photo.profile is None


def test_a_preview_is_smaller_with_its_transparency(dream, tmp_path):
    alpha = np.full((30, 44), 99, np.uint8)
    Image.fromarray(np.dstack([PIXELS, alpha])).save(tmp_path / "photo.png")
    assert dream("photo.png", "dream.png", "-p", "22").returncode == 0
    with Image.open("dream.png") as picture:
        assert picture.size == (22, 15) and (np.asarray(picture)[..., 3] == 99).all()


def test_a_mask_and_a_guide_serve_a_picture_too(dream, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    Image.fromarray(PIXELS[::-1]).save(tmp_path / "guide.png")
    mask = np.zeros((30, 44), np.uint8)
    mask[:15] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert dream("photo.png", "dream.png", "--mask", "mask.png", "-g", "guide.png").returncode == 0
    changed = (read_frame("dream.png") != PIXELS).any(-1)
    assert changed[:15].mean() > 0.9 and not changed[15:].any()


def test_nothing_is_overwritten_unasked(dream, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    Path("dream.png").write_text("precious")
    done = dream("photo.png", "dream.png")
    assert done.returncode == 2 and "--overwrite" in done.stderr and Path("dream.png").read_text() == "precious"
    assert dream("photo.png", "dream.png", "--overwrite").returncode == 0 and read_frame("dream.png").any()
    before = Path("photo.png").read_bytes()
    done = dream("photo.png", "photo.png", "--overwrite")
    assert done.returncode == 2 and "is the input" in done.stderr and Path("photo.png").read_bytes() == before


@pytest.mark.parametrize(
    "target, more, said",
    [
        ("dream.webp", [], "must be one too (.png, .jpg); with --frames N"),
        ("dream.mp4", [], "with --frames N it may be a video"),
        ("Output", [], "with --frames N"),
        ("folder.png", [], "is a directory"),
        ("dream.png", ["--frames", "3"], "is one picture; -o takes a video, or a directory"),
        ("dream.png", ["-g", "lost.png"], "lost.png: no such file"),
        ("dream.png", ["--mask", "lost.png"], "lost.png does not exist"),
        ("dream.png", ["-oct", "9", "-l", "narrow"], "cannot take an octave"),
        ("dream.png", ["--dreamwidth", "99"], "wider than the picture"),
    ],
)
def test_what_cannot_be_is_one_line(dream, tmp_path, target, more, said):
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    Path("folder.png").mkdir()
    done = dream("photo.png", target, *more)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "photo.png"]


def test_options_that_change_nothing_are_named(dream, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    done = dream("photo.png", "dream.png", "-z", "1.1", "-bs", "0.5", "-f", "24", "-flow", "2")
    assert done.returncode == 0 and done.stderr.splitlines()[0].startswith("--zoom, --blendstatic, --framerate: these")


def test_pictures_are_known_by_what_they_hold(tmp_path):
    shutil.copy(Path(__file__), tmp_path / "text")
    Image.fromarray(PIXELS).save(tmp_path / "photo", "PNG")
    Image.fromarray(PIXELS).save(tmp_path / "one.gif")
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    names = ("text", "photo", "one.gif", "film.gif", "cut.jpg", "missing.jpg")
    assert [is_picture(tmp_path / name) for name in names] == [False, True, True, False, True, False]


def test_a_jpeg_carries_transparency_as_white_alone(tmp_path):
    write_photo(tmp_path / "half.jpg", Photo(np.zeros((16, 16, 3), np.uint8), np.full((16, 16), 128, np.uint8)), None)
    assert abs(int(read_frame(tmp_path / "half.jpg").mean()) - 127) <= 2
    assert io.BytesIO((tmp_path / "half.jpg").read_bytes()).read(2) == b"\xff\xd8"
