"""What the screen shows while it runs: a bar on a terminal of any width, lines in a log, nothing before there is
progress."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time

import pytest
from helpers import ROOT, run_python

import dreamer
from deepdream.show import progress as module
from deepdream.show.progress import LogLines, Screen


@pytest.fixture
def terminal(monkeypatch):
    """A function that makes standard error a terminal of so many columns; it returns one that reads the screen."""
    opened = []

    def open_terminal(columns):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        screen = open(theirs, "w")  # noqa: SIM115
        opened.extend((ours, screen))
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("TERM", "xterm")

        def read():
            screen.flush()
            os.set_blocking(ours, False)
            text = b""
            while True:
                try:
                    part = os.read(ours, 65536)
                except BlockingIOError:
                    return text.decode()
                text += part

        return read

    yield open_terminal
    for each in opened:
        os.close(each) if isinstance(each, int) else each.close()


def count_to(total, screen):
    with screen.counter("create") as on_progress:
        for done in range(1, total + 1):
            time.sleep(0.11)  # tqdm draws ten times a second
            on_progress(done, total)


@pytest.mark.parametrize("columns", [20, 40, 100])
def test_a_bar_stays_on_its_line(terminal, columns):
    read = terminal(columns)
    count_to(3, Screen(1))
    shown = re.split(r"[\r\n]+", read())
    assert max(map(len, shown)) <= columns
    assert any("100%" in line for line in shown)
    assert columns == 20 or any(" left" in line for line in shown)


def test_a_dream_fits_a_narrow_terminal_without_colour(terminal, frames, tmp_path, small_folder, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    read = terminal(40)
    words = ["-i", str(frames), "-o", str(tmp_path / "o"), "-t", str(small_folder), "-l", "conv1", "-gpu", "0"]
    assert dreamer.main([*words, "-oct", "1", "-itr", "200"]) == 0  # tqdm shows no bar for a tenth of a second
    text = read()
    assert "\x1b" not in text
    bars = [line for line in re.split(r"[\r\n]+", text) if "%|" in line]
    assert bars and max(map(len, bars)) <= 40


def test_lines_stand_above_the_bar(terminal):
    read = terminal(60)
    screen = Screen(1)
    with screen.counter("create") as on_progress:
        on_progress(1, 3)
        screen.tell("a line")
    assert "a line" in re.split(r"[\r\n]+", read())


@pytest.mark.parametrize("level", [1, 0])
def test_no_bar_before_there_is_progress(terminal, level):
    read = terminal(80)
    with pytest.raises(ZeroDivisionError), Screen(level).progress(7, "dream"):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), Screen(level).counter("create"):
        raise ZeroDivisionError
    assert read() == ""


def test_an_error_is_all_that_an_error_shows(terminal, tmp_path):
    read = terminal(200)
    (tmp_path / "notes.mp4").write_text("no video")
    assert dreamer.main(["-e", "-i", str(tmp_path / "notes.mp4"), "-o", str(tmp_path / "o")]) == 2
    (line,) = read().splitlines()
    assert line.startswith("dreamer.py: ") and "notes.mp4" in line


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass as the test says."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_at_each_tenth(clock):
    lines = []
    progress = LogLines(1000, "dream", lines.append)
    progress.set_postfix_str("frame 1/4")
    for _ in range(1000):
        clock[0] += 0.04
        progress.update(1)
    assert [line.split(":")[0] for line in lines] == [f"dream {tenth:2}0%" for tenth in range(1, 10)] + ["dream 100%"]
    assert lines[4] == "dream  50%: 0:00:20 gone, 0:00:20 left, frame 1/4"


def test_a_log_gets_a_line_a_minute(clock):
    lines = []
    progress = LogLines(10_000, "dream", lines.append)
    for _ in range(500):
        clock[0] += 1
        progress.update(1)
    assert len(lines) == 8 and lines[0] == "dream   1%: 0:01:00 gone, 2:45:40 left"


def test_a_log_holds_no_bar(frames, tmp_path, capsys, small_folder, monkeypatch):
    words = ["-i", str(frames), "-o", str(tmp_path / "o"), "-t", str(small_folder), "-l", "conv1", "-gpu", "0"]
    monkeypatch.setattr(module, "LOG_SECONDS", float("inf"))
    assert dreamer.main([*words, "-oct", "1", "-itr", "30"]) == 0
    text = capsys.readouterr().err
    assert "\r" not in text and "|" not in text
    lines = [line for line in text.splitlines() if line.startswith("dream ")]
    assert len(lines) == 10 and " left, frame 4/4, octave 1/1" in lines[-1] and "100%" in lines[-1]


def test_a_dumb_terminal_is_a_log(terminal, monkeypatch):
    read = terminal(80)
    monkeypatch.setenv("TERM", "dumb")
    count_to(1, Screen(1))
    assert read().splitlines() == ["create 100%: 0:00:00 gone, 0:00:00 left"]


@pytest.mark.parametrize("option", ["--list-layers", "--help", "--version"])
def test_a_reader_that_wants_no_more_is_no_error(option, small_folder):
    reading, writing = os.pipe()
    os.close(reading)
    done = run_python(ROOT / "dreamer.py", option, "-t", small_folder, "-v", 0, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
