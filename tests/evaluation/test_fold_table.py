"""The table of folds: what stands in a cell follows from what stands on the disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from aar_dist.base.attempts import Place
from aar_dist.evaluation import fold_standing
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


def rendered(table: FoldTable, width: int = 100, height: int = 50) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(table.picture(width, height))
    return captured.get()


def place(host: str = "here", address: str = "127.0.0.2") -> Place:
    return Place(node=host + address, host=host, address=address, process=1)


def test_a_cell_tells_how_a_fold_stands(jobs):
    table = FoldTable(jobs)
    table.started(jobs[1], place())
    table.failed[jobs[3].name] = "boom"
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
    table = FoldTable(jobs)
    for one in jobs[12:16]:
        one.folder.mkdir(parents=True)
        (one.folder / "metrics.jsonl").write_text('{"step": 140}\n')
        table.started(one, place())
    table.failed[jobs[16].name] = "boom"
    for width in (80, 120):
        lines = rendered(table, width).splitlines()
        assert max(map(len, lines)) <= width
        assert "macro f1 of 30 folds" in lines[0]
        first, second = ([cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line)
        assert first == ["pretrained  seed 1", "12/30", "4", "1", "0.555", "0.500", "0.610"]
        assert second == ["scratch  seed 1", "0/30", "", "", "", "", ""]
        assert lines[-2].startswith("here (4): pretrained, seed 1, fold 12 step 140; pretrained, seed 1, fold 13")
        assert lines[-2].endswith("…")
        assert lines[-1].strip() == "failed (1): pretrained, seed 1, fold 16"
    assert "fold 29" not in rendered(table, 1000), "it does not jump back"
    assert "fold 29" in rendered(FoldTable(jobs), 1000)


def test_what_is_done_is_read_once(jobs, monkeypatch):
    table = FoldTable(jobs)
    first = rendered(table)
    (jobs[0].folder / "metrics.json").unlink()
    assert rendered(table) == first


def test_four_hundred_jobs_stay_readable_on_any_terminal(tmp_path):
    """Five methods, four seeds, four shares, five folds, on nine machines."""
    jobs = [
        replace(job(tmp_path / f"{method}{seed}{share}", method, fold), seed=seed, fraction=share)
        for method in ("pretrained", "scratch", "frozen", "knn", "linear")
        for share in (1.0, 0.5, 0.1, 0.01)
        for seed in range(4)
        for fold in range(5)
    ]
    table = FoldTable(jobs)
    for k, one in enumerate(jobs[:27]):
        table.started(one, place(f"host{k // 3}"))
    heights = {}
    for height in (100, 40, 24):
        lines = rendered(table, 100, height).splitlines()
        heights[height] = len(lines)
        assert len(lines) <= height
        assert "host0 (3): pretrained, seed 0, fold 0; pretrained, seed 0, fold 1" in "".join(lines)
        assert "3 more machines: 9 runs" in "".join(lines)
    assert heights == {100: 92, 40: 32, 24: 17}, "by seed, by share, by method"


def test_two_machines_of_one_host_are_told_apart(jobs, capsys):
    table = FoldTable(jobs)
    for one, address in ((jobs[1], "127.0.0.2"), (jobs[2], "127.0.0.3")):
        table.started(one, place(address=address))
    assert "127.0.0.2 (1): net, seed 1, fold 1 step 40" in rendered(table)
    table.again(jobs[2], place(address="127.0.0.3"), "its machine is gone")
    assert "again: net, seed 1, fold 2 on 127.0.0.3: its machine is gone" in capsys.readouterr().out
    assert "127.0.0.3 (" not in rendered(table)


def test_a_fold_that_chooses_tells_how_many_it_has_tried(tmp_path, capsys):
    tried = tuple(
        replace(job(tmp_path / str(k), "net", 0), settings={"optim.lr": k}, into=str(tmp_path / "x")) for k in range(3)
    )
    whole = replace(job(tmp_path, "net", 0), candidates=tried)
    table = FoldTable([whole])
    table.started(tried[0], place())
    tried[0].folder.mkdir(parents=True)
    assert "0 of 3" in rendered(table)
    (tried[0].folder / "trained.json").write_text('{"val_loss": 0.25}')
    table.finished(Outcome(tried[0]))
    assert "1 of 3" in rendered(table)
    assert "1/1  net, seed 1, fold 0, lr 0: validation loss 0.2500" in capsys.readouterr().out


def test_what_is_left_is_expected_to_take_as_long_as_what_is_done(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(fold_standing.time, "monotonic", lambda: clock[0])
    pace = fold_standing.Pace(6)
    nets, base = [job(Path("x"), "net", k) for k in range(4)], job(Path("x"), "majority", 0, "baseline")
    assert pace.told(nets, []) == "(0.0 min)", "nothing is known yet"
    clock[0] = 120.0
    pace.finished(nets[0], 60.0)
    pace.finished(base, 6.0)
    begun = [fold_standing.Begun(one, place(), 90.0) for one in nets[1:3]]
    assert pace.told([*nets[1:], base], begun) == "(2.0 min, 1.0 a minute, about 1.1 min to go)", "(3*60+6-2*30)/2"
