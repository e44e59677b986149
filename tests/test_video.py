"""Videos in and out, with real ffmpeg: real clips, made ones, broken ones, and what must never happen."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import ffmpeg
import numpy as np
import pytest
from clips import cut_clip, decode, duration, flashes_and_beeps, make_clip, make_flash_and_beep, real_clip, run_ffmpeg
from helpers import ROOT

from deepdream.errors import DreamError, UsageError
from deepdream.files.clip import Clip, read_clip, write_clip
from deepdream.files.frames import open_frames, read_frame, write_frame
from deepdream.options import VideoOptions
from deepdream.video import encode as encoding
from deepdream.video import extract as extracting
from deepdream.video import ffmpeg as ffmpeg_process
from deepdream.video import formats
from deepdream.video.create import create
from deepdream.video.extract import extract
from deepdream.video.part import open_part
from deepdream.video.probe import find_sound, probe

SILENT = VideoOptions(audio="none")
STOPS = [getattr(signal, "SIGKILL", None), signal.SIGINT]
on_posix = pytest.mark.skipif(os.name != "posix", reason="NOT TESTED: names, scripts or signals that Windows lacks")


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != ".lock"}


def means(frames):
    """Mean of each channel over all frames, 0..255."""
    return np.mean([frame.mean(axis=(0, 1)) for frame in frames], axis=0)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Five frames, without sound."""
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="session")
def clip_frames(clip, tmp_path_factory):
    """Its frames. Tests copy what they change."""
    directory = tmp_path_factory.mktemp("frames")
    extract(clip, directory)
    return directory


@pytest.fixture
def frames(clip_frames, tmp_path):
    return shutil.copytree(clip_frames, tmp_path / "frames")


@pytest.fixture(scope="session")
def noisy(tmp_path_factory):
    """A clip that flashes and beeps."""
    return make_flash_and_beep(tmp_path_factory.mktemp("noisy") / "noisy.mp4")


@pytest.fixture(scope="session")
def noisy_frames(noisy, tmp_path_factory):
    directory = tmp_path_factory.mktemp("noisy frames")
    extract(noisy, directory)
    return directory


@pytest.fixture(scope="session")
def bunny(tmp_path_factory):
    """Ten frames of Big Buck Bunny: 1280x720, 5.1 sound. (path, frames, made video)"""
    directory = tmp_path_factory.mktemp("bunny")
    source = cut_clip(directory / "bunny.mp4", "bigbuckbunny.mp4", 0.4)
    extract(source, directory / "frames")
    create(directory / "frames", directory / "made.mp4", VideoOptions())
    return source, directory / "frames", directory / "made.mp4"


# --- Probe -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, size, rate, aspect, count, channels",
    [
        ("bigbuckbunny.mp4", (1280, 720), Fraction(25), Fraction(1), 132, 6),
        ("carphone_pristine.mp4", (176, 144), Fraction(30000, 1001), Fraction(128, 117), 120, None),
        ("bikes.mp4", (640, 272), Fraction(25), Fraction(1), 250, None),
    ],
)
def test_probe_of_real_clips(name, size, rate, aspect, count, channels):
    info = probe(real_clip(name))
    assert (info.width, info.height) == size
    assert (info.frame_rate, info.constant_rate, info.pixel_aspect, info.frame_count) == (rate, True, aspect, count)
    assert (info.sound.channels if info.sound else None) == channels
    assert not info.interlaced


