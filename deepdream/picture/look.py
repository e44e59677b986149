"""What a gradient looks like before it becomes a step: smoothed, and in which colours.

A plain gradient carries much of its power in ripples finer than a quarter cycle a pixel, which photographs hardly
have. `Look.apply` weights its spectrum by f ** -A (f in cycles a pixel), towards the 1/f of natural images (Field
1987), and mixes its channels.
"""

import torch
import torch.nn.functional as F

from deepdream.geometry import fast_length
from deepdream.options import Colors
from deepdream.picture.waves import weight_waves

FLOOR = 1 / 15  # cycles a pixel: coarser waves count as these, else brightness drifts and large areas take a tint
MEAN_GAIN = 1.4  # of brightness as a whole, beside the coarsest waves: it holds what clipping to black and white moves

# A factor of the covariance of the colours (R, G, B) of ImageNet's photographs, in 0..1: Olah, Mordvintsev and Schubert
# (2017), Feature Visualization, from whose lucid library the figures are.
_COLOR_FACTOR = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


class Look:
    """The look of the steps on pictures of one size (h, w). ``smooth``: the exponent A, 0 or more."""

    def __init__(self, size: tuple[int, int], device: torch.device, smooth: float, colors: Colors) -> None:
        self._size = size
        self._fast_size = fast_length(size[0]), fast_length(size[1])
        self._spectrum = _spectrum(self._fast_size, device, smooth) if smooth else None
        self._mixing = None if colors == Colors.DREAM else _mixing(colors).to(device)
        self._keeps_chroma = colors == Colors.SOURCE

    def apply(self, gradient: torch.Tensor) -> torch.Tensor:
        """A gradient (..., 3, h, w), BGR, as it is to be ascended. The picture is rolled, so the transform may wrap."""
        if self._spectrum is not None:
            gradient = self._smooth(gradient, self._spectrum)
        if self._mixing is not None:
            gradient = torch.einsum("ij,...jhw->...ihw", self._mixing, gradient)
        return gradient

    def _smooth(self, gradient: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
        """Smoothed at a size that is quickly transformed: on every side goes on what lies beyond the other one."""
        (height, width), (fast_height, fast_width) = self._size, self._fast_size
        top, left = (fast_height - height) // 2, (fast_width - width) // 2
        planes = gradient.flatten(0, -3)
        if self._fast_size != self._size:
            around = left, fast_width - width - left, top, fast_height - height - top
            planes = F.pad(planes, around, "circular")
        smoothed = weight_waves(planes, spectrum)
        return smoothed[:, top : top + height, left : left + width].unflatten(0, gradient.shape[:-2])

    def clip(self, x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> None:
        """Bring ``x`` (3, h, w) between ``low`` and ``high`` (3, 1, 1) in place.

        Where only brightness may change, the three channels of a pixel move by the same amount.
        """
        if self._keeps_chroma:
            x.sub_((x - high).amax(0).clamp_(min=0)).add_((low - x).amax(0).clamp_(min=0))
        torch.maximum(x, low, out=x)  # clamp_ takes twice as long with a bound for each channel
        torch.minimum(x, high, out=x)


def _spectrum(size: tuple[int, int], device: torch.device, smooth: float) -> torch.Tensor:
    """max(f, FLOOR) ** -smooth at the frequencies of `torch.fft.rfft2`, more at 0: (h, w // 2 + 1).

    It is over the number of pixels already, by which the inverse transform need not divide then: a pass less.
    """
    rows = torch.fft.fftfreq(size[0], device=device)[:, None]
    columns = torch.fft.rfftfreq(size[1], device=device)
    spectrum = torch.hypot(rows, columns).clamp_(min=FLOOR).pow_(-smooth)
    spectrum[0, 0] *= MEAN_GAIN
    return spectrum.div_(size[0] * size[1])


def _mixing(colors: Colors) -> torch.Tensor:
    """The matrix (BGR from BGR) that mixes a gradient's channels.

    SOURCE moves all three by their mean: brightness alone. NATURAL is halfway between the identity and the covariance
    of the colours of photographs, scaled to a mean diagonal of 1.
    """
    if colors == Colors.SOURCE:
        return torch.full((3, 3), 1 / 3)
    factor = torch.tensor(_COLOR_FACTOR)
    covariance = (factor @ factor.T).flip(0, 1)
    return (covariance / covariance.diagonal().mean() + torch.eye(3)) / 2
