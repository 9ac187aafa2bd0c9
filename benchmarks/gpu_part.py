"""One side of benchmarks/gpu.py in a process of its own: a JSON line for each thing measured, as soon as it is known.

python benchmarks/gpu_part.py '{"side": "ours", "size": "aar", …}'
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from peers.train_plain import PATCH, PlainModel
from torch import Tensor

from aar_dist.base.config import load
from aar_dist.base.errors import one_line
from aar_dist.base.hashing import hash_int
from aar_dist.store.checkpoint import build_objective
from aar_dist.stream.loader import open_stream
from aar_dist.training.config import SCHEMA, PretrainConfig
from aar_dist.training.engine import Engine
from aar_dist.training.group import process_group
from aar_dist.training.loop import DROPOUT
from aar_dist.training.metrics import Clock, Meter, memory_gb
from aar_dist.training.ranks import Ranks
from aar_dist.training.sizes.peak import matmul_tflops

Settings = dict[str, Any]
WARM_UP = 3  # steps
OUT_OF_MEMORY = 75
"""Exit code that asks for a smaller batch."""
FEEDS = {"host": "never", "resident": "always"}


def main() -> None:
    """Measure what the first argument asks for."""
    settings: Settings = json.loads(sys.argv[1])
    try:
        if settings["side"] == "plain":
            measure_plain(settings, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        else:
            with process_group(Ranks.from_environment()) as device:
                measure_ours(settings, device)
    except torch.OutOfMemoryError:
        os._exit(OUT_OF_MEMORY)  # nothing of this process is of use any more


def say(settings: Settings, **told: Any) -> None:
    """A line for the parent."""
    print(
        json.dumps({"side": settings["side"], "size": settings["size"], "batch": settings["batch"], **told}), flush=True
    )


def configured(settings: Settings, data: str, feed: str) -> PretrainConfig:
    """A recipe as it is, but for the batch, the precision, and where its segments are."""
    flags = (f"--batch_size={settings['batch']}", f"--data.resident={FEEDS[feed]}", "--data.resident_limit=1TB")
    chosen = ("--config", settings["config"], "--data.shards", settings["shards"][data], "--micro_batch_size=null")
    config: PretrainConfig = load(SCHEMA, [*chosen, *flags, "--precision=bf16", *settings["flags"]])
    return config


def measure_ours(settings: Settings, device: torch.device) -> None:
    """Steps of the training loop, for each data set and feed."""
    ranks = Ranks.from_environment()
    data = list(settings["shards"])
    config = configured(settings, data[0], "host")
    with device:
        objective = build_objective(config.model, config.objective)
    with closing(Engine(objective, config.deepspeed, config.train, config.optim, ranks, device)) as engine:
        peak = matmul_tflops(device, engine.layout["precision"])
        for name in data:
            for feed in FEEDS:
                try:
                    found = looped(engine, configured(settings, name, feed), peak, settings["seconds"])
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:  # the others go on
                    say(settings, data=name, feed=feed, failed=one_line(error))
                else:
                    n = sum(p.numel() for p in objective.parameters())
                    say(settings, data=name, feed=feed, parameters=n, **found)


def looped(engine: Engine, config: PretrainConfig, peak: float, seconds: float) -> dict[str, float]:
    """What ``loop.train_step`` does, with the means of its metrics and its clock."""
    ranks, size = Ranks.from_environment(), config.train.batch_size
    with closing(open_stream(config.data, "train")) as stream:
        stream.place(engine.device)
        batches, meter = stream.batches(0, size, size, engine.device), Meter(stream.datasets)
        clock, began, steps = Clock(1, engine.objective, peak), 0.0, 0
        for step in count(1):
            before = time.perf_counter()
            batch = next(batches)
            clock.waited(time.perf_counter() - before)
            torch.manual_seed(hash_int(config.train.seed, DROPOUT, step, 0, ranks.rank))
            meter.add(engine.micro_step(batch), batch.dataset)
            clock.trained(batch)
            result = engine.step(config.optim.rate(step, d_embedding=engine.d_embedding), last=True)
            assert result is not None
            meter.take()
            if step == WARM_UP:
                wait_for(engine.device)
                clock.take()
                began = time.perf_counter()
            elif step > WARM_UP:
                steps += 1
                if time.perf_counter() - began > seconds:
                    break
        wait_for(engine.device)
        return clock.take() | {"steps": steps, "memory_gb": memory_gb(engine.device)}


def measure_plain(settings: Settings, device: torch.device) -> None:
    """torch's own encoder in a plain loop over padded arrays, on the host and on the device."""
    config = configured(settings, next(iter(settings["arrays"])), "host")
    args = config.model.init_args
    for name, path in settings["arrays"].items():
        values = torch.from_numpy(np.load(path))
        shape = {"d": args["d_embedding"], "n_layers": args["n_layers"], "n_patches": values.shape[2] // PATCH}
        for feed in FEEDS:
            try:
                torch.manual_seed(0)
                with device:
                    model = PlainModel(**shape, dropout=args["transformer_dropout"])
                held = values.to(device) if feed == "resident" else values
                found = timed(trained(model, held, settings["batch"], device), settings, device)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # the others go on
                say(settings, data=name, feed=feed, failed=one_line(error))
            else:
                say(settings, data=name, feed=feed, **found)


def trained(model: torch.nn.Module, values: Tensor, batch: int, device: torch.device) -> Iterator[float]:
    """Seconds spent on getting each batch of shuffled epochs, once it has been trained on: fp32 weights, autocast."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=device.type == "cuda")
    while True:
        for rows in torch.randperm(len(values), device=values.device).split(batch):
            if len(rows) < batch:
                break
            before = time.perf_counter()
            segments = values[rows].to(device)
            waited = time.perf_counter() - before
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                loss = model(segments)
            loss.backward()
            optimizer.step()
            loss.item()
            yield waited


def timed(steps: Iterator[float], settings: Settings, device: torch.device) -> dict[str, float]:
    """Segments a second, and the share of the time that went into getting them."""
    for _ in islice(steps, WARM_UP):
        pass
    wait_for(device)
    began, waited, n = time.perf_counter(), 0.0, 0
    while n == 0 or time.perf_counter() - began < settings["seconds"]:
        waited += next(steps)
        n += 1
    wait_for(device)
    elapsed = time.perf_counter() - began
    rate = n * settings["batch"] / elapsed
    return {"segments_per_s": rate, "loader_share": waited / elapsed, "steps": n, "memory_gb": memory_gb(device)}


def wait_for(device: torch.device) -> None:
    """Until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
