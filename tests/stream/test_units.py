"""Values that share a channel have one unit, or none that counts."""

from dataclasses import replace

import numpy as np
import pytest

from aar_dist.base.errors import ConfigError
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.stream.source import open_source

UNITS = {"clinic": "uV", "holter": "mV", "archive": "arbitrary"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, str]:
    """A shard set for each data set, of ECG in three units."""
    root, rng = tmp_path_factory.mktemp("hearts"), np.random.default_rng(0)
    for name, units in UNITS.items():
        for subject in "ab":
            ecg = SensorData(values=rng.normal(size=(400, 1)), rate_hz=20.0, units=units, axes=("lead",))
            acc = SensorData(values=rng.normal(size=(400, 3)), rate_hz=20.0, units="g", axes=("x", "y", "z"))
            sensors = {f"ecg_{name}": ecg, "acc": acc}
            dataset_to_hdf5(root / name, dataset=name, species="dog", subject=subject, sensors=sensors)
        build(root, root / f"set_{name}", BuildOptions(datasets=(name,), longest_segment_s=1.0), workers=1)
    return {name: str(root / f"set_{name}") for name in UNITS}


def data(sets: dict[str, str], *names: str, **of) -> DataConfig:
    return DataConfig(**{"shards": [sets[n] for n in names], "kinds": ["ecg"], "segment_duration": 1.0} | of)


@pytest.mark.parametrize("normalize", ["none", "centre"])
def test_a_unit_and_none_are_not_mixed(sets, normalize):
    with pytest.raises(ConfigError) as told:
        open_source(data(sets, "archive", "holter", normalize=normalize), "train")
    assert str(told.value) == (
        f"data.normalize {normalize}: ecg is arbitrary in archive and mV in holter; set data.normalize to segment, "
        "recording or dataset, or draw one of them (data.kinds, data.sensors)"
    )


@pytest.mark.parametrize("normalize", ["segment", "recording", "dataset"])
def test_they_are_where_each_has_its_own_scale(sets, normalize):
    assert open_source(data(sets, *UNITS, normalize=normalize), "train").channels == ("ecg.lead",)


@pytest.mark.parametrize("normalize", ["none", "recording"])
def test_a_sensor_of_fewer_axes_than_those_beside_it(sets, normalize):
    """Rows of three axes stand among those of one; only these are drawn."""
    rows = open_source(data(sets, "holter", normalize=normalize), "train").rows
    assert rows.scale.shape[1] == 1
    assert (np.array(rows.scale) == 1).all() == (normalize == "none")


def test_what_shares_no_channel_or_is_converted_is_drawn(sets):
    mixed = data(sets, *UNITS)
    assert open_source(data(sets, "clinic", "holter"), "train").channels == ("ecg.lead",)
    assert open_source(replace(mixed, kinds=["acc"]), "train").channels == ("acc.x", "acc.y", "acc.z")
    assert len(open_source(replace(mixed, sensors="all"), None).channels) == 6
