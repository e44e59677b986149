"""What evaluate.py and panorama.py measure of renders: flicker by two judges, strength, brightness, seams.

See `deepdream.show.measures`, which has what dreamer.py itself measures. The judges of flow are TV-L1 (Zach, Pock and
Bischof 2007; needs scikit-image) and Farneback.

Which frames are compared is decided by `deepdream.motion.cuts.is_cut`, and so with the flow of the stabilised dream.
It sees the source frames alone, and its answer holds for all renders of them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import common  # noqa: F401 - the way to the package
import numpy as np

from deepdream.errors import UsageError
from deepdream.files.frames import check_sizes, open_frames, read_frame
from deepdream.geometry import Tile
from deepdream.motion.cuts import is_cut
from deepdream.show.measures import (
    FramePair,
    estimate_farneback,
    luminance,
    match_pair,
    read_at,
    strength,
    warping_error,
)

# Of 15 (scikit-image's default), 30, 60, 100 and 200 the one that explains real footage best: with less, a still road
# follows the bus on it; with more, the flow follows the noise.
TVL1_ATTACHMENT = 60
SEAM_REACH = 8  # pixels along a border that are averaged, and lines on either side of it that it is compared with


@dataclass(frozen=True)
class Measures:
    """What is measured of one render. Those by frame are float arrays, one entry a frame; others are None if unknown.

    ``warping``: the warping error beyond the source's own, by the number of the later frame. ``strength``: the mean
    absolute difference from the source, in grey levels. ``luminance``: in grey levels. ``seams``: `seam_visibility`.
    ``objective``: the mean of the objective that the dream has raised.
    """

    name: str
    warping: dict[int, float]
    strength: np.ndarray
    luminance: np.ndarray
    seams: tuple[float, float] | None = None
    objective: np.ndarray | None = None

    @property
    def drift(self) -> float:
        """Strength of the last fifth of the frames over that of the second fifth; NaN where there are under five."""
        fifth = len(self.strength) // 5
        return float(self.strength[-fifth:].mean() / self.strength[fifth : 2 * fifth].mean()) if fifth else np.nan

    @property
    def warping_error(self) -> float:
        """The mean of ``warping``; NaN where there are no two frames to compare."""
        return float(np.mean(list(self.warping.values()))) if self.warping else np.nan


def estimate_tvl1(frame: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The flow from one source frame to another by TV-L1: float32 (h, w, 2), right and down."""
    from skimage.color import rgb2gray
    from skimage.registration import optical_flow_tvl1

    grey = rgb2gray(frame), rgb2gray(other)
    down, right = optical_flow_tvl1(*grey, attachment=TVL1_ATTACHMENT, prefilter=True, dtype=np.float64)
    return np.stack([right, down], -1).astype(np.float32)


JUDGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "tvl1": estimate_tvl1,
    "farneback": estimate_farneback,
}


def match_frames(sources: Iterable[np.ndarray], judge: str = "tvl1", apart: int = 1) -> Iterator[FramePair]:
    """A `FramePair` for each two source frames ``apart`` frames apart with no scene cut between them.

    ``judge``: a name in `JUDGES`.
    """
    scene: deque[np.ndarray] = deque(maxlen=apart + 1)  # the last frames of the current scene
    for number, frame in enumerate(sources):
        if scene and is_cut(scene[-1], frame):
            scene.clear()
        scene.append(frame)
        if len(scene) > apart:
            yield match_pair(scene[0], frame, number - apart, number, JUDGES[judge])


def border_jumps(picture: np.ndarray, source: np.ndarray, tiles: Iterable[Tile]) -> np.ndarray:
    """How far the hallucination jumps across each border of ``tiles``, and beside it: (borders, 2) in grey levels.

    The hallucination is ``picture`` - ``source``, both RGB (h, w, 3) in 0..255, so that edges of the source do not
    count. It is averaged over runs of `SEAM_REACH` pixels along the border: a border is visible where the jumps along
    it agree, while those of a texture cancel. Across: the mean absolute difference of the runs on its two sides.
    Beside: the same of the `SEAM_REACH` lines on either side, since a divided dream is weaker along its borders.
    Raises `UsageError` where there is no border.
    """
    hallucination = np.float32(picture) - source
    tiles, jumps = list(tiles), []
    for axis, edges in ((0, {tile.top for tile in tiles}), (1, {tile.left for tile in tiles})):
        lines = np.moveaxis(hallucination, axis, 0)
        for edge in sorted(edges - {0}):
            start = max(edge - 1 - SEAM_REACH, 0)
            around = lines[start : edge + 1 + SEAM_REACH]
            runs = np.lib.stride_tricks.sliding_window_view(around, min(SEAM_REACH, around.shape[1]), axis=1).mean(-1)
            steps = np.abs(np.diff(runs, axis=0)).mean((1, 2))
            across = edge - 1 - start
            jumps.append((steps[across], np.delete(steps, across).mean()))
    if not jumps:
        raise UsageError("frames of this size have no tile border; give --maxWidth and --maxHeight of the render")
    return np.array(jumps)


def seam_visibility(jumps: np.ndarray, undivided: np.ndarray) -> tuple[float, float]:
    """How visible the tiles' borders are: (mean, worst) over the borders; 1 is not at all, 1.3 is 30 % more jump.

    ``jumps`` and ``undivided``: the `border_jumps` of a render and of the undivided one, each averaged over the
    frames, since a seam stays where it is. Of each border the jump across it over that beside it, relative to the same
    ratio of the undivided dream. Raises `UsageError` where nothing was dreamed beside a border.
    """
    if not (jumps[:, 1].all() and undivided.all()):
        raise UsageError("beside a tile border nothing is dreamed, so there is no seam to measure")
    visibility = (jumps[:, 0] / jumps[:, 1]) / (undivided[:, 0] / undivided[:, 1])
    return float(visibility.mean()), float(visibility.max())


def measure_render(
    directory: str | Path,
    sources: Sequence[Path],
    pairs: Iterable[FramePair] = (),
    undivided: Sequence[Path] | None = None,
    tiles: Sequence[Tile] = (),
) -> Measures:
    """The `Measures` of a directory of dreams but for the objective.

    ``pairs``: from `match_frames` of the ``sources``. ``undivided``: the frames of the same dream without division, to
    which those divided into ``tiles`` are compared. Raises `UsageError` where the numbers of frames differ.
    """
    paths = open_frames(directory).paths
    if len(paths) != len(sources):
        raise UsageError(f"{directory} holds {len(paths)} frames, and the source {len(sources)}; compare whole renders")
    size = check_sizes(paths)
    by_number = {pair.number: pair for pair in pairs}
    apart = max((pair.number - pair.other for pair in by_number.values()), default=1)
    strengths, bright, warping, jumps = [], [], {}, []
    recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=apart + 1)
    for number, path in enumerate(paths):
        source, dream = read_at(sources[number], size), read_frame(path)
        recent.append((source, dream))
        strengths.append(strength(dream, source))
        bright.append(luminance(dream))
        if pair := by_number.get(number):
            of_source, of_dream = (warping_error(*two, pair) for two in zip(recent[0], recent[-1]))
            warping[number] = of_dream - of_source
        if undivided:
            jumps.append([border_jumps(picture, source, tiles) for picture in (dream, read_frame(undivided[number]))])
    seams = seam_visibility(*np.mean(jumps, 0)) if undivided else None
    return Measures(Path(directory).name, warping, np.array(strengths), np.array(bright), seams)
