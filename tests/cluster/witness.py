"""What is held against a disturbed run: its numbers, its segments, its weights, and what a reader saw meanwhile."""

import threading
from collections.abc import Iterator
from pathlib import Path

from launching import numbers

from aar_dist.base import storage
from aar_dist.base.errors import AarError
from aar_dist.store.checkpoint import WEIGHTS, verified
from aar_dist.store.registry import Store
from aar_dist.training import checkpoints


class Reader(threading.Thread):
    """Opens the newest checkpoint and the newest model again and again, and checks every byte of them."""

    def __init__(self, run: Path) -> None:
        super().__init__(name="reader", daemon=True)
        self._run, self._over = run, threading.Event()
        self.looks, self.seen = 0, set[str]()
        self.broken: list[str] = []

    def run(self) -> None:
        try:
            while not self._over.wait(0.05):
                self.looks += 1
                self._checkpoint()
                self._model()
        except Exception as error:  # a reader that is gone has seen nothing
            self.broken.append(f"the reader itself ended: {error!r}")
            raise

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _checkpoint(self) -> None:
        for path in checkpoints.complete(self._run / "checkpoints")[-1:]:
            try:
                problem = storage.damage(path, checkpoints.read(path).files)
            except (AarError, OSError) as error:
                problem = str(error)
            # One that is removed loses its marker first: whoever reads it then knows.
            if problem and (path / checkpoints.COMPLETE).exists():
                self.broken.append(problem)
            self.seen.add(path.name)

    def _model(self) -> None:
        models = self._run / "store" / "models" / "aar"
        for number in Store(self._run / "store").versions("aar"):
            try:
                verified(models / str(number))
            except (AarError, OSError) as error:
                self.broken.append(str(error))
            self.seen.add(f"model {number}")


def differences(whole: Path, broken: Path) -> list[str]:
    """In what two finished runs differ; each folder holds ``run`` and ``segments``."""
    return [*_segments(whole / "segments", broken / "segments"), *_results(whole / "run", broken / "run")]


def _results(whole: Path, broken: Path) -> Iterator[str]:
    rows = [numbers(out) for out in (whole, broken)]
    if rows[0] != rows[1]:
        pairs = zip(*rows, strict=False)
        step = next((a["step"] for a, b in pairs if a != b), min(rows, key=len)[-1]["step"])
        yield f"metrics.jsonl differs from step {step} on"
    versions = Store(broken / "store").versions("aar")
    if versions != [1]:
        yield f"the store holds versions {versions}"
    weights = [storage.sha256(out / "store" / "models" / "aar" / "1" / WEIGHTS) for out in (whole, broken)]
    if weights[0] != weights[1]:
        yield "the final weights differ"


def _segments(whole: Path, broken: Path) -> Iterator[str]:
    """Every micro-batch of every attempt holds the segments of the undisturbed run, and none is missing."""
    for file in sorted(whole.iterdir()):
        wanted = dict(line.split() for line in file.read_text().splitlines())
        seen = [line.split() for line in (broken / file.name).read_text().splitlines()]
        other = [place for place, keys in seen if wanted.get(place) != keys]
        missing = wanted.keys() - {place for place, _ in seen}
        if other or missing:
            yield f"{file.name}: other segments at {other[:3]}, none at {sorted(missing)[:3]}"
