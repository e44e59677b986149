"""HDR clips come out as the SDR footage they were made of, and nothing else is touched."""

from itertools import islice

import av
import numpy as np
import pytest
from clips import make_clip, real_clip, run_ffmpeg

import dreamer
from deepdream.errors import UsageError
from deepdream.files.frames import open_frames, read_frame
from deepdream.video import ffmpeg as ffmpeg_process
from deepdream.video.extract import extract
from deepdream.video.part import open_part
from deepdream.video.probe import probe

COUNT = 3
SDR = "scale,format=gbrp,setparams=range=pc:color_primaries=bt709:color_trc=bt709:colorspace=gbr"
HEVC = ("-c:v", "libx265", "-crf", 8, "-x265-params", "log-level=error", "-an")


def into_hdr(transfer, white=203):
    """ffmpeg's filters from SDR to 10-bit HDR in BT.2020, with white at so many cd/m2."""
    return (
        f"{SDR},zscale=t=linear:npl={white},format=gbrpf32le,"
        f"zscale=p=bt2020:t={transfer}:m=bt2020nc:r=tv:npl={white},format=yuv420p10le"
    )


def make_hdr(path, name, transfer, tags=True, white=203):
    """The first frames of a real clip as HDR, with their white where ITU-R BT.2408 puts it."""
    hdr = into_hdr(transfer, white) + ("" if tags else ",setparams=color_primaries=unknown:colorspace=unknown")
    run_ffmpeg("-i", real_clip(name), "-frames:v", COUNT, "-vf", hdr, *HEVC, path)
    return path


def originals(name):
    with av.open(str(real_clip(name))) as container:
        frames = islice(container.decode(video=0), COUNT)
        return np.array([frame.to_ndarray(format="rgb24") for frame in frames], dtype=float)


def extracted(directory):
    return np.array([read_frame(path) for path in open_frames(directory).paths], dtype=float)


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4"])
@pytest.mark.parametrize("transfer, called", [("arib-std-b67", "HLG"), ("smpte2084", "PQ")])
@pytest.mark.parametrize("white", [203, 100])
def test_sdr_that_was_put_into_hdr_comes_out_again(tmp_path, name, transfer, called, white):
    source = make_hdr(tmp_path / "hdr.mov", name, transfer, white=white)
    made = extract(source, tmp_path / "png")
    said = f"{source} is HDR ({called}, white at {white} cd/m2); its frames are tone-mapped to BT.709"
    assert made.messages == (said,)
    assert abs(extracted(tmp_path / "png") - originals(name)).mean() < 6
    if called == "HLG":
        extract(source, tmp_path / "jpg", "jpg")
        assert abs(extracted(tmp_path / "jpg") - originals(name)).mean() < 6


def test_hdr_without_primaries_and_matrix_has_those_of_bt2020(tmp_path):
    source = make_hdr(tmp_path / "hdr.mkv", "bikes.mp4", "arib-std-b67", tags=False)
    assert probe(source).hdr.tags == "color_trc=arib-std-b67:color_primaries=bt2020:colorspace=bt2020nc"
    extract(source, tmp_path / "frames")
    assert abs(extracted(tmp_path / "frames") - originals("bikes.mp4")).mean() < 6


@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
def test_sdr_put_into_hdr_by_one_zscale_with_whiter_than_white_comes_out_too(tmp_path, transfer):
    tags = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
    hdr = f"{tags},zscale=p=bt2020:t={transfer}:m=bt2020nc:r=tv,format=yuv420p10le"
    name = "carphone_pristine.mp4"
    run_ffmpeg("-i", real_clip(name), "-frames:v", COUNT, "-vf", hdr, *HEVC, tmp_path / "hdr.mov")
    extract(tmp_path / "hdr.mov", tmp_path / "frames")
    assert abs(extracted(tmp_path / "frames") - originals(name)).mean() < 6


