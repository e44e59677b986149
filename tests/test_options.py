"""Defaults and ranges, each in its one place."""

from dataclasses import FrozenInstanceError
from fractions import Fraction

import pytest

from deepdream.errors import UsageError
from deepdream.options import (
    CUSTOM_LOOP,
    DivideMode,
    DivideOptions,
    DreamOptions,
    FlowMode,
    FlowOptions,
    RenderOptions,
    VideoOptions,
    parse_frame_rate,
)

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
        (VideoOptions, "frame_rate", "--framerate", (Fraction(0), Fraction(1001)), (Fraction(1, 2), Fraction(1000))),
    ],
)
def test_a_value_outside_the_range_is_refused_by_the_name_of_its_option(kind, field, option, refused, taken):
    for value in taken:
        assert getattr(kind(**{field: value}), field) == value
    for value in refused:
        with pytest.raises(UsageError, match=option):
            kind(**{field: value})


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
