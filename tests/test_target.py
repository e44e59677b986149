"""What a frame dreams towards: texts read, and resolved to a network's layers, channels and classes."""

import shlex
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dreamer
from deepdream import arguments
from deepdream.errors import ModelError, UsageError
from deepdream.networks import load_network, resolve_layers
from deepdream.options import CUSTOM_LOOP
from deepdream.schedule import Schedule, parse_lists
from deepdream.target import Term, parse_target, target_at, target_layers, write_target

FADE = Schedule((0, 48), (1, 0))
LAYERS = ("a", "b", "conv4-1", "x:0", "p+q")
LABELS = ("tench, Tinca tinca", "great white shark", "hen", "cock", "ostrich", "junco", "robin")


@pytest.mark.parametrize(
    "text, terms",
    [
        ("a", [Term("a")]),
        ("conv4-1", [Term("conv4-1")]),
        ("x:0", [Term("x:0")]),
        ("p+q", [Term("p+q")]),
        ("a:7", [Term("a", ("7",))]),
        ("a:3,7,9-12", [Term("a", ("3", "7", "9-12"))]),
        ("x:0:3", [Term("x:0", ("3",))]),
        ("a:great white shark, hen", [Term("a", ("great white shark", "hen"))]),
        ("a+0.5*b", [Term("a"), Term("b", (), 0.5)]),
        (" a + 0.5 * b ", [Term("a"), Term("b", (), 0.5)]),
        ("a-0.5*b", [Term("a"), Term("b", (), -0.5)]),
        ("a+-b", [Term("a"), Term("b", (), -1)]),
        ("a + -3*b", [Term("a"), Term("b", (), -3)]),
        ("-a", [Term("a", (), -1)]),
        ("-2*a:1+b", [Term("a", ("1",), -2), Term("b")]),
        ("a:9-12-0.5*conv4-1:1", [Term("a", ("9-12",)), Term("conv4-1", ("1",), -0.5)]),
        ("unknown", [Term("unknown")]),
        ("a*0.5", [Term("a", (), 0.5)]),
        ("(0:1, 48:0)*a", [Term("a", (), FADE)]),
        ("a*(0:(1), 48:(0)) + b:3*( 0 : 0.5 )", [Term("a", (), FADE), Term("b", ("3",), Schedule((0,), (0.5,)))]),
        ("a*(0:-1, 9:1)+b", [Term("a", (), Schedule((0, 9), (-1, 1))), Term("b")]),
    ],
)
def test_texts_are_read(text, terms):
    assert parse_target(text, LAYERS) == tuple(terms)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "a term is missing"), ("+", "a term is missing"), ("a+", "a term is missing"),
        ("a++b", "a term is missing"),
        ("0*a", "out of range"), ("99999*a", "out of range"), ("-0.00001*a", "out of range"),
        ("1.2.3*a", "expected a number"), ("(0:1, 4:x)*a", "keyframe 2, 4:x: expected a number"),
        ("(0:1, 4:99999)*a", "99999 is out of range"), ("2*a*(0:1, 4:2)", r"4:2\) has two weights"),
        ("a:", "channels are missing"), ("a:3,", "channels are missing"), (":3", "channels are missing"),
    ],
)  # fmt: skip
def test_what_is_no_target_is_refused(text, reason):
    with pytest.raises(UsageError, match=reason):
        parse_target(text, LAYERS)


WEIGHTS = st.floats(0.001, 1000).flatmap(lambda weight: st.sampled_from([1.0, weight, -weight])).map(
    lambda weight: float(f"{weight:.12g}")
) | st.lists(st.floats(0.001, 1000), min_size=1, max_size=3).map(
    lambda values: Schedule(tuple(range(5, 5 + 2 * len(values), 2)), tuple(values))
)  # fmt: skip


@given(st.lists(st.builds(
    Term, st.sampled_from(["a", "b", "conv4-1", "x:0"]), st.lists(st.integers(0, 999).map(str), max_size=3).map(tuple),
    WEIGHTS), min_size=1, max_size=3))  # fmt: skip
def test_a_text_is_read_as_it_is_written(terms):
    assert parse_target(write_target(terms), LAYERS) == tuple(terms)


