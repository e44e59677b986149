"""Frame directories and files that are whole or not there."""

import errno
import io
import json
import shutil
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from deepdream.errors import DreamError, UsageError
from deepdream.files import atomic as files
from deepdream.files import frames
from deepdream.files.clip import CLIP_NAME, Clip, copy_clip, read_clip, write_clip
from deepdream.files.frames import check_sizes, open_frames, read_frame, read_size, write_frame

CLIP = Clip("/films/a.mp4", Fraction(30000, 1001), Fraction(128, 117), True, 120, -0.25)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


# --- Files -----------------------------------------------------------------------------------------


def test_a_file_is_whole_or_not_there(tmp_path):
    target = tmp_path / "file"
    files.write_whole(target, b"first")
    with pytest.raises(RuntimeError), files.whole_file(target) as part:
        part.write_bytes(b"seco")
        raise RuntimeError
    assert target.read_bytes() == b"first"
    files.write_whole(target, b"second")
    assert target.read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(DreamError, match="cannot write .*gone.*No such file"):
        files.write_whole(tmp_path / "gone" / "file", b"data")
    (tmp_path / "file").touch()
    with pytest.raises(DreamError, match="cannot make the directory"):
        files.make_directory(tmp_path / "file" / "below")


def test_a_directory_to_which_files_are_still_added_is_deleted_after_some_attempts(tmp_path, monkeypatch):
    delete, attempts = shutil.rmtree, []

    def fail_twice(path, ignore_errors=False):
        attempts.append(path)
        if len(attempts) > 2:
            delete(path, ignore_errors)
        elif not ignore_errors:
            raise OSError(errno.ENOTEMPTY, "Directory not empty")

    (tmp_path / "work" / "left").mkdir(parents=True)
    monkeypatch.setattr(shutil, "rmtree", fail_twice)
    with files.whole_directory(tmp_path / "work") as work:
        assert len(attempts) == 3 and not list(work.iterdir())


@pytest.mark.parametrize("left", ["nothing", "file", "link", "directory"])
def test_a_whole_directory_is_new_and_gone_if_it_fails(tmp_path, left):
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    if left == "file":
        place.touch()
    elif left == "link":
        place.symlink_to(elsewhere)
    elif left == "directory":
        (place / "deep").mkdir(parents=True)
        (place / "deep" / "file").touch()
    with pytest.raises(RuntimeError), files.whole_directory(place):
        assert place.is_dir() and not place.is_symlink() and not list(place.iterdir())
        (place / "half").touch()
        raise RuntimeError
    assert not place.exists() and (elsewhere / "mine").exists()
    with files.whole_directory(place):
        (place / "all").touch()
    assert [path.name for path in place.iterdir()] == ["all"]


# --- Which frames there are ------------------------------------------------------------------------


def test_natural_order_of_what_counts_as_a_frame(tmp_path, picture):
    for name in ("f10.png", "f2.PNG", "f1.png", ".hidden.png", "guide.png", frames.PREVIEW_NAME):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "f3.png").mkdir()
    found = open_frames(tmp_path, leave_out=[tmp_path / "guide.png"])
    assert [path.name for path in found.paths] == ["f1.png", "f2.PNG", "f10.png"]
    assert found.image_type == "png"


def test_two_types_need_a_choice(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "b.jpeg").touch()
    with pytest.raises(UsageError, match="-it jpg or -it png"):
        open_frames(tmp_path)
    assert [path.name for path in open_frames(tmp_path, "jpg").paths] == ["b.jpeg"]


def test_directories_without_frames(tmp_path):
    with pytest.raises(UsageError, match="holds no jpg or png frames"):
        open_frames(tmp_path)
    (tmp_path / "a.png").touch()
    for directory, kind, message in (
        (tmp_path / "none", None, "does not exist"),
        (tmp_path / "a.png", None, "is a file"),
        (tmp_path, "jpg", "it holds png; use -it png"),
    ):
        with pytest.raises(UsageError, match=message):
            open_frames(directory, kind)


