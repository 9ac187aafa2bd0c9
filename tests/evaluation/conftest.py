"""Where the published recordings are."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("SHARED_DATA", ROOT / "../shared/data")).resolve()
    assert folder.is_dir(), f"{folder}: no published recordings; set SHARED_DATA to the folder of the archives"
    return folder
