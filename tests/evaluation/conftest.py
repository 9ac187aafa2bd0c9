"""The toys that folds are tried on."""

from pathlib import Path

import pytest
from finetune_toys import make_shards, publish_backbone


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> str:
    """Folder of store://toy@1."""
    return str(publish_backbone(tmp_path_factory.mktemp("store")).path)
