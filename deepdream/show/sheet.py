"""The layer sheet: one frame dreamed at layer after layer, all equally strong, so that they can be compared.

Pictures are uint8 RGB (h, w, 3). Strength is the mean absolute change of a picture in grey levels.
"""

import math
import shlex
import statistics
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deepdream.errors import PictureTooSmall, UsageError, one_line
from deepdream.files.atomic import write_whole
from deepdream.files.frames import encode_frame, is_picture
from deepdream.files.note import PROGRAM
from deepdream.geometry import at_width, check_panorama, dream_size_of
from deepdream.interface import Network
from deepdream.options import Arguments, DreamOptions, RenderOptions, RunOptions
from deepdream.picture.ascent import StepReport, pixel_steps
from deepdream.render.dream_size import shrink
from deepdream.render.frame import FrameOptions, Source, dream_frame
from deepdream.render.plan import check_reach
from deepdream.render.targets import objectives_at
from deepdream.settings import words
from deepdream.show.measures import strength
from deepdream.show.page import picture_url, render_page
from deepdream.show.still import Still
from deepdream.target import parse_target, target_at, write_target
from deepdream.threads import Background

WIDTH = 320  # pixels at which a frame is dreamed where no width is given
CLOSE_ENOUGH = 0.03  # of the step size: a dream this near to the common strength stays
ASPECT = 1.5  # width by height that a sheet is brought near to
MAX_SIDE = 12_000  # pixels of a sheet
ENDINGS = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png", ".html": "html", ".htm": "html"}
BACKGROUND, INK, FAINT = (24, 24, 27), (244, 244, 245), (161, 161, 170)
MARGIN = 16  # pixels between tiles
PAGE_QUALITY, PAGE_TILE_WIDTH = 88, 320


@dataclass(frozen=True)
class Tile:
    """A target (see `deepdream.target`) and its dream, or None and a ``note`` that says why there is none.

    ``label``: the target and what it is called. ``step_size``: the one at which it is as strong as all others.
    """

    target: str
    label: str
    picture: np.ndarray | None = None
    note: str = ""
    step_size: float = 0.0


def check_sheet(path: Path, source: Path, overwrite: bool) -> None:
    """Raise `UsageError` for a sheet that cannot be written."""
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"--show-layers {path}: expected a name that ends in {', '.join(ENDINGS)}")
    if path.exists() and not (overwrite and path.is_file()):
        raise UsageError(f"--show-layers {path} is there already; choose another name, or --overwrite it")
    if not path.parent.is_dir():
        raise UsageError(f"--show-layers {path}: there is no directory {path.parent}")
    if ENDINGS[path.suffix.lower()] != "html" and source.is_dir() and path.parent.samefile(source):
        raise UsageError(f"--show-layers {path} would be one of the frames in {source}; put it elsewhere")


def sheet_targets(network: Network, targets: Iterable[str], number: int = 0) -> tuple[str, ...]:
    """What the tiles of resolved targets are: each target once; where it is channels of one layer, each of them.

    ``number``: of the frame, at which the weights of a target are taken.
    """
    tiles: list[str] = []
    for target in (target_at(target, number) for target in targets):
        first, *others = parse_target(target, network.layers)
        if others or first.weight != 1:
            tiles.append(target)
        else:
            tiles += [write_target([replace(first, channels=(each,))]) for each in first.channels] or [target]
    return tuple(dict.fromkeys(tiles))


def sheet_options(options: RenderOptions, width: int) -> RenderOptions:
    """The options of a sheet of a frame of ``width`` pixels: the dream is small, unless its width is given."""
    dream = options.dream
    if dream.preview or dream.dream_width or width <= WIDTH:
        return options
    return replace(options, dream=replace(dream, dream_width=WIDTH))


def shrink_still(still: Still, options: RenderOptions) -> np.ndarray:
    """The frame at the size at which the options dream it. Raises `UsageError` where it cannot be dreamed so."""
    height, width = still.picture.shape[:2]
    if options.dream.panorama:
        check_panorama((width, height), still.name)
    full = at_width((width, height), options.dream.preview)
    size = dream_size_of(full, options.dream, "frame, which has")
    if size[0] > width:
        return np.asarray(Image.fromarray(still.picture).resize(size, Image.Resampling.LANCZOS))
    return shrink(still.picture, size)


def sheet_work(targets: Sequence[str], picture: np.ndarray, options: RenderOptions) -> int:
    """How much work `dream_tiles` is, in pixels times iterations."""
    height, width = picture.shape[:2]
    return 2 * len(targets) * pixel_steps(height, width, options.dream)


