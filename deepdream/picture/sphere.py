"""A 360-degree picture seen in perspective: six views of the whole sphere, and back from them.

The picture is equirectangular, a tensor (c, h, w): columns are longitudes, rows latitudes from straight up to straight
down, left and right border meet. The views are the faces of a cube, each a little wider than its 90 degrees and, in
its middle, as dense as the picture at its equator. Both ways are bilinear sampling, so no pixel is left out.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepdream.geometry import VIEW_REACH, view_side

VIEWS = 6
# The axes to the right, down and ahead of each view, as numbers of +x, +y, +z, -x, -y, -z: the four around, down, up.
_AXES = ((0, 1, 2), (5, 1, 0), (3, 1, 5), (2, 1, 3), (0, 5, 1), (0, 2, 4))
# How far the views are turned at random, in degrees round the vertical, up or down, and sideways. Beyond 45 degrees
# round, the cube is the same one again, but that the views of the poles are upside down or lie on their sides: nothing
# grows where up is another way at each step. So the tilt is little too.
MAX_YAW, MAX_PITCH, MAX_ROLL = 45, 5, 3
_MARGIN = 1  # columns from beyond each border that sampling between two columns needs
_BAND = 1 << 16  # pixels that are worked on at a time, so that what is in between stays small


def random_turn(rng: np.random.Generator) -> np.ndarray:
    """A rotation (3, 3) from the world's axes (right, down, ahead) to a cube's: any one about the vertical, a little
    tilted."""
    most = np.array([MAX_YAW, MAX_PITCH, MAX_ROLL])
    yaw, pitch, roll = np.radians(rng.uniform(-most, most))
    around = _rotation(yaw, 2, 0)
    return _rotation(roll, 0, 1) @ _rotation(pitch, 1, 2) @ around


def _rotation(angle: float, first: int, second: int) -> np.ndarray:
    """The rotation by ``angle`` from axis ``second`` towards axis ``first``."""
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = np.sin(angle), -np.sin(angle)
    return matrix


def area_weights(height: int, device: torch.device) -> Tensor:
    """The share of the sphere that a pixel of each row shows: (h,), mean 1."""
    weights = np.cos(_latitudes(height))
    return torch.from_numpy((weights / weights.mean()).astype(np.float32)).to(device)


def _latitudes(height: int) -> np.ndarray:
    """Of the rows' centres, in radians from -pi / 2, straight up."""
    return ((np.arange(height) + 0.5) / height - 0.5) * np.pi


class Sphere:
    """The way from pictures of one size (c, h, w) to their views, and from these back."""

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        self.size = size
        self.side = view_side(size[1])
        self.view_size = self.side, self.side
        height, width = size
        latitudes, longitudes = _latitudes(height), (2 * (np.arange(width) + 0.5) / width - 1) * np.pi
        # The ray through a pixel is (rows * sin(longitude), sin(latitude), rows * cos(longitude)).
        self._row_cosines, self._row_sines = (_column(f(latitudes), device) for f in (np.cos, np.sin))
        self._column_sines, self._column_cosines = (_column(f(longitudes), device)[:, 0] for f in (np.sin, np.cos))
        self._across = _column(((2 * np.arange(self.side) + 1) / self.side - 1) * VIEW_REACH, device)

    def views(self, picture: Tensor, turn: np.ndarray) -> Tensor:
        """The six views (6, c, side, side) of a picture (c, h, w), along the axes of ``turn``; see `random_turn`."""
        padded = torch.cat([picture[..., -_MARGIN:], picture, picture[..., :_MARGIN]], -1)
        views = picture.new_empty(VIEWS, len(picture), self.side, self.side)
        axes = np.concatenate([turn, -turn])
        for view, numbers in zip(views, _AXES):
            view.copy_(_sample(padded, self._directions(*axes[list(numbers)])))
        return views

    def _directions(self, right: np.ndarray, down: np.ndarray, ahead: np.ndarray) -> Tensor:
        """Where in the padded picture the pixels of a view lie, (side, side, 2) as `F.grid_sample` takes it."""
        x, y, z = (self._across[:, 0] * right[k] + (self._across * down[k] + ahead[k]) for k in range(3))
        width = self.size[1]
        longitude = _arctan2(x, z).mul_(width / (width + 2 * _MARGIN) / np.pi)
        latitude = _arctan2(y, (x.mul_(x) + z.mul_(z)).sqrt_()).mul_(2 / np.pi)
        return torch.stack([longitude, latitude], -1)

    def fetch(self, views: Tensor, turn: np.ndarray) -> Tensor:
        """A picture (c, h, w) from its six views (6, c, side, side): each pixel from the one that sees it best."""
        height, width = self.size
        stacked = views.transpose(0, 1).reshape(views.shape[1], VIEWS * self.side, self.side)
        picture = views.new_empty(views.shape[1], height, width)
        rows = max(1, _BAND // width)
        for top in range(0, height, rows):
            band = slice(top, min(top + rows, height))
            picture[:, band] = _sample(stacked, self._places(band, turn))
        return picture

    def _places(self, rows: slice, turn: np.ndarray) -> Tensor:
        """Where in the views, one below the other, the pixels of some rows lie: (rows, w, 2)."""
        along = [
            self._row_cosines[rows] * (self._column_sines * x + self._column_cosines * z) + self._row_sines[rows] * y
            for x, y, z in turn.tolist()
        ]
        nearest = torch.maximum(torch.maximum(along[0].abs(), along[1].abs()), along[2].abs())
        along += [-one for one in along]
        across, below = torch.zeros_like(nearest), torch.zeros_like(nearest)
        for number, (right, down, ahead) in enumerate(_AXES):
            is_seen = along[ahead] == nearest
            across = torch.where(is_seen, along[right], across)
            below = torch.where(is_seen, along[down] + (2 * number + 1 - VIEWS) * VIEW_REACH * nearest, below)
        nearest *= VIEW_REACH
        return torch.stack([across.div_(nearest), below.div_(nearest.mul_(VIEWS))], -1)


def _column(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)[:, None]


def _arctan2(y: Tensor, x: Tensor) -> Tensor:
    """The angle, by NumPy on a CPU: PyTorch rounds the last values of each thread's share in another way."""
    if y.device.type != "cpu":
        return torch.atan2(y, x)
    return torch.from_numpy(np.arctan2(y.numpy(), x.numpy()))


def _sample(picture: Tensor, places: Tensor) -> Tensor:
    """What a picture (c, h, w) shows at places (rows, columns, 2) in -1..1: (c, rows, columns).

    Rows are a batch, because PyTorch gives its threads whole pictures of one.
    """
    batch = picture.expand(len(places), *picture.shape)
    sampled = F.grid_sample(batch, places[:, None], padding_mode="border", align_corners=False)
    return sampled[:, :, 0].transpose(0, 1)
