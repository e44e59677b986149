"""Planes whose waves are weighted: a Fourier transform there and back, on a CPU by bands that stay in its cache."""

import numba
import numpy as np
import torch
from rocket_fft import c2c, c2r, r2c

from deepdream.compiling import compile_loop, use_pytorchs_threads

_ROWS = 16  # that a core transforms at a time
_COLUMNS = 16  # the same: there and back before it takes the next, while they are in its cache
_ACROSS, _DOWN = np.array([1]), np.array([0])


def weight_waves(planes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Planes (n, h, w), float32, whose spectra have been multiplied by ``weights``: (h, w // 2 + 1), those of `rfft2`.

    Nothing is divided by the number of pixels. The bits do not depend on the number of threads.
    """
    if planes.device.type != "cpu":
        return torch.fft.irfft2(torch.fft.rfft2(planes).mul_(weights), planes.shape[1:], norm="forward")
    waves = torch.empty((len(planes), *weights.shape), dtype=torch.complex64)
    weighted = torch.empty_like(planes, memory_format=torch.contiguous_format)
    use_pytorchs_threads()
    _weight_waves(*(each.numpy() for each in (planes, weights, waves, weighted)))
    return weighted


@compile_loop
def _weight_waves(planes: np.ndarray, weights: np.ndarray, waves: np.ndarray, weighted: np.ndarray) -> None:
    """Write to ``waves`` and ``weighted``. What a core takes at a time is of fixed size, so its bits are too.

    Rocket-FFT has the transforms of Reinecke's DUCC, which take a third less time than PyTorch's and may run in a loop
    of Numba's.
    """
    bands = (planes.shape[1] + _ROWS - 1) // _ROWS
    for part in numba.prange(len(planes) * bands):
        plane, rows = part // bands, slice(part % bands * _ROWS, (part % bands + 1) * _ROWS)
        r2c(planes[plane, rows], waves[plane, rows], _ACROSS, True, 1.0, 1)
    strips = (waves.shape[2] + _COLUMNS - 1) // _COLUMNS
    for part in numba.prange(len(planes) * strips):
        plane, columns = part // strips, slice(part % strips * _COLUMNS, (part % strips + 1) * _COLUMNS)
        strip = waves[plane, :, columns]
        c2c(strip, strip, _DOWN, True, 1.0, 1)
        strip *= weights[:, columns]
        c2c(strip, strip, _DOWN, False, 1.0, 1)
    for part in numba.prange(len(planes) * bands):
        plane, rows = part // bands, slice(part % bands * _ROWS, (part % bands + 1) * _ROWS)
        c2r(waves[plane, rows], weighted[plane, rows], _ACROSS, False, 1.0, 1)
