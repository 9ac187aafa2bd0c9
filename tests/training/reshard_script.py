"""Run with and without the launcher by test_resharding.py: one short run after another, what each did as JSON.

argv: output folder, shard set, then runs NAME=SHAPE[<FROM]. SHAPE is the ZeRO stage with letters of ``Shape``, what is
offloaded, the precision. A run saves at step 3 and ends at step 6; FROM names the run from whose third step it goes on
"""

import hashlib
import json
import re
import sys
from contextlib import closing
from pathlib import Path

import torch
import torch.distributed as dist
from launching import TINY, flags

from aar_dist.base.config import load
from aar_dist.base.errors import run_door
from aar_dist.objectives.base import Objective
from aar_dist.stream.loader import open_stream
from aar_dist.training import checkpoints, saving
from aar_dist.training.adaptation.fixed import Unlocked
from aar_dist.training.adaptation.layer_decay import LayerDecay
from aar_dist.training.config import SCHEMA, PretrainConfig, recipe
from aar_dist.training.engine import Engine
from aar_dist.training.group import process_group
from aar_dist.training.health.retention import Retention
from aar_dist.training.pretrain import initial_objective
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks, barrier, from_main, mean_ranks
from aar_dist.training.resharding.pieces import Piece
from aar_dist.training.resharding.source import MOMENTS, WEIGHT, Source
from aar_dist.training.run_directory import RunDirectory

SAVED_AT, LAST = 3, 6
SETTINGS = TINY | {
    "train.batch_size": 24,
    "train.micro_batch_size": 6,
    "model.transformer_dropout": 0.0,
    "deepspeed.gradient_clipping": 0.5,
    "optim.warmup_steps": 4,
    "optim.noam_factor": 0.02,
}


ZERO_OPTIONS = {
    "s": {"stage3_param_persistence_threshold": 0, "sub_group_size": 20_000},
    "r": {"round_robin_gradients": True},
}
"""Small groups of shared-out parameters; parameters in another order."""


def made_of(shape: str, shards: str, directory: RunDirectory) -> tuple[PretrainConfig, Objective]:
    """Letters after the stage: ``ZERO_OPTIONS``, f frozen but for its last layer, d with a learning rate for each
    layer, t a module under two names, b with running statistics."""
    stage, offload, precision = shape.split(":")
    options = {key: value for letter in stage[1:] for key, value in ZERO_OPTIONS.get(letter, {}).items()}
    layout = {"zero_stage": stage[0], "offload": offload, "precision": precision, "zero_options": json.dumps(options)}
    settings = SETTINGS | {f"deepspeed.{key}": value for key, value in layout.items()} | {"data.shards": shards}
    if "b" in stage:
        settings |= {"model.embedding_type": "conv", "model.faithful": True, "model.patch_size": 25}
    config = load(SCHEMA, flags(settings))
    objective = initial_objective(config, None)
    if "f" in stage:
        Unlocked(blocks=1).phases(objective, 1)[0].apply(objective)
    if "t" in stage:
        objective.twin = objective.head
    return config, objective


def trial(name: str, shape: str, source: str, ranks: Ranks, device: torch.device, out: Path, shards: str) -> dict:
    directory = RunDirectory(out / name)
    config, objective = made_of(shape, shards, directory)
    with closing(open_stream(config.data, "train", ranks.rank, ranks.world_size)) as stream:
        progress = Progress.start(stream.identity, config.data, config.train.seed, recipe(config))
        saved = checkpoints.read(out / source / "checkpoints" / checkpoints.name_of(SAVED_AT)) if source else None
        if saved:
            saving.check_continues(saved, progress, objective)
        resharded = saving.reshard(saved, objective, config, ranks, device)
        factors = LayerDecay().phases(objective, 1)[0].factors if "d" in shape.partition(":")[0] else None
        engine = Engine(objective, config.deepspeed, config.train, config.optim, ranks, device, factors)
        said: dict = {"resharded": resharded is not None, "micro": config.train.micro_batches(ranks.world_size)}
        said |= {"steps": [], "ranks": ranks.world_size}
        if saved:
            progress = saving.restore(engine, saved, resharded)
            save(engine, directory, ranks, progress)
            said["carried"] = from_main(lambda: carried(saved.path, directory.checkpoints / saved.path.name))
        batches = stream.batches(progress.position, config.train.batch_size, said["micro"][0], device)
        while progress.step < LAST:
            lr = config.optim.rate(progress.step + 1, d_embedding=engine.d_embedding)
            keys, losses = [], []
            for i in range(engine.accumulation):
                batch = next(batches)
                keys += batch.key.tolist()
                losses.append(engine.micro_step(batch)["loss"].mean())
                result = engine.step(lr, last=i == engine.accumulation - 1)
            progress = progress.advance(config.train.batch_size, applied=result.applied)
            loss = float(mean_ranks(torch.stack(losses).mean()))
            said["steps"].append({"loss": loss, "norm": result.grad_norm, "segments": of_all(keys, ranks)})
            if progress.step in (SAVED_AT, LAST):
                engine.average_statistics()
                save(engine, directory, ranks, progress)
        said |= from_main(lambda: weights_of(engine, directory.checkpoints))
        engine.close()
    return said


def save(engine: Engine, directory: RunDirectory, ranks: Ranks, progress: Progress) -> None:
    from_main(lambda: directory.checkpoints.mkdir(parents=True, exist_ok=True))
    saving.save(engine, directory, ranks, progress, None, Retention(keep_last=9), None)


def of_all(keys: list[int], ranks: Ranks) -> list[int]:
    """Segments of all ranks, in the order of the global batch."""
    if ranks.world_size == 1:
        return keys
    every: list = [None] * ranks.world_size
    dist.all_gather_object(every, keys)
    return [key for each in every for key in each]


def carried(old: Path, new: Path) -> bool:
    """True if two checkpoints hold the same numbers, to the bit."""
    one, other = Source(old), Source(new)
    wanted = [Piece(name, 0, shape.numel(), 0, 0) for name, shape in one.shapes.items()]
    same = one.buffers.keys() == other.buffers.keys()
    same &= all(torch.equal(value, other.buffers[name]) for name, value in one.buffers.items())
    same &= all(torch.equal(one.read(k, p), other.read(k, p)) for p in wanted for k in (WEIGHT, *MOMENTS))
    return same and one.shapes == other.shapes and one.step == other.step == SAVED_AT


def weights_of(engine: Engine, folder: Path) -> dict:
    """The weights at the end."""
    made = engine.consolidate(folder, checkpoints.name_of(LAST))
    whole = hashlib.sha256(b"".join(made[name].numpy().tobytes() for name in sorted(made))).hexdigest()
    return {"weights": whole, "names": sorted(made), "finite": all(bool(w.isfinite().all()) for w in made.values())}


def main() -> None:
    out, shards, *trials = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")]
    ranks = Ranks.from_environment()
    with process_group(ranks) as device:
        for text in trials:
            name, shape, source = re.fullmatch(r"([^=]+)=([^<]+)<?(.*)", text).groups()
            said = trial(name, shape, source, ranks, device, Path(out), shards)
            if ranks.main:
                (Path(out) / f"{name}.json").write_text(json.dumps(said))
            barrier()


if __name__ == "__main__":
    run_door(main)
