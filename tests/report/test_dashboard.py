"""The page that shows how a run goes, and the same panels as a W&B workspace."""

import json
import re

import pytest
from browser import chromium
from wandb_server import wandb_server
from watched import watched_run

from aar_dist.cli import main
from aar_dist.report.dashboard import dashboard
from aar_dist.report.folders import read_folder
from aar_dist.training.tracking import mirror
from aar_dist.training.tracking.panels import SECTIONS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return watched_run(tmp_path_factory.mktemp("watched") / "run")


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as left:
        main(["dashboard", *map(str, arguments)])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_every_panel_is_shown_with_its_lines(run):
    told = dashboard(read_folder(run))
    shown = {one["panel"].title: one for _, section in told["sections"] for one in section}
    missing = {panel.title for section in SECTIONS for panel in section.panels} - shown.keys()
    assert missing == {"GPU memory [%]"}  # nothing told of it
    assert [name for _, name in shown["validation loss"]["legend"]] == ["all", "cow", "horse"]
    assert [name for _, name in shown["processors [%]"]["legend"]] == ["node-0", "node-1", "node-2"]
    losses = str(shown["training loss"]["panel"].svg)
    assert "spike: 1" in losses
    assert "skipped steps: 2" in losses
    assert re.search(r"MFU\) \[%\]: last mfu [34]\d\.", str(shown["model FLOPs utilisation (MFU) [%]"]["panel"].svg))
    assert [(one["number"], one["end"]) for one in told["attempts"]] == [(2, ""), (1, "failed")]
    assert told["headline"].startswith("not running at step 400 of 800, loss 0.")


def test_the_page_fits_every_screen_asks_for_nothing_and_follows(run, tmp_path, capsys):
    main(["dashboard", str(run), "--out", str(tmp_path / "page.html")])
    assert "page.html: " in capsys.readouterr().out
    text = (tmp_path / "page.html").read_text()
    assert "hunter2" not in text
    assert "http-equiv" not in text
    with chromium() as browser:
        for width in (390, 1280):
            asked = browser.open(tmp_path / "page.html", width=width, height=900)
            assert not [url for url in asked if not url.startswith(("file:", "data:"))]
            assert browser.complaints() == []
            assert browser.run("document.documentElement.scrollWidth") <= width
            assert browser.run("document.querySelectorAll('svg.area').length") == 14
    (run / "finished").write_text('{"model": "store://aar@1", "step": 400}')
    main(["dashboard", str(run), "--every", "7"])  # a finished run ends it
    assert '<meta http-equiv="refresh" content="7">' in (run / "dashboard.html").read_text()
    (run / "finished").unlink()


def test_a_run_that_has_just_begun_has_a_page(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("{}\n")
    (tmp_path / "metrics.jsonl").write_text("")
    main(["dashboard", str(tmp_path)])
    assert "not running at step 0" in (tmp_path / "dashboard.html").read_text()


def test_what_is_no_run_is_one_line(tmp_path, capsys, monkeypatch):
    assert "expected a folds folder" in refused(capsys, tmp_path)
    assert "--every must be positive" in refused(capsys, tmp_path, "--every", "0")
    assert "expected config.yaml" in refused(capsys, tmp_path, "--wandb")
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "config.yaml").write_text("{}\n")
    assert "no W&B key found" in refused(capsys, tmp_path, "--wandb")


def test_the_panels_are_saved_as_a_workspace(run, capsys, monkeypatch):
    with wandb_server() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        main(["dashboard", str(run), "--wandb"])
        mirror.forget()
    assert "/herders/aar_dist" in capsys.readouterr().out
    (view,) = server.views
    sections = json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]
    assert [one["name"] for one in sections] == [*(one.title for one in SECTIONS), "Reconstructions"]
    panels = {panel["config"].get("chartTitle"): panel["config"] for one in sections for panel in one["panels"]}
    assert panels["training loss"]["metrics"] == ["loss"]
    pattern = panels["validation loss"]["metricRegex"]
    assert all(re.search(pattern, key) for key in ("val/loss", "val/loss/cow"))
    assert not re.search(pattern, "loss/cow")
    assert {"reconstruction"} == {key for one in sections[-1]["panels"] for key in one["config"].get("mediaKeys", [])}