@pytest.mark.parametrize(
    "target, frame, plain",
    [
        ("a*(0:1, 48:0)+b*(0:0, 48:1)", 0, "a"),
        ("a*(0:1, 48:0)+b*(0:0, 48:1)", 12, "0.75*a+0.25*b"),
        ("a*(0:1, 48:0)+b*(0:0, 48:1)", 99, "b"),
        ("(0:1, 8:-1)*a:1,4-7-0.5*b", 8, "-1*a:1,4-7-0.5*b"),
        ("(0:1, 8:-1)*a:1,4-7-0.5*b", 4, "-0.5*b"),
        ("a*(0:0, 8:2)+b*(0:0, 8:1)", 0, "0.0001*a+0.0001*b"),  # nothing else is left
        ("p+q", 3, "p+q"),
        ("(0:1, 2:3)*x:0:3", 1, "2*x:0:3"),
    ],
)
def test_a_target_has_the_weights_of_its_frame(target, frame, plain):
    assert target_at(target, frame) == plain


def test_the_layers_of_targets_come_once_each():
    assert target_layers(["a+0.5*b:3", "conv4-1", "b", "a:1"], LAYERS) == ("a", "b", "conv4-1")


# --- Resolved -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(small_folder, tmp_path_factory):
    """The small network, whose model brings names of its seven classes."""
    folder = shutil.copytree(small_folder, tmp_path_factory.mktemp("labelled") / "model")
    lines = [f"n{number:08} {label}" for number, label in enumerate(LABELS)]
    (folder / "synset_words.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_network(folder, gpu=False, on_message=print)


@pytest.mark.parametrize(
    "text, resolved",
    [
        ("mixed", "mixed"),
        ("mixed:0,7", "mixed:0,7"),
        ("mixed:3,1-4", "mixed:3,1,2,4"),
        ("mixed + 0.50 * conv1:5", "mixed+0.5*conv1:5"),
        ("-mixed", "-1*mixed"),
        ("prob:hen,Tinca tinca,6", "prob:2,0,6"),
        ("classes:Great White Shark", "classes:1"),
    ],
)
def test_targets_become_those_of_the_network(labelled, text, resolved):
    assert resolve_layers(labelled, [text], on_message=print) == (resolved,)
    assert resolve_layers(labelled, [resolved], on_message=print) == (resolved,)  # a settled text


@pytest.mark.parametrize(
    "text, reason",
    [
        ("mixed+conv9", "no layer conv9; near it: conv1"),
        ("mixed:8", "no channels 8: .* from 0 to 7"),
        ("mixed:3-8", "no channels 3-8"),
        ("mixed:4-3", "no channels 4-3"),
        ("mixed:hen", "layer mixed has no channel hen"),
        ("prob:henn", "no class henn; near it: hen"),
    ],
)
def test_what_the_network_has_not_is_told(labelled, text, reason):
    with pytest.raises(ModelError, match=reason):
        resolve_layers(labelled, [text], on_message=print)


def test_classes_without_names_have_numbers(small_network):
    assert resolve_layers(small_network, ["prob:6"], on_message=print) == ("prob:6",)
    with pytest.raises(ModelError, match="small does not say what its classes are called"):
        resolve_layers(small_network, ["prob:hen"], on_message=print)


@pytest.mark.parametrize(
    "words, meant",
    [
        (["7:0,2-3", "325:1"], ("7:0,2,3", "325:1")),
        (["325:1+0.5*7"], ("325:1+0.5*7",)),
        (["325:7"], Schedule((325,), (("7",),))),
        (["0:325:1", "48:7"], Schedule((0, 48), (("325:1",), ("7",)))),
    ],
)
def test_a_channel_of_a_layer_named_by_a_number_is_no_keyframe(tmp_path, small_folder, words, meant):
    folder = shutil.copytree(small_folder, tmp_path / "numbered")
    for path in folder.glob("*.prototxt"):
        path.write_text(path.read_text().replace('"mixed"', '"325"').replace('"pool1"', '"7"'))
    network = load_network(folder, gpu=False, on_message=print)
    assert resolve_layers(network, parse_lists("--layers", words, "0:a"), on_message=print) == meant


def test_a_sum_of_googlenets_layers_finds_its_stand_ins(default_network):
    told = []
    targets = resolve_layers(default_network, ["inception_4c/output:7-0.5*conv2/3x3"], on_message=told.append)
    assert targets == ("block_9/output:7-0.5*block_2/output",) and len(told) == 2


def test_the_layers_of_classes_are_those_at_the_end_of_a_classifier(small_network, default_network, squeezenet):
    assert small_network.class_layers() == ("classes", "prob")
    assert default_network.class_layers() == ("classes", "prob")
    assert squeezenet.class_layers() == ("conv_final", "relu_conv_final", "pool_final")


def test_a_loop_may_hold_targets(small_folder, tmp_path):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    (folder / "customloop.txt").write_text("mixed:1-2\nleft-0.5*conv1\n", encoding="utf-8")
    network = load_network(folder, gpu=False, on_message=print)
    assert resolve_layers(network, [CUSTOM_LOOP], on_message=print) == ("mixed:1,2", "left-0.5*conv1")


# --- As typed -------------------------------------------------------------------------------------


def test_list_layers_shows_the_classes(small_folder, tmp_path, capsys):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    assert dreamer.main(["--list-layers", "-t", str(folder)]) == 0
    plain = capsys.readouterr().out
    assert [line.split()[0] for line in plain.splitlines() if line.endswith(")  classes")] == ["classes", "prob"]
    (folder / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
    assert dreamer.main(["--list-layers", "-t", str(folder)]) == 0
    assert capsys.readouterr().out == plain + "".join(f"  class {n}: {label}\n" for n, label in enumerate(LABELS))


@pytest.mark.parametrize("text", ["mixed:99", "mixed+", "0*mixed", "mixed:", "mixed+nix", "prob:dog"])
def test_a_target_that_is_none_is_one_line_and_status_2(small_folder, frames, tmp_path, capsys, text):
    words = ["-i", str(frames), "-o", str(tmp_path / "out"), "-t", str(small_folder), "-gpu", "0", "-l", "mixed", text]
    assert dreamer.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_targets_take_turns_and_make_renders_of_their_own(small_folder, frames, tmp_path, capsys):
    out = tmp_path / "out"
    words = f"-i {frames} -o {out} -t {small_folder} -gpu 0 -oct 1 -itr 2 -bs 0 --no-settings".split()
    assert dreamer.main([*words, "-l", "mixed", "mixed:1-0.5*conv1"]) == 0
    mixed, both = ((out / f"frame_00000{number}.png").read_bytes() for number in (0, 1))
    assert dreamer.main([*words, "-l", "mixed"]) == 2  # another render
    assert "mixed:1-0.5*conv1" in capsys.readouterr().err
    assert dreamer.main([*words, "-l", "mixed", "--overwrite"]) == 0
    assert (out / "frame_000000.png").read_bytes() == mixed  # a plain layer is dreamed as ever
    assert (out / "frame_000001.png").read_bytes() != both


@pytest.mark.parametrize("words", [["-1*mixed"], ["-.5*mixed", "pool1"], ["-mixed+pool1"], ["pool1", "-2*mixed"]])
def test_a_target_may_begin_with_a_minus(small_folder, frames, tmp_path, capsys, words):
    command = ["-i", frames, "-o", tmp_path / "Out", "-t", small_folder, "-oct", 1, "-itr", 1, "-l"]
    assert dreamer.main([*map(str, command), *words, "-j", "2"]) == 0
    assert dreamer.main(["--settings", str(tmp_path / "Out" / "frame_000000.png")]) == 0
    told = shlex.split(capsys.readouterr().out)
    again = arguments.parse(told[1:]).render.dream
    assert again.jitter == 2
    assert [str(parse_target(word, ())) for word in again.layers] == [str(parse_target(word, ())) for word in words]


def test_what_is_no_target_after_one_is_still_an_option(capsys):
    assert dreamer.main(["-i", "a", "-o", "b", "-l", "mixed", "-xyz", "3"]) == 2
    assert "unrecognized arguments: -xyz 3" in capsys.readouterr().err
    assert dreamer.main(["-i", "a", "-o", "b", "-l", "-itr", "3"]) == 2
    assert "--layers: expected at least one argument" in capsys.readouterr().err
