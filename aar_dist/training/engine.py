"""The only file, beside group.py, that knows DeepSpeed.

    objective + configuration  ->  Engine: micro_step x accumulation, step(lr), evaluate, save, load, fp32 weights

Facts of DeepSpeed that shape this file are pinned in tests/training/test_deepspeed_facts.py.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from aar_dist.base.errors import CheckpointError, ConfigError, one_line
from aar_dist.objectives.base import Metrics, Objective
from aar_dist.stream.batch import SegmentBatch
from aar_dist.training.config import AdamConfig, DeepSpeedConfig, LoopConfig
from aar_dist.training.options import clips_itself, ds_json, layout_of, precision_of
from aar_dist.training.ranks import Ranks, mean_ranks
from aar_dist.training.resharding import place
from aar_dist.training.resharding.source import OPTIMIZED, Source
from aar_dist.training.sizes.recompute import recompute

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did."""

    applied: bool
    """False if the gradients were not finite: weights, running statistics and optimizer state are as before."""
    grad_norm: float
    """2-norm over all parameters, before clipping."""


def check_zero_options(config: DeepSpeedConfig) -> None:
    """Raise ``ConfigError`` if DeepSpeed knows no such option, or not such a value."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    try:
        DeepSpeedZeroConfig(stage=config.zero_stage, **config.zero_options)
    except ValidationError as error:
        said = error.errors()[0]
        key = ".".join(map(str, said["loc"]))
        raise ConfigError(f"deepspeed.zero_options: {key}: {one_line(ValueError(said['msg']))}") from None


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
        factors: Mapping[str, float] | None = None,
        kept: Mapping[str, Tensor] | None = None,
    ) -> None:
        """
        Args:
            factors: Parameter -> factor of its learning rate, 1 for those that are not named.
            kept: fp32 weights of all that is not in every checkpoint of the run; by default of what is frozen here.
        """
        import deepspeed

        self.config = config
        self.device = device
        precision = precision_of(config, device)
        self.bf16 = precision == "bf16"
        self.accumulation = train.micro_batches(ranks.world_size)[1]
        self.parameters = parameter_shapes(objective)
        self.d_embedding = objective.backbone.d_embedding
        self.layout = layout_of(config, ranks, device)
        self._ranks = ranks
        self._before: list[Tensor] = []
        if config.activation_checkpointing:
            recompute(objective)
        objective.to(device)
        given = {name: p.detach().clone() for name, p in objective.named_parameters()} if self.bf16 else {}
        # DeepSpeed's export leaves frozen weights out at stage 1, and rounds them in bf16.
        if kept is None:
            kept = {n: p.detach().cpu().clone() for n, p in objective.named_parameters() if not p.requires_grad}
        self._kept = dict(kept)
        groups = by_factor(objective, factors or {})
        self._factors = list(groups)
        optimizer = torch.optim.AdamW(
            [{"params": parameters} for parameters in groups.values()],
            lr=0.0,
            betas=(optim.beta1, optim.beta2),
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            fused=True,
        )
        names = {p: name for name, p in objective.named_parameters()}
        self._names = {p: names[p] for group in optimizer.param_groups for p in group["params"]}
        n_parameters = sum(p.numel() for p in objective.parameters())
        # Weights, fp32 masters and two moments of each, and a little for names.
        self.checkpoint_bytes = 18 * n_parameters + 1_000_000
        autocast = precision == "autocast"
        options = ds_json(config, train, ranks, bf16=self.bf16, n_parameters=n_parameters, autocast=autocast)
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
                place.fill(tensor, pieces, lambda p: given[p.name].flatten()[p.start : p.stop])

    def _held(self) -> place.Held:
        return place.held(self._ds.optimizer, self.config.zero_stage, self._names, self._ranks)

    @property
    def objective(self) -> Objective:
        """The wrapped module; under ZeRO-3 its parameters are shares."""
        module: Objective = self._ds.module
        return module

    @cached_property
    def _norms(self) -> list[nn.Module]:
        """Layers that keep running statistics, which every forward pass in training moves."""
        return [m for m in self.objective.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def _statistics(self) -> list[Tensor]:
        return [buffer for norm in self._norms for buffer in norm.buffers()]

    @property
    def divisible(self) -> bool:
        """True if a step may be left between its micro-batches as if it had not begun."""
        return not self._norms

    def micro_step(self, batch: SegmentBatch) -> Metrics:
        """Forward and backward of one micro-batch."""
        self._ds.train()
        self._before = self._before or [buffer.clone() for buffer in self._statistics()]
        loss, metrics = self._ds(batch)
        # A loss that is not finite may have gradients that are: NaN then, on the device, so that all ranks hear of it
        # where gradients are looked at anyway.
        self._ds.backward(loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan))
        named: Metrics = metrics
        return named

    def step(self, lr: float, *, last: bool) -> StepResult | None:
        """Called after each micro-batch; ``last`` marks the one that completes the step."""
        if last:
            for group, factor in zip(self._ds.optimizer.param_groups, self._factors, strict=True):
                group["lr"] = lr * factor
        norm = self._look_at_gradients() if last and clips_itself(self.config, bf16=self.bf16) else None
        self._ds.step()
        if not last:
            return None
        norm = float(self._ds.get_global_grad_norm() or 0.0) if norm is None else norm
        applied = bool(self._ds.was_step_applied()) and math.isfinite(norm)
        if not applied:
            for buffer, before in zip(self._statistics(), self._before, strict=True):
                buffer.copy_(before)
        self._before = []
        return StepResult(applied, norm)

    def _look_at_gradients(self) -> float:
        """Norm of the averaged gradients, the same on all ranks. They are clipped; ones that are not finite are
        dropped, and the optimizer leaves a parameter without gradient, and its moments, alone."""
        parameters = [p for p in self.objective.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not norm.isfinite():
            for parameter in parameters:
                parameter.grad = None
        elif self.config.gradient_clipping:
            nn.utils.clip_grads_with_norm_(parameters, self.config.gradient_clipping, norm)
        return float(norm)

    @torch.no_grad()
    def average_statistics(self) -> None:
        """Give every rank the mean of all ranks' running statistics: each has seen its own segments, and only rank 0's
        would be saved."""
        for buffer in self._statistics():
            if buffer.is_floating_point():  # the batches that were counted are as many on every rank
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
        """Take DeepSpeed's hooks off, and let go of the model, so that memory is given back."""
        self._ds.destroy()
        self.__dict__.pop("_norms", None)
        self._ds, self._names = None, {}

    def consolidate(self, folder: Path, tag: str) -> dict[str, Tensor]:
        """The fp32 weights of a checkpoint of this run, on the CPU, put together by this process alone."""
        return self._kept | Source(folder / tag).weights()


def by_factor(objective: Objective, factors: Mapping[str, float]) -> dict[float, list[nn.Parameter]]:
    """The parameters that are trained, those of one learning rate together."""
    made: dict[float, list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            made.setdefault(factors.get(name, 1.0), []).append(parameter)
    return made


def parameter_shapes(module: nn.Module) -> dict[str, list[int]]:
    """Name -> shape of every parameter and buffer that is saved. Call it before ZeRO-3 cuts them up."""
    return {name: list(value.shape) for name, value in module.state_dict().items()}
