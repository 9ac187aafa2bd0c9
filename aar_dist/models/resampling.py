"""Segments of any rates, resampled to one.

    values (B, T, C) at each segment's own rate -> (B, L, C) at one rate

B segments, T recorded samples, L resampled ones, C channels. Places are counted in recorded samples: sample i was
recorded at place i and stands for the stretch from i - 1/2 to i + 1/2. ``step`` (B,) is the distance of two resampled
samples: the segment's rate over the new one. Shapes follow from T and L alone, so a GPU is never waited for.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Places are rounded to 1/1024 of a sample: rates are float32, and 33.3 Hz to 33.3 Hz must not touch a neighbour.
PLACES = 1024


def resample(values: Tensor, valid: Tensor, step: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The segments at ``length`` instants each, the first of them that of the first sample.

    A resampled sample is the mean of the recorded ones over the stretch around its instant that one recorded or one
    resampled sample stands for, whichever is longer: a straight line between two samples where the rate rises, an
    average that keeps fast movement from appearing as slow one where it falls, the samples themselves where it stays.
    At the ends of the segment the stretch is shortened, on both sides, to what was recorded.

    It is valid if its instant lies within the recording and every recorded sample under its stretch is valid.

    Returns:
        (B, L, C) float32, 0 where not valid, and (B, L, C) bool.
    """
    n = n_recorded(valid)[:, None]
    place = places(step, torch.arange(length, device=step.device))
    centre = torch.minimum(place, n - 1).clamp(min=0) + 0.5
    half = torch.minimum(_rounded(step / 2).clamp(min=0.5)[:, None], torch.minimum(centre, n - centre))
    samples = torch.cat([values.where(valid, 0.0), ~valid], dim=2)
    average, invalid = _mean(samples, centre - half, centre + half).chunk(2, dim=2)
    whole = (invalid == 0) & within(place, n)[..., None]
    return average.where(whole, 0.0).to(values.dtype), whole


def n_recorded(valid: Tensor) -> Tensor:
    """(B, T, C) -> (B,): samples up to the last one that is valid in any channel."""
    count = torch.arange(1, valid.shape[1] + 1, device=valid.device)
    return (valid.any(2) * count).amax(1)


def places(step: Tensor, index: Tensor) -> Tensor:
    """Where the resampled samples of these numbers (L,) stand among the recorded ones: (B, L) float64."""
    return _rounded(step.double()[:, None] * index)


def within(place: Tensor, n: Tensor) -> Tensor:
    """Whether a recorded sample, of n, stands for this place."""
    return place < n - 0.5


def _rounded(place: Tensor) -> Tensor:
    return (place.double() * PLACES).round() / PLACES


def _mean(samples: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Means of (B, T, C) between edges (B, L), where sample i fills i to i + 1: (B, L, C).

    Differences of the running total. In float64 it forgets nothing of float32 samples, and of zeros and ones nothing
    at all: the share of invalid samples is exactly 0 where there are none.
    """
    total = F.pad(samples.double().cumsum(1), (0, 0, 1, 0))
    return (_between(total, stop) - _between(total, start)) / (stop - start)[..., None]


def _between(total: Tensor, place: Tensor) -> Tensor:
    """(B, T + 1, C) on the straight line between its entries, at places (B, L): (B, L, C)."""
    before = place.long().clamp(max=total.shape[1] - 2)
    lower, upper = (total.gather(1, i[..., None].expand(-1, -1, total.shape[2])) for i in (before, before + 1))
    return lower.lerp(upper, (place - before)[..., None])