def test_missing_numbers():
    assert frames.missing_numbers(["shot2_1.png", "shot2_3.png", "shot2_6.png"]) == [2, 4, 5]
    assert frames.missing_numbers(["f007.png", "f008.png"]) == []
    assert frames.missing_numbers(["a.png", "f3.png"]) == []
    assert len(frames.missing_numbers(["1.png", "20240101120000.png"])) == 1000


# --- Reading and writing one -----------------------------------------------------------------------


def test_png_keeps_every_value_and_jpg_nearly(tmp_path, picture):
    write_frame(tmp_path / "f.png", picture, "png")
    assert np.array_equal(read_frame(tmp_path / "f.png"), picture)
    turned = picture.transpose(1, 0, 2)  # not as it lies in memory
    write_frame(tmp_path / "turned.png", turned, "png")
    assert np.array_equal(read_frame(tmp_path / "turned.png"), turned)
    smooth = np.linspace(0, 255, 12 * 16 * 3).reshape(12, 16, 3).astype(np.uint8)
    write_frame(tmp_path / "f.jpg", smooth, "jpg")
    assert abs(read_frame(tmp_path / "f.jpg").astype(int) - smooth).mean() < 3


def test_a_png_of_a_grainy_picture_is_smaller_than_pillows(tmp_path):
    slope = np.add.outer(np.arange(120), np.arange(160))[..., None] / 2
    grainy = np.uint8((slope + np.random.default_rng(0).normal(60, 6, (120, 160, 3))).clip(0, 255))
    write_frame(tmp_path / "ours.png", grainy, "png")
    Image.fromarray(grainy).save(tmp_path / "pillows.png", compress_level=1)
    assert np.array_equal(read_frame(tmp_path / "ours.png"), grainy)
    assert (tmp_path / "ours.png").stat().st_size < 0.95 * (tmp_path / "pillows.png").stat().st_size


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (23, 31)])
def test_a_png_is_filtered_alike_in_strips_of_any_height(monkeypatch, size, channels):
    values = np.random.default_rng(0).integers(0, 256, (*size, channels), np.uint8)
    around = np.pad(values.astype(int), ((1, 0), (1, 0), (0, 0)))
    filtered = (values - (around[1:, :-1] + around[:-1, 1:]) // 2).astype(np.uint8).reshape(size[0], -1)
    for lines in (1, 2, 22, 100):
        monkeypatch.setattr(frames, "PNG_STRIP", lines * size[1] * channels)
        content = frames.encode_frame(values[..., :3], "png", alpha=values[..., 3] if channels == 4 else None)
        picture = Image.open(io.BytesIO(content))
        assert np.array_equal(np.asarray(picture), values)
        length, kind = struct.unpack(">I4s", content[33:41])
        stored = np.frombuffer(zlib.decompress(content[41 : 41 + length]), np.uint8).reshape(size[0], -1)
        assert kind == b"IDAT" and (stored[:, 0] == 3).all() and np.array_equal(stored[:, 1:], filtered)


def test_the_chunks_of_a_png_stand_where_the_format_wants_them(picture):
    content = frames.encode_frame(picture, "png", "a note", picture[..., 0], b"a profile")
    places = [content.index(kind) for kind in (b"IHDR", b"iCCP", b"tEXt", b"IDAT", b"IEND")]
    assert places == sorted(places) and content[12:16] == b"IHDR"


def test_every_kind_of_picture_becomes_rgb(tmp_path, picture):
    grey = picture[..., 0]
    alpha = np.dstack([picture, grey])
    for name, values, expected in (
        ("grey.png", grey, np.dstack([grey] * 3)),
        ("alpha.png", alpha, picture),
        ("deep.png", grey.astype(np.uint16) * 257, np.dstack([grey] * 3)),
    ):
        Image.fromarray(values).save(tmp_path / name)
        assert np.array_equal(read_frame(tmp_path / name), expected), name
    palette = Image.fromarray(picture).quantize(16)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_frame(tmp_path / "palette.png"), np.array(palette.convert("RGB")))
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 255
    Image.fromarray(ink, "CMYK").save(tmp_path / "cmyk.jpg")
    assert abs(read_frame(tmp_path / "cmyk.jpg").astype(int) - [0, 255, 255]).max() < 4


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_exif_rotation_is_applied_to_picture_and_size(tmp_path, picture, ending):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    Image.fromarray(picture).save(tmp_path / f"f.{ending}", exif=exif)
    assert read_size(tmp_path / f"f.{ending}") == (12, 16)
    assert read_frame(tmp_path / f"f.{ending}").shape == (16, 12, 3)