def dream_tiles(
    source: Source,
    network: Network,
    targets: Sequence[str],
    options: RenderOptions,
    on_work: Callable[[float, str], object],
) -> list[Tile]:
    """Dream a frame at each of some resolved targets, all with the median strength of their dreams.

    ``on_work``: told of the work that was done, in pixels times iterations, and of the target. Raises `UsageError`
    where the frame reaches none of them.
    """
    objective_of, background = objectives_at(network, options.guide), Background()
    picture, work = source.small, sheet_work(targets[:1], source.small, options) / 2

    def dream(target: str, step_size: float) -> np.ndarray:
        def on_step(report: StepReport) -> None:
            on_work(report.pixels, target)

        background.adapt_threads()
        frame = FrameOptions(0, target, replace(options.dream, step_size=step_size), options.flow, options.divide)
        return dream_frame(frame, network, objective_of(target), source, on_step=on_step).picture

    reasons = {target: _too_deep(target, network, picture, options) for target in targets}
    if all(reasons.values()):
        raise UsageError(reasons[targets[0]])
    tiles = {target: Tile(target, _label(target, network), note=reason) for target, reason in reasons.items() if reason}
    first = {target: dream(target, options.dream.step_size) for target in targets if target not in tiles}
    on_work(2 * work * len(tiles), targets[-1])
    strengths = {target: strength(dreamed, picture) for target, dreamed in first.items()}
    common = statistics.median(strengths.values())
    for target, dreamed in first.items():
        label = _label(target, network)
        if not strengths[target]:
            tiles[target] = Tile(target, label, note="this picture says nothing to it")
            continue
        step_size = float(f"{min(options.dream.step_size * common / strengths[target], 255):.3g}")
        if abs(step_size / options.dream.step_size - 1) > CLOSE_ENOUGH:
            dreamed = dream(target, step_size)
        else:
            step_size = options.dream.step_size
            on_work(work, target)
        tiles[target] = Tile(target, label, dreamed, step_size=step_size)
    return [tiles[target] for target in targets]


def _too_deep(target: str, network: Network, picture: np.ndarray, options: RenderOptions) -> str:
    """Why the picture does not reach a target; "" where it does."""
    height, width = picture.shape[:2]
    try:
        check_reach(options.dream, [target], (width, height), network)
    except PictureTooSmall as error:
        return str(error)
    return ""


def _label(target: str, network: Network) -> str:
    """A target, and the names of its classes."""
    terms = parse_target(target, network.layers)
    if not network.labels or not set(network.class_layers()).issuperset(term.layer for term in terms):
        return target
    names = [network.labels[number].split(",")[0] for term in terms for number in term.numbers]
    return f"{target} ({', '.join(names)})" if names else target


@dataclass(frozen=True)
class Sheet:
    """What a sheet shows: the tiles of a frame, ``picture``, with what they share in words."""

    still: Still
    picture: np.ndarray
    tiles: list[Tile]
    network: str
    arguments: Arguments
    options: RenderOptions

    @property
    def strength(self) -> float:
        """That of all tiles: their median."""
        dreams = (tile.picture for tile in self.tiles if tile.picture is not None)
        return statistics.median(strength(dream, self.picture) for dream in dreams)

    @property
    def title(self) -> str:
        """Of what it is."""
        return f"Layers of {self.network}"

    @property
    def about(self) -> str:
        """The frame, its size and what all tiles share."""
        frame = f", frame {self.still.number} of {self.still.count}" if self.still.count > 1 else ""
        height, width = self.picture.shape[:2]
        own = {name: getattr(DreamOptions(), name) for name in ("layers", "step_size", "dream_width", "preview")}
        options = shlex.join(words(replace(self.options, dream=replace(self.options.dream, **own))))
        return f"{self.still.name}{frame}, dreamed at {width}x{height}{options and f', {options}'}"

    def command(self, tile: Tile) -> str:
        """The command that dreams all frames as a tile."""
        run, dream = self.arguments.run, self.options.dream
        options = replace(self.options, dream=replace(dream, layers=(tile.target,), step_size=tile.step_size))
        parts = (
            RunOptions(input=run.input, image_type=run.image_type),
            self.arguments.part,
            self.arguments.network,
            options,
        )
        source = Path(run.input)
        output = "Output" if source.is_dir() else "dream.png" if is_picture(source) else "Video.mp4"
        known = (word for part in parts for word in words(part, whole_paths=True))
        return one_line(shlex.join([PROGRAM, *known, "--output", run.output or output]))


