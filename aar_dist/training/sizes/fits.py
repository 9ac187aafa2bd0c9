"""What fits: ZeRO stage, offload, activation checkpointing and micro-batch for a GPU of so much memory.

PretrainConfig -> objective on the meta device -> bytes of each layout -> Option for each -> the first that keeps busy
"""

from dataclasses import dataclass, replace
from itertools import product

import torch

from aar_dist.store.checkpoint import build_objective
from aar_dist.training.config import PretrainConfig
from aar_dist.training.footprint import PRECISIONS, blank_batch
from aar_dist.training.options import LARGEST_BUCKET
from aar_dist.training.sizes.memory import LAYOUTS, activations, states

LIVE_PARAMETERS = 10**9
"""Parameters that DeepSpeed leaves gathered at stage 3, by default."""
RESERVE_BYTES = 1_500_000_000
"""Of a GPU for its driver, the libraries' kernels and NCCL."""
PASSING = 0.1
"""What tensors that come and go take, and holes between them, as a share of the activations."""
BUSY_TOKENS = 8192
"""A micro-batch of so many tokens keeps a GPU's matrix units at work."""
TRACED = 8  # segments
ON_GPU = {"auto": "bf16", "autocast": "fp32"}
"""What is kept, by ``deepspeed.precision``: autocast keeps fp32 weights."""
COST = {"none": 0, "optimizer": 1, "all": 2}
"""Of offloading, for the order of the options."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is known of a model without running it."""

    parameters: int
    precision: str
    tokens: int
    """Of the longest segment."""
    kept: tuple[int, int]
    """Bytes that a segment keeps for backward, without and with activation checkpointing."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to run a model, and what one rank needs for it."""

    zero_stage: int
    offload: str
    activation_checkpointing: bool
    states: int
    """Bytes on the device whatever the micro-batch: parameters, gradients, optimizer state."""
    working: int
    """Bytes on the device for buckets, gathered parameters, and what is reserved."""
    segment: int
    """Bytes on the device for each segment of the micro-batch."""
    start: int
    """Bytes on the device while the engine is made."""
    host: int
    """Bytes on the host."""
    micro_batch_size: int | None = None
    """The largest that fits and shares out the batch; None if none does."""

    def needs(self, micro_batch_size: int) -> int:
        """Bytes on the device."""
        return max(self.start, self.states + self.working + micro_batch_size * self.segment)

    @property
    def layout(self) -> tuple[int, str, bool]:
        """What the configuration says of it."""
        return self.zero_stage, self.offload, self.activation_checkpointing

    @property
    def flags(self) -> str:
        """For the command that trains."""
        return (
            f"--deepspeed.zero_stage {self.zero_stage} --deepspeed.offload {self.offload} "
            f"--deepspeed.activation_checkpointing {str(self.activation_checkpointing).lower()} "
            f"--train.micro_batch_size {self.micro_batch_size}"
        )


@dataclass(frozen=True, kw_only=True)
class Fits:
    """The answer: an :class:`Option` for each layout, those first that train fastest."""

    model: Model
    ranks: int
    batch_size: int
    gpu_bytes: int
    options: list[Option]
    recommended: Option | None
    """None if nothing fits."""
    configured: Option
    """As the configuration says; its ``micro_batch_size`` is the configured one, whether it fits or not."""

    @property
    def configured_fits(self) -> bool:
        """True if the run would start as it is configured."""
        return self.configured.needs(self.configured.micro_batch_size or 1) <= self.gpu_bytes


