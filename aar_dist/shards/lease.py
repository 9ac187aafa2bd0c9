"""One builder at a time at a URL, where no kernel keeps locks.

    .build/lock-000001    made by the first builder, which writes it again every ``BEAT_S``
    .build/lock-000002    made by whoever found the one before it silent

Only creating is exclusive, and of two who find the same lock silent only one creates the next. A builder that was only
asleep finds a newer lock than its own and stops; until then both wrote the same bytes, since both had the same plan.
"""

import contextlib
import json
import secrets
import threading
import time
from typing import Any

from aar_dist.base.errors import ShardError, StorageError
from aar_dist.base.remote import Missing, Remote
from aar_dist.base.this_process import has_ended, this_process

BEAT_S, SILENT_S, LOOK_EVERY_S = 5.0, 30.0, 1.0


class Lease:
    """The right to build at ``remote``, from ``take`` to ``close``."""

    def __init__(self, remote: Remote, folder: str) -> None:
        self._remote, self._prefix = remote, f"{folder}/lock-"
        self._who = {**this_process(), "token": secrets.token_hex(8)}
        self._over = threading.Event()
        self._lost = False

    def take(self) -> None:
        """Raises ``ShardError`` if another builder is at work."""
        locks = self._remote.names(self._prefix)
        if locks and self._is_alive(locks[-1]):
            raise self._busy()
        self._number = int(locks[-1].removeprefix(self._prefix)) + 1 if locks else 1
        self._name = f"{self._prefix}{self._number:06d}"
        if not self._remote.write(self._name, self._text(0), only_if_new=True):
            raise self._busy()
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    def check(self) -> None:
        """Raise ``ShardError`` if another builder took over, because this one was silent for too long."""
        if self._lost:
            raise ShardError(f"{self._remote}: another build took over, because this one was silent for {SILENT_S:g} s")

    def close(self) -> None:
        """Let another builder in. A lock that cannot be removed is found silent later."""
        self._over.set()
        with contextlib.suppress(StorageError):
            for name in [] if self._lost else self._remote.names(self._prefix):
                self._remote.delete(name)

    def _beat(self) -> None:
        count = 0
        while not self._over.wait(BEAT_S):
            count += 1
            with contextlib.suppress(StorageError):
                self._lost = self._remote.names(self._prefix)[-1:] != [self._name]
                if self._lost:
                    return
                self._remote.write(self._name, self._text(count))

    def _text(self, count: int) -> bytes:
        return json.dumps({**self._who, "beat": count}).encode()

    def _is_alive(self, name: str) -> bool:
        """Is the builder that made this lock still at work? Waits and listens, unless it was on this machine."""
        found = self._read(name)
        if found and (ended := has_ended(found)) is not None:
            return not ended
        deadline = time.monotonic() + SILENT_S
        while found and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
            if (now := self._read(name)) and now != found:
                return True
            found = now
        return False

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self._remote.read(name, 10_000)))
        except (Missing, ValueError, TypeError):
            return None

    def _busy(self) -> ShardError:
        return ShardError(f"{self._remote}: another build is at work here; wait for it or choose another place")
