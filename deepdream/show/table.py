"""The values of each frame, as a table: what `--print-schedule` prints before a long render."""

from collections.abc import Iterator

from deepdream.options import RenderOptions
from deepdream.render.plan import options_at
from deepdream.schedule import Schedule, values_of
from deepdream.settings import at, leaves
from deepdream.target import parse_target


def schedule_lines(options: RenderOptions, count: int | None) -> Iterator[str]:
    """A line a frame, and one above them, of the options that change over ``count`` frames.

    None: up to the last keyframe.
    """
    if count is None:
        values = [value for _, _, value in leaves(options)]
        targets = (target for layers in values_of(options.dream.layers) for target in layers)
        values += [term.weight for target in targets for term in parse_target(target, ())]
        count = 1 + max((value.frames[-1] for value in values if isinstance(value, Schedule)), default=0)
    frames = [_values(options, number) for number in range(count)]
    names = [name for name in frames[0] if len({frame[name] for frame in frames}) > 1]
    if not names:
        yield f"nothing changes over {count} frames"
        return
    widths = [max(len(name), *(len(frame[name]) for frame in frames)) for name in names]
    for number, frame in enumerate([{name: name for name in names}, *frames], -1):
        cells = (frame[name].ljust(width) for name, width in zip(names, widths))
        yield f"{'frame' if number < 0 else number:>7}  {'  '.join(cells)}".rstrip()


def _values(options: RenderOptions, number: int) -> dict[str, str]:
    """Each option's value at a frame, as text."""
    values = {
        known.name: f"{value:.6g}" if isinstance(value, float) else " ".join(known.words(value)[1:])
        for _, known, value in leaves(at(options, number))
    }
    return {**values, "--layers": options_at(options, number).layer}
