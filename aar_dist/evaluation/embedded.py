"""What a backbone makes of every window before it is trained: computed once for a study, and kept.

Of each channel the mean of its tokens and their deviation, side by side (of a backbone with a token for the whole
segment that one, where the recipe's head takes it).

FinetuneConfig -> the stored backbone (or, from scratch, a random one) -> (n, D) float32, in the order of the windows
"""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from aar_dist.base import storage
from aar_dist.evaluation.arrays import batches_once
from aar_dist.objectives.base import Objective
from aar_dist.objectives.pooling import PooledHead, grouped_tokens
from aar_dist.stream.loader import SegmentStream
from aar_dist.stream.windows import open_windows, window_stream
from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.finetune import initial_objective
from aar_dist.training.finetuning.pretrained import source_of
from aar_dist.training.finetuning.task import Task, resolved
from aar_dist.training.progress import FREE_DATA_KEYS

BATCH = 256


def embedded(config: FinetuneConfig, task: Task, folder: Path) -> NDArray[np.float32]:
    """(n, D) of all windows of the shards, those of every side, in the order of their table.

    They are read from ``folder`` where they are. Workers that begin at once may each compute them: they write the same.

    Args:
        config: Which model and windows; ``from_scratch`` for random weights of ``train.seed``.
        task: Any fold's.
        folder: Of what the study keeps.
    """
    settled, head = resolved(config, task)
    pooling = "cls" if head.init_args.get("pooling") == "cls" else "moments"
    head = replace(head, init_args={**head.init_args, "pooling": pooling})
    # Statistics of data sets that the model was not trained with are those of the fold's train side.
    file = folder / f"{_key(replace(config, data=settled.data), task, pooling)}.npy"
    if file.exists():
        return np.asarray(np.load(file, allow_pickle=False))
    objective = initial_objective(settled, head, source_of(config)).eval()
    source, table = open_windows(settled.data, settled.windows)
    with window_stream(source, table, settled.data, shuffle=False) as stream:
        vectors = _vectors(objective, stream)
    _keep(file, vectors)
    return vectors


def _vectors(objective: Objective, stream: SegmentStream) -> NDArray[np.float32]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = objective.to(device)
    head, backbone = objective.head, objective.backbone
    assert isinstance(head, PooledHead), "of Classification and of Regression"
    with torch.inference_mode():
        seen = [
            head.seen(*grouped_tokens(backbone, batch)).float().cpu()
            for batch in (batch.to(device) for batch in batches_once(stream, BATCH))
        ]
    return torch.cat(seen).numpy()


def _key(config: FinetuneConfig, task: Task, pooling: str) -> str:
    """All that the vectors depend on."""
    data = {k: v for k, v in asdict(config.data).items() if k not in (*FREE_DATA_KEYS, "shards")}
    told = {
        "architecture": asdict(config.model),
        "data": data,
        "windows": asdict(replace(config.windows, classes=list(task.classes or ()))),
        "shards": task.source.identity,
        "model": config.init_from,
        "scratch": config.from_scratch,
        "seed": config.train.seed,  # of random weights, and of channels that the model does not have
        "pooling": pooling,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _keep(file: Path, vectors: NDArray[np.float32]) -> None:
    staging = storage.staging_name(file)
    with storage.one_line_errors(file, staging):
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(staging, "wb") as written:
            np.save(written, vectors)
        storage.replace(staging, file)
