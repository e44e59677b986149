"""When frames are shown: rates from the times of packets, constant or not, and no frame or sound out of step for it."""

from fractions import Fraction

import numpy as np
import pytest
from clips import decode, flashes_and_beeps, make_clip, make_flash_and_beep, run_ffmpeg

from deepdream.options import PartOptions, VideoOptions
from deepdream.video import probe as probing
from deepdream.video import timing
from deepdream.video.create import create
from deepdream.video.extract import extract
from deepdream.video.part import open_part
from deepdream.video.probe import probe


def flashes_and_beeps_of_dreamless(source, directory):
    """When the video of a clip's frames flashes and beeps."""
    extract(source, directory / "frames")
    return flashes_and_beeps(create(directory / "frames", directory / "made.mp4", VideoOptions()).path)


@pytest.mark.parametrize("ending", ["mkv", "webm", "ts", "avi", "flv", "mov"])
def test_a_time_base_that_rounds_is_still_a_constant_rate(tmp_path, ending):
    info = probe(make_clip(tmp_path / f"clip.{ending}", rate="30000/1001", frames=31))
    assert (info.frame_rate, info.constant_rate, info.frame_count) == (Fraction(30000, 1001), True, 31)


@pytest.mark.parametrize("ending", ["h264", "hevc"])
def test_a_stream_without_times_counts_every_packet(tmp_path, ending):
    info = probe(make_clip(tmp_path / f"clip.{ending}", "-bf", 2, frames=12))
    assert (info.frame_count, info.frame_rate, info.constant_rate, info.missing_duration) == (12, 25, True, 0)


def test_a_packet_without_times_counts_too(tmp_path, monkeypatch):
    def packets(*streams):
        for number, packet in enumerate(demux(*streams)):
            if number in (2, 11):
                packet.pts = None  # shown when it is decoded
            if number == 11:
                packet.dts = None  # shown at an unknown time
            yield packet

    source, demux = make_clip(tmp_path / "clip.mkv", "-bf", 0, frames=12), timing.packets
    monkeypatch.setattr(timing, "packets", packets)
    with probing.open_media(source) as container:
        found = timing.read_timing(container, 0)
    assert (found.frame_count, found.is_constant) == (12, True)


def test_times_decide_whether_a_rate_is_constant():
    def rate(ticks, time_base=Fraction(1, 1000), last_duration=40, hints=()):
        return timing.find_rate(np.array(ticks), last_duration, time_base, list(hints))

    even = [40 * number for number in range(50)]
    assert rate(even) == (25, True)
    assert rate([time + 1 if number % 3 else time for number, time in enumerate(even)]) == (25, True)
    jitter = np.random.default_rng(0).integers(-9, 10, 50)
    assert rate(even + jitter)[1] and abs(float(rate(even + jitter)[0]) - 25) < 0.3
    assert rate(even[:20] + even[21:]) == (25, False)  # one frame dropped
    assert rate(even, last_duration=2000) == (25, False)  # the last picture stands for two seconds
    assert rate([round(1000 * number / 23.976) for number in range(500)]) == (Fraction(24000, 1001), True)
    uncommon, is_constant = rate([round(1000 * number / 7.3) for number in range(9)], last_duration=137)
    assert is_constant and abs(float(uncommon) - 7.3) < 0.01
    assert rate([7], last_duration=0) == (25, True)
    assert rate([7], last_duration=500) == (2, True)
    assert rate(even, hints=[Fraction(50)]) == (25, True)  # a header's word counts only where the times bear it out


