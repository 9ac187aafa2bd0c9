"""The published recordings, each set converted once for all tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from aar_dist.recordings.contract import Recording, find_recordings
from aar_dist.recordings.convert import CONVERTERS, convert
from aar_dist.recordings.converter import Options
from aar_dist.recordings.source import open_source
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.stream.windows import WindowConfig, WindowTable, open_windows, window_stream


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


def windows_of(folder: Path, out: Path, seconds: float, hop_s: float | None = None, **data) -> tuple[WindowTable, list]:
    """The labelled windows of a converted set, through its shards, and all batches of them."""
    options = BuildOptions(datasets=(folder.name,), longest_segment_s=seconds)
    shards = build(folder.parent, out, options, workers=1).folder
    config = DataConfig(shards=[str(shards)], segment_duration=seconds, **data)
    source, table = open_windows(config, WindowConfig(hop_s=hop_s))
    stream = window_stream(source, table, config, shuffle=False)
    n_batches = -(-len(table) // 64)
    batches = [batch for batch, _ in zip(stream.batches(0, 64, 64, "cpu"), range(n_batches), strict=False)]
    stream.close()
    return table, batches


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
