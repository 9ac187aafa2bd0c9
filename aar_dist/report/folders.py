"""What a folder is, told by its files, and what the page needs of it.

results.json                            -> Folds           (launch/folds.py)
config.yaml + metrics.jsonl, `split`    -> Run(fine-tuning)  (launch/finetune.py)
config.yaml + metrics.jsonl             -> Run(pretraining)  (launch/pretrain.py)
a .parquet file                         -> Embeddings      (aar-dist embed)
anything else                           -> ConfigError
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from aar_dist.base.addresses import without_secrets
from aar_dist.base.errors import ConfigError
from aar_dist.base.wording import some
from aar_dist.training.metrics import Row, read_rows

RESULTS, CONFIG, METRICS = "results.json", "config.yaml", "metrics.jsonl"
NEEDED = ("name", "datasets", "methods", "subjects", "n_folds")
EXPECTED = (
    "expected a folds folder (results.json), a pretraining or fine-tuning run (config.yaml and metrics.jsonl), or the "
    ".parquet of aar-dist embed"
)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What all of them have."""

    path: Path
    config_text: str
    """The resolved configuration; empty if there is none."""
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the folder, also where it was given as ``.``."""
        return self.path.resolve().name

    @property
    def shards(self) -> list[str]:
        """The shard sets that the configuration names."""
        data = self.config.get("data") or {}
        named = data.get("shards") or []
        return [str(s) for s in ([named] if isinstance(named, str) else named)]


@dataclass(frozen=True, kw_only=True)
class Folds(Folder):
    """A finished folds folder."""

    results: dict[str, Any]

    @property
    def classes(self) -> list[str] | None:
        """None where the label is a target."""
        return self.results.get("classes")

    @property
    def methods(self) -> list[dict[str, Any]]:
        """As results.json tells them."""
        return list(self.results["methods"])

    @property
    def tested(self) -> dict[str, dict[str, Any]]:
        """The subjects that a fold was tested on: all, unless the folds were written by hand."""
        return {name: about for name, about in self.results["subjects"].items() if about.get("fold") is not None}

    def run(self, method: str, seed: Any, fold: Any) -> Path:
        """Where one fold of one method lives."""
        return self.path / "runs" / method / f"seed_{seed}" / f"fold_{fold}"


@dataclass(frozen=True, kw_only=True)
class Run(Folder):
    """A training run, finished or not."""

    kind: Literal["pretraining", "fine-tuning"]
    rows: list[Row]
    finished: dict[str, Any] | None
    scores: dict[str, Any] | None
    """metrics.json of a fine-tuning run that was tested."""


@dataclass(frozen=True)
class Embeddings:
    """A file of embeddings."""

    path: Path


def read_folder(path: Path) -> Folds | Run | Embeddings:
    """Read a folder, or find a file. Raises ``ConfigError`` of one line if it is none of these."""
    if path.is_file() and path.suffix == ".parquet":
        return Embeddings(path)
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise ConfigError(f"{path}: found {found}; {EXPECTED}")
    if (path / RESULTS).is_file():
        return Folds(path=path, **_config(path), results=_results(path / RESULTS))
    if (path / "folds.json").is_file() or (path / "runs").is_dir():
        raise ConfigError(
            f"{path}: folds without {RESULTS}, so they are not finished; run the same launch/folds.py again, "
            "it goes on where it stopped"
        )
    if not (path / CONFIG).is_file() or not (path / METRICS).is_file():
        raise ConfigError(f"{path}: found {_found(path)}; {EXPECTED}")
    told = _config(path)
    return Run(
        path=path,
        **told,
        kind="fine-tuning" if "split" in told["config"] else "pretraining",
        rows=read_rows(path / METRICS),
        finished=read_json(path / "finished"),
        scores=read_json(path / "metrics.json"),
    )


def _found(path: Path) -> str:
    names = sorted(p.name for p in path.iterdir())
    return some(names, 4) or "an empty folder"


def _config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    text = without_secrets(file.read_text(errors="replace")) if file.is_file() else ""
    try:
        config = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML ({error}); it was written by the run and is needed as it was") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{file}: found {type(config).__name__}, expected the resolved configuration of a run")
    return {"config_text": text, "config": config}


def _results(file: Path) -> dict[str, Any]:
    results = read_json(file)
    lacking = [key for key in NEEDED if key not in (results or {})]
    if results is None or lacking:
        raise ConfigError(f"{file}: {', '.join(lacking)} missing; expected the results of launch/folds.py")
    if not isinstance(results["methods"], list) or not results["methods"] or not isinstance(results["subjects"], dict):
        raise ConfigError(f"{file}: no list of methods, or no subjects; run launch/folds.py again")
    for method in results["methods"]:
        if not isinstance(method, Mapping) or not {"name", "kind", "seeds", "runs"} <= set(method):
            raise ConfigError(f"{file}: a method without name, kind, seeds or runs; run launch/folds.py again")
    return results


def read_json(file: Path) -> dict[str, Any] | None:
    """None if there is no such file."""
    if not file.is_file():
        return None
    try:
        told = json.loads(without_secrets(file.read_text(errors="replace")))
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON ({error}); run again what wrote it") from None
    if not isinstance(told, dict):
        raise ConfigError(f"{file}: found a {type(told).__name__}, expected an object with keys")
    return told


def series(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """(step, value) of every row that has the number."""
    return [(float(row["step"]), float(row[key])) for row in rows if isinstance(row.get(key), (int, float))]
