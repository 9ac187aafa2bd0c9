"""Everything a fine-tuning run may be told; names and defaults are those of the first system."""

from dataclasses import dataclass, field
from typing import Any, Literal

from aar_dist.base.config import Choice, ClassSpec, Schema
from aar_dist.models.backbone import Backbone
from aar_dist.models.inflation import Inflate
from aar_dist.objectives.base import Objective
from aar_dist.stream.window_order import Sampling
from aar_dist.stream.windows import WindowConfig
from aar_dist.training.adaptation.policy import FULL, NAMES, Policy
from aar_dist.training.config import ENCODER, LINKS, AdamConfig, LoopConfig, RunConfig, StoreConfig, require
from aar_dist.training.finetuning.freezing import FreezeConfig
from aar_dist.training.finetuning.split import SplitConfig

CLASSIFICATION = "aar_dist.objectives.classification.Classification"

FROM_LABELS = ("n_classes", "n_channels", "class_weights", "target_mean", "target_std")
"""Arguments of the objectives that follow from the labelled windows."""


@dataclass(frozen=True, kw_only=True)
class FinetuneTrainConfig(LoopConfig):
    """How long. Each epoch ends with a validation and a checkpoint."""

    batch_size: int = 128
    """Windows in one optimizer step, over all ranks."""
    epochs: int = 50
    """Times every labelled window is seen."""
    patience: int | None = None
    """Stop after this many epochs in a row without a lower validation loss; null: run all epochs. Where the model is
    adapted in phases, each has its own patience, and the next one follows."""
    stop_after: int | None = None
    """Leave off after this many epochs of what ``epochs`` and ``adapt`` plan: a final model, whose folds were best
    there; null: go to the end."""
    class_weights: Literal["none", "inverse"] = "none"
    """``inverse``: every class has the same share of the loss, by its windows on the train side."""
    sampling: Sampling = "natural"
    """``balanced``: every class equally often in an epoch, which has as many windows as there are; ``natural``: every
    window once."""
    allow_missing_classes: bool = False
    """Go on though a class has no window on the train side."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("patience", "stop_after"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"train.{name}", "1 or more, or null for never", value)
        both = self.sampling == "balanced" and self.class_weights != "none"
        rule = "none where train.sampling is balanced, which evens the classes out already"
        require(not both, "train.class_weights", rule, self.class_weights)

    @property
    def evens_classes(self) -> bool:
        """Whether rare classes count as much as others."""
        return self.sampling == "balanced" or self.class_weights == "inverse"


@dataclass(frozen=True, kw_only=True)
class FinetuneOptimConfig(AdamConfig):
    """AdamW with a constant learning rate."""

    lr: float = 1e-4
    """Learning rate."""
    beta2: float = 0.999
    """Memory of the squared gradient."""
    eps: float = 1e-8
    """Added to the root of the squared gradient."""
    weight_decay: float = 0.0
    """Decay of the weights, times the learning rate, in each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lr > 0, "optim.lr", "positive", self.lr)

    def rate(self, step: int, *, d_embedding: int) -> float:
        """The same in every step."""
        return self.lr

    @property
    def slower(self) -> str:
        """The one key."""
        return "lower optim.lr"


