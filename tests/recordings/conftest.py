"""The published recordings, each set converted once for all tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from aar_dist.recordings.contract import Recording, find_recordings
from aar_dist.recordings.convert import CONVERTERS, convert
from aar_dist.recordings.converter import Options
from aar_dist.recordings.source import open_source


@dataclass
class Converted:
    """A published set, unpacked, and what became of it."""

    raw: Path
    folder: Path
    notes: list[str]
    recordings: list[Recording]

    def of(self, source: str) -> list[Recording]:
        """The recordings that a published file has become."""
        return [r for r in self.recordings if r.source == source]


def converted(tmp_path_factory: pytest.TempPathFactory, name: str, path: Path, **options):
    out = tmp_path_factory.mktemp(name)
    folder, result = convert(CONVERTERS[name], out, Options(source=path, **options))
    with open_source(path) as raw:
        yield Converted(raw, folder, result.notes, find_recordings(folder))


@pytest.fixture(scope="session")
def cattle(tmp_path_factory, shared_data):
    yield from converted(tmp_path_factory, "cow_walking", shared_data / "cow_walking_raw.tar.xz")


@pytest.fixture(scope="session")
def otariids(tmp_path_factory, shared_data):
    yield from converted(tmp_path_factory, "otariids", shared_data / "otariids_raw.tar.xz")


@pytest.fixture(scope="session")
def hapt(tmp_path_factory, shared_data):
    yield from converted(tmp_path_factory, "hapt", shared_data / "hapt_raw.tar.xz")


@pytest.fixture(scope="session")
def motionsense(tmp_path_factory, shared_data):
    yield from converted(tmp_path_factory, "motionsense", shared_data / "motionsense_raw.tar.xz")


@pytest.fixture(scope="session")
def troika(tmp_path_factory, shared_data):
    yield from converted(tmp_path_factory, "troika", shared_data / "troika_ieeespc2015.tar.xz")


@pytest.fixture(scope="session")
def but_ppg(tmp_path_factory, shared_data):
    yield from converted(tmp_path_factory, "but_ppg", shared_data / "but_ppg_v1_48.tar.xz")
