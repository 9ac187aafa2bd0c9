"""What the tracker may be told, and whether there is an account to send to."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from aar_dist.base.errors import ConfigError

Mode = Literal["online", "offline", "disabled"]
DEFAULT_SERVER = "https://api.wandb.ai"


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
    """Runs shown together; null for the name of the model (``store.name``). Folds of a study: the study's folder."""
    tags: list[str] = field(default_factory=list)
    """To find runs by. Folds of a study: method, seed, fold and share besides."""
    init_timeout_s: float = 30.0
    """Longest wait for the server; then training is long under way, and it is tried again now and then."""
    finish_timeout_s: float = 10.0
    """Longest wait at the end for what is still to be sent; the rest is sent after the run has gone."""
    upload_model: bool = False
    """Send the published model's files as well, not only where they are and their hashes."""

    def __post_init__(self) -> None:
        for name in ("init_timeout_s", "finish_timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"tracking.{name} must be positive, got {getattr(self, name)}")


def mode_of(config: TrackingConfig, environ: Mapping[str, str] = os.environ) -> Mode:
    """The variable, else the configuration, else online where there is a key."""
    asked = environ.get("WANDB_MODE") or config.mode
    if asked == "disabled":
        return "disabled"
    if asked == "auto":
        return "online" if has_key(environ) else "offline"
    return "offline" if asked in ("offline", "dryrun") else "online"


def has_key(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody has logged in: by a variable, or in ``~/.netrc`` for this server."""
    if environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(environ.get("NETRC", "~/.netrc")).expanduser()
    host = environ.get("WANDB_BASE_URL", DEFAULT_SERVER).split("//")[-1].split("/")[0].split(":")[0]
    try:
        return host in netrc.read_text()
    except OSError:
        return False


def check_key() -> None:
    """Raise ``ConfigError`` where nobody has logged in: W&B itself would ask at the terminal."""
    if not has_key():
        raise ConfigError("no W&B key found: set WANDB_API_KEY, or run `wandb login`")
