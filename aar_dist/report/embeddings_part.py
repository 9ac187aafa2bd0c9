"""A file of embeddings as a part of the page: its map, and which model made it."""

from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from aar_dist.base import storage
from aar_dist.base.errors import ConfigError
from aar_dist.base.wording import some
from aar_dist.report.embedding import embedding_map
from aar_dist.report.folders import Embeddings
from aar_dist.report.numbers import count
from aar_dist.report.predicted import read_parquet


def embeddings_part(of: Embeddings) -> dict[str, Any]:
    """What the template needs. Raises ``ConfigError`` if the file holds no embeddings, or too few for a map."""
    table = read_parquet(of.path, ("dataset", "subject"))
    drawn = embedding_map(of.path)
    if drawn is None:
        raise ConfigError(f"{of.path}: holds {count(table.num_rows, 'window')}; a map needs three")
    told = {key.decode(): value.decode() for key, value in _metadata(of).items()}
    model = told.get("model", "a model")
    datasets = sorted(pc.unique(table["dataset"]).to_pylist())
    subjects = count(len(pc.unique(table["subject"])), "subject")
    facts = {"made by": told.get("model"), "from shards": told.get("shards"), "sha256": storage.sha256(of.path)}
    brief = f"{count(table.num_rows, 'window')} of {subjects}"
    return {
        "kind": "embeddings",
        "name": of.path.name,
        "about": f"embeddings of {some(datasets, 4)}",
        "headline": f"{model} sees {brief}.",
        "brief": brief,
        "remarks": [],
        "simulated": [],
        "unfinished": "",
        "failures": [],
        "leaks": 0,
        "map": drawn,
        "map_of": f"windows as {model} sees them",
        "reproduce": {"command": "", "facts": {k: v for k, v in facts.items() if v}, "versions": {}, "hashes": {},
                      "config": ""},
    }  # fmt: skip


def _metadata(of: Embeddings) -> dict[bytes, bytes]:
    """What `aar-dist embed` tells of the file; another program may tell nothing."""
    return pq.read_schema(of.path).metadata or {}
