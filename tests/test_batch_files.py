"""The batch files of Windows under Wine's cmd, with a stand-in for Python that notes its arguments.

Debian: apt-get install wine gcc-mingw-w64-x86-64
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from test_command_line import SEED_COMMANDS

import dreamer

ROOT = Path(dreamer.__file__).parent
COMPILER = "x86_64-w64-mingw32-gcc"
# Writes a line for each call into the file RECORD, its arguments divided by tabs; called as python -m venv FOLDER it
# puts itself there.
STAND_IN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>
#include <windows.h>

int wmain(int count, wchar_t **arguments)
{
    FILE *record = _wfopen(_wgetenv(L"RECORD"), L"ab");
    for (int number = 1; number < count; number++) {
        char text[4096];
        WideCharToMultiByte(CP_UTF8, 0, arguments[number], -1, text, sizeof text, NULL, NULL);
        fprintf(record, "%s%c", text, number < count - 1 ? '\t' : '\n');
    }
    fclose(record);
    if (count > 3 && !wcscmp(arguments[2], L"venv")) {
        wchar_t here[MAX_PATH], there[MAX_PATH];
        GetModuleFileNameW(NULL, here, MAX_PATH);
        CreateDirectoryW(arguments[3], NULL);
        swprintf(there, MAX_PATH, L"%ls\\Scripts", arguments[3]);
        CreateDirectoryW(there, NULL);
        wcscat(there, L"\\python.exe");
        CopyFileW(here, there, FALSE);
    }
    return 0;
}
"""


def windows_path(path):
    return "Z:" + str(path).replace("/", "\\")


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    """The environment in which Wine finds the stand-in, ``python``, on its PATH."""
    missing = [name for name in ("wine", COMPILER) if not shutil.which(name)]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: NOT TESTED under Wine's cmd")
    place = tmp_path_factory.mktemp("wine")
    (place / "python.c").write_text(STAND_IN)
    compile_it = [COMPILER, "-municode", "-o", str(place / "python.exe"), str(place / "python.c")]
    subprocess.run(compile_it, check=True)
    variables = {"WINEPREFIX": str(place / "prefix"), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
    environment = {**os.environ, **variables, "WINEPATH": windows_path(place)}
    environment.pop("DISPLAY", None)
    subprocess.run(["wine", "cmd", "/c", "exit"], env=environment, capture_output=True, check=True)
    yield environment
    subprocess.run(["wineserver", "-k"], env=environment, capture_output=True)


@pytest.fixture
def type_line(wine, tmp_path):
    """Type a line at the prompt; the calls of Python that came of it, each a list of arguments."""

    def type_line(line):
        record = tmp_path / "arguments.txt"
        record.unlink(missing_ok=True)
        environment = wine | {"RECORD": windows_path(record)}
        done = subprocess.run(
            ["wine", "cmd"], input=f"{line}\r\n", cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert record.exists(), done.stdout + done.stderr
        return [call.split("\t") for call in record.read_text().splitlines()]

    return type_line


@pytest.fixture
def scripts(tmp_path):
    """The path of a copy of scripts/ as Windows has it."""
    project = tmp_path / "it's a (big) & new^ one!"
    shutil.copytree(ROOT / "scripts", project / "scripts")
    return windows_path(project / "scripts")


def seed_call(scripts, name, source=None, target=None):
    """The arguments that Python gets from a batch file."""
    call = [f"{scripts}\\..\\dreamer.py", *shlex.split(SEED_COMMANDS[name])[2:]]
    for option, given in (("--input", source), ("--output", target)):
        at = call.index(option)
        call[at : at + 2] = [f"{option}={given or call[at + 1]}"]
    return call


@pytest.mark.parametrize("name", SEED_COMMANDS)
def test_without_names_they_are_the_commands_of_old(type_line, scripts, name):
    assert type_line(f'"{scripts}\\{name}.bat"') == [seed_call(scripts, name)]


@pytest.mark.parametrize(
    "name, source, target",
    [
        ("1-extract", "(1) my & your^ clip!.mov", "In & (out) it's; a, b=c!x!"),
        ("1-extract", "-i.mov", "In put\\"),
        ("2-dream", "In & (out) it's; a, b=c!x!\\", "(1)^ & 2!\\"),
        ("3-create", "In & (out) it's; a, b=c!x!\\", "(1) my & your^ clip!.mov"),
    ],
)
def test_any_name_gets_through(type_line, scripts, name, source, target):
    assert type_line(f'"{scripts}\\{name}.bat" "{source}" "{target}"') == [seed_call(scripts, name, source, target)]


def test_percent_signs_get_through(type_line, scripts, tmp_path):
    (tmp_path / "probe.bat").write_text('@set "X=%~1"\r\n@python "%X%"\r\n')
    if type_line('probe.bat "a%b"') != [["a%b"]]:
        pytest.skip("this Wine's cmd loses percent signs where Windows keeps them: NOT TESTED")
    for name in SEED_COMMANDS:
        case = name, "100%.mov", "%d of %d"
        assert type_line(f'"{scripts}\\{name}.bat" "{case[1]}" "{case[2]}"') == [seed_call(scripts, *case)]


def test_quickstart_makes_an_environment_and_hands_on_the_options(type_line, scripts):
    line = f'"{scripts}\\quickstart.bat" "my (clip) & co.mov" --audio none -l "a b" c'
    check, make, install, dream = type_line(line)
    assert (check[0], make[:2], install[:3]) == ("-c", ["-m", "venv"], ["-m", "pip", "install"])
    assert install[-1] == f"{scripts}\\..\\requirements.txt"
    assert {"--input=my (clip) & co.mov", "--output=my (clip) & co-dream.mp4"} < set(dream)
    assert dream[-6:] == ["inception_4c/output", "--audio", "none", "-l", "a b", "c"]
    _, demo, dream = type_line(f'"{scripts}\\quickstart.bat"')
    assert demo == [f"{scripts}\\..\\scripts\\demo_clip.py", "mandelbrot.mp4"]
    assert {"--input=mandelbrot.mp4", "--output=mandelbrot-dream.mp4"} < set(dream)


def test_windows_files_have_windows_line_ends():
    for path in (ROOT / "scripts").glob("*.bat"):
        lines = path.read_bytes().split(b"\n")
        assert lines.pop() == b"" and all(line.endswith(b"\r") for line in lines), path