@dataclass(frozen=True, kw_only=True)
class CrossValidationConfig:
    """What launch/folds.py does with the recipe; launch/finetune.py passes it over."""

    n_folds: int | Literal["leave_one_out"] = 5
    """Test sides that the subjects are dealt to, where ``split.folds`` names no file."""
    group: str = "subject"
    """What stays on one side: ``subject``; ``dataset``, ``species`` or ``location`` of the recordings; ``name``, where
    one name in two data sets is one individual; or a CSV file with the columns ``subject`` and ``group``."""
    repeats: int = 1
    """Deals of the same subjects, each tested once in each."""
    fold_seed: int = 578
    """Another seed, another deal, where there is one as even."""
    min_windows: int = 1
    """Without ``windows.classes``: take the classes with so many windows …"""
    min_subjects: int = 2
    """… of so many subjects."""
    seeds: list[int] = field(default_factory=lambda: [578])
    """Every fold is trained once with each: first weights, order, dropout."""
    fractions: list[float] = field(default_factory=lambda: [1.0])
    """Shares of the train side's subjects that every method is trained with (``split.train_share``); 1.0 is one."""
    choose: dict[str, Any] = field(default_factory=dict)
    """Key of the recipe -> values. Each of all combinations is trained in each fold, the validation subjects choose the
    one with the lowest loss, and that one alone is tested. A strategy's own ``choose`` takes its place."""
    strategies: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """Name -> settings laid over the recipe, null for none. Empty: ``pretrained`` as it stands and ``scratch`` with
    ``from_scratch: true``; without ``init_from`` the latter alone."""
    baselines: list[str] = field(default_factory=lambda: ["auto"])
    """What the network is compared with; ``auto`` for all that suit the labels and are installed, ``none``."""
    probes: list[str] = field(default_factory=lambda: ["auto"])
    """What the frozen backbone of ``init_from`` tells by itself: ``linear``, ``knn``, and ``random``, the same network
    with random weights; ``auto`` for the first two where there is a model to start from, ``none``."""
    n_kernels: int = 2000
    """Of MiniRocket."""
    final: bool = True
    """Train a last model on all subjects, as the first strategy, for as many epochs as its folds needed."""
    allow_leaks: bool = False
    """Go on though a recording stands on two sides of a fold."""
    namesakes: Literal["ask", "differ"] = "ask"
    """Subjects of one name in data sets whose names begin alike (``herd_2023/7``, ``herd_2024/7``): ``ask`` refuses
    them on two sides, ``differ`` says that they are not one."""
    workers: int | None = None
    """Folds trained at a time on this machine; null for one a GPU, or one a core."""
    ranks: int = 1
    """Processes of each fold, all on one machine; more than one are started by DeepSpeed's launcher."""
    cores: int = 1
    """CPU cores of each process, and as many threads."""
    gpus: float | None = None
    """GPUs of each process, on machines with any; 0.25: four folds share one. null: as ``workers`` share them, on a
    cluster one."""
    ray_address: str | None = None
    """A Ray cluster whose machines see the same folders, such as ``auto``; null for this machine."""
    retries: int = 2
    """Times a fold that failed is tried again."""

    def __post_init__(self) -> None:
        where = "cross_validation"
        require(self.n_folds == "leave_one_out" or self.n_folds >= 2, f"{where}.n_folds", "2 or more", self.n_folds)
        for name in ("min_windows", "min_subjects", "ranks", "cores", "repeats", "n_kernels"):
            require(getattr(self, name) >= 1, f"{where}.{name}", "1 or more", getattr(self, name))
        require(self.retries >= 0, f"{where}.retries", "0 or more", self.retries)
        require(self.workers is None or self.workers >= 1, f"{where}.workers", "1 or more, or null", self.workers)
        seeds = bool(self.seeds) and len({*self.seeds}) == len(self.seeds) and all(0 <= s < 2**32 for s in self.seeds)
        require(seeds, f"{where}.seeds", "one number from 0 to 2**32 - 1, or several different ones", self.seeds)
        shares = len({*self.fractions}) == len(self.fractions) and all(0 < share <= 1 for share in self.fractions)
        require(shares and 1 in self.fractions, f"{where}.fractions", "1.0 and shares below, each once", self.fractions)
        rule = "above 0 and below 1, or a whole number, or null"
        require(_shareable(self.gpus), f"{where}.gpus", rule, self.gpus)
        whole = self.gpus is None or self.gpus >= 1 or self.ranks == 1
        require(whole, f"{where}.gpus", "whole where a fold has several ranks", self.gpus)
        for name in self.strategies or ():
            plain = str(name).replace("-", "").replace("_", "")
            rule = "names of letters, digits, '-' and '_' (a number in quotes)"
            require(isinstance(name, str) and plain.isalnum(), f"{where}.strategies", rule, name)


def _shareable(gpus: float | None) -> bool:
    """True of what Ray can give to one process."""
    return gpus is None or 0 < gpus < 1 or (gpus >= 1 and gpus == int(gpus))


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """Training of a backbone and a head on labelled windows, tested on subjects it has not seen."""

    from_scratch: bool = False
    """Take the architecture of ``init_from`` and leave its weights: what pretraining is to be compared with."""
    inflate: Inflate = "mean"
    """How a channel starts that the stored model does not have, where each has an embedding of its own: ``mean`` of the
    stored channels and a little noise, or ``random``, as from scratch."""
    n_classes: int | None = None
    """Number of classes; not needed, checked against the labels if given."""
    avg_pool: bool = False
    """Average over the tokens of a channel instead of its last one; the same as objective.pooling average."""
    objective: ClassSpec = field(default_factory=lambda: ClassSpec(CLASSIFICATION))
    """Classification or Regression; it is given the backbone and what follows from the labels."""
    windows: WindowConfig = field(default_factory=WindowConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    adapt: ClassSpec = field(default_factory=lambda: ClassSpec(FULL))
    """What of the model moves, when and how fast: full, frozen, unlocked, staged, layer_decay, lora."""
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    train: FinetuneTrainConfig = field(default_factory=FinetuneTrainConfig)
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    store: StoreConfig = field(default_factory=lambda: StoreConfig(name="finetuned"))
    cross_validation: CrossValidationConfig = field(default_factory=CrossValidationConfig)


def _schema(given: tuple[str, ...]) -> Schema[FinetuneConfig]:
    return Schema(
        FinetuneConfig,
        choices={
            "model": Choice(Backbone, ENCODER),
            "objective": Choice(Objective, CLASSIFICATION, given=given),
            "adapt": Choice(Policy, FULL, names=NAMES),
        },
        links=LINKS,
        aliases={"--data_path": "data.shards", "--output_dir": "out", "--pretrained_model_path": "init_from"},
    )


SCHEMA = _schema(("backbone", *FROM_LABELS))
"""What a user says."""

RESOLVED = _schema(("backbone",))
"""What a stored model says: with all that is needed to rebuild it."""
