"""The end of a run: fp32 weights into the store, then the marker."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from aar_dist.base.cache import Cache
from aar_dist.base.remote import is_url
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.store.registry import Store
from aar_dist.training.config import RunConfig
from aar_dist.training.metrics import Row, read_rows
from aar_dist.training.progress import Progress
from aar_dist.training.run_directory import RunDirectory


def store_of(config: RunConfig, directory: RunDirectory) -> Store:
    """The store of a run: where ``store.path`` says, else in its directory."""
    place = config.store.path or str(directory.root / "store")
    if not is_url(place):
        return Store(Path(place).resolve())
    return Store(place, Cache.of(config.data.cache, config.data.cache_bytes))


def store_path(config: RunConfig, directory: RunDirectory) -> str:
    """Folder or URL of the store, without secrets."""
    return str(store_of(config, directory))


def check_store(config: RunConfig, directory: RunDirectory) -> None:
    """Raise ``StorageError`` if nothing can be written where the model will be published."""
    store_of(config, directory).shelf.check(config.store.name)


def publish(
    config: RunConfig,
    directory: RunDirectory,
    weights: Mapping[str, Tensor],
    progress: Progress,
    *,
    text: str,
    card: str,
    metrics: Row,
    about: dict[str, Any],
) -> Checkpoint:
    """Publish a new version (rank 0); one that this run had published before it was killed stays the only one.

    Args:
        text: The configuration that rebuilds the module (YAML).
        card: Markdown, for people.
        metrics: How good it is.
        about: Further lines of the manifest.
    """
    store = store_of(config, directory)
    origin = {"shards": progress.shards, "step": progress.step, "run_id": progress.run_id}
    if earlier := store.find(config.store.name, origin):
        return earlier
    return store.publish(
        config.store.name,
        weights,
        config=text,
        card=card,
        metrics=metrics,
        about={**origin, **about},
    )


def last_validation(path: Path) -> Row:
    """The newest row of metrics.jsonl that holds a validation."""
    rows = [row for row in read_rows(path) if "val/loss" in row]
    return rows[-1] if rows else {}


def pretraining_card(
    config: RunConfig, metrics: Row, progress: Progress, about: dict[str, Any], n_parameters: int
) -> str:
    """What a person should know of a pretrained model, in Markdown."""
    losses = [
        (name.removeprefix("val/loss/"), value) for name, value in metrics.items() if name.startswith("val/loss/")
    ]
    lines = [
        f"# {config.store.name}",
        "",
        f"{config.model.class_path.rpartition('.')[2]} ({n_parameters:,} parameters, fp32) trained with "
        f"{config.objective.class_path.rpartition('.')[2]} for {progress.step} steps of {config.train.batch_size} "
        f"segments of {config.data.segment_duration:g} s.",
        "",
        f"- data sets: {', '.join(about['datasets'])} (shard set {progress.shards[:12]})",
        f"- input: {', '.join(about['channels'])}; normalisation: {config.data.normalize}",
        f"- started from: {config.init_from or 'random weights'}",
        "",
        "| data set | validation loss | predicting zero | interpolating |",
        "|---|---|---|---|",
    ]
    for dataset, loss in losses:
        references = [metrics.get(f"val/{name}/{dataset}") for name in ("zero_mse", "interpolation_mse")]
        cells = ["-" if value is None else f"{value:.4g}" for value in (loss, *references)]
        lines.append(f"| {dataset} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