def test_the_size_is_read_from_the_header_alone(tmp_path, picture):
    write_frame(tmp_path / "f.png", picture, "png")
    (tmp_path / "f.png").write_bytes((tmp_path / "f.png").read_bytes()[:60])
    assert read_size(tmp_path / "f.png") == (16, 12)


def test_pictures_that_cannot_be_read(tmp_path, picture):
    write_frame(tmp_path / "half.png", picture, "png")
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:-200])
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(picture).save(
        tmp_path / "moving.png", save_all=True, append_images=[Image.fromarray(255 - picture)]
    )
    for name, message in {
        "none.png": "does not exist",
        "half.png": "is damaged",
        "text.png": "is not a picture",
        "moving.png": "is animated",
    }.items():
        with pytest.raises(UsageError, match=message) as failure:
            read_frame(tmp_path / name)
        assert name in str(failure.value) and "\n" not in str(failure.value)


def test_check_sizes_names_the_odd_one_out(tmp_path, picture):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        write_frame(path, picture, "png")
    assert check_sizes(paths) == (16, 12)
    write_frame(paths[1], picture[:10], "png")
    with pytest.raises(UsageError, match="a.png is 16x12.*b.png is 16x10"):
        check_sizes(paths)


# --- clip.json -------------------------------------------------------------------------------------


def test_clip_comes_back_as_written_and_is_carried_on(tmp_path):
    assert read_clip(tmp_path) is None
    write_clip(tmp_path, CLIP)
    assert read_clip(tmp_path) == CLIP
    (tmp_path / "next").mkdir()
    copy_clip(tmp_path, tmp_path / "next")
    assert read_clip(tmp_path / "next") == CLIP
    copy_clip(tmp_path / "next" / "none", tmp_path / "next")


@pytest.mark.parametrize(
    "change",
    [{"frame_rate": "0"}, {"frame_rate": "1/0"}, {"pixel_aspect": "-1"}, {"frame_count": "many"}, {"frame_rate": None}],
)
def test_damaged_clip_is_one_clear_line(tmp_path, change):
    write_clip(tmp_path, CLIP)
    path = tmp_path / CLIP_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match="clip.json is damaged") as failure:
        read_clip(tmp_path)
    assert "\n" not in str(failure.value)


def test_clip_that_is_no_json_or_not_an_object(tmp_path):
    for text in ("", "{", "[]", "7", "\0"):
        (tmp_path / CLIP_NAME).write_text(text)
        with pytest.raises(UsageError, match="damaged"):
            read_clip(tmp_path)


def test_grey_levels_beyond_16_bits_are_black_and_white(tmp_path):
    Image.fromarray(np.int32([[-300, 0, 128 * 257, 65535, 70000]])).save(tmp_path / "deep.png", format="TIFF")
    assert frames.read_frame(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_clip_of_which_no_part_is_named_is_whole(tmp_path):
    """As all were written before parts could be taken."""
    write_clip(tmp_path, CLIP)
    path = tmp_path / CLIP_NAME
    old = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("first_frame", "end_frame")}
    path.write_text(json.dumps(old))
    assert read_clip(tmp_path) == CLIP and CLIP.first_frame == 0
