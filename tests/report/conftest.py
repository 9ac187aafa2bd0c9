"""The folders that the tests of the page read, made once."""

import sys
from collections.abc import Iterator
from pathlib import Path

import made
import pytest

from aar_dist.recordings.herd import HERDS
from aar_dist.recordings.simulate import simulate_herd
from aar_dist.shards.build import BuildOptions, build


@pytest.fixture(scope="package", autouse=True)
def _without_umap() -> Iterator[None]:
    """Its compilation takes longer than all tests of the page; test_maps.py has another in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "umap", None)
        yield


@pytest.fixture(scope="session")
def folds(tmp_path_factory) -> Path:
    return made.make_folds(tmp_path_factory.mktemp("report") / "folds")


@pytest.fixture(scope="session")
def pretraining(tmp_path_factory) -> Path:
    return made.make_pretraining(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="session")
def simulated_shards(tmp_path_factory) -> Path:
    """A shard set of a small simulated herd."""
    root = tmp_path_factory.mktemp("simulated")
    for species in HERDS:
        simulate_herd(root / "herd" / species.dataset, species, subjects=4, hours_per_subject=0.02, seed=1)
    return build(
        root / "herd", root / "shards", BuildOptions(datasets=tuple(s.dataset for s in HERDS)), workers=1
    ).folder
