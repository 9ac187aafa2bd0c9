"""``aar-dist plan``: what a run will read, fetch and wait for, before any money is spent.

aar-dist plan SHARDS --nodes 64 --ranks_per_node 8 --bandwidth 2GB/s --cache 1TB --batch_size 65536 --step_seconds 0.4
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aar_dist.base.config import Schema, load, read_yaml
from aar_dist.base.errors import ConfigError, user_entry
from aar_dist.base.plots import save_figure
from aar_dist.stream.plan.config import PlanConfig
from aar_dist.stream.plan.report import make_plan
from aar_dist.stream.plan.text import render

SCHEMA = Schema(PlanConfig, aliases={"--cache": "cluster.cache", "--batch": "train.batch_size"})
FROM_RUN = ("batch_size", "epochs")  # of a training configuration's ``train``
PICTURES = (".png", ".svg", ".pdf")


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Print the plan."""
    flags = list(sys.argv[1:] if argv is None else argv)
    as_json, picture, run = _taken(flags, "--json", value=False), _taken(flags, "--picture"), _taken(flags, "--config")
    if picture and Path(picture).suffix not in PICTURES:
        raise ConfigError(f"--picture {picture}: no such format; give it one of the endings {', '.join(PICTURES)}")
    config = load(SCHEMA, _named(flags), _settings(run) if run else None)
    if not config.data.shards:
        raise ConfigError("no shard set to plan for; name one or several first: aar-dist plan SHARDS --nodes 64 …")
    plan = make_plan(config)
    if picture:
        from aar_dist.stream.plan.picture import figure

        save_figure(figure(plan, config), picture)
    print(json.dumps(plan.as_dict(), indent=1) if as_json else render(plan, config), end="\n" if as_json else "")


def _taken(flags: list[str], name: str, *, value: bool = True) -> str | None:
    """Take a flag, and its value, out of the arguments."""
    for i, flag in enumerate(flags):
        given, equals, text = flag.partition("=")
        if given != name:
            continue
        if not value:
            del flags[i]
            return name
        if not equals and i + 1 == len(flags):
            raise ConfigError(f"{name} needs a value")
        found = text if equals else flags[i + 1]
        del flags[i : i + 1 + (not equals)]
        return found
    return None


def _named(flags: list[str]) -> list[str]:
    """The arguments with the shard sets that stand in front under their name."""
    n = next((i for i, flag in enumerate(flags) if flag.startswith("-")), len(flags))
    return ["--data.shards", *flags[:n], *flags[n:]] if n else flags


def _settings(path: str) -> dict[str, Any]:
    """What a training configuration says of the data and the batches."""
    settings = read_yaml(path)
    train = settings.get("train") or {}
    kept: dict[str, Any] = {"train": {key: train[key] for key in FROM_RUN if key in train}}
    return {"data": settings["data"], **kept} if settings.get("data") else kept
