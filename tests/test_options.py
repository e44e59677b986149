"""Defaults, ranges, help and the manifest's entries, each from its one place."""

from dataclasses import FrozenInstanceError, dataclass
from fractions import Fraction

import pytest

import dreamer
from deepdream.arguments import build_parser
from deepdream.errors import UsageError
from deepdream.options import (
    CUSTOM_LOOP,
    HISTORIC,
    SETTINGS,
    DivideMode,
    DivideOptions,
    DreamOptions,
    FlowMode,
    FlowOptions,
    NetworkOptions,
    RenderOptions,
    VideoOptions,
    parse_frame_rate,
)
from deepdream.settings import manifest_entries, options_from, setting, settings_of

NAN, INFINITY = float("nan"), float("inf")


def test_the_defaults_are_the_documented_ones():
    options = RenderOptions()
    dream, flow, divide = options.dream, options.flow, options.divide
    assert (dream.octaves, dream.octave_scale, dream.iterations) == (4, 1.4, 10)
    assert (dream.step_size, dream.jitter, dream.zoom, dream.preview, dream.seed) == (1.5, 32, 1, 0, 0)
    assert dream.layers == (CUSTOM_LOOP,)
    assert (flow.mode, flow.threshold, flow.blend_flow, flow.blend_static) == (FlowMode.OFF, 6, 0.9, 0.1)
    assert (divide.mode, divide.max_width, divide.max_height) == (DivideMode.OFF, 1500, 1500)
    assert (options.guide, options.image_type) == (None, None)
    assert VideoOptions() == VideoOptions(frame_rate=None, audio=None)


@pytest.mark.parametrize(
    "kind, field, option, refused, taken",
    [
        (DreamOptions, "octaves", "--octaves", (0, -1, 65), (1, 64)),
        (DreamOptions, "octave_scale", "--octavescale", (1.0, 0.5, NAN, INFINITY), (1.01, 3.0)),
        (DreamOptions, "iterations", "--iterations", (-1,), (0, 1000)),
        (DreamOptions, "step_size", "--stepsize", (-0.1, NAN, INFINITY), (0.0, 20.0)),
        (DreamOptions, "jitter", "--jitter", (-1,), (0, 1000)),
        (DreamOptions, "zoom", "--zoom", (0.99, 100.1, NAN), (1.0, 100.0)),
        (DreamOptions, "preview", "--preview", (-1,), (0, 640)),
        (DreamOptions, "seed", "--seed", (-1,), (0, 2**40)),
        (DreamOptions, "layers", "--layers", ((), ("",)), (("a",), ("a", "b"))),
        (FlowOptions, "threshold", "--flowthresh", (-1, 256, NAN), (0, 255)),
        (FlowOptions, "blend_flow", "--blendflow", (-0.1, 1.1, NAN), (0.0, 1.0)),
        (FlowOptions, "blend_static", "--blendstatic", (-0.1, 1.1, NAN), (0.0, 1.0)),
        (DivideOptions, "max_width", "--maxWidth", (0, -5), (1, 4000)),
        (DivideOptions, "max_height", "--maxHeight", (0, -5), (1, 4000)),
        (FlowOptions, "mode", "--flow", (3, -1), (0, FlowMode.STABLE)),
        (DivideOptions, "mode", "--divide", (4, -1), (0, DivideMode.SEAMLESS)),
        (NetworkOptions, "engine", "--engine", ("jax",), ("caffe",)),
        (VideoOptions, "frame_rate", "--framerate", (Fraction(0), Fraction(1001)), (Fraction(1, 2), Fraction(1000))),
    ],
)
def test_a_value_outside_the_range_is_refused_by_the_name_of_its_option(kind, field, option, refused, taken):
    for value in taken:
        assert getattr(kind(**{field: value}), field) == value
    for value in refused:
        with pytest.raises(UsageError, match=option):
            kind(**{field: value})


@pytest.mark.parametrize(
    "option, values",
    {
        "--octaves": ("0", "65", "9" * 400, "two"), "--octavescale": ("inf", "nan", "1"),
        "--iterations": ("1000000000", "1e9", "-1"), "--stepsize": ("nan", "1e300", "-1"),
        "--jitter": ("9" * 400, "-1"), "--zoom": ("nan", "0.5"), "--preview": ("1000000", "-5"), "--seed": ("-1",),
        "--flowthresh": ("256",), "--blendflow": ("-0.1", "1.5"), "--blendstatic": ("inf",), "--maxWidth": ("0",),
        "--maxHeight": ("-9",), "--flow": ("9", "1.5"), "--divide": ("-1",), "--gpu": ("2",), "--verbose": ("4",),
        "--framerate": ("1" * 5000, "0.0000001", "-1", "0/0", "fast"), "--image_type": ("gif",), "--engine": ("jax",),
        "--precision": ("float16",),
    }.items(),
)  # fmt: skip
def test_a_value_typed_outside_the_range_is_refused_by_the_name_of_its_option(option, values):
    for value in values:
        with pytest.raises(UsageError, match=option):
            dreamer.parse([option, value])


