"""Videos that tell players that they are panoramas: read, kept and written."""

import json
import struct

import av
import numpy as np
import pytest
from clips import decode, flashes_and_beeps, make_clip, make_flash_and_beep, run_ffmpeg
from helpers import save_frames

import dreamer
from deepdream.files.clip import STEREO_MODES, read_clip
from deepdream.video.probe import probe
from deepdream.video.spherical import _inside, _with_box, mark_spherical

H264 = ("-pix_fmt", "yuv420p", "-c:v", "libx264", "-movflags", "+faststart")


@pytest.fixture
def panorama(tmp_path):
    """A clip of three frames of 128x64, marked as a panorama."""
    path = make_clip(tmp_path / "round.mp4", *H264, frames=3, size="128x64")
    mark_spherical(path, "mono")
    return path


@pytest.mark.parametrize("ending", ["mp4", "mov"])
@pytest.mark.parametrize("stereo", STEREO_MODES)
def test_a_marked_video_is_otherwise_what_it_was(tmp_path, stereo, ending):
    plain = make_flash_and_beep(tmp_path / f"plain.{ending}", *H264, "-c:a", "aac", "-metadata", "comment=kept")
    marked = tmp_path / f"marked.{ending}"
    marked.write_bytes(plain.read_bytes())
    mark_spherical(marked, stereo)
    assert (probe(plain).panorama, probe(marked).panorama) == (None, stereo)
    assert all(map(np.array_equal, decode(plain), decode(marked))) and len(decode(plain)) == len(decode(marked)) == 40
    assert flashes_and_beeps(plain) == flashes_and_beeps(marked)
    with av.open(str(marked)) as container:
        assert container.metadata["comment"] == "kept"
    assert marked.read_bytes().index(b"moov") < marked.read_bytes().index(b"mdat")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"marked.{ending}", f"plain.{ending}"]


def box(kind, *parts):
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def track(handler, table):
    about = box(b"hdlr", bytes(8), handler, bytes(12))
    return box(b"trak", box(b"tkhd", bytes(4)), box(b"mdia", about, box(b"minf", box(b"stbl", table))))


def test_sound_may_come_first_and_files_be_large():
    small = box(b"stco", bytes(4), struct.pack(">3I", 2, 100, 200))
    large = box(b"co64", bytes(4), struct.pack(">I2Q", 2, 2**32 + 7, 2**33))
    moov = box(b"moov", box(b"mvhd", bytes(9)), track(b"soun", small), track(b"vide", large), box(b"udta", b"end"))
    added = box(b"uuid", bytes(21))
    made = _with_box(bytearray(moov), added)
    assert struct.unpack_from(">I", made)[0] == len(made) == len(moov) + len(added) == len(moov) + 29
    tracks = [made[start:end] for start, end in _inside(made, 0, len(made), b"trak")]
    assert tracks[0] == track(b"soun", box(b"stco", bytes(4), struct.pack(">3I", 2, 129, 229)))
    moved = track(b"vide", box(b"co64", bytes(4), struct.pack(">I2Q", 2, 2**32 + 36, 2**33 + 29)))
    assert tracks[1][8:] == moved[8:] + added and struct.unpack_from(">I", tracks[1])[0] == len(tracks[1])
    assert made.endswith(box(b"udta", b"end"))


def test_the_newer_boxes_are_read_too(panorama, tmp_path):
    run_ffmpeg("-i", panorama, "-c", "copy", "-strict", "unofficial", tmp_path / "newer.mp4")
    assert b"sv3d" in (tmp_path / "newer.mp4").read_bytes() and probe(tmp_path / "newer.mp4").panorama == "mono"
    run_ffmpeg("-i", panorama, "-c", "copy", tmp_path / "round.mkv")
    assert probe(tmp_path / "round.mkv").panorama == "mono"


def test_the_mark_is_kept_and_an_option_advised(panorama, tmp_path, small_folder, run_here):
    assert run_here("-e", 1, "-i", panorama, "-o", "Input").returncode == 0
    assert read_clip(tmp_path / "Input").panorama == "mono"
    dream = ["-i", "Input", "-t", small_folder, "-l", "mixed", "-oct", 1, "-itr", 1]
    assert f"{panorama} is a 360-degree video: --panorama" in run_here(*dream, "-o", "Flat").stderr
    done = run_here(*dream, "-o", "Round", "--panorama")
    assert done.returncode == 0 and "360" not in done.stderr
    for frames in ("Flat", "Round"):
        assert run_here("-c", 1, "-i", frames, "-o", f"{frames}.mp4").returncode == 0
        assert probe(tmp_path / f"{frames}.mp4").panorama == "mono"
        assert "already made" in run_here("-c", 1, "-i", frames, "-o", f"{frames}.mp4").stderr
    done = run_here("-c", 1, "-i", "Round", "-o", "Round.mkv")
    assert done.returncode == 0 and "an .mp4 or .mov would" in done.stderr


@pytest.mark.parametrize("options", [(), ("--no-settings",)])
def test_dreams_on_the_sphere_become_a_marked_video(tmp_path, small_folder, run_here, options):
    """Of a source that says nothing."""
    make_clip(tmp_path / "plain.mp4", *H264, frames=2, size="128x64")
    dream = ["-t", small_folder, "-l", "mixed", "-oct", 1, "-itr", 1, "--panorama", *options]
    assert run_here("-i", "plain.mp4", "-o", "a.mov", *dream).returncode == 0
    assert probe(tmp_path / "a.mov").panorama == "mono"
    save_frames([np.zeros((64, 128, 3), np.uint8)] * 2, tmp_path / "Input")
    assert run_here("-i", "Input", "-o", "Output", *dream).returncode == 0
    assert run_here("-c", 1, "-i", "Output", "-o", "b.mp4").returncode == 0
    assert probe(tmp_path / "b.mp4").panorama == (None if options else "mono")


def test_other_videos_are_not_marked(tmp_path, run_here):
    make_clip(tmp_path / "plain.mp4", *H264, frames=2)
    assert run_here("-e", 1, "-i", "plain.mp4", "-o", "Input").returncode == 0
    assert "panorama" not in json.loads((tmp_path / "Input" / "clip.json").read_text())
    assert run_here("-c", 1, "-i", "Input", "-o", "a.mp4").returncode == 0
    assert probe(tmp_path / "a.mp4").panorama is None and b"GSpherical" not in (tmp_path / "a.mp4").read_bytes()


def test_a_video_of_another_shape_is_refused_before_it_is_extracted(tmp_path, small_folder, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "plain.mp4", *H264, frames=2, size="128x72")
    assert dreamer.main(["-i", "plain.mp4", "-o", "a.mp4", "-t", str(small_folder), "--panorama"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "plain.mp4: --panorama takes" in error and "128x72" in error and not (tmp_path / "a.frames").exists()
