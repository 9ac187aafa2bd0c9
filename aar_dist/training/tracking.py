"""The only file that knows Weights & Biases: a mirror of metrics.jsonl for people to watch, never needed to run."""

import contextlib
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from aar_dist.base.errors import one_line
from aar_dist.training.config import TrackingConfig

ID_FILE = "run_id"


class Run(Protocol):
    """What the loop may say to a tracker."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Numbers of one step, under ``step``."""

    def image(self, name: str, path: Path, step: int) -> None:
        """A picture."""

    def alert(self, title: str, text: str, level: str) -> None:
        """Something people should hear of; level ``info``, ``warn`` or ``error``."""

    def close(self) -> None:
        """The end."""


class NoTracker:
    """Says nothing to nobody."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def image(self, name: str, path: Path, step: int) -> None:
        """Nothing."""

    def alert(self, title: str, text: str, level: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def run_id(out: Path) -> str:
    """The id of the run in this directory, made once: the same through all restarts."""
    file = out / "wandb" / ID_FILE
    if file.exists():
        return file.read_text().strip()
    file.parent.mkdir(parents=True, exist_ok=True)
    made = uuid.uuid4().hex[:8]
    file.write_text(made)
    return made


def start(
    config: TrackingConfig,
    out: Path,
    identifier: str,
    settings: Mapping[str, Any],
    *,
    warn: Callable[[str], None],
    last_step: int = -1,
) -> Run:
    """A tracker; offline if the server cannot be reached, and one that says nothing if that fails as well.

    Args:
        identifier: Id of the run.
        settings: The configuration, shown beside the run.
        warn: Told of failures.
        last_step: Rows up to this step were logged before a restart, and are the same: they are not sent again.
    """
    mode = _mode(config)
    if mode == "disabled":
        return NoTracker()
    for attempt in dict.fromkeys([mode, "offline"]):
        try:
            return Tracker(config, out, identifier, settings, mode=attempt, warn=warn, last_step=last_step)
        except Exception as error:  # whatever it is, a run does not need its mirror
            warn(f"W&B {attempt} did not start, training goes on: {one_line(error)[:200]}")
            _forget_attempt()
    return NoTracker()


def _forget_attempt() -> None:
    """W&B's helper process keeps the id of a failed start in use until it is ended."""
    with contextlib.suppress(Exception):
        import wandb

        wandb.teardown()


def _mode(config: TrackingConfig) -> str:
    """The variable, else the configuration, else online where there is a key."""
    asked = os.environ.get("WANDB_MODE") or config.mode
    if asked == "auto":
        return "online" if _has_key() else "offline"
    return "offline" if asked == "dryrun" else asked


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0].split(":")[0]
    try:
        return host in netrc.read_text()
    except OSError:
        return False


class Tracker:
    """One W&B run; a failure of its is a warning, once."""

    def __init__(
        self,
        config: TrackingConfig,
        out: Path,
        identifier: str,
        settings: Mapping[str, Any],
        *,
        mode: str,
        warn: Callable[[str], None],
        last_step: int,
    ) -> None:
        import wandb

        self._wandb = wandb
        self._sent = last_step
        self._warn = warn
        self._failed = False
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            name=config.name or out.name,
            group=config.group,
            id=identifier,
            resume="allow" if mode == "online" else None,
            mode=cast(Any, mode),
            dir=str(out),
            config=dict(settings),
            settings=wandb.Settings(
                init_timeout=config.init_timeout_s, silent=True, console="off", disable_code=True, disable_git=True
            ),
        )

    def log(self, row: Mapping[str, Any]) -> None:
        """Send the numbers of one step, unless they were sent before a restart."""
        step = row["step"]
        if step > self._sent:
            self._try(lambda: self._run.log(dict(row), step=step))

    def image(self, name: str, path: Path, step: int) -> None:
        """Send a picture beside the numbers of its step."""
        if step > self._sent:
            self._try(lambda: self._run.log({name: self._wandb.Image(str(path))}, step=step))

    def alert(self, title: str, text: str, level: str) -> None:
        """Tell whoever follows the run."""
        self._try(lambda: self._run.alert(title=title, text=text, level=level.upper()))

    def close(self) -> None:
        """Finish the run."""
        self._try(lambda: self._run.finish())

    def _try(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:  # a dead server never stops a step
            if not self._failed:
                self._warn(f"W&B failed, training goes on: {one_line(error)[:200]}")
            self._failed = True