def broken_inputs(directory, clip):
    """Name, what is written there, what the message must hold."""
    whole = clip.read_bytes()
    make_clip(directory / "picture.png", frames=1)
    make_clip(directory / "list-1.png", frames=1)
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=0.1", directory / "sound.wav")
    run_ffmpeg(
        *("-i", directory / "sound.wav", "-i", directory / "picture.png", "-map", "0", "-map", "1"),
        *("-c:v", "copy", "-disposition:v", "attached_pic", directory / "cover.mp3"),
    )
    run_ffmpeg(
        *("-i", directory / "sound.wav", "-i", directory / "picture.png", "-map", "0", "-map", "1"),
        *("-c:v", "copy", "-disposition:v", "attached_pic", directory / "cover.m4a"),
    )
    shutil.copy(clip, directory / "part.ts")
    (directory / "empty.mp4").touch()
    (directory / "half.mp4").write_bytes(whole[: len(whole) // 2])  # its index stood at the end
    (directory / "text.mp4").write_text("not a video\n")
    (directory / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\npart.ts\n#EXT-X-ENDLIST\n")
    (directory / "list.txt").write_text(f"ffconcat version 1.0\nfile '{clip}'\n")
    (directory / "folder.mp4").mkdir()
    return {
        "none.mp4": "does not exist",
        "folder.mp4": "is a directory",
        "sound.wav": "no video stream",
        "cover.mp3": "no video stream",
        "cover.m4a": "no video stream",
        **dict.fromkeys(
            ["empty.mp4", "half.mp4", "text.mp4", "list.m3u8", "list.txt", "picture.png", "list-%d.png"],
            "cannot be read as a video|does not exist",
        ),
    }


def test_what_is_no_video_is_one_clear_line(tmp_path, clip):
    for name, message in broken_inputs(tmp_path, clip).items():
        with pytest.raises(UsageError, match=message) as failure:
            extract(tmp_path / name, tmp_path / "frames")
        assert name in str(failure.value) and "\n" not in str(failure.value)
        assert not (tmp_path / "frames").exists()


# --- Extract ---------------------------------------------------------------------------------------


def test_extract_gives_each_frame_in_its_place(tmp_path):
    source = make_clip(tmp_path / "clip.mp4", "-vf", "fade=in:0:12", frames=12)
    extracted = extract(source, tmp_path / "frames")
    assert extracted.clip == read_clip(tmp_path / "frames") == Clip(str(source), Fraction(25), Fraction(1), False, 12)
    paths = open_frames(tmp_path / "frames").paths
    assert [path.name for path in paths] == [f"image-{number:06d}.png" for number in range(1, 13)]
    decoded = np.array(decode(source), dtype=int)
    nearest = [abs(decoded - read_frame(path)).mean(axis=(1, 2, 3)).argmin() for path in paths]
    assert nearest == list(range(12))


def test_extract_keeps_rate_and_pixel_aspect_of_a_real_clip(tmp_path):
    source = real_clip("carphone_pristine.mp4")
    extracted = extract(source, tmp_path / "frames")
    assert extracted.clip == Clip(str(source), Fraction(30000, 1001), Fraction(128, 117), False, 120)
    assert read_frame(tmp_path / "frames" / "image-000120.png").shape == (144, 176, 3)
    made = create(tmp_path / "frames", tmp_path / "made.mov", VideoOptions())
    again = probe(made.path)
    assert (again.frame_rate, again.pixel_aspect) == (Fraction(30000, 1001), Fraction(128, 117))
    assert again.frame_count == made.frame_count == len(decode(made.path)) == 120
    assert abs(duration(made.path) - duration(source)) < 0.01


def test_jpg_frames_are_close_to_the_png_ones(tmp_path, clip, clip_frames):
    extract(clip, tmp_path / "frames", image_type="jpg")
    for path in open_frames(tmp_path / "frames", "jpg").paths:
        exact = read_frame(clip_frames / f"{path.stem}.png").astype(int)
        difference = read_frame(path) - exact
        assert abs(difference).mean() < 3 and (abs(difference.mean(axis=(0, 1))) < 1).all()


def test_rotated_video_comes_out_upright(tmp_path, clip, clip_frames):
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", 90, "-i", clip, "-c", "copy", turned)
    info = probe(turned)
    assert (info.width, info.height) == (48, 64)
    extract(turned, tmp_path / "frames")
    upright, lying = (read_frame(path / "image-000001.png") for path in (tmp_path / "frames", clip_frames))
    assert abs(upright.astype(int) - np.rot90(lying)).mean() < 8 < abs(upright.astype(int) - np.rot90(lying, 3)).mean()


def test_pixel_aspect_turns_with_the_picture(tmp_path):
    wide = make_clip(tmp_path / "wide.mp4", "-vf", "setsar=4/3", frames=2)
    run_ffmpeg("-display_rotation", 90, "-i", wide, "-c", "copy", tmp_path / "turned.mp4")
    assert probe(wide).pixel_aspect == Fraction(4, 3)
    assert probe(tmp_path / "turned.mp4").pixel_aspect == Fraction(3, 4)


def test_variable_rate_keeps_its_duration(tmp_path):
    # Ten frames at 25 a second, then five at 12.5, each brighter than the one before.
    times = "geq=lum=20+14*N:cb=128:cr=128,setpts='if(lt(N,10),N,10+2*(N-10))/25/TB'"
    source = make_clip(tmp_path / "vfr.mkv", "-vf", times, "-fps_mode", "passthrough", frames=15)
    info = probe(source)
    assert (info.constant_rate, info.frame_rate) == (False, Fraction(25))
    extracted = extract(source, tmp_path / "frames")
    assert any("variable" in message for message in extracted.messages)
    levels = [read_frame(path).mean() for path in open_frames(tmp_path / "frames").paths]
    steps = (np.diff(levels) > 8).astype(int).tolist()
    assert steps[:18] == [1] * 10 + [0, 1] * 4
    assert abs(len(levels) - 20) <= 1 and extracted.clip.frame_count == len(levels)
    made = create(tmp_path / "frames", tmp_path / "made.mp4", VideoOptions())
    assert abs(made.duration - duration(source)) <= 0.0401


def test_interlaced_is_deinterlaced_frame_by_frame(tmp_path):
    moving = "geq=lum='if(lt(mod(X+6*N,32),16),235,16)':cb=128:cr=128,tinterlace=interleave_top"
    options = ("-c:v", "mpeg2video", "-q:v", 2, "-flags", "+ildct+ilme")
    comb = make_clip(tmp_path / "comb.mpg", "-vf", moving, *options, frames=6, rate=50)
    assert probe(comb).interlaced
    extracted = extract(comb, tmp_path / "frames")
    frames = [read_frame(path).astype(int) for path in open_frames(tmp_path / "frames").paths]
    assert len(frames) == len(decode(comb)) == extracted.clip.frame_count

    def combing(frame):
        return abs(np.diff(frame.astype(int), axis=0)).mean()

    assert combing(decode(comb)[2]) > 40 and combing(frames[2]) < 10


def test_a_recording_that_starts_between_key_frames(tmp_path):
    whole = make_clip(tmp_path / "whole.ts", "-g", 10, "-bf", 0, "-crf", 5, frames=30)
    data = whole.read_bytes()
    head = 3 * 188  # the tables that name the streams
    late = tmp_path / "late.ts"
    late.write_bytes(data[:head] + data[len(data) // 5 // 188 * 188 :])
    assert probe(late).frame_count == extract(late, tmp_path / "frames").clip.frame_count == 20


def test_one_frame_goes_round(tmp_path):
    source = make_clip(tmp_path / "one.mp4", frames=1)
    assert extract(source, tmp_path / "frames").clip.frame_count == 1
    made = create(tmp_path / "frames", tmp_path / "made.mp4", VideoOptions())
    assert (made.frame_count, made.duration, len(decode(made.path))) == (1, 0.04, 1)


@on_posix
@pytest.mark.parametrize(
    "name", ["-lead", "with space", "100%d %06d", "a:b", "x'\"y", "new\nline", "Träume 夢", "pipe:1", "[a];b,c"]
)
def test_awkward_names(tmp_path, monkeypatch, clip, noisy, name):
    monkeypatch.chdir(tmp_path)
    source, frames, made = Path(name + ".mp4"), Path(name), Path(name + ".mkv")
    shutil.copy(clip, source)
    sound = Path(name + ".m4a")
    shutil.copy(noisy, sound)
    assert extract(source, frames).clip.frame_count == 5
    assert create(frames, made, VideoOptions(audio=str(sound))).frame_count == 5
    assert len(decode(f"file:{made.absolute()}")) == 5
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (source, frames, made, sound)}
    assert len(contents(frames)) == 6


def test_progress_counts_every_frame(tmp_path, noisy):
    seen = []
    extract(noisy, tmp_path / "frames", on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (40, 40)
    seen.clear()
    create(tmp_path / "frames", tmp_path / "made.mp4", SILENT, on_progress=lambda *count: seen.append(count))
    assert seen == [(done, 40) for done in range(1, 41)]


def test_a_whole_extract_is_left_alone(frames, clip, monkeypatch):
    before = contents(frames)
    monkeypatch.setattr(extracting, "run_ffmpeg", None)
    extracted = extract(clip, frames)
    assert "already" in extracted.messages[0] and extracted.clip.frame_count == 5
    assert contents(frames) == before


def test_other_frames_need_overwrite_and_other_files_are_never_touched(frames, clip, noisy):
    (frames / "notes.txt").write_text("mine")
    (frames / "image-7.png").write_bytes(b"mine too")
    before = contents(frames)
    for source, kind in ((noisy, "png"), (clip, "jpg")):
        with pytest.raises(UsageError, match="--overwrite"):
            extract(source, frames, image_type=kind)
        assert contents(frames) == before
    extracted = extract(clip, frames, image_type="jpg", overwrite=True)
    assert "image-7.png" in extracted.messages[0]
    names = {f"image-{number:06d}.jpg" for number in range(1, 6)} | {"notes.txt", "image-7.png", "clip.json"}
    assert set(contents(frames)) == names
    assert (frames / "image-7.png").read_bytes() == b"mine too"


def test_a_frame_that_is_gone_makes_an_extract_unfinished(frames, clip):
    before = contents(frames)
    (frames / "image-000003.png").unlink()
    (frames / "image-000002.png").write_bytes(b"retouched")
    extract(clip, frames)
    assert contents(frames) == before | {"image-000002.png": b"retouched"}


def test_failed_overwrite_keeps_the_old_frames(frames, clip, monkeypatch):
    before = contents(frames)
    monkeypatch.setattr(extracting, "_extract_graph", lambda *_: ffmpeg.input("file:none").output("image-%06d.png"))
    with pytest.raises(DreamError, match="No such file"):
        extract(clip, frames, overwrite=True)
    assert contents(frames) == before


@pytest.mark.parametrize("moved", [0, 2, 5])
def test_extract_killed_while_moving_goes_on(frames, clip, tmp_path, monkeypatch, moved):
    directory, done = tmp_path / "again", []
    replace = os.replace

    def die_after_some(source, target):
        if Path(target).parent == directory:
            if len(done) == moved:
                raise KeyboardInterrupt
            done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", die_after_some)
    with pytest.raises(KeyboardInterrupt):
        extract(clip, directory)
    assert not (directory / "clip.json").exists()
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(extracting, "run_ffmpeg", None)  # nothing is decoded twice
    extract(clip, directory)
    assert contents(directory) == contents(frames)
    assert not (directory / extracting.PART_DIRECTORY).exists()


def test_half_moved_frames_that_are_lost_are_not_forgotten(clip, clip_frames, tmp_path):
    directory = tmp_path / "again"
    shutil.copytree(clip_frames, directory / extracting.PART_DIRECTORY)
    (directory / extracting.PART_DIRECTORY / "image-000001.png").unlink()  # was moved, then deleted by someone
    assert extract(clip, directory).clip.frame_count == 5
    assert contents(directory) == contents(clip_frames)


def start(directory, code):
    """A Python process that runs ``code`` with deepdream at hand."""
    setup = f"import signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
    setup += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job's is ignored
    return subprocess.Popen([sys.executable, "-c", setup + code], cwd=directory, stderr=subprocess.PIPE)


def wait_for(condition, process):
    for _ in range(600):
        if condition():
            return
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)
    raise AssertionError("nothing happened")


@on_posix
@pytest.mark.parametrize("how", STOPS)
def test_extract_killed_while_decoding_starts_again_cleanly(tmp_path, how):
    source = make_clip(tmp_path / "clip.mp4", "-preset", "ultrafast", frames=125, size="640x360")
    frames = tmp_path / "frames"
    process = start(tmp_path, "from deepdream.video.extract import extract\nextract('clip.mp4', 'frames')\n")
    part = frames / extracting.PART_DIRECTORY
    wait_for(lambda: part.is_dir() and any(part.iterdir()), process)
    process.send_signal(how)
    process.communicate()
    assert process.returncode != 0
    assert not list(frames.glob("*.*g")) and not (frames / "clip.json").exists()
    assert part.exists() == (how == STOPS[0])
    assert extract(source, frames).clip.frame_count == len(open_frames(frames).paths) == 125
    assert not part.exists()


def cut_off(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_video_that_was_cut_off_is_no_success(tmp_path, ending):
    options = ("-movflags", "+faststart") if ending == "mp4" else ()
    source = cut_off(make_clip(tmp_path / f"cut.{ending}", *options, frames=100, size="160x120"), 0.6)
    with pytest.raises(DreamError, match=r"damaged: only \d+ of about \d+ frames.*repair") as failure:
        extract(source, tmp_path / "frames")
    assert "\n" not in str(failure.value)
    assert not contents(tmp_path / "frames")


# --- Create ----------------------------------------------------------------------------------------


def test_video_is_what_players_expect(bunny):
    _, _, made = bunny
    with av.open(str(made)) as container:
        stream, sound = container.streams.video[0], container.streams.audio[0]
        frame = next(container.decode(video=0))
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
        assert (sound.codec_context.name, sound.layout.name) == ("aac", "5.1")
        assert sound.bit_rate > 200_000
    data = made.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_real_clip_with_sound_goes_round(bunny):
    source, frames, made = bunny
    assert len(open_frames(frames).paths) == len(decode(source)) == len(decode(made)) == 10
    assert abs(duration(source) - duration(made)) <= 0.04


def decode_with_ffmpeg(path):
    size = probe(path)
    command = [ffmpeg_process.ffmpeg_binary(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    pixels = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(pixels, np.uint8).reshape(-1, size.height, size.width, 3)


@pytest.mark.parametrize("decoder", [decode, decode_with_ffmpeg])
def test_colours_survive_the_round_trip(bunny, tmp_path, decoder):
    source, _, made = bunny
    assert abs(means(decoder(made)) - means(decoder(source))).max() < 1
    small = make_clip(tmp_path / "small.mp4", "-crf", 5, frames=3, size="160x120")
    extract(small, tmp_path / "small")
    create(tmp_path / "small", tmp_path / "made.mp4", SILENT)
    assert abs(means(decoder(tmp_path / "made.mp4")) - means(decoder(small))).max() < 1


@pytest.mark.parametrize("height", [72, 720])
def test_flat_colours_keep_their_values(tmp_path, height):
    colours = ([200, 30, 60], [20, 180, 90], [30, 60, 220], [128, 128, 128], [255, 255, 255], [0, 0, 0])
    for number, colour in enumerate(colours):
        write_frame(tmp_path / f"f{number}.png", np.full((height, 64, 3), colour, np.uint8), "png")
    create(tmp_path, tmp_path / "made.mp4", VideoOptions(frame_rate=Fraction(1)))
    extract(tmp_path / "made.mp4", tmp_path / "again")
    for path, colour in zip(open_frames(tmp_path / "again").paths, colours, strict=True):
        assert abs(read_frame(path).mean(axis=(0, 1)) - colour).max() <= 2  # of which 1.5 are 8-bit YUV's own


def test_odd_sizes_lose_one_row_and_column_and_say_so(tmp_path):
    picture = 3 * np.arange(33)[:, None, None] + 4 * np.arange(35)[None, :, None]
    picture = np.broadcast_to(picture, (33, 35, 3)).astype(np.uint8)
    for number in range(3):
        write_frame(tmp_path / f"frame_{number}.png", picture, "png")
    made = create(tmp_path, tmp_path / "made.mp4", SILENT)
    assert any("33" in message and "34x32" in message for message in made.messages)
    decoded = decode(made.path)[0]
    assert decoded.shape == (32, 34, 3) and abs(decoded.astype(int) - picture[:32, :34]).mean() < 3


def test_frames_too_small_or_of_several_sizes(tmp_path, frames):
    write_frame(frames / "image-000006.png", np.zeros((48, 66, 3), np.uint8), "png")
    with pytest.raises(UsageError, match="64x48.*66x48"):
        create(frames, tmp_path / "made.mp4", SILENT)
    (tmp_path / "thin").mkdir()
    write_frame(tmp_path / "thin" / "f1.png", np.zeros((9, 1, 3), np.uint8), "png")
    with pytest.raises(UsageError, match="1x9 are too small"):
        create(tmp_path / "thin", tmp_path / "made.mp4", SILENT)
    assert not (tmp_path / "made.mp4").exists()


def test_frames_come_in_natural_order(tmp_path):
    for number in (2, 10, 1, 9, 3, 4, 8, 7, 5, 6):
        write_frame(tmp_path / f"f{number}.png", np.full((16, 16, 3), 20 * number, np.uint8), "png")
    made = create(tmp_path, tmp_path / "made.mp4", SILENT)
    levels = [frame.mean() for frame in decode(made.path)]
    assert np.allclose(levels, 20 * np.arange(1, 11), atol=4)
    assert made.frame_rate == 25


def test_gaps_are_named(frames, tmp_path):
    (frames / "image-000003.png").unlink()
    shutil.copy(frames / "image-000001.png", frames / "image-000020.png")
    with pytest.raises(UsageError, match=r"3, 6, 7, 8, 9, …") as failure:
        create(frames, tmp_path / "made.mp4", SILENT)
    assert str(frames) in str(failure.value)
    assert not (tmp_path / "made.mp4").exists()


@pytest.mark.parametrize("name, message", [("made", ".mp4, "), ("made.avi", ".mp4, "), ("folder.mp4", "directory")])
def test_names_that_are_no_video(frames, tmp_path, name, message):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UsageError, match=message):
        create(frames, tmp_path / name, SILENT)


@pytest.mark.parametrize("ending, container", [(".m4v", "mp4"), (".MOV", "mov"), (".mkv", "matroska")])
def test_the_ending_chooses_the_container(frames, tmp_path, ending, container):
    made = create(frames, tmp_path / "new" / f"made{ending}", SILENT)
    with av.open(str(made.path)) as opened:
        assert container in opened.format.name
        assert opened.metadata.get("major_brand", "").startswith("qt") == (ending == ".MOV")
    assert len(decode(made.path)) == 5


def test_frame_rates(frames, tmp_path):
    made = create(frames, tmp_path / "a.mp4", VideoOptions(frame_rate=Fraction(30000, 1001)))
    assert made.duration == 5 * 1001 / 30000
    assert probe(tmp_path / "a.mp4").frame_rate == Fraction(30000, 1001)
    (frames / "clip.json").unlink()
    assert create(frames, tmp_path / "b.mp4", VideoOptions()).frame_rate == 25
    assert probe(tmp_path / "b.mp4").pixel_aspect == 1


def test_a_video_is_made_once(frames, tmp_path, monkeypatch):
    target = tmp_path / "made.mkv"
    create(frames, target, SILENT)
    before = target.read_bytes()
    run = encoding.run_ffmpeg
    monkeypatch.setattr(encoding, "run_ffmpeg", None)
    assert "already" in create(frames, target, SILENT).messages[-1]
    with pytest.raises(UsageError, match="--overwrite"):
        create(frames, target, VideoOptions(frame_rate=Fraction(12)))
    write_frame(frames / "image-000002.png", np.zeros((48, 64, 3), np.uint8), "png")
    with pytest.raises(UsageError, match="--overwrite"):
        create(frames, target, SILENT)
    assert target.read_bytes() == before
    monkeypatch.setattr(encoding, "run_ffmpeg", run)
    create(frames, target, SILENT, overwrite=True)
    assert decode(target)[1].mean() < 4


def test_a_foreign_file_is_never_overwritten(frames, tmp_path):
    target = tmp_path / "made.mp4"
    target.write_text("precious")
    with pytest.raises(UsageError, match="--overwrite"):
        create(frames, target, SILENT)
    assert target.read_text() == "precious"


def test_a_damaged_frame_leaves_no_video(frames, tmp_path):
    picture = frames / "image-000004.png"
    picture.write_bytes(picture.read_bytes()[:-300])
    with pytest.raises(UsageError, match="image-000004.png is damaged"):
        create(frames, tmp_path / "made.mp4", SILENT)
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_ffmpeg_that_dies_is_an_error_with_its_words(frames, tmp_path, monkeypatch):
    nonsense = replace(formats.CODECS["h264"], crf=("nonsense", 51))
    monkeypatch.setitem(formats.CODECS, "h264", nonsense)
    with pytest.raises(DreamError, match="ffmpeg failed: .*crf") as failure:
        create(frames, tmp_path / "made.mp4", SILENT)
    assert "\n" not in str(failure.value) and failure.value.exit_status == 1
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


@on_posix
@pytest.mark.parametrize("how", STOPS)
def test_create_killed_half_way_leaves_nothing_under_the_name(frames, tmp_path, how):
    code = (
        "import time\nfrom deepdream.options import VideoOptions\nfrom deepdream.video.create import create\n"
        "def wait(done, total):\n    if done == 3:\n        open('reached', 'w').close()\n        time.sleep(60)\n"
        "create('frames', 'made.mp4', VideoOptions(), on_progress=wait)\n"
    )
    process = start(tmp_path, code)
    wait_for((tmp_path / "reached").exists, process)
    process.send_signal(how)
    process.communicate()
    assert not (tmp_path / "made.mp4").exists()
    create(frames, tmp_path / "made.mp4", VideoOptions())
    create(frames, tmp_path / "whole.mp4", VideoOptions())
    assert decode(tmp_path / "made.mp4")[4].shape == (48, 64, 3)
    assert (tmp_path / "made.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"frames", "reached", "made.mp4", "whole.mp4"}


# --- Sound -----------------------------------------------------------------------------------------


def assert_in_step(path, frame, count=2):
    flashes, beeps = flashes_and_beeps(path)
    assert len(flashes) == len(beeps) == count
    assert np.allclose(flashes, beeps, atol=frame)


@pytest.mark.parametrize(
    "name, options, timing",
    [
        ("plain.mp4", (), {}),
        ("ntsc.mkv", (), {"rate": "30000/1001"}),
        ("late.mp4", (), {"sound_start": 0.3}),
        ("late.mkv", (), {"sound_start": 0.3}),
        ("early.mp4", (), {"picture_start": 0.32}),
        ("early.ts", (), {"picture_start": 0.32}),
        ("raw.mov", ("-c:a", "pcm_s16le"), {}),
        ("opus.webm", ("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus"), {}),
    ],
)
def test_flash_and_beep_stay_together(tmp_path, name, options, timing):
    source = make_flash_and_beep(tmp_path / name, *options, **timing)
    count = extract(source, tmp_path / "frames").clip.frame_count
    assert count == len(decode(source))
    for ending in (".mp4", ".mkv"):
        made = create(tmp_path / "frames", tmp_path / f"made{ending}", VideoOptions())
        assert_in_step(made.path, 0.041)
        assert len(decode(made.path)) == made.frame_count == count
        assert abs(duration(made.path) - duration(source)) <= 0.041
        assert made.messages == ()
        with av.open(str(made.path)) as container:  # silence fills in, for players that ignore when a track starts
            assert abs(next(container.decode(audio=0)).time) < 0.03


def test_sound_of_a_clip_cut_between_key_frames(tmp_path):
    whole = make_flash_and_beep(tmp_path / "whole.mp4")
    run_ffmpeg("-ss", "0.2", "-i", whole, "-c", "copy", tmp_path / "cut.mp4")  # an edit list hides the first frames
    info = probe(tmp_path / "cut.mp4")
    assert info.frame_count == extract(tmp_path / "cut.mp4", tmp_path / "frames").clip.frame_count == 35
    create(tmp_path / "frames", tmp_path / "made.mp4", VideoOptions())
    assert_in_step(tmp_path / "made.mp4", 0.041)


def test_fewer_frames_cut_the_sound(noisy_frames, tmp_path):
    frames = shutil.copytree(noisy_frames, tmp_path / "frames")
    for number in range(21, 41):
        (frames / f"image-{number:06d}.png").unlink()
    made = create(frames, tmp_path / "made.mp4", VideoOptions())
    assert made.duration == 0.8 and abs(duration(made.path) - 0.8) < 0.03
    assert_in_step(made.path, 0.041, count=1)


def test_no_sound_where_none_is_wanted_or_was(noisy_frames, frames, tmp_path):
    create(noisy_frames, tmp_path / "muted.mp4", SILENT)
    assert not probe(tmp_path / "muted.mp4").has_audio
    made = create(frames, tmp_path / "silent.mp4", VideoOptions())
    assert not probe(tmp_path / "silent.mp4").has_audio and made.messages == ()


def test_lost_sound_is_said(noisy, noisy_frames, tmp_path):
    made = create(noisy_frames, tmp_path / "fast.mp4", VideoOptions(frame_rate=Fraction(50)))
    assert "no sound" in made.messages[0] and "50" in made.messages[0] and not probe(made.path).has_audio
    frames = shutil.copytree(noisy_frames, tmp_path / "frames")
    fields = json.loads((frames / "clip.json").read_text())
    (frames / "clip.json").write_text(json.dumps(fields | {"source": str(tmp_path / "gone.mp4")}))
    made = create(frames, tmp_path / "orphan.mp4", VideoOptions())
    assert "no sound" in made.messages[0] and "gone.mp4 does not exist" in made.messages[0]


def test_a_sound_file_is_cut_at_the_end_of_the_picture(frames, noisy, tmp_path):
    made = create(frames, tmp_path / "made.mp4", VideoOptions(audio=str(noisy)))
    assert probe(made.path).has_audio and abs(duration(made.path) - 0.2) < 0.03


def test_a_video_given_as_sound_file_stays_in_step(tmp_path):
    late = make_flash_and_beep(tmp_path / "late.mkv", sound_start=0.3)
    assert find_sound(late).offset == pytest.approx(-0.3, abs=0.03)
    extract(late, tmp_path / "frames")
    create(tmp_path / "frames", tmp_path / "made.mp4", VideoOptions(audio=str(late)))
    assert_in_step(tmp_path / "made.mp4", 0.041)


def test_sound_files_that_are_none_stop_before_any_work(frames, clip, tmp_path):
    (tmp_path / "text.wav").write_text("la la la")
    for name, message in {"gone.wav": "does not exist", "text.wav": "cannot be read", clip: "no sound"}.items():
        with pytest.raises(UsageError, match=message):
            create(frames, tmp_path / "new" / "made.mp4", VideoOptions(audio=str(tmp_path / name)))
    assert not (tmp_path / "new").exists()


def test_six_channels_stay_six(frames, tmp_path):
    sound = tmp_path / "side.wav"
    run_ffmpeg("-f", "lavfi", "-i", "aevalsrc=0.1|0.1|0.1|0.1|0.1|0.1:c=5.1(side):s=44100:d=0.3", sound)
    made = create(frames, tmp_path / "made.mp4", VideoOptions(audio=str(sound)))
    assert probe(made.path).sound.channels == 6


def test_chapters_of_a_sound_file_are_left_out(frames, tmp_path):
    (tmp_path / "chapters").write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=9\ntitle=One\n")
    sound = tmp_path / "book.m4a"
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=9", "-i", tmp_path / "chapters", "-map_chapters", "1", sound)
    made = create(frames, tmp_path / "made.mp4", VideoOptions(audio=str(sound)))
    with av.open(str(sound)) as before, av.open(str(made.path)) as after:
        assert len(before.chapters()) == 1 and after.chapters() == []


# --- ffmpeg itself ---------------------------------------------------------------------------------


@on_posix
def test_ffmpeg_of_the_path_comes_first(tmp_path, monkeypatch):
    own = tmp_path / "ffmpeg"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ffmpeg_process.ffmpeg_binary() == str(own)


def test_without_any_ffmpeg_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(DreamError, match="pip install imageio-ffmpeg"):
        ffmpeg_process.ffmpeg_binary()


@on_posix
def test_an_ffmpeg_older_than_5_1_gets_the_option_it_knows(tmp_path):
    own = tmp_path / "ffmpeg"
    own.write_text("#!/bin/sh\necho '-vsync parameter   video sync method'\n")
    own.chmod(0o755)
    assert extracting._passthrough(ffmpeg_process.ffmpeg_binary()) == {"fps_mode": "passthrough"}
    assert extracting._passthrough(str(own)) == {"vsync": "passthrough"}


def test_a_pipe_that_takes_little_at_a_time_gets_everything():
    class Pipe:
        taken = b""

        def write(self, data):
            self.taken += bytes(data[:3])
            return min(3, len(data))

        def close(self):
            self.taken += b"|"

    pipe = Pipe()
    assert ffmpeg_process._feed(pipe, [b"abcdefgh", b"ijk"]) and pipe.taken == b"abcdefghijk|"


def test_ffmpeg_opens_local_files_only_and_never_asks(clip):
    arguments = extracting._extract_graph(open_part(clip), "png", ffmpeg_process.ffmpeg_binary()).get_args()
    assert arguments[:6] == ["-f", "mov", "-protocol_whitelist", "file,pipe", "-i", f"file:{clip}"]


def test_clip_of_another_video_is_not_taken_for_this_one(frames, clip):
    write_clip(frames, Clip(str(clip), Fraction(24), Fraction(1), False, 5))  # the file has been replaced since
    with pytest.raises(UsageError, match="--overwrite"):
        extract(clip, frames)
