"""The table of folds: what stands in a cell follows from what stands on the disk."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from aar_dist.evaluation.fold_jobs import FoldJob, Outcome
from aar_dist.evaluation.fold_table import FoldTable
from aar_dist.training.finetuning.config import FinetuneConfig


def job(out: Path, method: str, fold: int, kind="network") -> FoldJob:
    return FoldJob(
        method=method, kind=kind, seed=1, fold=fold, config=FinetuneConfig(out=str(out / method / str(fold)))
    )


@pytest.fixture
def jobs(tmp_path) -> list[FoldJob]:
    """One is done, one trains, one waits, one has failed, and a baseline is done."""
    made = [job(tmp_path, "net", k) for k in range(4)] + [job(tmp_path, "majority", 0, "baseline")]
    for one, score in ((made[0], 0.8125), (made[4], 0.25)):
        one.folder.mkdir(parents=True)
        (one.folder / "metrics.json").write_text(json.dumps({"accuracy": 0.5, "macro_f1": score}))
    (made[0].folder / "finished").write_text("{}")
    made[1].folder.mkdir(parents=True)
    (made[1].folder / "metrics.jsonl").write_text('{"step": 7}\n{"step": 40}\n{"step"')
    return made


def rendered(table: FoldTable, width: int = 100) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(table._table(width))
    return captured.get()


def test_a_cell_tells_how_a_fold_stands(jobs):
    table = FoldTable(jobs)
    table._failed[jobs[3].name] = "boom"
    text = rendered(table)
    row = next(line for line in text.splitlines() if "net" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["net  seed 1", "0.812", "step 40", "·", "failed"]
    assert "0.250" in next(line for line in text.splitlines() if "majority" in line)
    assert "macro f1 of each fold" in text


def test_a_log_has_a_line_for_each(jobs, capsys):
    with FoldTable(jobs) as table:
        table.tick()
        table.finished(Outcome(jobs[3], "boom"))
        table.finished(Outcome(jobs[0]))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "FAILED net, seed 1, fold 3: boom"
    assert said[1].startswith("2/3  net, seed 1, fold 0: accuracy 0.5000  macro_f1 0.8125  (0.0 min")


def test_many_folds_are_counted_where_a_terminal_has_no_room(tmp_path):
    """Thirty people, one left out each."""
    jobs = [job(tmp_path, method, k) for method in ("pretrained", "scratch") for k in range(30)]
    for k, one in enumerate(jobs[:12]):
        one.folder.mkdir(parents=True)
        (one.folder / "metrics.json").write_text(json.dumps({"macro_f1": 0.5 + k / 100}))
        (one.folder / "finished").write_text("{}")
    for one in jobs[12:16]:
        one.folder.mkdir(parents=True)
        (one.folder / "metrics.jsonl").write_text('{"step": 140}\n')
    table = FoldTable(jobs)
    table._failed[jobs[16].name] = "boom"
    for width in (80, 120):
        lines = rendered(table, width).splitlines()
        assert max(map(len, lines)) <= width
        assert "macro f1 of 30 folds" in lines[0]
        first, second = ([cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line)
        assert first == ["pretrained  seed 1", "12/30", "4", "1", "0.555", "0.500", "0.610"]
        assert second == ["scratch  seed 1", "0/30", "", "", "", "", ""]
        assert lines[-2].startswith("now: pretrained  seed 1  fold 12 step 140, fold 13 step 140, fold 14")
        assert lines[-2].endswith("…") == (width == 80)
        assert lines[-1].strip() == "failed: pretrained  seed 1  fold 16"
    assert "fold 29" not in rendered(table, 1000), "it does not jump back"
    assert "fold 29" in rendered(FoldTable(jobs), 1000)


def test_what_is_done_is_read_once(jobs, monkeypatch):
    table = FoldTable(jobs)
    first = rendered(table)
    (jobs[0].folder / "metrics.json").unlink()
    assert rendered(table) == first
