"""Tables of text for the scripts that measure."""

from collections.abc import Mapping, Sequence


def table(rows: Sequence[Mapping[str, object]], columns: Mapping[str, str], texts: int = 1) -> str:
    """Lines of a table. ``columns``: a format string for a row, by the column's head; the first ``texts`` are text.

    Columns of text are aligned to the left, those of numbers to the right.
    """
    cells = [list(columns), *([form.format_map(row) for form in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    sides = ["<"] * texts + [">"] * (len(columns) - texts)
    lines = ["  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)
