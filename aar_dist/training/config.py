"""Everything a run may be told: what all kinds of runs share, and pretraining."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from aar_dist.base.config import Choice, ClassSpec, Schema
from aar_dist.base.errors import ConfigError
from aar_dist.base.remote import Remote, is_url
from aar_dist.models.backbone import Backbone
from aar_dist.objectives.base import Objective
from aar_dist.stream.config import DataConfig
from aar_dist.training.health.config import HealthConfig
from aar_dist.training.health.retention import Retention
from aar_dist.training.schedule import noam
from aar_dist.training.tracking.config import TrackingConfig

ENCODER = "aar_dist.models.transformer.AAREncoder"
MASKED = "aar_dist.objectives.masked.MaskedReconstruction"

OWN_KEYS = {
    "stage": "deepspeed.zero_stage",
    "offload_optimizer": "deepspeed.offload",
    "offload_param": "deepspeed.offload",
}
"""Key of DeepSpeed's ``zero_optimization`` -> ours for it."""

LINKS = {"model.max_window_length": "data.max_window_length"}
"""Argument -> the key that it follows."""


def require(holds: bool, key: str, rule: str, found: object) -> None:
    """Raise ``ConfigError`` of a key unless its rule holds."""
    if not holds:
        raise ConfigError(f"{key} must be {rule}, got {found}")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long, and what happens now and then."""

    batch_size: int = 512
    """Segments in one optimizer step, over all ranks."""
    micro_batch_size: int | None = None
    """Most segments that one rank runs at once; less memory, same result to rounding. Default: batch_size / ranks."""
    epochs: int = 200
    """Times the mixture, or every labelled window, is drawn."""
    max_steps: int | None = None
    """Stop after this many steps, if that is sooner."""
    time_limit_min: float | None = None
    """Save and leave in time for this many minutes after the start of the process, or for the end of its SLURM job if
    that is sooner; the same command goes on."""
    seed: int = 578
    """Seed of the initial weights and of dropout. Order, offsets and masks follow data.random_seed."""
    log_every: int = 10
    """Steps between two lines on the terminal; every step's loss is in metrics.jsonl."""
    keep_last: int = 2
    """Newest checkpoints kept, beside the best and the pinned ones."""
    keep_every: int | None = None
    """Keep for ever each checkpoint whose step is a multiple of this; null: none."""
    max_skipped_steps: int = 50
    """Give up after this many steps in a row with a loss or gradients that are not finite."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "log_every", "max_skipped_steps"):
            require(getattr(self, name) >= 1, f"train.{name}", "1 or more", getattr(self, name))
        for name in ("micro_batch_size", "max_steps", "keep_every"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"train.{name}", "1 or more, or null", value)
        limit = self.time_limit_min
        require(limit is None or limit > 0, "train.time_limit_min", "positive, or null", limit)
        # The newest may turn out damaged: then the one before it is all there is.
        require(
            self.keep_last >= 2, "train.keep_last", "2 or more, so that a damaged one has a successor", self.keep_last
        )

    @property
    def retention(self) -> Retention:
        """Which checkpoints stay."""
        return Retention(self.keep_last, self.keep_every)

    def micro_batches(self, world_size: int) -> tuple[int, int]:
        """(segments a rank runs at once, such micro-batches in a step). As many at once as divide a rank's share of
        the batch and are not above ``micro_batch_size``. Raises ``ConfigError`` if the ranks do not divide it."""
        share, rest = divmod(self.batch_size, world_size)
        if rest or not share:
            nearest = _nearest_multiple(self.batch_size, world_size)
            raise ConfigError(
                f"train.batch_size {self.batch_size} is not a multiple of {world_size} ranks; the nearest that is: "
                f"{nearest}; ranks that share it equally: {self.most_ranks(world_size)}"
            )
        largest = min(self.micro_batch_size or share, share)
        micro = next(n for n in range(largest, 0, -1) if share % n == 0)
        return micro, share // micro

    def most_ranks(self, available: int) -> int:
        """The most ranks, of those that there are, that share the batch equally."""
        return next(n for n in range(min(available, self.batch_size), 0, -1) if self.batch_size % n == 0)

    def crumbs(self, world_size: int) -> str | None:
        """What to tell a person whose micro-batches come out much smaller than asked for; None if they do not."""
        micro, count = self.micro_batches(world_size)
        wanted = min(self.micro_batch_size or micro, micro * count)
        if 2 * micro >= wanted:
            return None
        return (
            f"a rank's share of {micro * count} segments is run {micro} at once: no larger number up to "
            f"train.micro_batch_size {self.micro_batch_size} divides it; another number of ranks or batch size would "
            "be faster"
        )


def _nearest_multiple(value: int, of: int) -> int:
    return max(1, round(value / of)) * of


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopConfig):
    """How long, and what happens now and then."""

    val_every: int = 500
    """Steps between two passes over the validation tape; the first and the last step have one as well."""
    save_every: int = 500
    """Steps between two checkpoints."""
    pictures: int = 4
    """Segments drawn with their reconstruction at each validation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("val_every", "save_every"):
            require(getattr(self, name) >= 1, f"train.{name}", "1 or more", getattr(self, name))
        require(self.pictures >= 0, "train.pictures", "0 or more", self.pictures)


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """AdamW; each kind of run adds its learning rate. (No ABC: the reader of configurations would take the field for
    a choice of classes.)"""

    beta1: float = 0.9
    """Memory of the mean gradient."""
    beta2: float = 0.98
    """Memory of the squared gradient."""
    eps: float = 1e-9
    """Added to the root of the squared gradient."""
    weight_decay: float = 0.01
    """Decay of the weights, times the learning rate, in each step."""

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"optim.{name}", "0 or more and less than 1", getattr(self, name))
        require(self.eps > 0, "optim.eps", "positive", self.eps)
        require(self.weight_decay >= 0, "optim.weight_decay", "0 or more", self.weight_decay)

    def rate(self, step: int, *, d_embedding: int) -> float:
        """Learning rate of a step (from 1)."""
        raise NotImplementedError

    @property
    def slower(self) -> str:
        """What to tell a person whose gradients explode."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class OptimConfig(AdamConfig):
    """AdamW and its learning rate: noam_factor * d^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)."""

    noam_factor: float = 1.0
    """Factor of the learning rate."""
    warmup_steps: int = 4000
    """Steps of rising learning rate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noam_factor > 0, "optim.noam_factor", "positive", self.noam_factor)
        require(self.warmup_steps >= 1, "optim.warmup_steps", "1 or more", self.warmup_steps)

    def rate(self, step: int, *, d_embedding: int) -> float:
        """Rising, then falling as 1 / sqrt(step)."""
        return noam(step, d_model=d_embedding, warmup_steps=self.warmup_steps, factor=self.noam_factor)

    @property
    def slower(self) -> str:
        """Either key."""
        return "lower optim.noam_factor, raise optim.warmup_steps"


