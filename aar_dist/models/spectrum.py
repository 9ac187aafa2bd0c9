"""How strong each frequency of a patch is, whatever its phase.

    patches (…, S) -> (…, S // 2 + 1), from the mean to half of the sampling rate

A matrix says where in its swing a patch begins; averaged over the patches of a segment, swings of all phases cancel,
and what is left is the posture. Magnitudes do not cancel.
"""

from contextlib import AbstractContextManager, nullcontext
from math import pi

import torch
from torch import Tensor

FLOOR = 0.1
"""In the unit of the samples: magnitudes well below it count as none, well above by their logarithm. Of noise, the
magnitude is its deviation. A tenth of a g is what tells a step from the noise of a sensor at rest."""


def n_frequencies(patch_size: int) -> int:
    """Numbers that :func:`log_spectrum` makes of a patch."""
    return patch_size // 2 + 1


def _in_float32(device: str) -> AbstractContextManager[object]:
    """Keeps autocast away, which computes products in bf16: of a large mean too much would leak into all frequencies.
    Where there is none, nothing is entered, so that a program that is traced has nothing of it."""
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def log_spectrum(patches: Tensor) -> Tensor:
    """``log(1 + power / FLOOR²) / 2`` of the orthonormal Fourier transform, in float32; 0 of a patch of zeros.

    Two products instead of an FFT: as exact, in any export, and of the same order on every device.
    """
    x, size = patches.float(), patches.shape[-1]
    place = torch.arange(size, device=x.device)
    # Turns are counted modulo one in integers: exact, whatever the product.
    turns = (torch.arange(n_frequencies(size), device=x.device)[:, None] * place) % size
    angle = turns.float() * (2 * pi / size)
    with _in_float32(x.device.type):
        real, imaginary = x @ angle.cos().T, x @ angle.sin().T
    return torch.log1p((real.square() + imaginary.square()) / (size * FLOOR**2)) / 2
