"""From the files of a run to its mirror: everything that the mirror does not have yet, once.

    Record -> Sender.connect() -> Sender.send_new() … -> Sender.close()

The server numbers the steps it has, so who comes after a crash asks it and goes on from there: no step is lost and none
sent twice, whoever sent the ones before.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from aar_dist.base.addresses import without_secrets
from aar_dist.base.errors import AarError, StorageError, one_line
from aar_dist.base.remote import Patience, Remote, is_url
from aar_dist.training.tracking.config import TrackingConfig
from aar_dist.training.tracking.mirror import ArtifactFile, Identity, Mirror
from aar_dist.training.tracking.privacy import scrubbed
from aar_dist.training.tracking.record import Attempt, Record
from aar_dist.training.tracking.rows import Steps

log = logging.getLogger(__name__)

ASKED = Patience(read_s=5.0)
"""A run that is finished does not wait for a store that is gone."""


class Sender:
    """Sends what is new of one run."""

    def __init__(self, record: Record, mirror: Mirror, *, online: bool) -> None:
        self.record, self.mirror, self.online = record, mirror, online
        self.steps = Steps(record.metrics, mirror.last_step)
        self.n_sent = 0
        self._attempts: list[Attempt] = []
        self._sent: dict[str, Any] = record.sent() if online else {"alerts": 0, "artifacts": {}}

    def send_new(self) -> None:
        """Every step that is complete, new alerts, the shard sets, the published model."""
        self._tell_attempts()
        for step, row in self.steps.new():
            self._send(step, row)
        self._send_alerts()
        for made in artifacts(self.record):
            self._send_artifact(made)

    def close(self, *, ended: bool, everything: bool = False) -> None:
        """Send what nothing more can come of, and say how the run stands.

        Args:
            ended: Nobody trains any more.
            everything: The last step too, even if it should have had a validation; it can get none later.
        """
        self.send_new()
        finished = self.record.finished is not None
        if finished or everything or not self.online or (ended and not self.waits()):
            for step, row in self.steps.rest():
                self._send(step, row)
        how = self.record.end_of(self._attempts[-1].number) if self._attempts else None
        self.mirror.close(failed=not finished, paused=not finished and how == "stopped")

    def waits(self) -> bool:
        """Whether the last step still lacks its validation: the run that goes on will make it, and send both."""
        row = self.steps.open
        if row is None or any(key.startswith("val/") for key in row):
            return False
        every = self._attempts[-1].val_every if self._attempts else 1
        total = self._attempts[-1].total_steps if self._attempts else 0
        return bool(row["step"] % every == 0 or row["step"] == total)

    def _send(self, step: int, row: dict[str, Any]) -> None:
        validated = any(key.startswith("val/") for key in row)
        picture = self.record.picture(step)
        table = _read(self.record.table(step)) if validated else None
        before = [a.number for a in self._attempts if a.from_step < step]
        attempt = {"attempt": before[-1]} if before else {}
        self.mirror.send(step, row | attempt, picture if validated and picture.exists() else None, table)
        self.n_sent += 1

    def _tell_attempts(self) -> None:
        attempts = self.record.attempts()
        if len(attempts) != len(self._attempts):
            self._attempts = attempts
            self.mirror.configure(
                {"attempt": attempts[-1].number, "attempts": [asdict(one) for one in attempts[-20:]]}
                | {"code": attempts[-1].code, "environment": attempts[-1].environment}
            )

    def _send_alerts(self) -> None:
        for number, alert in enumerate(self.record.alerts(), start=1):
            if number > self._sent["alerts"]:
                self._remember({"alerts": number})  # before it is sent: better lost than told twice
                self.mirror.alert(alert)

    def _send_artifact(self, made: ArtifactFile) -> None:
        digest = json.dumps([made.references, made.texts], sort_keys=True)
        if self._sent["artifacts"].get(made.name) == digest:
            return
        self._remember({"artifacts": self._sent["artifacts"] | {made.name: digest}})
        try:
            self.mirror.artifact(made)
        except Exception as error:  # a server that takes no artifacts still takes numbers
            log.warning("artifact %s is not sent: %s", made.name, one_line(error))

    def _remember(self, more: Mapping[str, Any]) -> None:
        self._sent |= more
        if self.online:
            self.record.set_sent(self._sent)


def artifacts(record: Record) -> list[ArtifactFile]:
    """The shard sets that are read, and the model once it is published."""
    found = [_shard_set(one) for one in record.shard_sets()]
    if finished := record.finished:
        found.append(_model(record, finished))
    return found


def _shard_set(told: Mapping[str, Any]) -> ArtifactFile:
    url, identity = without_secrets(told["url"]), told["identity"]
    name = Path(url.rstrip("/")).name or "shards"
    return ArtifactFile(
        name=f"shards-{name}",
        type="shard-set",
        metadata={"identity": identity, "url": url, "shards": len(told["shards"])},
        references={identity[:12]: url} if is_url(url) else {},
        texts={"shards.json": json.dumps({**told, "url": url}, indent=1, sort_keys=True)},
        files={},
        read=True,
    )


def _model(record: Record, finished: Mapping[str, Any]) -> ArtifactFile:
    where = str(finished["path"])
    manifest = _told(where, "manifest.json")
    files = _files(where) if settings(record)[0].upload_model else {}
    return ArtifactFile(
        name=str(manifest.get("name", "model")),
        type="model",
        metadata={"reference": finished["model"], "path": where, "scores": _told(where, "metrics.json")}
        | {key: value for key, value in manifest.items() if key != "files"},
        references={},
        texts={} if files else {"manifest.json": json.dumps(manifest, indent=1, sort_keys=True)},
        files=files,
        read=False,
    )


def _files(where: str) -> dict[str, str]:
    """Name -> path on this machine of the files of a published version; {} if its store is away."""
    from aar_dist.store.registry import resolve  # imports torch

    try:
        place = resolve(where).path if is_url(where) else Path(where)
    except AarError as error:
        log.warning("the model is not sent: %s", one_line(error))
        return {}
    return {one.name: str(one) for one in sorted(place.iterdir())}


def _told(where: str, name: str) -> dict[str, Any]:
    """A small file of a published version; {} if its store is away."""
    if not is_url(where):
        return _read(Path(where) / name) or {}
    try:
        found = json.loads(Remote(where, ASKED).read(name))
    except (StorageError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found


def settings(record: Record) -> tuple[TrackingConfig, dict[str, Any]]:
    """What the run's configuration says of tracking, and all of it, fit to be shown."""
    config: dict[str, Any] = yaml.safe_load((record.root / "config.yaml").read_text()) or {}
    known = {
        key: value for key, value in (config.get("tracking") or {}).items() if key in TrackingConfig.__annotations__
    }
    return TrackingConfig(**known), scrubbed(config)


def identity(record: Record, tracking: TrackingConfig, config: Mapping[str, Any]) -> Identity:
    """How the run is called; WANDB_PROJECT and WANDB_ENTITY win, as everywhere."""
    return Identity(
        id=record.run_id(),
        project=os.environ.get("WANDB_PROJECT") or tracking.project,
        entity=os.environ.get("WANDB_ENTITY") or tracking.entity,
        name=tracking.name or record.root.name,
        group=tracking.group or str((config.get("store") or {}).get("name") or record.root.parent.name),
        job_type="finetune" if "split" in config else "pretrain",
        tags=tuple(tracking.tags),
    )


def connect(
    record: Record,
    *,
    mode: str,
    folder: Path,
    timeout_s: float | None = None,
    watches: int | None = None,
    ends: bool = True,
) -> Sender:
    """A sender for this run. Raises ``TrackingError`` where the server does not answer."""
    tracking, config = settings(record)
    mirror = Mirror(
        identity(record, tracking, config),
        folder,
        config,
        mode=mode,
        timeout_s=timeout_s or tracking.init_timeout_s,
        watches=watches,
        ends=ends,
    )
    return Sender(record, mirror, online=mode == "online")
