"""Loss curves: of every fold and strategy, of a pretraining by data set, of one fine-tuning run."""

from collections.abc import Sequence

from aar_dist.report.charts import Line, Panel, line_panel
from aar_dist.report.compare import Comparison
from aar_dist.report.folders import METRICS, Folds, Run, series
from aar_dist.report.numbers import known, number
from aar_dist.report.svg import Scale
from aar_dist.training.metrics import Row, read_rows

STEEP = 10.0
"""From this ratio of the largest to the smallest loss on, the axis is logarithmic."""


def loss_scale(lines: Sequence[Line]) -> Scale:
    """One scale for all the lines."""
    values = [y for one in lines for _, y in one.points]
    positive = [v for v in values if v > 0]
    steep = len(positive) == len(values) > 0 and max(positive) / min(positive) > STEEP
    return Scale.of(values, log=steep)


def fold_panels(folds: Folds, of: Comparison) -> list[Panel]:
    """A panel for each fold with the validation losses of all networks and seeds; the best step is marked."""
    networks = [m for m in of.methods if m["kind"] == "network"]
    found: dict[int, list[tuple[list[Line], list[Line]]]] = {}
    for method in networks:
        for run in method["runs"]:
            rows = read_rows(folds.run(method["name"], run["seed"], run["fold"]) / METRICS)
            title = f"{method['name']}, seed {run['seed']}"
            found.setdefault(run["fold"], []).append(_run_lines(rows, of.style(method), title, run.get("best_step")))
    panels = [
        (fold, [x for lines, _ in of for x in lines], [x for _, m in of for x in m]) for fold, of in found.items()
    ]
    everything = [one for _, lines, _ in panels for one in lines]
    if not everything:
        return []
    x, y = Scale.of([p[0] for one in everything for p in one.points], zero=True), loss_scale(everything)
    return [
        line_panel(f"fold {fold}", lines, _alt(f"fold {fold}", lines), x=x, y=y, marks=marks)
        for fold, lines, marks in sorted(panels, key=lambda panel: panel[0])
        if lines
    ]


def _run_lines(rows: list[Row], style: str, title: str, best: float | None) -> tuple[list[Line], list[Line]]:
    train, val = series(rows, "loss"), series(rows, "val/loss")
    lines = [Line(train, f"{style} faint", f"{title}: train")] if train else []
    lines += [Line(val, style, f"{title}: validation")] if val else []
    at_best = [p for p in val if known(best) and p[0] == best]
    return lines, [Line(at_best, style, f"{title}: best at step {best}")] if at_best else []


def run_panels(run: Run) -> list[Panel]:
    """A panel over all data, and one for each data set of a pretraining, with what needs no model beside it."""
    datasets = sorted({key.split("/", 2)[2] for row in run.rows for key in row if key.startswith("val/loss/")})
    names = ["", *datasets] if len(datasets) > 1 else [""]
    whole = "all data sets together" if len(names) > 1 else "loss"
    panels = [(name or whole, _data_set_lines(run.rows, name)) for name in names]
    everything = [one for _, lines in panels for one in lines]
    if not any(one.points for one in everything):
        return []
    x = Scale.of([p[0] for one in everything for p in one.points], zero=True)
    marks = _phase_ends(run.rows)
    return [
        line_panel(name, lines, _alt(name, lines), x=x, y=loss_scale(lines), marks=marks)
        for name, lines in panels
        if lines
    ]


def _phase_ends(rows: list[Row]) -> list[Line]:
    """The validation losses at which a phase of a run gave way to the next."""
    phases = {row["step"]: row["phase"] for row in rows if "phase" in row}
    ends = {number: step for step, number in sorted(phases.items()) if number < max(phases.values())}
    return [
        Line([point], "m0", f"phase {number} ends at step {step}")
        for number, step in ends.items()
        for point in series(rows, "val/loss")
        if point[0] == step
    ]


REFERENCES = (("val/interpolation_mse", "straight line through the hidden part"), ("val/zero_mse", "always 0"))


def _data_set_lines(rows: list[Row], dataset: str) -> list[Line]:
    end = f"/{dataset}" if dataset else ""
    kinds = [("loss", "m0 faint", "train"), ("val/loss", "m0", "validation")]
    kinds += [(key, f"reference r{k}", what) for k, (key, what) in enumerate(REFERENCES)]
    found = [Line(series(rows, key + end), style, what) for key, style, what in kinds]
    return [one for one in found if one.points]


def _alt(name: str, lines: Sequence[Line]) -> str:
    ends = [f"{one.title} ends at {number(one.points[-1][1])}" for one in lines if "faint" not in one.style]
    return f"Loss of {name}: {'; '.join(ends[:8])}"


def last(rows: Sequence[Row], key: str) -> float | None:
    """The last value of a number that was logged."""
    found = series(rows, key)
    return found[-1][1] if found else None
