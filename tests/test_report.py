"""The report page: what it measures, what it shows of a render that is done or under way, and what it costs."""

import io
import json
import re
import shutil
from types import SimpleNamespace

import av
import judge
import numpy as np
import pytest
from clips import make_clip, make_flash_and_beep, run_ffmpeg
from helpers import SCRIPTS, open_small_render, read_dreams, render, run_python, save_frames
from report import find_video

from deepdream.errors import UsageError
from deepdream.files.frames import read_frame, write_frame
from deepdream.options import FlowMode, FlowOptions
from deepdream.render.journal import JOURNAL_NAME, read_records
from deepdream.render.sequence import FrameReport, dream_frames
from deepdream.show import measures, report
from deepdream.show.report import Reporter, write_report
from deepdream.show.survey import Survey, _spread
from deepdream.video.excerpt import make_excerpt

INDEPENDENT = FlowOptions(FlowMode.OFF, blend_static=0)


@pytest.fixture(scope="module")
def made(footage, photograph, tmp_path_factory, small_network):
    """A directory of dreams of two shots, four and three frames."""
    place = tmp_path_factory.mktemp("made")
    other = photograph("coffee.png", footage[0].shape[:2])
    source = save_frames([*footage[:4], *[other] * 3], place / "Input", (96, 72), "image-{:06d}.png", 1)
    render(source, place / "Output", small_network, INDEPENDENT, layers=("conv1", "mixed:1"))
    return place


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def page_of(survey):
    return write_report(survey).read_text(encoding="utf-8")


def test_the_measures_are_those_of_evaluate(made):
    survey = Survey(made / "Output")
    survey.measure()
    sources = survey.sources
    pairs = list(judge.match_frames((read_frame(path) for path in sources), "farneback"))
    measured = judge.measure_render(made / "Output", sources, pairs)
    assert survey.cuts == {4} and survey.flicker.keys() == measured.warping.keys() == {1, 2, 3, 5, 6}
    assert [survey.flicker[number] for number in measured.warping] == pytest.approx(list(measured.warping.values()))
    assert [survey.strength[number] for number in range(7)] == pytest.approx(measured.strength)
    assert [survey.luminance[number] for number in range(7)] == pytest.approx(measured.luminance)
    assert survey.source_luminance[0] == pytest.approx(measures.luminance(read_frame(sources[0])))


def test_cuts_that_the_journal_tells_are_taken(copy):
    with open(copy / "Output" / JOURNAL_NAME, "a") as journal:
        journal.write(json.dumps({"cuts": [2], "sources": ""}) + "\n")
    survey = Survey(copy / "Output")
    survey.measure()
    assert survey.cuts == {2} and survey.flicker.keys() == {1, 3, 4, 5, 6}


def test_the_page_shows_a_frame_of_each_shot_and_what_it_was_dreamed_towards(made):
    survey = Survey(made / "Output")
    survey.measure()
    text = page_of(survey)
    assert [int(number) for number in re.findall(r'alt="Source frame (\d+)"', text)] == [2, 5]
    assert re.findall(r"at <code>(.+?)</code>", text) == ["conv1", "mixed:1"]
    assert text.count('width="96" height="72"') == 4
    assert "2 shots" in text and "96x72" in text and "image-000003.png" in text
    assert "<progress" not in text and "Measured at" not in text
    assert re.findall(r"<h3>(\w+)</h3>", text) == ["Strength", "Flicker", "Brightness", "Time"]
    assert text.count('class="cut" x1="666.7"') == 4  # frame 4 of 0 to 6, in each chart
    readings = json.loads(re.search(r'id="readings">(.+?)</script>', text)[1])
    assert len(readings) == 7 and readings[4][1].startswith("frame 4, conv1, strength ")
    assert readings[4][1].endswith("a shot starts") and " s," in readings[4][1]
    assert "processor" in text and "--octaves" in text


def test_what_is_measured_twice_is_read_once(made, monkeypatch):
    survey, read = Survey(made / "Output"), []
    monkeypatch.setattr("deepdream.show.survey.read_frame", lambda path: read.append(path) or read_frame(path))
    survey.measure()
    assert len(read) == 7
    survey.measure()
    assert len(read) == 7


