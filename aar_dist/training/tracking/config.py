"""What the tracker may be told."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Weights & Biases; never needed to run."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """``auto``: online where there is a key, else offline. The variable WANDB_MODE wins."""
    project: str = "aar_dist"
    """Project of the runs."""
    entity: str | None = None
    """Team or user; null for the account's default."""
    name: str | None = None
    """Name of the run; null for the run directory's."""
    group: str | None = None
    """Runs shown together."""
    init_timeout_s: float = 30.0
    """Longest wait for the server at the start; then the run goes on offline."""
