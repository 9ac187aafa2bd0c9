"""Run under the launcher by test_deepspeed_facts.py: one engine after another, what each did as JSON.

argv: output folder, then STAGE:PRECISION:CLIPPING:OFFLOAD …; step 3 of each has an infinite sample on the last rank,
step 5 a loss there that is infinite while its gradients are not
"""

import json
import sys
from pathlib import Path

import torch

from aar_dist.base.errors import run_door
from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.base import Metrics
from aar_dist.objectives.masked import MaskedReconstruction
from aar_dist.stream.batch import SegmentBatch
from aar_dist.training.config import DeepSpeedConfig, OptimConfig, TrainConfig
from aar_dist.training.engine import Engine
from aar_dist.training.group import process_group
from aar_dist.training.ranks import Ranks, barrier

BATCH, MICRO, SAMPLES = 8, 2, 50


class Overflowing(MaskedReconstruction):
    """Its loss, and nothing else, is infinite for a segment with a negative key."""

    def forward(self, batch: SegmentBatch) -> tuple[torch.Tensor, Metrics]:
        loss, metrics = super().forward(batch)
        return (loss + torch.inf if (batch.key < 0).any() else loss), metrics


def objective() -> MaskedReconstruction:
    torch.manual_seed(1)
    return Overflowing(AAREncoder(d_embedding=64, n_layers=1, max_window_length=SAMPLES, patch_size=10))


def batch(number: int, *, broken: bool = False, overflows: bool = False) -> SegmentBatch:
    values = torch.randn(MICRO, SAMPLES, 3, generator=torch.Generator().manual_seed(number))
    if broken:
        values[0, 0, 0] = float("inf")
    return SegmentBatch(
        values=values,
        valid=torch.ones(MICRO, SAMPLES, 3, dtype=torch.bool),
        rate_hz=torch.full((MICRO,), 50.0),
        dataset=torch.zeros(MICRO, dtype=torch.int64),
        channel=torch.arange(3).expand(MICRO, 3),
        key=(torch.arange(MICRO) + number * MICRO) * (-1 if overflows else 1),
    )


def trial(config: DeepSpeedConfig, ranks: Ranks, device: torch.device, folder: Path) -> dict:
    train = TrainConfig(batch_size=BATCH, micro_batch_size=MICRO)
    given = {name: value.clone() for name, value in objective().state_dict().items()}
    # Without a large eps Adam's steps do not depend on the length of the gradient.
    optim = OptimConfig(weight_decay=0.0, eps=1.0 if config.gradient_clipping else 1e-9)
    engine = Engine(objective(), config, train, optim, ranks, device)
    said: dict = {"steps": []}

    def weights(tag: str) -> dict:
        engine.save(folder, tag, {"said": tag})
        barrier()
        made = engine.consolidate(folder, tag)
        barrier()
        return made

    start = weights("start")
    said["starts_from_given"] = start.keys() == given.keys() and all(torch.equal(start[n], given[n]) for n in given)
    for step in range(1, 6):
        before = weights(f"before{step}")
        for i in range(engine.accumulation):
            number = 100 * step + 10 * i + ranks.rank
            last = ranks.rank == ranks.world_size - 1
            engine.micro_step(batch(number, broken=step == 3 and last, overflows=step == 5 and last))
            result = engine.step(1e-2, last=i == engine.accumulation - 1)
        after = weights(f"after{step}")
        said["steps"].append(
            {
                "applied": result.applied,
                "norm": result.grad_norm,
                "distance": sum(float((after[n] - before[n]).double().square().sum()) for n in before) ** 0.5,
                "moved": any(not torch.equal(before[n], after[n]) for n in before),
                "finite": all(bool(w.isfinite().all()) for w in after.values()),
                "fp32": all(w.dtype == torch.float32 for w in after.values()),
            }
        )
    said["latest"] = (folder / "latest").exists()
    said["loaded"] = engine.load(folder, "after4")["said"]
    said["reconstructs"] = list(engine.objective.eval().reconstruct(batch(1)).prediction.shape)
    engine.close()
    return said


def statistics(ranks: Ranks, device: torch.device) -> dict:
    """Running means of a model with BatchNorm, of this rank's segments and then of all."""
    backbone = AAREncoder(
        d_embedding=64, n_layers=1, max_window_length=SAMPLES, patch_size=25, embedding_type="conv", faithful=True
    )
    train = TrainConfig(batch_size=2 * MICRO)
    engine = Engine(MaskedReconstruction(backbone), DeepSpeedConfig(), train, OptimConfig(), ranks, device)
    engine.micro_step(batch(ranks.rank))

    def means() -> list[float]:
        return [float(v.sum()) for n, v in engine.objective.named_buffers() if n.endswith(("_mean", "_var"))]

    own = means()
    engine.average_statistics()
    said: dict = {"own": own, "all": means(), "applied": [engine.step(1e-2, last=True).applied]}
    engine.micro_step(batch(ranks.rank, broken=ranks.rank == ranks.world_size - 1))
    said["broken"] = means()
    said["applied"].append(engine.step(1e-2, last=True).applied)
    said["left_out"] = means()
    engine.close()
    return said


def main() -> None:
    out, *trials = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")]
    ranks = Ranks.from_environment()
    results = {}
    with process_group(ranks) as device:
        for name in trials:
            stage, precision, clipping, offload = name.split(":")
            config = DeepSpeedConfig(
                zero_stage=int(stage), precision=precision, gradient_clipping=float(clipping), offload=offload
            )
            results[name] = trial(config, ranks, device, Path(out) / name.replace(":", "_"))
        results["statistics"] = statistics(ranks, device)
    (Path(out) / f"rank_{ranks.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    run_door(main)
