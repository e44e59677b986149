"""The bytes of a dream do not depend on the number of threads."""

import pytest
import torch
from PIL import Image

import dreamer
from deepdream.picture.ascent import mean_magnitude


@pytest.fixture
def set_threads():
    """A function that sets the number of PyTorch's threads until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 1), (97, 64), (271, 483)])
def test_the_mean_magnitude_is_the_mean_whatever_the_threads(set_threads, size, layout):
    gradient = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)[0]
    found = []
    for count in (1, 2, 3):
        set_threads(count)
        found.append(mean_magnitude(gradient).item())
    assert found[0] == found[1] == found[2] == pytest.approx(gradient.double().abs().mean().item(), rel=1e-6)


OPTIONS = (["-flow", "1", "-d", "1"], ["-flow", "2", "-d", "3"], ["-flow", "2", "-it", "jpg"])


@pytest.mark.parametrize("options", OPTIONS)
def test_renders_have_the_same_bytes_on_one_two_and_three_threads(
    small_folder, footage, tmp_path, set_threads, options
):
    (tmp_path / "in").mkdir()
    for number in range(3):  # large enough for PyTorch to divide its work among threads
        picture = Image.fromarray(footage[number]).resize((264, 216))
        picture.save(tmp_path / "in" / f"{number}.{'jpg' if 'jpg' in options else 'png'}", quality=95)
    made = []
    for threads in (1, 2, 3):
        set_threads(threads)
        command = ["-i", tmp_path / "in", "-o", tmp_path / f"{threads}", "-t", small_folder, "-l", "mixed", "-v", "0"]
        assert dreamer.main([*map(str, command), "-oct", "2", "-itr", "3", *options, "-mw", "200", "-mh", "150"]) == 0
        made.append([path.read_bytes() for path in sorted((tmp_path / f"{threads}").glob("frame_*"))])
    assert len(made[0]) == 3 and made[0] == made[1] == made[2]
