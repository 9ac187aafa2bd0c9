"""Medians of the stream's benchmark as ratios, as a table and as a picture."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aar_dist.base.plots import save_figure

LOOP, MEMCPY, CUT = "loop, memory map", "memcpy, in the cache", "ours, the cut alone"
TAPE, BATCH = "ours, tape and cut", "ours, SegmentBatch"
RATIOS = {
    "cut_f32": (f"{CUT} f32", f"{LOOP} f32"),
    "cut_i16": (f"{CUT} i16", f"{LOOP} i16"),
    "gather_f32": (f"{CUT} f32", "gather, one memory map f32"),
    "loop_f32": (f"{TAPE} f32", f"{LOOP} f32"),
    "loop_i16": (f"{TAPE} i16", f"{LOOP} i16"),
    "batch_f32": (f"{BATCH} f32", f"{LOOP} f32"),
    "litdata_window": (f"{TAPE} f32", "litdata read_window f32"),
    "webdataset_precut": (f"{TAPE} f32", "webdataset pre-cut f32"),
    "threads_2": ("ours, stream, two prefetch threads f32", "ours, stream, one prefetch thread f32"),
    "cold": ("cold: announced a segment f32", "cold: map that faults f32"),
    "of_memcpy_f32": (f"{CUT} f32", f"{MEMCPY} f32"),
    "of_memcpy_i16": (f"{CUT} i16", f"{MEMCPY} i16"),
}
"""Key -> the reader, and what it is compared with."""
FLOORS = {
    "cut_f32": 2.0, "cut_i16": 3.0, "gather_f32": 0.8, "loop_f32": 1.6, "loop_i16": 2.3, "batch_f32": 1.3,
    "litdata_window": 9.0, "webdataset_precut": 60.0, "threads_2": 1.3, "cold": 5.0,
}  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    rates: dict[str, float]
    """Reader, with the type it read -> median of segments a second."""
    kept_pages: float
    """Largest share of pages that stayed in the page cache though they were dropped: above 0, cold was not cold."""


def ratios(figures: Figures) -> dict[str, float | None]:
    """Every key; None where a peer was not there."""
    rates = figures.rates
    return {
        key: round(rates[ours] / rates[theirs], 3) if theirs in rates else None
        for key, (ours, theirs) in RATIOS.items()
    }


def table(figures: Figures) -> str:
    """Markdown: readers in the order they were measured, then the ratios."""
    rates = figures.rates
    lines = [
        "| reader | float32, segments/s | of the loop | int16, segments/s | of the loop |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(key.rsplit(" ", 1)[0] for key in rates):
        cells = [_cells(rates, name, kind) for kind in ("f32", "i16")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| key | ratio | floor |", "|---|---|---|"]
    for key, ratio in ratios(figures).items():
        lines.append(f"| `{key}` | {'–' if ratio is None else f'{ratio:.2f}'} | {FLOORS.get(key, '')} |")
    return "\n".join(lines)


def _cells(rates: dict[str, float], name: str, kind: str) -> str:
    rate = rates.get(f"{name} {kind}")
    if rate is None:
        return " | "
    return f"{rate:,.0f} | {rate / rates[f'{LOOP} {kind}']:.3g}"


def picture(figures: Figures, path: Path) -> None:
    """Bars on a logarithmic axis, fastest first; ours are coloured."""
    warm = {name: rate for name, rate in figures.rates.items() if not name.startswith("cold")}
    names = sorted(dict.fromkeys(key.rsplit(" ", 1)[0] for key in warm), key=lambda n: warm.get(f"{n} f32", 0))
    figure = Figure(figsize=(9, 0.7 + 0.33 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for kind, shift, alpha in (("f32", 0.2, 1.0), ("i16", -0.2, 0.45)):
        rates = [warm.get(f"{name} {kind}", 0.0) for name in names]
        colours = ["#d1495b" if name.startswith("ours") else "#4d4d4d" for name in names]
        places = [i + shift for i in range(len(names))]
        axes.barh(
            places, rates, height=0.38, color=colours, alpha=alpha, label={"f32": "float32", "i16": "int16"}[kind]
        )
    axes.set_xscale("log")
    axes.set_xlim(left=1e3)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xlabel("segments of 1000 x 3 samples a second (pale: int16)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.01)
    save_figure(figure, path)
