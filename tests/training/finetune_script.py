"""Run under the launcher by test_finetune_engine.py: three steps of each way of freezing, what moved as JSON.

argv: output folder, folder of the stored model, then STAGE:PRECISION …
"""

import json
import sys
from pathlib import Path

import torch

from aar_dist.base.config import ClassSpec
from aar_dist.base.errors import run_door
from aar_dist.store.checkpoint import specs, verified
from aar_dist.stream.batch import SegmentBatch
from aar_dist.training.config import DeepSpeedConfig
from aar_dist.training.engine import Engine
from aar_dist.training.finetuning.config import CLASSIFICATION, FinetuneConfig, FinetuneTrainConfig
from aar_dist.training.finetuning.finetune import adapt, initial_objective
from aar_dist.training.finetuning.freezing import FreezeConfig
from aar_dist.training.group import process_group
from aar_dist.training.ranks import Ranks, barrier

WAYS = {
    "head": FreezeConfig(freeze_backbone=True),
    "unlocked_1": FreezeConfig(unlocked_layers=1),
    "unlocked_all": FreezeConfig(unlocked_layers=3),
    "full": FreezeConfig(),
}
BATCH, SAMPLES = 8, 20


def batch(number: int) -> SegmentBatch:
    n = BATCH // 2
    generator = torch.Generator().manual_seed(number)
    return SegmentBatch(
        values=torch.randn(n, SAMPLES, 3, generator=generator),
        valid=torch.ones(n, SAMPLES, 3, dtype=torch.bool),
        rate_hz=torch.full((n,), 20.0),
        dataset=torch.zeros(n, dtype=torch.int64),
        channel=torch.arange(3).expand(n, 3),
        key=torch.arange(n) + number * n,
        label=torch.arange(n) % 3,
    )


def trial(stage: int, precision: str, way: FreezeConfig, source: Path, ranks: Ranks, device, folder: Path) -> dict:
    stored = verified(source)
    config = FinetuneConfig(
        model=specs(stored.config())[0],
        freeze=way,
        train=FinetuneTrainConfig(batch_size=BATCH),
        deepspeed=DeepSpeedConfig(zero_stage=stage, precision=precision),
    )
    objective = initial_objective(config, ClassSpec(CLASSIFICATION, {"n_classes": 3}), stored)
    adapt(objective, config, stored)[0].apply(objective)
    engine = Engine(objective, config.deepspeed, config.train, config.optim, ranks, device)

    def weights(tag: str) -> dict:
        engine.save(folder, tag, {})
        barrier()
        made = engine.consolidate(folder, tag)
        barrier()
        return made

    start, published = weights("start"), stored.weights()
    for step in range(1, 4):
        engine.micro_step(batch(10 * step + ranks.rank))
        result = engine.step(1e-2, last=True)
        assert result is not None
        assert result.applied
    after = weights("after")
    engine.load(folder, "start")
    again = weights("again")
    engine.close()
    of_backbone = [name for name in published if name.startswith("backbone.")]
    return {
        "parameters": sorted(start),
        "same_as_published": all(torch.equal(start[name], published[name]) for name in of_backbone),
        "moved": sorted(name for name in start if not torch.equal(start[name], after[name])),
        "comes_back": start.keys() == again.keys() and all(torch.equal(start[n], again[n]) for n in start),
        "fp32": all(value.dtype == torch.float32 for value in after.values()),
    }


def main() -> None:
    out, source, *trials = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")]
    ranks = Ranks.from_environment()
    results: dict = {}
    with process_group(ranks) as device:
        for name in trials:
            stage, precision = name.split(":")
            for way, config in WAYS.items():
                folder = Path(out) / f"{stage}_{precision}_{way}"
                said = trial(int(stage), precision, config, Path(source), ranks, device, folder)
                results.setdefault(name, {})[way] = said
    (Path(out) / f"rank_{ranks.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    run_door(main)