def test_a_render_under_way_gets_a_page(copy, small_network):
    shutil.rmtree(copy / "Output")
    opened = open_small_render(copy / "Input", copy / "Output", small_network, INDEPENDENT, layers=("conv1",))
    frames = dream_frames(opened, small_network)
    first = [next(frames) for _ in range(3)]
    survey = Survey(copy / "Output")
    survey.measure()
    done = len(survey.dreams)
    text = page_of(survey)
    assert 3 <= done < 7 and f"{done} of 7 frames are dreamed, the rest takes about 0:" in text
    assert f'<progress id="state" max="7" value="{done}">' in text
    list(frames)
    survey.look()
    survey.measure()
    assert len(survey.strength) == 7 and "<progress" not in page_of(survey)
    assert [entry.seconds for entry in read_records(copy / "Output").entries.values()][:1] == pytest.approx(
        [first[0].seconds], abs=1e-3
    )


def test_a_page_before_the_first_frame(copy, small_network):
    shutil.rmtree(copy / "Output")
    opened = open_small_render(copy / "Input", copy / "Output", small_network, INDEPENDENT)
    text = page_of(Survey(copy / "Output"))
    assert "0 of 7 frames are dreamed." in text and "The frames do not carry the command" in text
    opened.journal.close()


def test_frames_that_are_missing_amid_others_are_passed_over(copy):
    (copy / "Output" / "frame_000002.png").unlink()
    survey = Survey(copy / "Output")
    survey.measure()
    assert survey.flicker.keys() == {1, 5, 6} and survey.strength.keys() == {0, 1, 3, 4, 5, 6}
    write_frame(copy / "Output" / "frame_000002.png", np.zeros((72, 96, 3), np.uint8), "png")
    survey.look()
    survey.measure()
    assert survey.flicker.keys() == {1, 2, 3, 5, 6} and survey.strength.keys() == set(range(7))


