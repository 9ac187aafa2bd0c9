"""Gaps come out as 0 and not valid on every path: as recorded and packed, however normalised, on host and device."""

from itertools import islice

import numpy as np
import pytest

from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream

RATE, N = 10.0, 600
SENSORS = {"acc": "g", "gyr": "rad/s"}


def recorded(subject: int, sensor: str) -> np.ndarray:
    """(N, 2) far from zero, with gaps in an axis, in both, and an axis without any value for a while."""
    rng = np.random.default_rng([subject, len(sensor), ord(sensor[0])])
    values = rng.normal(3.0, 0.5, (N, 2))
    values[rng.random((N, 2)) < 0.1] = np.nan
    values[rng.random(N) < 0.1] = np.nan
    values[200:260, 0] = np.nan
    return values.astype("<f4")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    root = tmp_path_factory.mktemp("gaps")
    for subject in range(4):
        sensors = {
            name: SensorData(values=recorded(subject, name), rate_hz=RATE, units=units, axes=("x", "y"))
            for name, units in SENSORS.items()
        }
        dataset_to_hdf5(root / "d", dataset="d", species="cow", subject=str(subject), sensors=sensors)
    return root


@pytest.fixture(scope="module", params=["none", "int16", "float16"])
def shards(request, recordings, tmp_path_factory):
    pack = {} if request.param == "none" else dict.fromkeys(SENSORS, request.param)
    options = BuildOptions(datasets=("d",), longest_segment_s=2.0, pack=pack, max_pack_error=0.1)
    return build(recordings, tmp_path_factory.mktemp("set") / request.param, options, workers=1).folder


def expected(x: np.ndarray, of: np.ndarray, normalize: str) -> np.ndarray:
    """(n, 2) segments as they are handed on, of the recordings ``of`` (m, 2)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if normalize in ("centre", "segment"):
            of = x
        n = np.maximum((~np.isnan(of)).sum(0), 1)
        mean = np.nansum(of, 0) / n
        deviation = np.sqrt(np.nansum((of - mean) ** 2, 0) / n)
    if normalize != "none":
        x = x - mean
    return x if normalize in ("none", "centre") else x / np.where(deviation > 0, deviation, 1.0)


@pytest.mark.parametrize("normalize", ["none", "centre", "segment", "recording", "dataset"])
@pytest.mark.parametrize("resident", ["never", "always"])
@pytest.mark.parametrize("sensors", ["each", "all"])
def test_gaps_are_zero_and_not_valid(shards, normalize, resident, sensors):
    data = DataConfig(shards=[str(shards)], segment_duration=2.0, kinds=[], lanes=4, sensors=sensors,
                      normalize=normalize, resident=resident)  # fmt: skip
    seen = 0
    with open_stream(data, "train", origins=True) as stream:
        subjects = {int(s) for s in stream.source.origin["subject"].values}
        for batch in islice(stream.batches(0, 16, 16), 6):
            for k, origin in enumerate(batch.origin):
                at = slice(round(origin.start_s * RATE), round(origin.start_s * RATE) + 20)
                for column, sensor in enumerate(origin.sensor.split("+")):
                    whole = recorded(int(origin.subject), sensor).astype(float)
                    of = whole
                    if normalize == "dataset":
                        of = np.concatenate([recorded(s, sensor) for s in sorted(subjects)]).astype(float)
                    want = expected(whole[at], of, normalize)
                    columns = slice(2 * column, 2 * column + 2)
                    got, valid = batch.values[k, :, columns].numpy(), batch.valid[k, :, columns].numpy()
                    assert (valid == ~np.isnan(whole[at])).all()
                    assert (got[~valid] == 0).all()
                    assert np.allclose(got[valid], want[valid], atol=5e-3)
                    seen += (~valid).sum()
    assert seen > 500
