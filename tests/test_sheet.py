"""The layer sheet: a frame at each layer, equally strong, as a picture and as a page."""

import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from clips import make_clip
from helpers import save_frames
from PIL import Image

from deepdream.arguments import parse
from deepdream.errors import UsageError
from deepdream.options import DreamOptions, RenderOptions
from deepdream.render.frame import Source
from deepdream.show import sheet
from deepdream.show.measures import strength
from deepdream.show.still import Still, open_mask, open_still

QUICK = RenderOptions(DreamOptions(octaves=2, iterations=4, jitter=4))


@pytest.fixture
def picture(photograph):
    return photograph("chelsea.png", (60, 90))


def tiles_of(picture, network, targets, options=QUICK):
    work = []
    tiles = sheet.dream_tiles(
        Source(picture, picture), network, targets, options, lambda done, target: work.append(done)
    )
    assert sum(work) == pytest.approx(sheet.sheet_work(targets, picture, options))
    return tiles


def test_all_tiles_are_equally_strong(picture, default_network):
    targets = [f"block_{number}/output" for number in (0, 2, 9)]
    tiles = tiles_of(picture, default_network, targets)
    strengths = [strength(tile.picture, picture) for tile in tiles]
    assert [tile.target for tile in tiles] == targets and tiles[0].step_size < 0.7 * tiles[2].step_size
    assert max(strengths) < 1.15 * min(strengths)
    # A tile is what its step size gives, so the command that it names makes it again.
    again = tiles_of(picture, default_network, targets[:1], _with_step(tiles[0].step_size))
    assert np.array_equal(again[0].picture, tiles[0].picture) and again[0].step_size == tiles[0].step_size


def _with_step(step_size):
    return RenderOptions(DreamOptions(octaves=2, iterations=4, jitter=4, step_size=step_size))


def test_what_cannot_be_dreamed_says_so_in_its_tile(small_network):
    picture = np.zeros((40, 48, 3), np.uint8)
    picture[:, ::3] = 200
    tiles = tiles_of(picture, small_network, ["conv1", "narrow"], RenderOptions(DreamOptions(octaves=4, iterations=2)))
    assert tiles[0].picture is not None and tiles[1].picture is None
    assert "layer narrow cannot take an octave of" in tiles[1].note
    with pytest.raises(UsageError, match="layer narrow cannot take"):
        tiles_of(picture, small_network, ["narrow"], RenderOptions(DreamOptions(octaves=4, iterations=2)))


def test_a_layer_that_answers_nothing_says_so(small_network, monkeypatch):
    picture = np.full((40, 48, 3), 99, np.uint8)
    dreamed = {"conv1": picture + 1, "mixed": picture}
    monkeypatch.setattr(sheet, "dream_frame", lambda frame, *_, on_step: SimpleNamespace(picture=dreamed[frame.layer]))
    noted = sheet.dream_tiles(Source(picture, picture), small_network, ["conv1", "mixed"], QUICK, lambda *work: None)
    assert noted[1].picture is None and noted[1].note


@pytest.mark.parametrize(
    "targets, tiles",
    [
        (["conv1", "mixed", "conv1"], ["conv1", "mixed"]),
        (["mixed:1,3-5"], ["mixed:1", "mixed:3", "mixed:4", "mixed:5"]),
        (["conv1+0.5*mixed:1,2"], ["conv1+0.5*mixed:1,2"]),
        (["-1*mixed:1,2"], ["-1*mixed:1,2"]),
    ],
)
def test_channels_get_a_tile_each(small_network, targets, tiles):
    from deepdream.networks import resolve_layers

    assert sheet.sheet_targets(small_network, resolve_layers(small_network, targets, on_message=print)) == tuple(tiles)


def test_weights_are_those_of_the_frame(small_network):
    assert sheet.sheet_targets(small_network, ["(0:1, 10:3)*conv1+mixed"], 5) == ("2*conv1+mixed",)


def test_a_class_is_named(default_network, monkeypatch):
    monkeypatch.setattr(default_network, "labels", tuple(f"class {number}, other" for number in range(1000)))
    assert sheet._label("classes:281", default_network) == "classes:281 (class 281)"
    assert sheet._label("block_9/output:7", default_network) == "block_9/output:7"
    assert sheet._label("classes", default_network) == "classes"


def test_the_layers_of_a_network_are_where_its_blocks_end(default_network, googlenet, squeezenet, small_network):
    assert default_network.features == tuple(f"block_{number}/output" for number in range(16))
    assert len(googlenet.features) == 9 and googlenet.features[0] == "inception_3a/output"
    assert squeezenet.features[0] == "fire2/concat" and len(squeezenet.features) == 8
    assert small_network.features == ("conv1", "left", "right", "narrow")


