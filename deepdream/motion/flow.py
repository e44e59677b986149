"""Optical flow between source frames, warping along it, and how far it can be trusted.

Frames are RGB (h, w, 3), uint8, in 0..255. A flow is float32 (h, w, 2): how many pixels right and down each pixel
moves. `estimate_flow` is the flow of the historic scripts (Farneback 2003), `estimate_fine_flow` that of the
stabilised dream: dense inverse search (Kroeger et al. 2016) with a variational refinement (Brox et al. 2004).
"""

from types import ModuleType

import numpy as np

from deepdream.memory.malloc import TRIM_ABOVE_PIXELS, trim
from deepdream.opencv import opencv

FINE_FLOW_SIDE = 400  # pixels: larger frames are shrunk to this for the fine flow …
FINE_FLOW_MIN_SCALE = 0.25  # … but not by more than this
SAMPLE_REACH = 2  # pixels that a cubic takes on either side
STRIP = 64  # rows that are sampled at a time: where to look stays in the processor's cache
PATCH = 16  # pixels: smaller ones follow the grain of noisy footage …
SMALL_PATCH, MIN_SIDE_FOR_PATCH = 12, 256  # … but in small frames larger ones miss fast motion
TOLERANCE = 4.0  # square pixels by which trusted flows may miss each other where nothing moves
HALF_TRUST = 3  # pixels, of those compared, beyond the other frame: what has been so far outside is half trusted
FINE_FLOW_MIN_SIDE = 32  # pixels: smaller frames are padded for the fine flow, whose patches at half size must fit


def estimate_flow(previous: np.ndarray, current: np.ndarray) -> np.ndarray:
    """The flow from the previous source frame to the current one, by Farneback (2003) on grey: float32 (h, w, 2)."""
    if np.array_equal(previous, current):
        return np.zeros((*current.shape[:2], 2), np.float32)  # Farneback sees motion at the edges of equal frames
    cv2 = opencv()
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (previous, current)]
    flow = cv2.calcOpticalFlowFarneback(
        *grey, None, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )
    if flow[..., 0].size >= TRIM_ABOVE_PIXELS:
        trim()  # seventy bytes a pixel
    return flow


def warp(picture: np.ndarray, flow: np.ndarray, panorama: bool = False) -> np.ndarray:
    """``picture`` (h, w, c) shifted along ``flow``: each pixel shows what lies one flow vector before it. float32."""
    return sample(picture, -flow, panorama=panorama)


def sample(picture: np.ndarray, offsets: np.ndarray, cubic: bool = False, panorama: bool = False) -> np.ndarray:
    """What ``picture`` (h, w, c) shows ``offsets`` (h, w, 2) right and down of each pixel: float32 (h, w, c).

    Interpolation is linear, or ``cubic``, which blurs less and may overshoot. Outside the picture its edge is repeated;
    if cubic the picture goes on mirrored: where a pan brings something in, a dream's edge would be drawn into stripes.
    Left and right of a ``panorama`` it goes on at the other border.
    """
    cv2 = opencv()
    interpolation = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    border = cv2.BORDER_REFLECT_101 if cubic else cv2.BORDER_REPLICATE
    width = picture.shape[1]
    picture = wrap_around(picture, SAMPLE_REACH) if panorama else picture
    picture = picture.astype(np.float32, copy=False)
    sampled = np.empty((*offsets.shape[:2], *picture.shape[2:]), np.float32)
    for first in range(0, len(offsets), STRIP):  # at 4K the places of all pixels have 130 MB
        strip = offsets[first : first + STRIP]
        rows, columns = np.indices(strip.shape[:2], dtype=np.float32)
        across, down = columns + strip[..., 0], rows + first + strip[..., 1]
        if panorama:
            across = across % width + SAMPLE_REACH
        cv2.remap(
            picture,
            across,
            down,
            interpolation,
            dst=sampled[first : first + STRIP],
            borderMode=border,
        )
    return sampled


def wrap_around(picture: np.ndarray, margin: int) -> np.ndarray:
    """A panorama (h, w, c) with ``margin`` columns from beyond each of its borders, which meet."""
    return np.pad(picture, ((0, 0), (margin, margin), (0, 0)), "wrap")


