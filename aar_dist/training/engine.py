"""The only file that knows DeepSpeed.

    objective + configuration  ->  Engine: micro_step x accumulation, step(lr), evaluate, save, load, fp32 weights

Facts of DeepSpeed that shape this file are pinned in tests/training/test_deepspeed_facts.py.
"""

import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import ValidationError
from torch import Tensor

from aar_dist.base.errors import CheckpointError, ConfigError, one_line
from aar_dist.objectives.base import Metrics, Objective
from aar_dist.stream.batch import SegmentBatch
from aar_dist.training import environment
from aar_dist.training.config import AdamConfig, DeepSpeedConfig, LoopConfig
from aar_dist.training.environment import muted
from aar_dist.training.options import clips_itself, ds_json, layout_of, precision_of
from aar_dist.training.ranks import Ranks, barrier, mean_ranks
from aar_dist.training.resharding import place
from aar_dist.training.resharding.source import OPTIMIZED, Source

log = logging.getLogger(__name__)

LOST_PEER_EXIT = 3
COLLECTIVE_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did."""

    applied: bool
    """False if the gradients were not finite: weights and optimizer state are as before."""
    grad_norm: float
    """2-norm over all parameters, before clipping."""


@contextmanager
def process_group(ranks: Ranks) -> Iterator[torch.device]:
    """This process's place in the group, and the device it computes on. Ends with a barrier and a proper farewell:
    without them some finished runs aborted."""
    environment.prepare(ranks)
    _alone_if_no_launcher(ranks)
    with muted():
        import deepspeed
    _quiet()
    try:
        with muted():
            deepspeed.init_distributed(verbose=False, timeout=COLLECTIVE_TIMEOUT)
    except dist.DistNetworkError as error:
        port = os.environ["MASTER_PORT"]
        raise ConfigError(
            f"port {port} cannot be used ({one_line(error)[:80]}); "
            "give the launcher another one: deepspeed --master_port N"
        ) from None
    device = torch.device("cpu") if environment.on_cpu() else torch.device("cuda", ranks.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    barrier()
    environment.remove_shared_buffers(ranks)
    try:
        yield device
    except BaseException:
        if ranks.world_size == 1:  # nobody else to wait for, and this process may be given another run
            deepspeed.comm.destroy_process_group()
        raise
    barrier()
    # DeepSpeed's own farewell: it forgets its groups too, so that this process may have another run.
    deepspeed.comm.destroy_process_group()


def check_zero_options(config: DeepSpeedConfig) -> None:
    """Raise ``ConfigError`` if DeepSpeed knows no such option, or not such a value."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    try:
        DeepSpeedZeroConfig(stage=config.zero_stage, **config.zero_options)
    except ValidationError as error:
        said = error.errors()[0]
        key = ".".join(map(str, said["loc"]))
        raise ConfigError(f"deepspeed.zero_options: {key}: {one_line(ValueError(said['msg']))}") from None


@contextmanager
def lost_peer(ranks: Ranks, out: Path) -> Iterator[None]:
    """Another rank's death shows here as a broken collective: rank 0 says so in one line, the others leave it at their
    log. (NCCL does not notice; there the launcher ends this process.)"""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in ("Connection closed by peer", "Connection reset", "Broken pipe")):
            raise
        log.warning("lost another rank: %s", one_line(error))
        if not ranks.main:
            os._exit(LOST_PEER_EXIT)
        raise CheckpointError(
            f"another rank is gone (its own message, or {out}/log, says why); the same command resumes from the last "
            "checkpoint"
        ) from None


def _alone_if_no_launcher(ranks: Ranks) -> None:
    if "RANK" not in os.environ:
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        os.environ.update(alone)


def _quiet() -> None:
    """DeepSpeed's remarks go to the rank's log file, not to the terminal."""
    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.WARNING)
    for handler in list(logger.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr):
            logger.removeHandler(handler)
    logger.propagate = True
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")