@pytest.mark.parametrize(
    "words, said",
    [
        ("--octaves 0", "--octaves 0: expected a number, 1 to 64"),
        ("--octavescale 1", "--octavescale 1.0: expected a number, greater than 1"),
        ("--seed -1", "--seed -1: expected a number, at least 0"),
        ("--framerate 5000", "--framerate 5000: expected a number, 0.001 to 1000"),
        ("-it gif", "--image_type gif: expected jpg or png"),
    ],
)
def test_a_refusal_tells_the_range(words, said):
    with pytest.raises(UsageError) as refusal:
        dreamer.parse(words.split())
    assert str(refusal.value) == said


def test_help_tells_the_range_that_is_checked():
    helps = {known.name: known.help for known in SETTINGS}
    assert helps["--octaves"] == "number of octaves (1 to 64; default: 4; over time: 0:4, 48:6)"
    assert helps["--octavescale"] == "ratio between octaves (greater than 1; default: 1.4; over time: 0:1.4, 48:1.6)"
    assert helps["--seed"] == "seed of the jitter (at least 0; default: 0)"
    assert helps["--blendstatic"].endswith("(0 to 1; default: 0.1; with -flow 2 1; over time: 0:0.1, 48:0.9)")
    assert helps["--flow"].endswith("(default: 0)")
    assert helps["--layers"].endswith("(default: customloop; over time: 0:conv3, 48:conv4)")


def test_help_tells_what_kind_of_value_it_takes():
    text = build_parser().format_help()
    assert all(words in text for words in ("--octaves N", "--zoom X", "--verbose {0,1,2,3}", "--flow [0-2]"))


def test_the_manifests_entries_are_those_of_renders_begun_before():
    options = RenderOptions(DreamOptions(seed=7), FlowOptions(FlowMode.STABLE), DivideOptions(DivideMode.HALVES))
    parts = (options.dream, options.flow, options.divide)
    assert [pair for part in parts for pair in manifest_entries(part).items()] == [
        ("--layers", ["customloop"]), ("--octaves", 4), ("--octavescale", 1.4), ("--iterations", 10),
        ("--stepsize", 1.5), ("--jitter", 32), ("--zoom", 1.0), ("--rotate", 0.0), ("--preview", 0),
        ("--dreamwidth", 0), ("--panorama", False), ("--seed", 7), ("--smooth", 1.0), ("--colors", "dream"),
        ("--flow", 2), ("--flowthresh", 6.0), ("--blendflow", 1.0), ("--blendstatic", 1.0), ("--flowiterations", 3),
        ("--divide", 2), ("--maxWidth", 1500), ("--maxHeight", 1500),
    ]  # fmt: skip


def test_a_render_begun_before_there_was_a_look_goes_on_without_one():
    before = {"--dreamwidth": 0, "--smooth": 0, "--colors": "dream", "--flowiterations": None}
    assert {name: HISTORIC[name] for name in before} == before
    for mode, goes_on in ((FlowMode.OFF, True), (FlowMode.BLEND, True), (FlowMode.STABLE, False)):
        options = RenderOptions(DreamOptions(), FlowOptions(mode))
        now = manifest_entries(options.dream) | manifest_entries(options.flow)
        assert all(now[name] == before[name] for name in before) == goes_on


def test_a_new_option_is_a_field_alone():
    @dataclass(frozen=True)
    class New:
        smooth: float = setting(0.5, "--smooth", low=0, high=2, historic=0, help="smoothing")

    ((field, known),) = settings_of(New)
    assert (field, known.destination, known.historic) == ("smooth", "smooth", 0)
    assert known.help == "smoothing (0 to 2; default: 0.5)" and known.argument["type"]("1.5") == 1.5
    assert options_from(New, {"smooth": None}) == New(0.5) and options_from(New, {"smooth": 2.0}) == New(2.0)
    assert manifest_entries(New(1.5)) == {"--smooth": 1.5}


def test_checked_options_stay_as_they_are():
    with pytest.raises(FrozenInstanceError):
        DreamOptions().octaves = 0


@pytest.mark.parametrize(
    "text, rate",
    [("24", 24), ("29.97", Fraction(2997, 100)), ("30000/1001", Fraction(30000, 1001)), (" 25 ", 25), ("0.5", 0.5)],
)
def test_a_frame_rate_is_exact(text, rate):
    assert parse_frame_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-25", "25/0", "1/2/3", "nan", "inf", "1e3", "25 fps", "25.", "1/2.5"])
def test_what_is_no_frame_rate_is_refused(text):
    with pytest.raises(UsageError, match="--framerate"):
        parse_frame_rate(text)
