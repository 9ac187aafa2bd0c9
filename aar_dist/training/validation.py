"""One pass over the validation tape: losses, references, pictures.

evaluation tape -> engine (no dropout) -> means for each data set, val/<metric>/<data set>
                -> the first segments -> reconstruction -> a picture
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from aar_dist.base.plots import reconstruction_figure, save_figure
from aar_dist.objectives.masked import Reconstruction
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.loader import SegmentStream
from aar_dist.training.config import LoopConfig
from aar_dist.training.engine import Engine
from aar_dist.training.metrics import Meter, Row
from aar_dist.training.ranks import Ranks
from aar_dist.training.stopping.stopper import Stopper
from aar_dist.training.tracking.tables import write_table


@runtime_checkable
class Reconstructs(Protocol):
    """An objective that can show what it makes of a batch."""

    def reconstruct(self, batch: SegmentBatch) -> Reconstruction:
        """The batch with the model's prediction."""


def validate(
    engine: Engine,
    stream: SegmentStream,
    train: LoopConfig,
    ranks: Ranks,
    picture: Path,
    n_drawn: int,
    stopper: Stopper,
    beat: Callable[[], None],
) -> Row | None:
    """Metrics of the whole validation tape; rank 0 draws ``n_drawn`` of its first segments to ``picture``. None if all
    ranks agreed to stop on the way. Every rank must call it; it beats at each batch."""
    micro, _ = train.micro_batches(ranks.world_size)
    meter = Meter(stream.datasets)
    drawn = False
    beat()  # the first batch may be long in coming
    for batch, weight in stream.evaluation(train.batch_size, micro, engine.device):
        beat()
        meter.add(engine.evaluate(batch), batch.dataset, weight)
        if not drawn and n_drawn and isinstance(engine.objective, Reconstructs):
            # Under ZeRO-3 every rank takes part, whoever draws.
            shown = some_of_each(batch, n_drawn)
            made = engine.objective.reconstruct(shown)
            if ranks.main:
                draw(shown, made, stream, picture)
            drawn = True
        if stopper.within():
            return None
    return {f"val/{name}": value for name, value in meter.take().items()}


def some_of_each(batch: SegmentBatch, n: int) -> SegmentBatch:
    """n segments of a batch, the first of each data set first."""
    seen: Counter[int] = Counter()
    ranked = []
    for i, dataset in enumerate(batch.dataset.tolist()):
        ranked.append((seen[dataset], dataset, i))
        seen[dataset] += 1
    return batch.take([i for _, _, i in sorted(ranked)[:n]])


def draw(batch: SegmentBatch, made: Reconstruction, stream: SegmentStream, picture: Path) -> None:
    """Original against reconstruction: drawn one segment below the other, and in numbers for the tracker's table."""
    channels = [stream.channels[i] if i >= 0 else "" for i in batch.channel[0].tolist()]
    datasets = [stream.datasets[i] for i in batch.dataset.tolist()]
    values, prediction = (x.float().cpu().numpy() for x in (made.values, made.prediction))
    masked, valid = (x.cpu().numpy() for x in (made.masked, made.valid))
    rate_hz = made.rate_hz.tolist()
    figure = reconstruction_figure(
        values, prediction, masked, valid, rate_hz=rate_hz, titles=datasets, channels=channels
    )
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, picture)
    table = picture.parents[1] / "reconstructions" / f"{picture.stem}.json"
    write_table(table, values, prediction, masked, valid, rate_hz=rate_hz, datasets=datasets, channels=channels)