@dataclass(frozen=True, kw_only=True)
class DeepSpeedConfig:
    """How the work is spread; DeepSpeed's own JSON is made from this."""

    zero_stage: Literal[0, 1, 2, 3] = 1
    """What each rank keeps only its share of: 1 optimizer state, 2 gradients too, 3 weights too."""
    precision: Literal["auto", "fp32", "bf16", "autocast"] = "auto"
    """``bf16``: weights and activations are computed with in bf16, of fp32 master weights. ``autocast``: fp32 weights,
    matrix products in bf16. ``auto``: bf16 on GPUs; autocast on CPUs that have bf16 instructions, fp32 on others."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What waits in the host's memory: ``optimizer`` the optimizer's state (ZeRO 1 to 3), ``all`` the weights as well
    (ZeRO 3). Torch's Adam then steps on the CPU."""
    gradient_clipping: float = 0.0
    """Longest gradient (2-norm over all parameters); 0 for no limit."""
    activation_checkpointing: bool = False
    """Keep only the input of each layer and compute the rest again in backward: less memory, a third more work."""
    zero_options: dict[str, Any] = field(default_factory=dict)
    """Further keys of DeepSpeed's ``zero_optimization``."""
    world_size: int | None = None
    """Number of ranks that the launch must have; null for any."""

    def __post_init__(self) -> None:
        require(self.gradient_clipping >= 0, "deepspeed.gradient_clipping", "0 or more", self.gradient_clipping)
        for name, own in OWN_KEYS.items():
            if name in self.zero_options:
                raise ConfigError(f"deepspeed.zero_options: {name} has a key of its own; set {own}")
        least = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < least:
            raise ConfigError(
                f"deepspeed.offload {self.offload} needs deepspeed.zero_stage {least} or more, got {self.zero_stage}"
            )
        require(
            self.world_size is None or self.world_size >= 1,
            "deepspeed.world_size",
            "1 or more, or null",
            self.world_size,
        )

    def check_ranks(self, world_size: int) -> None:
        """Raise ``ConfigError`` unless the launch is as large as it was said to be."""
        if self.world_size not in (None, world_size):
            raise ConfigError(
                f"deepspeed.world_size is {self.world_size}, but {world_size} were started; check the hostfile "
                "and its slots, or mend the key"
            )


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Where the finished model is published."""

    path: str | None = None
    """Folder of the store, or its URL (s3://bucket/models); null for ``store`` in the run directory."""
    name: str = "aar"
    """Name of the model; each publication is a new version of it."""

    def __post_init__(self) -> None:
        plain = self.name.replace("-", "").replace("_", "").replace(".", "")
        require(plain.isalnum(), "store.name", "letters, digits, '-', '_' and '.'", self.name)
        web = is_url(self.path) and str(self.path).startswith(("http:", "https:"))
        require(
            not web,
            "store.path",
            "a folder or a bucket, since nothing is published over http (to start from a model there, name the URL of "
            "its version in init_from)",
            str(Remote(str(self.path))) if web else None,
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every kind of run is told."""

    out: str = ""
    """Run directory; the same one again resumes."""
    init_from: str | None = None
    """Start from these weights: store://name@latest, store://name@3, or the folder or URL of a version."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ClassSpec = field(default_factory=lambda: ClassSpec(ENCODER))
    """Backbone."""
    objective: ClassSpec = field(default_factory=lambda: ClassSpec(MASKED))
    """What is optimised; it is given the backbone."""
    train: LoopConfig = field(default_factory=LoopConfig)
    optim: AdamConfig = field(default_factory=OptimConfig)
    deepspeed: DeepSpeedConfig = field(default_factory=DeepSpeedConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    store: StoreConfig = field(default_factory=StoreConfig)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Self-supervised pretraining of a backbone on a stream of segments."""

    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)


SCHEMA = Schema(
    PretrainConfig,
    choices={
        "model": Choice(Backbone, ENCODER),
        "objective": Choice(Objective, MASKED, given=("backbone",)),
    },
    links=LINKS,
    aliases={"--data_path": "data.shards", "--output_dir": "out"},
)


def recipe(config: RunConfig) -> dict[str, Any]:
    """Key -> value of all that must stay the same while a run goes on, beside its data, its seed and its ranks."""
    made: dict[str, Any] = {}
    for name, spec in (("model", config.model), ("objective", config.objective)):
        made[f"{name}.class_path"] = spec.class_path
        made |= {f"{name}.{key}": value for key, value in spec.init_args.items()}
    made |= {f"optim.{key}": value for key, value in asdict(config.optim).items()}
    made["deepspeed.gradient_clipping"] = config.deepspeed.gradient_clipping
    return {key: value for key, value in made.items() if key not in LINKS}
