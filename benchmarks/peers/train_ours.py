"""Our training, as the loop does it: stream -> Engine -> means of the metrics; beside it our model in a bare loop, and
the stream alone."""

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from itertools import count
from typing import Any

import torch

from aar_dist.base.config import load
from aar_dist.base.hashing import hash_int
from aar_dist.objectives.base import Objective
from aar_dist.store.checkpoint import build_objective
from aar_dist.stream.loader import SegmentStream, open_stream
from aar_dist.training.config import SCHEMA, PretrainConfig
from aar_dist.training.engine import Engine
from aar_dist.training.group import process_group
from aar_dist.training.loop import DROPOUT
from aar_dist.training.metrics import Meter
from aar_dist.training.options import precision_of
from aar_dist.training.ranks import Ranks

LIKE_FOR_LIKE = ("--model.transformer_dropout=0", "--deepspeed.precision=fp32")
D_256 = ("--model.d_embedding=256", "--model.n_layers=6")
CPU = torch.device("cpu")
UNTIL_THE_END = ExitStack()
"""Never closed: this process is ended from outside."""
Steps = Iterator[range]
"""One range, as long as the segments trained on, for each step or few."""


def readers(settings: dict[str, Any]) -> dict[str, Steps]:
    """What ``settings["role"]`` asks for: all that one rank does, or one rank's part."""
    ranks = Ranks.from_environment()
    UNTIL_THE_END.enter_context(process_group(ranks))
    if settings["role"] == "rank":
        return {"fp32": ours("100 Hz", LIKE_FOR_LIKE, settings, ranks)}
    made: dict[str, Steps] = {}
    for data in settings["shards"]:
        made[f"ours {data}, as it comes"] = ours(data, (), settings, ranks)
        made[f"ours {data}, fp32, dropout 0"] = ours(data, LIKE_FOR_LIKE, settings, ranks)
        made[f"loader {data}"] = loaded(opened(configured(data, (), settings), ranks), settings["batch"])
    wide = "100 Hz", D_256 if settings["d"] > 64 else (), settings, ranks
    return made | {"DeepSpeed d 256": ours(*wide), "bare loop d 256": bare(*wide)}


def configured(data: str, flags: tuple[str, ...], settings: dict[str, Any]) -> PretrainConfig:
    """What a user would write, and nothing else."""
    size = (f"--model.d_embedding={settings['d']}", f"--model.n_layers={settings['n_layers']}")
    said = (
        "--config",
        settings["config"],
        "--data.shards",
        settings["shards"][data],
        f"--batch_size={settings['batch']}",
    )
    config: PretrainConfig = load(SCHEMA, [*said, *size, *flags])
    return config


def opened(config: PretrainConfig, ranks: Ranks) -> SegmentStream:
    """The training stream of this rank."""
    return open_stream(config.data, "train", ranks.rank, ranks.world_size)


def initial(config: PretrainConfig) -> Objective:
    """The same weights for everybody."""
    torch.manual_seed(0)
    return build_objective(config.model, config.objective)


def ours(data: str, flags: tuple[str, ...], settings: dict[str, Any], ranks: Ranks) -> Steps:
    """Steps of the training loop."""
    config = configured(data, flags, settings)
    engine = Engine(initial(config), config.deepspeed, config.train, config.optim, ranks, CPU)
    return looped(engine, opened(config, ranks), config, ranks)


def looped(engine: Engine, stream: SegmentStream, config: PretrainConfig, ranks: Ranks) -> Steps:
    """What ``loop.train_step`` does, and the means of its metrics."""
    micro, _ = config.train.micro_batches(ranks.world_size)
    batches, meter = stream.batches(0, config.train.batch_size, micro), Meter(stream.datasets)
    for step in count(1):
        for i in range(engine.accumulation):
            torch.manual_seed(hash_int(config.train.seed, DROPOUT, step, i, ranks.rank))
            batch = next(batches)
            meter.add(engine.micro_step(batch), batch.dataset)
            lr = config.optim.rate(step, d_embedding=engine.d_embedding)
            engine.step(lr, last=i == engine.accumulation - 1)
        meter.take()
        yield range(config.train.batch_size)


def bare(data: str, flags: tuple[str, ...], settings: dict[str, Any], ranks: Ranks) -> Steps:
    """Our model and stream in a loop of five lines, in the same precision."""
    config = configured(data, flags, settings)
    model, stream = initial(config).train(), opened(config, ranks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9)
    rounded = precision_of(config.deepspeed, CPU) == "autocast"
    for batch in stream.batches(0, settings["batch"], settings["batch"]):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if rounded else nullcontext():
            loss, _ = model(batch)
        loss.backward()
        optimizer.step()
        loss.item()
        yield range(len(batch))


def loaded(stream: SegmentStream, batch: int) -> Steps:
    """The stream alone."""
    for segments in stream.batches(0, batch, batch):
        yield range(len(segments))