def test_frames_left_out_of_a_constant_rate_keep_their_times():
    """A screen recording holds only the frames in which something changes."""

    def rate(ticks, *hints, time_base=Fraction(1, 1000)):
        return timing.find_rate(np.array(ticks), 33, time_base, [Fraction(hint) for hint in hints])

    sparse = [0, 600, 700, 1400, 1500, 2200, 2300]
    assert rate(sparse, 30) == (30, False) and rate([round(time / 33.37) * 33.37 for time in sparse], 30)[0] < 29
    assert rate(sparse, Fraction(5, 2), 60) == (60, False)
    assert rate(sparse, 1000)[0] == rate(sparse)[0] == Fraction(5, 3)  # a rate that all times fit says nothing
    assert rate([0, 20, 23, 46, 49], 30, time_base=Fraction(1, 30)) == (30, False)
    assert rate([0, 20, 23, 46, 49], 20, time_base=Fraction(1, 30))[0] == 1.5  # the median's


def test_frames_that_a_screen_recording_leaves_out_are_put_back(tmp_path):
    source = make_flash_and_beep(tmp_path / "screen.mkv", "-vf", "mpdecimate=max=40", "-fps_mode", "passthrough")
    assert len(decode(source)) == 5
    flashes, beeps = flashes_and_beeps_of_dreamless(source, tmp_path)
    assert len(decode(tmp_path / "made.mp4")) == 34  # up to the last change
    assert np.allclose(flashes, beeps, atol=0.041) and len(flashes) == 2


def test_theora_says_that_nothing_changes_by_packets_that_hold_nothing(tmp_path):
    source = make_flash_and_beep(tmp_path / "clip.ogv", "-c:v", "libtheora", "-g", 100)
    info = probe(source)
    assert (info.frame_rate, info.constant_rate, info.frame_count) == (25, False, 40)
    flashes, beeps = flashes_and_beeps_of_dreamless(source, tmp_path)
    assert np.allclose(flashes, beeps, atol=0.041) and len(flashes) == 2
    assert len(decode(tmp_path / "made.mp4")) == 40
    part = open_part(source, PartOptions(0.2, 1.0))
    assert extract(part, tmp_path / "part").clip.frame_count == 20


def test_avi_knows_when_a_frame_is_decoded_and_not_when_it_is_shown(tmp_path):
    """ffmpeg guesses the latter from H.264 that was copied there, and is wrong about the last frame."""
    run_ffmpeg("-i", make_clip(tmp_path / "clip.mp4", "-bf", 2, frames=50), "-c", "copy", tmp_path / "clip.avi")
    info = probe(tmp_path / "clip.avi")
    assert (info.frame_rate, info.constant_rate, info.frame_count) == (25, True, 50)
    assert extract(tmp_path / "clip.avi", tmp_path / "frames").messages == ()


@pytest.mark.parametrize("image_type", ["png", "jpg"])
def test_two_frames_of_one_time_are_no_damage(tmp_path, image_type):
    """MPEG-4 with B-frames that was copied from AVI has such times at its end. JPEG's encoder takes no time twice."""
    run_ffmpeg("-i", make_clip(tmp_path / "clip.avi", "-c:v", "mpeg4", "-bf", 2), "-c", "copy", tmp_path / "clip.mp4")
    made = extract(tmp_path / "clip.mp4", tmp_path / "frames", image_type)
    assert (made.clip.frame_count, made.messages) == (5, ())


def test_sound_with_a_gap_of_more_than_a_frame_stays_in_step(tmp_path):
    """A fragmented MP4 has one behind the first packet of AAC."""
    options = ("-movflags", "frag_keyframe+empty_moov", "-bf", 2)
    source = make_flash_and_beep(tmp_path / "clip.mp4", *options, rate=30)
    flashes, beeps = flashes_and_beeps_of_dreamless(source, tmp_path)
    assert np.allclose(flashes, beeps, atol=0.02) and len(flashes) == 2


def test_soft_telecine_is_film_again():
    # Film on NTSC discs: pictures stay for two fields and three in turn.
    fields = np.cumsum([0] + [2, 3] * 24)
    rate = timing.find_rate(fields * 1501.5, 3003, Fraction(1, 90000), [Fraction(30000, 1001)])
    assert rate == (Fraction(24000, 1001), True)
