"""The card of a pretrained model."""

from collections.abc import Mapping, Sequence

from aar_dist.stream.loader import SegmentStream
from aar_dist.training.cards.data import data_part
from aar_dist.training.cards.loading import loading_part
from aar_dist.training.config import RunConfig
from aar_dist.training.metrics import Row
from aar_dist.training.progress import Progress


def card(config: RunConfig, metrics: Row, progress: Progress, stream: SegmentStream, n_parameters: int) -> str:
    """Markdown.

    Args:
        metrics: The last validation.
        stream: What was trained on.
    """
    hours = progress.step * config.train.batch_size * config.data.segment_duration / 3600
    lines = [
        f"# {config.store.name}",
        "",
        f"{config.model.class_path.rpartition('.')[2]} ({n_parameters:,} parameters, fp32) trained with "
        f"{config.objective.class_path.rpartition('.')[2]} for {progress.step} steps of {config.train.batch_size} "
        f"segments of {config.data.segment_duration:g} s: {hours:.3g} h drawn.",
        "",
        f"- normalisation: {config.data.normalize}",
        f"- started from: {config.init_from or 'random weights'}",
        *data_part(stream.source, stream.datasets, stream.channels),
        *_validation(metrics),
        *loading_part(config.store.name, predicts=False),
    ]
    return "\n".join(lines) + "\n"


def _validation(metrics: Mapping[str, float]) -> Sequence[str]:
    losses = [
        (name.removeprefix("val/loss/"), value) for name, value in metrics.items() if name.startswith("val/loss/")
    ]
    if not losses:
        return ["", "Nothing was validated: no subjects were set aside for it."]
    lines = [
        "", "## Results", "",
        "| data set | validation loss | predicting zero | interpolating |", "|---|---|---|---|",
    ]  # fmt: skip
    for dataset, loss in losses:
        references = [metrics.get(f"val/{name}/{dataset}") for name in ("zero_mse", "interpolation_mse")]
        cells = ["-" if value is None else f"{value:.4g}" for value in (loss, *references)]
        lines.append(f"| {dataset} | {' | '.join(cells)} |")
    return lines
