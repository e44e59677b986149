"""Every codec in every container that takes it: it plays, at its rate, as long, with its sound, and is recognised."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import decode, duration, flashes_and_beeps, make_clip, make_flash_and_beep, run_ffmpeg
from helpers import moving_ramps, save_frames

import dreamer
from deepdream import options
from deepdream.errors import UsageError
from deepdream.files.frames import open_frames, read_frame
from deepdream.options import VideoOptions
from deepdream.video import encode as encoding
from deepdream.video import ffmpeg as ffmpeg_process
from deepdream.video.create import create
from deepdream.video.encode import add_gif_comment
from deepdream.video.extract import extract
from deepdream.video.formats import CODECS, CONTAINERS
from deepdream.video.probe import probe, read_metadata

DECODERS = {"h264": "h264", "h265": "hevc", "vp9": "vp9", "av1": "av1", "prores": "prores", "gif": "gif"}
NTSC = Fraction(30000, 1001)


@pytest.fixture(scope="module")
def noisy_frames(tmp_path_factory):
    """Frames of a clip that flashes and beeps, at 29.97 a second."""
    folder = tmp_path_factory.mktemp("formats")
    extract(make_flash_and_beep(folder / "noisy.mp4", rate="30000/1001"), folder / "frames")
    return folder / "frames"


@pytest.mark.parametrize("ending, codec", [(ending, name) for ending, it in CONTAINERS.items() for name in it.codecs])
def test_it_plays_with_its_rate_duration_and_sound(noisy_frames, tmp_path, ending, codec):
    choice = VideoOptions(codec=codec)
    made = create(noisy_frames, tmp_path / f"made{ending}", choice, note="how it was made")
    count = len(open_frames(noisy_frames).paths)
    pictures = decode(made.path)
    assert len(pictures) == made.frame_count == count
    assert abs(duration(made.path) - count / NTSC) <= 0.04
    with av.open(str(made.path)) as container:
        stream, frame = container.streams.video[0], next(container.decode(video=0))
        assert stream.codec.canonical_name == DECODERS[codec.partition("-")[0]]
        if ending != ".gif":
            assert frame.format.name == CODECS[codec].pixel_format
            assert (frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1)
        if codec.startswith("h265") and ending in (".mp4", ".m4v", ".mov"):
            assert stream.codec_context.codec_tag == "hvc1"  # what Apple's players take
    if ending == ".gif":
        assert made.messages == ("a GIF has no sound",) and not probe(made.path).has_audio
    else:
        assert (probe(made.path).frame_rate, probe(made.path).constant_rate) == (NTSC, True)
        flashes, beeps = flashes_and_beeps(made.path)
        assert len(flashes) == len(beeps) == 2 and np.allclose(flashes, beeps, atol=0.035)
    metadata = read_metadata(made.path)
    assert metadata["description"] == "how it was made" and metadata["comment"].startswith("deepdream ")
    assert "already made" in create(noisy_frames, made.path, choice, note="how it was made").messages[-1]


@pytest.mark.parametrize("codec", ["h264-10bit", "h265", "vp9", "av1", "prores"])
def test_colours_keep_their_values(tmp_path, codec):
    colours = ([200, 30, 60], [20, 180, 90], [30, 60, 220], [128, 128, 128], [255, 255, 255], [0, 0, 0])
    save_frames([np.full((80, 96, 3), colour) for colour in colours], tmp_path / "frames")
    create(tmp_path / "frames", tmp_path / "made.mkv", VideoOptions(frame_rate=Fraction(2), codec=codec, crf=None))
    extract(tmp_path / "made.mkv", tmp_path / "again")
    for path, colour in zip(open_frames(tmp_path / "again").paths, colours, strict=True):
        assert abs(read_frame(path).mean(axis=(0, 1)) - colour).max() <= 2.5


def test_a_gif_has_a_palette_of_its_own_and_keeps_odd_sizes(tmp_path):
    """Sixty reds and sixty blues are no 256 colours of a palette for all GIFs."""
    reds = np.arange(61)[None, :, None] * np.array([4, 0, 0]) + np.zeros((33, 1, 1))
    save_frames([reds, reds[..., ::-1]], tmp_path / "frames")
    made = create(tmp_path / "frames", tmp_path / "made.gif", VideoOptions())
    pictures = decode(made.path)
    assert made.messages == () and pictures[0].shape == (33, 61, 3)
    assert abs(pictures[0] - reds).mean() < 2 and abs(pictures[1] - reds[..., ::-1]).mean() < 2


def test_a_fast_gif_keeps_its_duration(tmp_path):
    save_frames(moving_ramps(30, (24, 32)), tmp_path / "frames")
    made = create(tmp_path / "frames", tmp_path / "made.gif", VideoOptions(frame_rate=Fraction(60)))
    assert made.messages == ("a GIF shows at most 50 frames a second: some of the frames are left out",)
    assert len(decode(made.path)) == made.frame_count == 25 and abs(duration(made.path) - 0.5) <= 0.02


def test_a_gif_can_be_extracted_and_takes_no_memory_for_all_frames(tmp_path, monkeypatch):
    runs, run = [], encoding.run_ffmpeg

    def count(graph, *arguments, **more):
        runs.append(graph.get_args())
        return run(graph, *arguments, **more)

    monkeypatch.setattr(encoding, "run_ffmpeg", count)
    seen = []
    save_frames(moving_ramps(4, (24, 32)), tmp_path / "frames")
    create(tmp_path / "frames", tmp_path / "made.gif", VideoOptions(), on_progress=lambda *pair: seen.append(pair))
    assert ["palettegen" in str(words) for words in runs] == [True, False]  # two passes, each of a frame at a time
    assert seen == [(number, 4) for number in (1, 2, 3, 4)]
    assert extract(tmp_path / "made.gif", tmp_path / "again").clip.frame_count == 4
    assert {path.name for path in tmp_path.iterdir()} == {"frames", "made.gif", "again"}


@pytest.mark.parametrize("length", [1, 255, 256, 700])
def test_a_comment_in_a_gif(tmp_path, length):
    plain = make_clip(tmp_path / "plain.gif", frames=3)
    (tmp_path / "noted.gif").write_bytes(add_gif_comment(plain.read_bytes(), "é" + "x" * length))
    assert read_metadata(tmp_path / "noted.gif")["comment"] == "é" + "x" * length
    assert np.array_equal(decode(tmp_path / "noted.gif"), decode(plain))


def test_crf_decides_the_size(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 96, 128, 3))
    save_frames(noise, tmp_path / "frames")
    for codec, ending in (("h264", ".mp4"), ("h265", ".mov"), ("vp9", ".webm"), ("av1", ".mkv")):
        sizes = []
        for crf in (0 if codec == "h264" else 10, None, 50):
            made = create(tmp_path / "frames", tmp_path / f"{codec}{crf}{ending}", VideoOptions(codec=codec, crf=crf))
            sizes.append(made.path.stat().st_size)
        assert sizes == sorted(sizes, reverse=True) and sizes[0] > 2 * sizes[2]


def test_side_speakers_find_a_place_in_webm(tmp_path):
    run_ffmpeg("-f", "lavfi", "-i", "aevalsrc=0.1|0.1|0.1|0.1|0.1|0.1:c=5.1(side):s=44100:d=0.3", tmp_path / "side.wav")
    save_frames(moving_ramps(5, (48, 64)), tmp_path / "frames")
    made = create(tmp_path / "frames", tmp_path / "made.webm", VideoOptions(audio=str(tmp_path / "side.wav")))
    assert probe(made.path).sound.channels == 6


@pytest.mark.parametrize(
    "words, message",
    [
        ("-o made.mp4 --codec vp9", "--codec vp9: a .mp4 file takes h264, h264-10bit, h265, h265-10bit, av1"),
        ("-o made.webm --codec h264", "--codec h264: a .webm file takes vp9, av1"),
        ("-o made.gif --codec h264", "--codec h264: a .gif file takes gif"),
        ("-o made.mov --codec prores --crf 9", "--crf 9: prores has no such setting"),
        ("-o made.gif --crf 9", "--crf 9: gif has no such setting"),
        ("-o made.mp4 --crf 52", "--crf 52: h264 takes 0 to 51"),
        ("-o made.webm --crf 64", "--crf 64: expected a number, 0 to 63"),
        ("-o made.mp4 --codec divx", "--codec"),
        ("-o made.avi", "a video's name ends in .mp4, .m4v, .mov, .mkv, .webm, .gif"),
    ],
)
def test_what_does_not_go_together_is_one_line_before_any_work(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    save_frames(moving_ramps(2, (24, 32)), tmp_path / "frames")
    make_clip(tmp_path / "clip.mp4", frames=2)
    for more in (["-c", "-i", "frames"], ["-i", "clip.mp4"]):
        if ".avi" in words and "clip.mp4" in more:
            continue  # taken for a directory of dreams
        assert dreamer.main([*more, *words.split()]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"frames", "clip.mp4"}


def test_a_codec_that_ffmpeg_lacks_is_one_line_before_any_work(tmp_path, monkeypatch):
    abilities = ffmpeg_process._abilities
    save_frames(moving_ramps(2, (80, 96)), tmp_path / "frames")

    def without(*names):
        monkeypatch.setattr(ffmpeg_process, "_abilities", lambda binary: abilities(binary) - set(names))

    without("libsvtav1")
    create(tmp_path / "frames", tmp_path / "other encoder.webm", VideoOptions(codec="av1"))
    without("libsvtav1", "libaom-av1")
    with pytest.raises(UsageError, match="--codec av1: .* was built without libaom-av1"):
        create(tmp_path / "frames", tmp_path / "new" / "made.webm", VideoOptions(codec="av1"))
    without("libopus")
    with pytest.raises(UsageError, match="without libopus"):
        create(tmp_path / "frames", tmp_path / "new" / "made.webm", VideoOptions())
    assert not (tmp_path / "new").exists()


def test_the_options_name_the_codecs():
    assert tuple(CODECS) == options.CODECS
    assert {name for container in CONTAINERS.values() for name in container.codecs} == set(CODECS)
