"""Run under the launcher by test_recompute.py: the same steps with and without activation checkpointing, as JSON.

argv: output folder, then STAGE:DROPOUT …; four steps of two micro-batches, two of them again from a checkpoint
"""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from engine_script import BATCH, MICRO, SAMPLES, batch

from aar_dist.base.errors import run_door
from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.masked import MaskedReconstruction
from aar_dist.training.config import DeepSpeedConfig, OptimConfig, TrainConfig
from aar_dist.training.engine import Engine
from aar_dist.training.group import process_group
from aar_dist.training.ranks import Ranks, barrier


def objective(dropout: float) -> MaskedReconstruction:
    torch.manual_seed(1)
    sizes = {"d_embedding": 64, "n_layers": 3, "max_window_length": SAMPLES, "patch_size": 10}
    return MaskedReconstruction(AAREncoder(**sizes, transformer_dropout=dropout))


def steps(engine: Engine, ranks: Ranks, numbers: range) -> Iterator[float]:
    """Loss of each micro-batch."""
    for step in numbers:
        for i in range(engine.accumulation):
            torch.manual_seed(100 * step + 10 * i + ranks.rank)
            yield float(engine.micro_step(batch(100 * step + 10 * i + ranks.rank))["loss"].sum())
            engine.step(1e-2, last=i == engine.accumulation - 1)


@contextmanager
def engine(config: DeepSpeedConfig, dropout: float, ranks: Ranks, device: torch.device) -> Iterator[Engine]:
    train = TrainConfig(batch_size=BATCH, micro_batch_size=MICRO)
    with closing(Engine(objective(dropout), config, train, OptimConfig(), ranks, device)) as made:
        yield made


def trial(stage: int, dropout: float, ranks: Ranks, device: torch.device, folder: Path) -> dict:
    """Losses without, with, and resumed with activation checkpointing, and whether the weights end alike."""
    options = {"stage3_param_persistence_threshold": 0} if stage == 3 else {}
    config = DeepSpeedConfig(zero_stage=stage, zero_options=options)
    losses = {}
    for name in ("plain", "checkpointed"):
        config = replace(config, activation_checkpointing=name == "checkpointed")
        with engine(config, dropout, ranks, device) as each:
            losses[name] = list(steps(each, ranks, range(2)))
            each.save(folder, f"{name}_half", {})
            losses[name] += steps(each, ranks, range(2, 4))
            each.save(folder, name, {})
            barrier()
    with engine(config, dropout, ranks, device) as each:
        each.load(folder, "checkpointed_half")
        losses["resumed"] = losses["checkpointed"][:4] + list(steps(each, ranks, range(2, 4)))
        each.save(folder, "resumed", {})
        barrier()
        weights = {name: each.consolidate(folder, name) for name in (*losses, "checkpointed_half")}
        barrier()
    alike = [all(torch.equal(of[n], weights["plain"][n]) for n in of) for of in weights.values()]
    return {"losses": losses, "weights_alike": alike}


def main() -> None:
    out, *trials = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")]
    ranks = Ranks.from_environment()
    results = {}
    with process_group(ranks) as device:
        for name in trials:
            stage, dropout = name.split(":")
            results[name] = trial(int(stage), float(dropout), ranks, device, Path(out) / name.replace(":", "_"))
    (Path(out) / f"rank_{ranks.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    run_door(main)