def test_where_time_is_short_frames_are_measured_evenly(made, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("deepdream.show.survey.time.monotonic", lambda: next(clock))
    survey = Survey(made / "Output")
    survey.measure(until=2)
    assert survey.strength.keys() == {0, 3, 4}  # frame 0, and frame 4 with the one before it
    assert "Measured at 3 of 7 frames" in page_of(survey)
    assert _spread(range(10, 18)) == [10, 14, 12, 16, 11, 15, 13, 17] and _spread([]) == []


def finished_frame(number=0, is_cut=False):
    return FrameReport(number, None, "mixed", 1.0, is_cut)


@pytest.fixture
def reporter(monkeypatch):
    """A reporter whose clock is ``now``, whose pages take ``cost`` seconds, and that notes when it writes ``until``."""
    place = SimpleNamespace(now=0.0, cost=0.1, written=[])
    monkeypatch.setattr(report.time, "monotonic", lambda: place.now)

    def measure(until, on_progress):
        place.written.append((place.now, until))

    def write(survey, video):
        place.now += place.cost

    survey = SimpleNamespace(look=lambda: None, measure=measure, cuts=set())
    monkeypatch.setattr(report, "Survey", lambda directory: survey)
    monkeypatch.setattr(report, "write_report", write)
    place.survey, place.reporter = survey, Reporter(None)
    return place


def test_pages_take_a_small_share_of_a_render(reporter):
    for number in range(2000):
        reporter.now += 1
        reporter.reporter.on_frame(finished_frame(number, is_cut=number == 7))
    begun = [now for now, _ in reporter.written]
    assert begun[0] == 16 and len(begun) > 50 and min(np.diff(begun)) > report.BETWEEN
    for now, until in reporter.written:
        assert until - now <= 0.015 * now
    assert reporter.survey.cuts == {7}
    reporter.reporter.finish()
    now, until = reporter.written[-1]
    assert until - now == pytest.approx(0.03 * now - 0.1 * len(begun), abs=0.1)


def test_costly_pages_come_seldom(reporter):
    reporter.cost = 10
    for number in range(4000):
        reporter.now += 1
        reporter.reporter.on_frame(finished_frame(number))
    assert 10 * len(reporter.written) <= report.SHARE / 2 * reporter.now + 10 and len(reporter.written) >= 4


def test_short_renders_are_measured_for_a_moment_and_finished_ones_whole(reporter):
    reporter.reporter.finish()
    assert reporter.written == [(0, np.inf)]
    reporter.now, reporter.written[:] = 5, []
    reporter.reporter.on_frame(finished_frame())
    reporter.reporter.finish()
    assert reporter.written == [(5, 5 + report.LEAST)]


def test_a_thousand_frames_of_many_shots_are_a_page_of_five_megabytes(tmp_path, made):
    """The worst: noise, and a shot every fourth frame."""
    source, output = tmp_path / "Input", tmp_path / "Output"
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    save_frames([noise], source)
    save_frames([255 - noise], output, pattern="frame_{:06d}.png")
    for number in range(1, 1000):
        (source / f"{number}.png").hardlink_to(source / "0.png")
        (output / f"frame_{number:06d}.png").hardlink_to(output / "frame_000000.png")
    settings = json.loads((made / "Output" / "render.json").read_text()) | {"--input": str(source)}
    (output / "render.json").write_text(json.dumps(settings))
    survey = Survey(output)
    for values in (survey.strength, survey.flicker, survey.luminance, survey.source_luminance):
        values.update({number: number / 7 for number in range(1000)})
    survey.cuts = set(range(4, 1000, 4))
    path = write_report(survey)
    assert 1_000_000 < path.stat().st_size < 5_000_000 - report.VIDEO_BYTES * 1.4
    text = path.read_text()
    assert "of 50 of the 250 shots" in text and text.count('class="pair"') == 50
    assert max(points.count(",") for points in re.findall(r'points="([^"]+)"', text)) <= report.POINTS


def test_curves_of_many_frames_are_means():
    line = {number: float(number % 2) for number in range(2 * report.POINTS)}
    points = report._thin(line)
    assert len(points) == report.POINTS and {value for _, value in points} == {0.5}
    assert report._thin({3: 1.0}) == [(3, 1.0)] * 2
    assert report._thin({0: 1.0, 5: 2.0}) == [(0, 1.0), (5, 2.0)]


def test_a_chart_spans_its_values():
    survey = SimpleNamespace(sources=range(11))
    curve = report.Curve("Strength", "about", ".1f", "", {"": {0: 2.0, 5: 4.0, 10: 3.0}})
    chart = report._chart(curve, survey)
    assert chart["lines"] == {"": "0.0,50.0 500.0,0.0 1000.0,25.0"} and (chart["low"], chart["high"]) == ("0.0", "4.0")
    assert chart["summary"] == "mean 3.0, from 2.0 to 4.0"
    below = report._chart(report.Curve("", "", ".1f", "", {"": {0: -1.0, 10: 1.0}}), survey)
    assert below["lines"] == {"": "0.0,100.0 1000.0,0.0"} and below["low"] == "-1.0"
    flat = report._chart(report.Curve("", "", ".0f", "", {"": {0: 7.0}}, from_zero=False), survey)
    assert flat["lines"] == {"": "0.0,50.0 0.0,50.0"} and (flat["low"], flat["high"]) == ("6", "8")


def test_no_render_is_one_line(tmp_path, copy):
    with pytest.raises(UsageError, match="holds no render: there is no render.json in it"):
        Survey(tmp_path)
    for text in ("{", "[]", "{}"):
        (copy / "Output" / "render.json").write_text(text)
        with pytest.raises(UsageError, match="render.json is damaged"):
            Survey(copy / "Output")


def test_a_guide_among_the_sources_is_no_frame(copy):
    guide = copy / "Input" / "guide.png"
    write_frame(guide, np.zeros((72, 96, 3), np.uint8), "png")
    path = copy / "Output" / "render.json"
    settings = json.loads(path.read_text()) | {"--input": str(copy / "Input"), "--guide": f"{guide} (0123)"}
    path.write_text(json.dumps(settings))
    assert len(Survey(copy / "Output").sources) == 7


def test_all_in_one_ends_with_a_page_that_holds_the_video(run_here, tmp_path, small_folder):
    make_clip(tmp_path / "clip.mp4", "-an", frames=6)
    words = ("-i", "clip.mp4", "-o", "Video.mp4", "-t", small_folder, "-l", "conv1", "-oct", 1, "-itr", 1, "-gpu", 0)
    done = run_here(*words, "--report")
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "report: Video.frames/Output/report.html"
    text = (tmp_path / "Video.frames" / "Output" / "report.html").read_text()
    assert "<h1>Video.mp4</h1>" in text and 'src="data:video/mp4;base64,' in text and "25 frames a second" in text
    command = re.sub(r"<[^>]+>", "", re.search(r"<pre>(.+?)</pre>", text, re.S)[1])
    assert command.startswith("dreamer.py --input clip.mp4 ") and "--report" not in command
    assert find_video(tmp_path / "Video.frames" / "Output") == (tmp_path / "Video.mp4").resolve()
    before = read_dreams(tmp_path / "Video.frames" / "Output")
    assert run_here(*words, "--report", "--overwrite").returncode == 0
    assert read_dreams(tmp_path / "Video.frames" / "Output") == before


def test_dream_ends_with_a_page_and_the_script_makes_it_again(run_here, frames, tmp_path, small_folder):
    words = ("-i", "Input", "-o", "out", "-t", small_folder, "-l", "conv1", "-oct", 1, "-itr", 1, "-gpu", 0)
    done = run_here(*words, "--report")
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "report: out/report.html"
    page = tmp_path / "out" / "report.html"
    page.unlink()
    made = run_python(SCRIPTS / "report.py", "out", cwd=tmp_path)
    assert made.returncode == 0 and "out/report.html" in made.stderr, made.stderr
    assert page.exists() and find_video(tmp_path / "out") is None
    done = run_here("-e", 1, "-i", "Input", "-o", "more", "--report")
    assert "--report: these change nothing in this mode" in done.stderr


def test_a_render_made_afresh_has_no_page_of_the_one_before(run_here, frames, tmp_path, small_folder):
    words = ("-i", "Input", "-o", "out", "-t", small_folder, "-l", "conv1", "-oct", 1, "-itr", 0, "-gpu", 0)
    assert run_here(*words, "--report").returncode == 0 and (tmp_path / "out" / "report.html").exists()
    assert run_here(*words).returncode == 0 and (tmp_path / "out" / "report.html").exists()
    assert run_here(*words, "--overwrite").returncode == 0 and not (tmp_path / "out" / "report.html").exists()


def test_the_script_takes_sources_that_have_moved(copy, tmp_path):
    path = copy / "Output" / "render.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"--input": "/gone"}))
    done = run_python(SCRIPTS / "report.py", copy / "Output")
    assert done.returncode == 2 and done.stderr.startswith("report.py: /gone does not exist")
    done = run_python(SCRIPTS / "report.py", copy / "Output", "--input", copy / "Input")
    assert done.returncode == 0 and (copy / "Output" / "report.html").exists()


def test_a_long_video_is_shown_in_part(tmp_path, monkeypatch):
    video = make_clip(tmp_path / "Video.mp4", frames=50)
    monkeypatch.setattr(report, "VIDEO_SECONDS", 1)
    shown = report._video(video)
    assert shown["is_part"] and shown["seconds"] == 1 and shown["url"].startswith("data:video/mp4;base64,")


def streams_of(data):
    with av.open(io.BytesIO(data)) as container:
        return [(stream.type, stream.codec_context.name) for stream in container.streams]


def test_an_excerpt_is_what_browsers_play_and_keeps_to_its_size(tmp_path):
    flash = make_flash_and_beep(tmp_path / "flash.mov", "-c:v", "prores_ks", "-c:a", "pcm_s16le")
    assert streams_of(make_excerpt(flash, 480, 2, 100_000)) == [("video", "h264"), ("audio", "aac")]
    noise = tmp_path / "noise.mp4"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "nullsrc=s=301x200:r=25:d=4,geq=random(1)*255:128:128"),
        *("-c:v", "libx264", "-pix_fmt", "yuv444p", "-qp", 10, noise),
    )
    excerpt = make_excerpt(noise, 160, 4, 200_000)
    assert len(excerpt) < 300_000 < noise.stat().st_size
    with av.open(io.BytesIO(excerpt)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.pix_fmt) == (160, 106, "yuv420p")


def test_a_dive_has_no_report_and_says_so(copy):
    path = copy / "Output" / "render.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"--input": str(copy / "Input" / "image-000001.png")}))
    with pytest.raises(UsageError, match="holds a dive into a picture"):
        Survey(copy / "Output")
