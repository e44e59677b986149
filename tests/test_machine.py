"""What a render computes on decides how it rounds: it goes on where frames would round alike, or where told to."""

import json

import pytest
import torch
from helpers import read_dreams

from deepdream.machine import describe, differences

HERE = describe(torch.device("cpu"))


def test_what_rounds_otherwise_is_told():
    assert differences(HERE, HERE) == []
    there = HERE | {"instructions": "x86_64 OTHER", "PyTorch": "1.0", "processor": "another", "system": "another"}
    libraries = {"OpenCV": "1", "NumPy": "2", "Pillow": "3", "Numba": "4"}
    assert differences(HERE, HERE | libraries) == [
        f"{name} {HERE[name]} here, {version} there" for name, version in libraries.items()
    ]
    assert differences(HERE, there) == [
        f"PyTorch {HERE['PyTorch']} here, 1.0 there",
        f"instructions {HERE['instructions']} here, x86_64 OTHER there",
    ]


def test_a_build_and_what_one_side_does_not_tell_make_no_difference():
    version = HERE["PyTorch"].partition("+")[0]
    assert differences(HERE, HERE | {"PyTorch": f"{version}+cu999"}) == []
    assert differences(HERE, {"deepdream": HERE["deepdream"]}) == []
    assert differences(HERE, {name: value for name, value in HERE.items() if name != "instructions"}) == []


def test_the_instructions_are_those_of_pytorch():
    assert HERE["instructions"].split()[-1] == torch.backends.cpu.get_cpu_capability()


@pytest.fixture
def elsewhere(frames, small_folder, run_here, tmp_path):
    """A function that renders; two of the four frames of the render are gone, which another machine began."""

    def render(*more):
        quick = "-gpu 0 -l mixed -oct 1 -itr 1 -j 4 -v 1".split()
        return run_here("-i", frames, "-o", "Output", "-t", small_folder, *quick, *more)

    assert render().returncode == 0
    for number in (2, 3):
        (tmp_path / "Output" / f"frame_{number:06d}.png").unlink()
    journal = tmp_path / "Output" / "frames.jsonl"
    journal.write_text(journal.read_text().replace(HERE["instructions"], "x86_64 OTHER"))
    return render


def test_a_render_of_another_machine_goes_on_only_when_told(elsewhere, tmp_path):
    before = read_dreams(tmp_path / "Output")
    done = elsewhere()
    assert done.returncode == 2 and read_dreams(tmp_path / "Output") == before
    assert f"instructions {HERE['instructions']} here, x86_64 OTHER there" in done.stderr.splitlines()[-1]
    assert "--mix-machines" in done.stderr.splitlines()[-1]
    assert elsewhere("--mix-machines").returncode == 0
    assert len(read_dreams(tmp_path / "Output")) == 4
    runs = [json.loads(line)["run"] for line in (tmp_path / "Output" / "frames.jsonl").read_text().splitlines()
            if "run" in line]  # fmt: skip
    assert [run["instructions"] for run in runs] == ["x86_64 OTHER", HERE["instructions"]]


def test_a_mixed_render_goes_on_on_both(elsewhere, tmp_path):
    assert elsewhere("--mix-machines").returncode == 0
    (tmp_path / "Output" / "frame_000003.png").unlink()
    assert elsewhere().returncode == 0


def test_overwriting_needs_no_leave(elsewhere):
    assert elsewhere("--overwrite").returncode == 0


def test_a_finished_render_is_finished_anywhere(elsewhere, tmp_path):
    assert elsewhere("--mix-machines").returncode == 0
    journal = tmp_path / "Output" / "frames.jsonl"
    journal.write_text(journal.read_text().replace(HERE["instructions"], "x86_64 OTHER"))
    assert elsewhere().returncode == 0


def test_frames_that_are_gone_altogether_bind_nobody(elsewhere, tmp_path):
    for number in (0, 1):
        (tmp_path / "Output" / f"frame_{number:06d}.png").write_bytes(b"")
    assert elsewhere().returncode == 0
