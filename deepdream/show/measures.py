"""What is measured of dreamed frames against their sources: flicker, strength, brightness.

Frames are uint8 RGB (h, w, 3). Flicker is the warping error of Lai et al. (ECCV 2018): the squared difference between
a frame and an earlier one warped to it, over the pixels that both show. Flow and visibility come from the source
frames, by a judge that renders no dream: Farneback (2003), as `-flow 1` uses it but with larger windows and more
levels; ``scripts/judge.py`` has another one, and seams.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from deepdream.files.frames import read_frame
from deepdream.motion.flow import sample
from deepdream.opencv import opencv

FARNEBACK_LEVELS, FARNEBACK_WINDOW = 5, 21
LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)  # of R, G and B, by Rec. 709


@dataclass(frozen=True)
class FramePair:
    """Two source frames of one scene: the flow (h, w, 2) from the later to the earlier, and where to trust it (h, w).

    ``number`` and ``other``: of the later frame and the earlier one, from 0.
    """

    number: int
    other: int
    flow: np.ndarray
    visible: np.ndarray


def estimate_farneback(frame: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The flow from one source frame to another by Farneback: float32 (h, w, 2), right and down."""
    cv2 = opencv()
    estimator = cv2.FarnebackOpticalFlow.create(numLevels=FARNEBACK_LEVELS, winSize=FARNEBACK_WINDOW)
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (frame, other)]
    return estimator.calc(*grey, None)


def visible(backward: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Where the later frame shows what the earlier one shows too, bool (h, w).

    ``backward``: the flow from the later frame to the earlier one, ``forward`` the opposite one; both (h, w, 2). The
    rules of Ruder et al. (2016): neither occluded (forward and backward flow disagree), nor on a motion boundary,
    nor from beyond the edge.
    """
    height, width = backward.shape[:2]
    returned = sample(forward, backward)
    length = (backward**2).sum(-1)
    occluded = ((backward + returned) ** 2).sum(-1) > 0.01 * (length + (returned**2).sum(-1)) + 0.5
    slope = sum((np.gradient(backward[..., part], axis=axis)) ** 2 for part in (0, 1) for axis in (0, 1))
    boundary = slope > 0.01 * length + 0.002
    rows, columns = np.indices((height, width))
    x, y = columns + backward[..., 0], rows + backward[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return ~occluded & ~boundary & inside


def match_pair(
    earlier: np.ndarray,
    later: np.ndarray,
    other: int,
    number: int,
    estimate: Callable[[np.ndarray, np.ndarray], np.ndarray] = estimate_farneback,
) -> FramePair:
    """The `FramePair` of two source frames, ``other`` and ``number``, of one scene, by a judge of flow."""
    backward = estimate(later, earlier)
    return FramePair(number, other, backward, visible(backward, estimate(earlier, later)))


def warping_error(earlier: np.ndarray, later: np.ndarray, pair: FramePair) -> float:
    """The mean squared difference, summed over RGB in 0..1, of a frame and an earlier one warped to it."""
    difference = (np.float32(later) - sample(earlier, pair.flow)) / 255
    return float((difference**2).sum(-1)[pair.visible].mean())


def strength(picture: np.ndarray, source: np.ndarray) -> float:
    """The mean absolute difference of a dream from its source, both RGB (h, w, 3), in grey levels."""
    return float(np.abs(np.float32(picture) - source).mean())


def luminance(picture: np.ndarray) -> float:
    """The mean luminance of a picture in grey levels (Rec. 709 weights on its values)."""
    return float((np.float32(picture).mean((0, 1)) * LUMINANCE_WEIGHTS).sum())


def read_at(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A source frame, uint8 RGB, at the (w, h) of the dreams."""
    frame = read_frame(path)
    if frame.shape[1::-1] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