@pytest.mark.parametrize("lit", [0, 1])
@pytest.mark.parametrize("ending", ["mkv", "ts", "hevc"])
def test_white_is_looked_for_all_over_the_video(tmp_path, ending, lit):
    """A dark minute with something bright in it, or not; a raw stream cannot be searched beyond its beginning."""
    clip = f"color=0x606060:s=64x48:r=1:d=60,drawbox=c=white:t=fill:w=16:enable={lit}*between(t\\,40\\,50)"
    source = tmp_path / f"hdr.{ending}"
    run_ffmpeg("-f", "lavfi", "-i", clip, "-vf", into_hdr("smpte2084"), *HEVC, "-g", 5, source)
    assert probe(source).hdr.white == (203 if lit and ending != "hevc" else 100)


def test_highlights_keep_their_order_and_are_no_flat_white(tmp_path):
    """A ramp up to 1000 cd/m2 in light: brighter stays brighter above the white of SDR, which is at a fifth of it."""
    ramp = "geq=r='4.93*X/W':g='4.93*X/W':b='4.93*X/W'"
    hlg = "zscale=p=bt2020:t=arib-std-b67:m=bt2020nc:r=tv:npl=203,format=yuv420p10le"
    light = "format=gbrpf32le,setparams=color_primaries=bt709:color_trc=linear:colorspace=gbr:range=pc"
    source = tmp_path / "ramp.mov"
    run_ffmpeg("-f", "lavfi", "-i", f"color=s=256x64,{light},{ramp},{hlg}", "-frames:v", 1, *HEVC, source)
    extract(source, tmp_path / "frames")
    levels = extracted(tmp_path / "frames")[0].mean(axis=(0, 2)).reshape(16, 16).mean(axis=1)
    assert (np.diff(levels) >= 0).all() and levels[-1] > 245
    assert levels[15] - levels[5] > 5  # from 1.5 to 4.8 times white


def test_ten_bits_of_sdr_are_left_alone(tmp_path):
    """`make_clip` names no colours, BT.2020's own curve is SDR, and neither needs a tone-mapping ffmpeg."""
    plain = make_clip(tmp_path / "plain.mov", "-c:v", "libx265", "-pix_fmt", "yuv420p10le", frames=2)
    wide = tmp_path / "wide.mkv"
    tags = "setparams=color_primaries=bt2020:color_trc=bt2020-10:colorspace=bt2020nc"
    run_ffmpeg("-i", plain, "-vf", tags, "-c:v", "libx265", "-crf", 5, wide)
    for source in (plain, wide):
        assert probe(source).hdr is None
        assert extract(source, tmp_path / source.stem).messages == ()
    assert abs(extracted(tmp_path / "plain") - extracted(tmp_path / "wide")).mean() < 8  # of matrices that differ


def test_where_no_ffmpeg_can_tone_map_it_is_one_line_before_any_work(tmp_path, monkeypatch):
    source = make_hdr(tmp_path / "hdr.mov", "bikes.mp4", "smpte2084")
    abilities = ffmpeg_process._abilities
    monkeypatch.setattr(ffmpeg_process.shutil, "which", lambda name: "poor")
    monkeypatch.setattr(ffmpeg_process, "_abilities", lambda it: frozenset() if it == "poor" else abilities(it))
    extract(source, tmp_path / "frames")  # the ffmpeg on PATH cannot, the package's can
    monkeypatch.setattr(ffmpeg_process, "_packaged_binary", lambda: None)
    with pytest.raises(UsageError, match="poor was built without tonemap, zscale; pip install imageio-ffmpeg"):
        extract(open_part(source), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_all_in_one_says_it_once(tmp_path, monkeypatch, capsys, small_folder):
    monkeypatch.chdir(tmp_path)
    source = make_hdr(tmp_path / "hdr.mov", "bikes.mp4", "arib-std-b67")
    command = ["-i", source.name, "-o", "Video.mp4", "-t", str(small_folder), "-l", "mixed", "-oct", "1", "-itr", "0"]
    assert dreamer.main([*command, "-p", "160"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "HDR" in line]
    assert lines == ["hdr.mov is HDR (HLG, white at 203 cd/m2); its frames are tone-mapped to BT.709"]
    assert abs(extracted("Video.frames/Input") - originals("bikes.mp4")).mean() < 6
