"""The only file that knows Weights & Biases: one connection to a run there, or one folder of its offline kind.

    Mirror.last_step   what the server has       send(step, row)   alert(…)   artifact(…)   close(…)

Everything here may take its time or fail: it runs in a process of its own, never in a rank.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

from aar_dist.base.errors import AarError, one_line
from aar_dist.training.tracking.record import Alert

log = logging.getLogger(__name__)

FINISH_PATIENCE_S = 60.0


class TrackingError(AarError):
    """The server was not reached, or did not take what it was sent."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which run it is, and how it is shown."""

    id: str
    project: str
    entity: str | None
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ArtifactFile:
    """An artifact: a name, what it refers to, and small text files that describe it."""

    name: str
    type: str
    metadata: dict[str, Any]
    references: dict[str, str]
    """Name -> URI. Nothing behind it is read or sent."""
    texts: dict[str, str]
    """Name -> content."""
    files: dict[str, str]
    """Name -> file that is sent."""
    read: bool
    """True of what the run reads, False of what it made."""


class Mirror:
    """A run at the server, or in a folder."""

    def __init__(
        self,
        identity: Identity,
        folder: Path,
        config: Mapping[str, Any],
        *,
        mode: str,
        timeout_s: float,
        watches: int | None,
        ends: bool = True,
    ) -> None:
        """Connect.

        Args:
            folder: W&B keeps what it has not sent yet below it, in ``wandb``.
            timeout_s: Longest wait for the server.
            watches: Process whose machine's load is to be shown; None for nothing of the kind.
            ends: False leaves the server's word for how the run stands as it is.

        Raises:
            TrackingError: the server did not answer, or refused.
        """
        settings = wandb.Settings(
            init_timeout=timeout_s,
            finish_timeout=FINISH_PATIENCE_S,
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            x_save_requirements=False,
            x_disable_stats=watches is None,
            x_stats_pid=watches or os.getpid(),
            x_update_finish_state=ends,
        )
        self._online = online = mode == "online"
        with _named("did not start"):
            self._run = wandb.init(
                project=identity.project,
                entity=identity.entity,
                name=identity.name,
                group=identity.group,
                job_type=identity.job_type,
                tags=identity.tags or None,
                id=identity.id,
                resume="allow" if online else None,
                mode="online" if online else "offline",
                dir=str(folder),
                settings=settings,
            )
        self.path = "/".join((self._run.entity, self._run.project, identity.id)) if online else ""
        self.url: str | None = self._run.url if online else None
        self.place = Path(self._run.dir).parent
        self.last_step = self._run.starting_step - 1
        """Last step that the server has."""
        self._run.config.update(dict(config), allow_val_change=True)

    def send(self, step: int, row: Mapping[str, Any], picture: Path | None, table: Mapping[str, Any] | None) -> None:
        """One step, whole: the server takes no second row of it."""
        shown: dict[str, Any] = {}
        with _leaving_out(f"picture of step {step}"):
            if picture:
                shown["reconstruction"] = wandb.Image(str(picture))
        with _leaving_out(f"table of step {step}"):
            if table:
                shown["reconstructions"] = wandb.Table(columns=table["columns"], data=table["rows"])
        try:
            self._run.log({**row, **shown}, step=step, commit=True)
        except Exception as error:  # a picture that cannot be sent must not take the numbers with it
            log.warning("step %d is sent without pictures: %s", step, one_line(error))
            self._run.log(dict(row), step=step, commit=True)

    def alert(self, alert: Alert) -> None:
        """A message to the people who watch."""
        self._run.alert(alert.title, alert.text, level=alert.level.upper(), wait_duration=0)

    def artifact(self, made: ArtifactFile) -> None:
        """What the run reads or made, by reference."""
        artifact = wandb.Artifact(made.name, type=made.type, metadata=made.metadata)
        for name, uri in made.references.items():
            artifact.add_reference(uri, name=name, checksum=False)
        for name, text in made.texts.items():
            with artifact.new_file(name) as file:
                file.write(text)
        for name, path in made.files.items():
            artifact.add_file(path, name=name)
        if made.read and self._online:  # offline there is nobody to say which version it is
            self._run.use_artifact(artifact)
        else:
            self._run.log_artifact(artifact)

    def configure(self, more: Mapping[str, Any]) -> None:
        """Add to the configuration that is shown."""
        self._run.config.update(dict(more), allow_val_change=True)

    def close(self, *, failed: bool = False, paused: bool = False) -> None:
        """Send what is left, and say how it ended. ``paused``: it will go on."""
        if paused:
            self._run.mark_preempting()
        self._run.finish(exit_code=1 if failed or paused else 0)

    def arrived(self, step: int, timeout_s: float) -> int:
        """Last step that the server has, as it says itself; it is given some time to have this one. Raises
        ``TrackingError``."""
        deadline = time.monotonic() + timeout_s
        with _named("does not say what it has"):
            api = wandb.Api(timeout=max(1, round(timeout_s)))
            while True:
                there = int(api.run(self.path).lastHistoryStep)
                if there >= step or time.monotonic() > deadline:
                    return there
                api.flush()
                time.sleep(1)


def default_entity(timeout_s: float = 30.0) -> str:
    """Who the account is. Raises ``TrackingError``."""
    with _named("does not say whose key this is"):
        return str(wandb.Api(timeout=round(timeout_s)).default_entity)


def forget() -> None:
    """End W&B's helper process, which keeps the id of a failed start in use."""
    with contextlib.suppress(Exception):
        wandb.teardown()


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise TrackingError(f"W&B {what}: {one_line(error)[:200]}") from error


@contextlib.contextmanager
def _leaving_out(what: str) -> Iterator[None]:
    """A picture that cannot be sent must not take the numbers with it."""
    try:
        yield
    except Exception as error:
        log.warning("%s is not sent: %s", what, one_line(error))