def estimate_fine_flow(frame: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The flow from one source frame to another, finer than `estimate_flow`: float32 (h, w, 2).

    Dense inverse search at half size, then one variational refinement at full size. A little blur keeps both from
    following the sensor's noise. Frames larger than `FINE_FLOW_SIDE` are compared at reduced size: motion is smooth,
    and the flow at full size would cost more than it brings.
    """
    cv2 = opencv()
    grey, other_grey = _compared(cv2, frame, other)
    return _enlarge(cv2, _search_flow(cv2, grey, other_grey), frame.shape)


def estimate_fine_motion(frame: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`estimate_fine_flow`, and how far it can be trusted: the `agreement`, (h, w), with the flow back.

    What comes from outside the other frame is trusted less the farther it was: nobody knows what it looked like. The
    flow back takes less time, with fewer patches and without refinement. Both are found and compared at one size:
    flows of two sizes agree less, and those of a large frame are exact in pixels of the reduced one, not in its own.
    """
    cv2 = opencv()
    grey, other_grey = _compared(cv2, frame, other)
    flow = _search_flow(cv2, grey, other_grey)
    trust = agreement(flow, _search_flow(cv2, other_grey, grey, quick=True))
    trust *= np.exp2(_beyond_edge(flow) / -HALF_TRUST)
    height, width = frame.shape[:2]
    return _enlarge(cv2, flow, frame.shape), cv2.resize(trust, (width, height))


def _compared(cv2: ModuleType, frame: np.ndarray, other: np.ndarray) -> list[np.ndarray]:
    """Two frames in grey as the fine flow compares them."""
    height, width = frame.shape[:2]
    scale = min(1, max(FINE_FLOW_SIDE / max(height, width), FINE_FLOW_MIN_SCALE))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (frame, other)]
    return [cv2.GaussianBlur(cv2.resize(one, size, interpolation=cv2.INTER_AREA), (0, 0), 0.7) for one in grey]


def _enlarge(cv2: ModuleType, flow: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A flow between frames of ``shape`` (h, w, ...) that was found at reduced size, in their own pixels."""
    height, width = shape[:2]
    if flow.shape[:2] == (height, width):
        return flow
    enlarged = cv2.resize(flow, (width, height))
    rows = enlarged.reshape(height, -1)  # in one run: pair by pair it takes ten times as long
    rows *= np.tile(np.array([width / flow.shape[1], height / flow.shape[0]], np.float32), width)
    return enlarged


def _search_flow(cv2: ModuleType, grey: np.ndarray, other: np.ndarray, quick: bool = False) -> np.ndarray:
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setPatchSize(PATCH if max(grey.shape) >= MIN_SIDE_FOR_PATCH else SMALL_PATCH)
    search.setPatchStride(6 if quick else 4)
    if not quick:
        search.setVariationalRefinementIterations(20)  # with its own 5, noisy footage still flickers a sixth more
    height, width = grey.shape
    missing = max(0, FINE_FLOW_MIN_SIDE - height), max(0, FINE_FLOW_MIN_SIDE - width)
    padded = [cv2.copyMakeBorder(one, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE) for one in (grey, other)]
    flow = search.calc(*padded, None)
    if not quick:
        flow = cv2.VariationalRefinement.create().calc(*padded, flow)
    return flow[:height, :width]


def agreement(flow: np.ndarray, back: np.ndarray) -> np.ndarray:
    """How far ``flow`` can be trusted, float32 (h, w) in 0..1: 1 where ``back``, taken at its end, undoes it.

    One half is where Ruder, Dosovitskiy and Brox (2016) draw the line between visible and occluded, but with a wider
    `TOLERANCE` than theirs (half a square pixel): a dream that is a little off flickers less than one that begins
    anew. The measure is soft, because a mask that comes and goes would itself flicker.
    """
    returned = sample(back, flow)
    gap = _squared_length(flow + returned)
    tolerance = 0.01 * (_squared_length(flow) + _squared_length(returned)) + TOLERANCE
    return 1 / (1 + (gap / tolerance) ** 2)


def _beyond_edge(flow: np.ndarray) -> np.ndarray:
    """How many pixels outside the picture each pixel's flow ends, 0 where it ends inside: float32 (h, w)."""
    rows, columns = np.indices(flow.shape[:2], dtype=np.float32)
    places = (columns + flow[..., 0], flow.shape[1] - 1), (rows + flow[..., 1], len(flow) - 1)
    return np.hypot(*(np.maximum(np.maximum(-place, place - last), 0) for place, last in places))


def _squared_length(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("hwk,hwk->hw", vectors, vectors)  # several times as fast as a sum over so short an axis