class Engine:
    """An objective under DeepSpeed. The objective's weights must be fp32 and final before it comes here: weights that
    are loaded later do not reach DeepSpeed's own copies."""

    def __init__(
        self,
        objective: Objective,
        config: DeepSpeedConfig,
        train: LoopConfig,
        optim: AdamConfig,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        import deepspeed

        self.config = config
        self.device = device
        self.bf16 = precision_of(config, device) == "bf16"
        self.accumulation = train.micro_batches(ranks.world_size)[1]
        self.parameters = parameter_shapes(objective)
        self.d_embedding = objective.backbone.d_embedding
        self.layout = layout_of(config, ranks, device)
        self._ranks = ranks
        objective.to(device)
        given = {name: p.detach().clone() for name, p in objective.named_parameters()} if self.bf16 else {}
        # DeepSpeed's export leaves frozen weights out at stage 1, and rounds them in bf16.
        self._frozen = {n: p.detach().cpu().clone() for n, p in objective.named_parameters() if not p.requires_grad}
        optimizer = torch.optim.AdamW(
            [p for p in objective.parameters() if p.requires_grad],
            lr=0.0,
            betas=(optim.beta1, optim.beta2),
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            # Offloaded, it steps on the CPU: fused passes once over what there is.
            fused=device.type == "cuda" or config.offload != "none",
        )
        names = {p: name for name, p in objective.named_parameters()}
        self._names = {p: names[p] for group in optimizer.param_groups for p in group["params"]}
        n_parameters = sum(p.numel() for p in objective.parameters())
        # Weights, fp32 masters and two moments of each, and a little for names.
        self.checkpoint_bytes = 18 * n_parameters + 1_000_000
        options = ds_json(config, train, ranks, bf16=self.bf16, n_parameters=n_parameters)
        self._ds: Any = deepspeed.initialize(
            model=objective, optimizer=optimizer, config=options, dist_init_required=False
        )[0]
        # At stage 0 in bf16 DeepSpeed has taken a step of zeros, which Adam would count.
        place.adam(self._ds.optimizer).state.clear()
        self._undo_rounding(given)

    def _undo_rounding(self, given: dict[str, Tensor]) -> None:
        """DeepSpeed makes its fp32 masters from weights it has rounded to bf16: put the true ones there."""
        if given:
            for tensor, pieces in self._held():
                place.fill(tensor, pieces, lambda p: given[p.name].view(-1)[p.start : p.start + p.count])

    def _held(self) -> place.Held:
        return place.held(self._ds.optimizer, self.config.zero_stage, self._names, self._ranks)

    @property
    def objective(self) -> Objective:
        """The wrapped module; under ZeRO-3 its parameters are shares."""
        module: Objective = self._ds.module
        return module

    def micro_step(self, batch: SegmentBatch) -> Metrics:
        """Forward and backward of one micro-batch."""
        self._ds.train()
        loss, metrics = self._ds(batch)
        self._ds.backward(loss)
        named: Metrics = metrics
        return named

    def step(self, lr: float, *, last: bool) -> StepResult | None:
        """Called after each micro-batch; ``last`` marks the one that completes the step."""
        if last:
            for group in self._ds.optimizer.param_groups:
                group["lr"] = lr
        norm = self._look_at_gradients() if last and clips_itself(self.config, bf16=self.bf16) else None
        self._ds.step()
        if not last:
            return None
        norm = float(self._ds.get_global_grad_norm() or 0.0) if norm is None else norm
        applied = bool(self._ds.was_step_applied()) and math.isfinite(norm)
        return StepResult(applied, norm)

    def _look_at_gradients(self) -> float:
        """Norm of the averaged gradients, the same on all ranks. They are clipped; ones that are not finite are
        dropped, and the optimizer leaves a parameter without gradient, and its moments, alone."""
        parameters = [p for p in self.objective.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not norm.isfinite():
            for parameter in parameters:
                parameter.grad = None
        elif self.config.gradient_clipping:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.gradient_clipping, norm)
        return float(norm)

    @torch.no_grad()
    def average_statistics(self) -> None:
        """Give every rank the mean of all ranks' running statistics: each has seen its own segments, and only rank 0's
        would be saved."""
        for module in self.objective.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                for buffer in (module.running_mean, module.running_var):
                    if buffer is not None:
                        buffer.copy_(mean_ranks(buffer))

    @torch.no_grad()
    def evaluate(self, batch: SegmentBatch) -> Metrics:
        """Metrics per segment, without dropout."""
        self._ds.eval()
        metrics: Metrics = self._ds(batch)[1]
        return metrics

    def save(self, folder: Path, tag: str, client_state: dict[str, Any]) -> None:
        """Every rank writes its share to ``folder/tag``. Publishing it is the caller's: DeepSpeed's own ``latest``
        appears before the other ranks have written."""
        state = {**client_state, OPTIMIZED: list(self._names.values())}
        self._ds.save_checkpoint(str(folder), tag=tag, client_state=state, save_latest=False)

    def load(self, folder: Path, tag: str) -> dict[str, Any]:
        """Weights and optimizer state from ``folder/tag``, which the caller has verified; returns the client state."""
        path, client_state = self._ds.load_checkpoint(str(folder), tag=tag)
        if path is None:
            raise CheckpointError(f"{folder / tag}: DeepSpeed found no checkpoint there")
        state: dict[str, Any] = client_state
        return state

    def take_moments(self, source: Source) -> None:
        """Optimizer state of a checkpoint of another layout; its weights were the objective's before it came here."""
        place.place_moments(self._ds.optimizer, self._held(), source)

    def close(self) -> None:
        """Take DeepSpeed's hooks off, so that memory is given back."""
        self._ds.destroy()

    def consolidate(self, folder: Path, tag: str) -> dict[str, Tensor]:
        """The fp32 weights of a checkpoint of this run, on the CPU, put together by this process alone."""
        return Source(folder / tag).weights() | self._frozen


def parameter_shapes(module: torch.nn.Module) -> dict[str, list[int]]:
    """Name -> shape of every parameter and buffer that is saved. Call it before ZeRO-3 cuts them up."""
    return {name: list(value.shape) for name, value in module.state_dict().items()}