def test_googlenets_modules_are_dreamed(googlenet, picture):
    options = RenderOptions(DreamOptions(octaves=2, iterations=1, jitter=4))
    tiles = tiles_of(picture, googlenet, googlenet.features, options)
    assert [tile.label for tile in tiles] == list(googlenet.features) and all(tile.step_size for tile in tiles)


def test_the_frame_is_the_one_asked_for_or_the_middle(frames, tmp_path):
    assert (open_still(frames).number, open_still(frames).count) == (2, 4)
    assert open_still(frames, 0).name == "image-000001.png"
    clip = make_clip(tmp_path / "clip.mp4", frames=5)
    third = open_still(clip)
    assert (third.number, third.count, third.name) == (2, 5, "clip.mp4")
    assert not np.array_equal(third.picture, open_still(clip, 4).picture)
    part = open_still(clip, 0, parse(["--start", "0.08"]).part)
    assert np.array_equal(part.picture, third.picture) and part.count == 3
    assert open_still(frames / "image-000001.png").count == 1
    for source, number in ((frames, 4), (clip, 5), (frames / "image-000001.png", 1)):
        with pytest.raises(UsageError, match=f"--frame {number}: .* has frames 0 to {number - 1}$"):
            open_still(source, number)


def test_the_mask_is_that_of_the_frame(frames, tmp_path):
    masks = save_frames([np.full((4, 6), value, np.uint8) for value in (0, 50, 100, 150)], tmp_path / "masks")
    mask = open_mask(str(masks), open_still(frames, 1), (60, 40))
    assert mask.shape == (40, 60) and (mask == 50).all()
    assert (open_mask(str(masks / "3.png"), open_still(frames, 1), (60, 40)) == 150).all()
    with pytest.raises(UsageError, match="4 masks for 5 frames"):
        open_mask(str(masks), Still("a.png", np.zeros((40, 60, 3), np.uint8), 1, 5), (60, 40))


@pytest.mark.parametrize(
    "size, given, dreamed",
    [
        ((640, 360), {}, (320, 180)),
        ((200, 100), {}, (200, 100)),
        ((640, 360), {"preview": 400}, (400, 225)),
        ((640, 360), {"dream_width": 160}, (160, 90)),
        ((640, 360), {"preview": 1280}, (1280, 720)),
    ],
)
def test_it_is_dreamed_small_unless_a_width_is_given(size, given, dreamed):
    still = Still("a.png", np.zeros((size[1], size[0], 3), np.uint8))
    options = sheet.sheet_options(RenderOptions(DreamOptions(**given)), size[0])
    assert sheet.shrink_still(still, options).shape[1::-1] == dreamed


def test_wider_than_the_frame_is_refused():
    with pytest.raises(UsageError, match="--dreamwidth 900: wider than the frame, which has 90 pixels"):
        options = RenderOptions(DreamOptions(dream_width=900))
        sheet.shrink_still(Still("a.png", np.zeros((60, 90, 3), np.uint8)), options)


def test_a_panorama_is_dreamed_as_one(small_network):
    options = sheet.sheet_options(RenderOptions(DreamOptions(octaves=1, iterations=1, panorama=True)), 640)
    picture = sheet.shrink_still(Still("a.png", np.zeros((320, 640, 3), np.uint8)), options)
    assert picture.shape == (160, 320, 3) and not sheet._too_deep("narrow", small_network, picture, options)
    with pytest.raises(UsageError, match="a.png: --panorama takes equirectangular frames"):
        sheet.shrink_still(Still("a.png", np.zeros((300, 640, 3), np.uint8)), options)


def command(*more, kind="png"):
    words = ("-i", "Input", "--show-layers", f"sheet.{kind}", "-oct", 1, "-itr", 2, "-j", 2, "-gpu", 0)
    return [*words, *more]


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_sheet_is_a_picture_with_the_source_first(run_here, frames, tmp_path, small_folder, kind):
    done = run_here(*command("-t", small_folder, "-l", "conv1", "mixed:0-2", kind=kind))
    assert done.returncode == 0 and re.search(rf"^4 layers in [\d:]+: sheet.{kind}$", done.stderr, re.M)
    picture = np.asarray(Image.open(tmp_path / f"sheet.{kind}").convert("RGB")).astype(int)
    source = np.asarray(Image.open(frames / "image-000003.png").convert("RGB")).astype(int)
    top = 5 * 14
    shown = picture[top : top + 40, sheet.MARGIN : sheet.MARGIN + 60]
    assert abs(shown - source).mean() < (1e-9 if kind == "png" else 12)
    assert picture.shape[:2] == (top + 2 * (40 + 3 * 14 + 16) + 16, 4 * (60 + 16) + 16)
    assert (picture[-1, -1] - sheet.BACKGROUND).max() < 5


def test_all_layers_are_those_of_the_network(run_here, frames, tmp_path, small_folder):
    assert run_here(*command("-t", small_folder, kind="html")).returncode == 0
    names = re.findall(r'class="name">([\w/]+)', (tmp_path / "sheet.html").read_text())
    assert names == ["source", "conv1", "left", "right", "narrow"]