def write_sheet(path: Path, sheet: Sheet) -> None:
    """Write a sheet as a picture or a page, by the ending of its name. Raises `DreamError` where it cannot."""
    kind = ENDINGS[path.suffix.lower()]
    write_whole(path, _page(sheet) if kind == "html" else encode_frame(draw_sheet(sheet), kind))


def _page(sheet: Sheet) -> bytes:
    tiles: list[dict[str, object]] = [{"label": "source", "picture": picture_url(sheet.picture, PAGE_QUALITY)}]
    for tile in sheet.tiles:
        tiles.append({"label": tile.label, "note": tile.note, "step_size": tile.step_size})
        if tile.picture is not None:
            tiles[-1] |= {"picture": picture_url(tile.picture, PAGE_QUALITY), "command": sheet.command(tile)}
    height, width = sheet.picture.shape[:2]
    return render_page(
        "sheet.html",
        title=sheet.title,
        about=sheet.about,
        strength=sheet.strength,
        is_laid_on=sheet.options.dream.dream_width,
        tiles=tiles,
        width=min(width, PAGE_TILE_WIDTH),
        height=round(height * min(1, PAGE_TILE_WIDTH / width)),
    )


def draw_sheet(sheet: Sheet) -> np.ndarray:
    """A sheet as a picture: the source first, then the tiles, each above its name and its step size."""
    height, width = sheet.picture.shape[:2]
    letter = max(14, round(width / 14))  # pixels: names are to be read at arm's length
    cell = (width + MARGIN, height + 3 * letter + MARGIN)
    tiles = [Tile("", "source", sheet.picture), *sheet.tiles]
    columns = _columns(len(tiles), cell)
    header = 5 * letter
    size = (columns * cell[0] + MARGIN, header + math.ceil(len(tiles) / columns) * cell[1] + MARGIN)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    _write_line(draw, (MARGIN, MARGIN), sheet.title, size[0] - 2 * MARGIN, round(1.3 * letter), INK)
    _write_line(draw, (MARGIN, MARGIN + 2 * letter), sheet.about, size[0] - 2 * MARGIN, letter, FAINT)
    for number, tile in enumerate(tiles):
        left, top = MARGIN + number % columns * cell[0], header + number // columns * cell[1]
        if tile.picture is None:
            draw.rectangle((left, top, left + width - 1, top + height - 1), outline=FAINT)
            inside = (width - 2 * letter, height - letter)
            _write_lines(draw, (left + letter, top + letter // 2), tile.note, inside, letter)
        else:
            canvas.paste(Image.fromarray(tile.picture), (left, top))
        _write_line(draw, (left, top + height + letter // 4), tile.label, width, letter, INK)
        if tile.step_size:
            _write_line(draw, (left, top + height + 1.5 * letter), f"-s {tile.step_size:g}", width, 0.8 * letter, FAINT)
    canvas.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(canvas)


def _columns(count: int, cell: tuple[int, int]) -> int:
    """In how many columns so many cells of (w, h) come nearest to `ASPECT`."""

    def distance(columns: int) -> float:
        return abs(math.log(columns * cell[0] / (math.ceil(count / columns) * cell[1]) / ASPECT))

    return min(range(1, count + 1), key=distance)


def _write_line(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, width: float, size: float, ink: tuple[int, ...]
) -> None:
    """Write a line of at most ``width`` pixels: in smaller letters if it must be, and cut in its middle in the end."""
    text = one_line(text)
    font = ImageFont.load_default(size)
    font = ImageFont.load_default(size * min(1, max(0.6, width / font.getlength(text))))
    half = len(text) // 2
    start, end = text[:half], text[half:]
    while font.getlength(text) > width and end:
        start, end = start[:-1], end[1:]
        text = f"{start}…{end}"
    draw.text(place, text, fill=ink, font=font)


def _write_lines(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: tuple[float, float], letter: float
) -> None:
    """Write a text in lines, in letters so small that it fits (w, h)."""
    for scale in (1, 0.8, 0.65, 0.5):
        height = max(8, scale * letter)
        font = ImageFont.load_default(height)
        lines = textwrap.wrap(one_line(text), max(1, int(size[0] / font.getlength("n"))))
        if len(lines) * 1.3 * height <= size[1]:
            break
    draw.multiline_text(place, "\n".join(lines), fill=FAINT, font=font, spacing=0.1 * height)
