"""A team on one store: publishers without end, and readers that believe nothing.

    python team.py publish STORE SECONDS WHO      a line for each version that stands
    python team.py read STORE SECONDS READERS     at the end one line of JSON: reads, versions, what was wrong

Every version holds one number, in its weights, its configuration, its card and its metrics alike.
"""

import json
import random
import sys
import threading
import time
from pathlib import Path

import torch

from aar_dist.base.cache import Cache
from aar_dist.base.errors import AarError
from aar_dist.store.registry import Store

NAME = "team"


def publish(store: Store, value: int, who: str) -> int:
    """A version that holds this number; returns its own."""
    weights = {f"layer.{i}": torch.full((64, 256), float(value)) for i in range(4)}
    made = store.publish(
        NAME, weights, config=f"value: {value}\n", card=f"{value}\n", metrics={"value": value}, about={"who": who}
    )
    return made.version


def wrong(checkpoint) -> str | None:
    """What does not fit together in a version."""
    values = {float(part) for tensor in checkpoint.weights().values() for part in (tensor.min(), tensor.max())}
    values |= {float(checkpoint.config()["value"]), float(checkpoint.metrics()["value"])}
    values.add(float((checkpoint.path / "card.md").read_text()))
    return None if len(values) == 1 else f"{checkpoint.reference} holds {sorted(values)}"


class Readers:
    """Threads that read the latest version, and now and then one that was seen before, until told to end."""

    def __init__(self, where: str, n: int, cache: Path | None) -> None:
        self.where, self.cache = where, cache
        self.reads, self.wrong, self.versions = 0, [], set()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._read, args=(i,), daemon=True) for i in range(n)]
        for thread in self._threads:
            thread.start()

    def end(self) -> "Readers":
        """Stop them."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)
        return self

    def _read(self, number: int) -> None:
        dice, newest = random.Random(number), 0
        store = Store(self.where, Cache.of(str(self.cache)) if self.cache else None)
        while not self._over.is_set():
            with self._lock:
                which = str(dice.choice(sorted(self.versions))) if newest and dice.random() < 0.3 else "latest"
            try:
                checkpoint = store.get(NAME, which)
                problem = wrong(checkpoint)
            except AarError as error:
                checkpoint, problem = None, str(error)
            if not newest and problem and "has no model" in problem:
                time.sleep(0.02)
                continue
            if checkpoint and which == "latest":
                if checkpoint.version < newest:
                    problem = f"latest was {newest}, and is {checkpoint.version} now"
                newest = max(newest, checkpoint.version)
            with self._lock:
                self.reads += 1
                self.versions |= {checkpoint.version} if checkpoint else set()
                self.wrong += [problem] if problem else []


def main() -> None:
    act, where, seconds, more = sys.argv[1:5]
    end = time.monotonic() + float(seconds)
    if act == "publish":
        store, value = Store(where), 0
        while time.monotonic() < end:
            value += 1
            print(publish(store, value, more), flush=True)
    else:
        readers = Readers(where, int(more), None)
        time.sleep(float(seconds))
        readers.end()
        print(json.dumps({"reads": readers.reads, "versions": sorted(readers.versions), "wrong": readers.wrong}))


if __name__ == "__main__":
    main()