def what_fits(
    config: PretrainConfig, gpu_bytes: int, ranks: int, *, host_bytes: int | None = None, axes: int = 3
) -> Fits:
    """Every layout with the largest micro-batch that fits.

    Args:
        gpu_bytes: Memory of one GPU.
        ranks: GPUs of the whole run.
        host_bytes: Memory of a host for each of its GPUs; None: enough.
        axes: Of a segment.

    Raises:
        ConfigError: a value out of range, or a batch size that the ranks do not divide.
    """
    micro, accumulation = config.train.micro_batches(ranks)
    share = micro * accumulation
    model = _traced(config, axes)
    plain = _options(config, model, ranks)
    options = [_fitted(option, share, gpu_bytes, host_bytes) for option in plain]
    return Fits(
        model=model,
        ranks=ranks,
        batch_size=config.train.batch_size,
        gpu_bytes=gpu_bytes,
        options=options,
        recommended=_recommended(options, busy=min(share, -(-BUSY_TOKENS // model.tokens))),
        configured=replace(next(o for o in plain if o.layout == _layout(config)), micro_batch_size=micro),
    )


def _traced(config: PretrainConfig, axes: int) -> Model:
    precision = ON_GPU.get(config.deepspeed.precision, config.deepspeed.precision)
    with torch.device("meta"):
        objective = build_objective(config.model, config.objective).to(PRECISIONS[precision]).train()
    seconds, samples = config.data.segment_duration, config.data.max_window_length
    batch = blank_batch(TRACED, samples / seconds, duration_s=seconds, max_window_length=samples, n_channels=axes)
    with torch.no_grad():
        tokens = objective.backbone.encode(batch).shape[1]
    plain, checkpointed = activations(objective, batch)
    return Model(
        parameters=sum(p.numel() for p in objective.parameters()),
        precision=precision,
        tokens=tokens,
        kept=(plain // TRACED, checkpointed // TRACED),
    )


def _layout(config: PretrainConfig) -> tuple[int, str, bool]:
    of = config.deepspeed
    return of.zero_stage, of.offload, of.activation_checkpointing


def _options(config: PretrainConfig, model: Model, ranks: int) -> list[Option]:
    """Those first that cost least time: nothing extra, then a third more arithmetic, then the way to the host and
    back. Among these the lowest stage; 0 saves no time over 1, so it stands behind."""
    n, itemsize = model.parameters, PRECISIONS[model.precision].itemsize
    options = []
    for (stage, offload), checkpointing in product(LAYOUTS, (False, True)):
        of = states(n, itemsize, stage, ranks, offload)
        step = 0 if offload != "none" or itemsize == 4 else 4 * -(-n // (ranks if stage else 1))
        option = Option(
            zero_stage=stage,
            offload=offload,
            activation_checkpointing=checkpointing,
            states=of["parameters"] + of["gradients"] + of["optimizer"],
            working=RESERVE_BYTES + itemsize * _buffers(config, n, stage, ranks) + step,
            segment=round(model.kept[checkpointing] * (1 + PASSING)),
            # The engine keeps the fp32 weights it was given until DeepSpeed has made its own of them.
            start=RESERVE_BYTES + 4 * n + max(4 * n, of["parameters"] + of["optimizer"]),
            host=of["host"],
        )
        options.append(option)
    return sorted(options, key=lambda o: (COST[o.offload], o.activation_checkpointing, o.zero_stage or len(LAYOUTS)))


def _buffers(config: PretrainConfig, n: int, stage: int, ranks: int) -> int:
    """Elements of the buckets that are reduced (two at stage 3, one on its way while the next is filled), and of
    what is gathered at stage 3."""
    given = config.deepspeed.zero_options
    bucket = min(int(given.get("reduce_bucket_size", LARGEST_BUCKET)), n)
    if stage < 3:
        return bucket * (ranks > 1)
    return 2 * bucket + min(int(given.get("stage3_max_live_parameters", LIVE_PARAMETERS)), n)


def _fitted(option: Option, share: int, gpu_bytes: int, host_bytes: int | None) -> Option:
    sizes = (m for m in range(share, 0, -1) if share % m == 0 and option.needs(m) <= gpu_bytes)
    held = host_bytes is None or option.host <= host_bytes
    return replace(option, micro_batch_size=next(sizes, None) if held else None)


def _recommended(options: list[Option], *, busy: int) -> Option | None:
    """The first that keeps the GPU busy; else the one with the largest micro-batch."""
    fitting = [(option.micro_batch_size, option) for option in options if option.micro_batch_size]
    enough = (option for size, option in fitting if size >= busy)
    largest = max(fitting, key=lambda pair: pair[0], default=(0, None))[1]
    return next(enough, largest)