def test_the_page_names_the_command_of_each_tile(run_here, frames, tmp_path, small_folder):
    done = run_here(*command("-t", small_folder, "-l", "conv1", "mixed", "--frame", 1, "-flow", 2, kind="html"))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "sheet.html").read_text()
    assert "image-000002.png, frame 1 of 4, dreamed at 60x40" in text
    found = re.findall(r"<pre hidden>(.*?)</pre>", text, re.S)
    commands = [re.sub(r"<[^>]+>", "", each).replace("&#39;", "'").strip() for each in found]
    assert len(commands) == 2
    words = shlex.split(commands[0])
    assert words[0] == "dreamer.py" and words[words.index("--model_path") + 1] == str(small_folder)
    arguments = parse(words[1:])
    assert arguments.run.input == "Input" and arguments.run.output == "Output"
    assert arguments.render.dream.layers == ("conv1",) and arguments.render.flow.mode == 2
    assert run_here(*words[1:], "-v", 0).returncode == 0


@pytest.mark.parametrize(
    "more, said",
    [
        (["--show-layers", "sheet.gif"], "sheet.gif: expected a name that ends in .jpg, .jpeg, .png, .html, .htm"),
        (["--show-layers", "Input/sheet.png"], "Input/sheet.png would be one of the frames in Input; put it elsewhere"),
        (["--show-layers", "there.png"], "there.png is there already; choose another name, or --overwrite it"),
        (["--show-layers", "no/sheet.png"], "no/sheet.png: there is no directory no"),
        (["--frame", "9"], "--frame 9: Input has frames 0 to 3"),
        (["--frame", "-1"], "--frame -1: expected a number, at least 0"),
        (["-l", "nowhere"], "has no layer nowhere"),
        (["-i", "nothing"], "nothing"),
        (["--dreamwidth", "99"], "--dreamwidth 99: wider than the frame, which has 60 pixels"),
    ],
)
def test_mistakes_are_one_line_before_any_work(run_here, frames, tmp_path, small_folder, more, said):
    (tmp_path / "there.png").write_bytes(b"a picture")
    done = run_here(*command("-t", small_folder, *more))
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Input", "there.png"]
    assert (tmp_path / "there.png").read_bytes() == b"a picture"


def test_it_needs_an_input(run_here):
    done = run_here("--show-layers", "sheet.png")
    assert done.returncode == 2 and "-i/--input is missing" in done.stderr


def test_frame_without_a_sheet_changes_nothing_and_says_so(run_here, frames, small_folder):
    done = run_here("-i", "Input", "-o", "out", "-t", small_folder, "-l", "conv1", "-itr", 0, "-gpu", 0, "--frame", 1)
    assert "--frame: these change nothing in this mode" in done.stderr


def test_long_names_and_notes_stay_within_their_tiles():
    tile = sheet.Tile("t", "layer/" + "x" * 200, None, "no " * 200)
    drawn = []

    class Draw:
        def text(self, place, text, font, **more):
            drawn.append((text, font.getlength(text)))

        def multiline_text(self, place, text, font, spacing, **more):
            lines = text.splitlines()
            drawn.append((text, max(map(font.getlength, lines))))
            assert len(lines) * font.size * 1.1 < 80

    sheet._write_line(Draw(), (0, 0), tile.label, 160, 14, sheet.INK)
    assert drawn[0][1] <= 160 and drawn[0][0].startswith("layer/xx") and "…" in drawn[0][0]
    sheet._write_line(Draw(), (0, 0), "short", 160, 14, sheet.INK)
    assert drawn[1][0] == "short"
    sheet._write_lines(Draw(), (0, 0), "it does not fit " * 9, (120, 80), 14)
    assert drawn[2][1] <= 130


def test_a_note_stays_in_its_tile():
    still = Still("a.png", np.full((96, 128, 3), 200, np.uint8))
    tiles = [sheet.Tile("a", "a", note="too deep " * words) for words in range(6, 18)]
    tiles.append(sheet.Tile("b", "b", still.picture, step_size=1))
    drawn = sheet.draw_sheet(sheet.Sheet(still, still.picture, tiles, "net", parse(["-i", "a.png"]), QUICK))
    columns = sheet._columns(len(tiles) + 1, (144, 96 + 3 * 14 + 16))
    for number in range(1, len(tiles)):
        left, top = 16 + number % columns * 144, 70 + number // columns * (96 + 3 * 14 + 16)
        assert (drawn[top + 96 : top + 110, left + 16 : left + 128] == sheet.BACKGROUND).all()
        assert (drawn[top + 2 : top + 94, left + 2 : left + 126] != sheet.BACKGROUND).any()


def test_a_sheet_is_about_as_wide_as_a_screen():
    assert [sheet._columns(count, (336, 260)) for count in (1, 2, 17, 33)] == [1, 2, 5, 6]
