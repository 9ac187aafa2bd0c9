"""What stands on the page, and that it stands there again."""

import json
import re
import shutil
from pathlib import Path

import made
import pytest

from aar_dist import cli
from aar_dist.report.command import main
from aar_dist.report.page import page, write_page


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def copy(folder: Path, to: Path, **changes) -> Path:
    """The folder with other results."""
    shutil.copytree(folder, to)
    (to / "results.json").write_text(json.dumps(results_of(to) | changes))
    return to


def text_of(html: str) -> str:
    """The words alone."""
    html = re.sub(r"<(style|svg)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_same_folder_gives_the_same_bytes(folds, pretraining, tmp_path):
    assert page([folds, pretraining]) == page([folds, pretraining])
    elsewhere = shutil.copytree(folds, tmp_path / "other" / "folds")
    assert page([elsewhere]) == page([folds])


def test_every_number_of_the_results_stands_on_it(folds):
    words = text_of(page([folds]))
    for method in results_of(folds)["methods"]:
        if method["name"] == made.FAILED["method"]:
            continue
        for score in method["scores"].values():
            assert f"{score['value']:.3f}" in words
            assert f"{score['low']:.3f} to {score['high']:.3f}" in words
        for of in method["per_class"].values():
            assert f"{of['precision']:.3f} {of['recall']:.3f} {of['f1']:.3f}" in words
        for row in method["confusion"]:
            assert " ".join(map(str, row)) in words


def test_it_names_what_makes_a_reader_doubt(folds):
    words = text_of(page([folds]))
    assert "Simulated data: herd" in words
    assert "1 run failed" in words
    assert "frozen, seed 2, fold 1: the loss is not finite" in words
    assert "Not every fold has a result: frozen 5 of 6." in words
    assert "Pretraining has seen recordings of 3 of 6 subjects" in words
    assert words.count("seen unlabelled") == 3
    assert "On two sides of a fold: nothing" in words


def test_leaks_are_named_at_the_top(folds, tmp_path):
    ends = [{"dataset": "herd", "subject": f"herd/{k}", "recording": f"{k}", "name": f"day {k}"} for k in (0, 1)]
    pair = {"what": "the same samples", "first": ends[0], "second": ends[1], "duration_s": 61.0}
    audit = {"recordings": 6, "shared": [pair], "leaks": [{"fold": 2, "sides": ["train", "test"], **pair}]}
    words = text_of(page([copy(folds, tmp_path / "folds", audit=audit)]))
    assert "found the same recording on two sides of a fold, 1 time: the scores are too good" in words
    assert "found 1 leak between sides" in words
    assert words.count("the same samples herd/day 0 of herd/0 herd/day 1 of herd/1 61 2") == 1
    assert "On two sides of a fold: 1 . On one side, and so without harm: nothing." in words
    audit |= {"leaks": []}
    words = text_of(page([copy(folds, tmp_path / "harmless", audit=audit)]))
    assert "On two sides of a fold: nothing . On one side, and so without harm: 1." in words


def before_there_were_tests(folds: Path) -> dict:
    """results.json as older versions wrote it."""
    results = results_of(folds)
    for key in ("few_shot", "comparisons", "comparisons_unseen"):
        del results[key]
    for method in results["methods"]:
        for key in ("calibration", "abstention", "worst_subjects"):
            method.pop(key, None)
        for of in [method.get("scores"), method.get("unseen"), *(method.get("per_subject") or {}).values()]:
            (of or {}).pop("auroc", None)
        for of in (method.get("per_class") or {}).values():
            for key in ("auroc", "f1_low", "f1_high", "subjects"):
                del of[key]
    results["comparisons"] = [
        {"a": "pretrained", "b": b, "score": "macro_f1", "difference": 0.1, "low": low, "high": 0.21}
        for b, low in (("minirocket", 0.034), ("scratch", -0.02))
    ]
    return results


def test_the_headline_goes_by_the_numbers(folds, tmp_path):
    results = before_there_were_tests(folds)
    of = {m["name"]: m for m in results["methods"]}

    def told(name: str, **scores) -> str:
        of["pretrained"]["scores"]["macro_f1"] |= scores
        changes = {"methods": list(of.values()), "comparisons": []}
        words = text_of(page([copy(folds, tmp_path / name, **changes)]))
        return re.search(r"pretrained: macro F1 .*?\.(?= )", words)[0]

    theirs = of["minirocket"]["scores"]["macro_f1"]
    other = f"the best baseline, minirocket, has {theirs['value']:.3f}"
    apart = told("apart", value=0.95, low=0.92, high=0.99)
    assert apart.startswith(
        "pretrained: macro F1 0.950 (95 % interval 0.920 to 0.990) on 6 held-out subjects; " + other
    )
    assert apart.endswith("better, and the intervals do not overlap.")
    assert told("over", value=0.95, low=theirs["low"], high=0.99).endswith("better, but the intervals overlap.")
    assert told("worse", value=0.1, low=0.05, high=0.2).endswith("worse, and the intervals do not overlap.")
    assert told("none", value=0.1, low=None, high=None).endswith("nobody can tell by chance or not.")


def test_results_of_before_there_were_tests_are_shown(folds, tmp_path):
    old = shutil.copytree(folds, tmp_path / "old")
    (old / "results.json").write_text(json.dumps(before_there_were_tests(folds)))
    words = text_of(page([old]))
    for name in ("AUROC", "calibration", "keep silent", "few subjects to learn", "corrected"):
        assert name not in words
    assert "Differences between methods" in words
    assert "class windows precision recall F1 Grazing" in words
    assert "the difference is +0.034 to +0.210 (95 %): zero lies outside." in words
    assert "the difference is −0.020 to +0.210 (95 %): zero lies inside, so it may be chance." in words


def test_a_test_has_the_last_word(folds, tmp_path):
    results = results_of(folds)
    which = ("pretrained", "minirocket", "macro_f1")
    pair = next(c for c in results["comparisons"] if (c["a"], c["b"], c["score"]) == which)
    words = text_of(page([folds]))
    assert "too few subjects to tell (p = 0.12, corrected for 4 comparisons)" in words
    assert "With 6 subjects and 4 comparisons the test can tell nothing apart" in words
    turned = {"a": "minirocket", "b": "pretrained", "difference": -0.2, "low": -0.3, "high": -0.1, "wins": 1, "ties": 0}
    pair |= turned | {"p_corrected": 0.0004, "verdict": "worse"}
    words = text_of(page([copy(folds, tmp_path / "told", comparisons=results["comparisons"])]))
    assert "0.814): better (p &lt; 0.001, corrected for 4 comparisons)." in words
    assert "The difference on the same subjects is +0.100 to +0.300 (95 %)." in words
    assert "pretrained − minirocket · better, p &lt; 0.001 +0.200" in words
    assert "5 of 6" in words


def test_probabilities_and_silence_stand_on_it(folds, tmp_path):
    words, results = text_of(page([folds])), results_of(folds)
    of = {m["name"]: m for m in results["methods"]}["pretrained"]
    before, after = of["calibration"]["before"], of["calibration"]["after"]
    assert f"pretrained: ECE {before['ece']:.3f} → {after['ece']:.3f}" in words
    chosen = of["abstention"]["wanted"][1]["chosen"]
    for score in (before["nll"], after["brier"], chosen["accuracy"], chosen["coverage"]):
        assert f"{score['value']:.3f} {score['low']:.3f} to {score['high']:.3f}" in words
    assert f"pretrained is least good at {', '.join(of['worst_subjects'])}." in words
    for name in of["per_class"]:
        line = of["per_class"][name]
        assert f"{line['f1']:.3f} {line['f1_low']:.3f} to {line['f1_high']:.3f} {line['auroc']:.3f}" in words
    few = made.make_folds(tmp_path / "few", few=True)
    curves = page([few])
    assert "With few subjects to learn from" in curves
    row = next(r for r in results_of(few)["few_shot"] if (r["method"], r["fraction"]) == ("scratch", 0.1))
    assert f"scratch: {row['n_subjects']:g}: {row['scores']['macro_f1']['value']:.3f}" in curves


def test_the_network_that_is_told_of_is_not_picked_by_its_score(folds, tmp_path):
    methods = results_of(folds)["methods"]
    for method in methods:
        if method["name"] == "scratch":
            method["scores"]["macro_f1"] |= {"value": 0.999, "low": 0.998, "high": 1.0}
    words = text_of(page([copy(folds, tmp_path / "folds", methods=methods)]))
    assert "pretrained: macro F1" in words
    assert "the same network from random weights, scratch" in words


def test_without_all_folds_there_is_no_score(folds, tmp_path):
    methods = [m for m in results_of(folds)["methods"] if m["name"] != "pretrained"]
    words = text_of(page([copy(folds, tmp_path / "folds", methods=methods)]))
    assert "frozen has no score yet: not all of its folds are done." in words


def test_it_tells_what_reproduces_it_and_no_secret(folds):
    html = page([folds])
    for what in (
        "python launch/folds.py --config configs/finetune/quickstart.yaml",
        "ab" * 32,
        "cd" * 32,
        "torch 2.13.0",
    ):
        assert what in html
    assert "secret" not in html
    assert "s3://bucket/store" in html


def test_names_are_text_and_never_markup(tmp_path):
    evil = '<script>alert("1")</script>'
    folder = made.make_folds(tmp_path / "folds", classes=[evil, "b'\"&", "c", "d"], name=evil)
    html = page([folder])
    assert "<script" not in html.lower()
    assert html.count("&lt;script&gt;") > 10
    assert "b&#39;&#34;&amp;" in html


def test_nothing_is_fetched_and_nothing_runs(folds, pretraining):
    html = page([folds, pretraining])
    assert not re.search(r"https?://(?!www\.w3\.org)", html)
    assert not re.search(r"<(script|iframe|object|embed)|<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(", html)
    assert not re.search(r"\son\w+=", html)


def test_an_unfinished_run_is_shown_as_such(tmp_path):
    words = text_of(page([made.make_pretraining(tmp_path / "run", finished=False)]))
    assert "This run is not finished: it stands at step 400 of at most 400." in words
    assert "recorded or simulated is not known: no/such/shards" in words


def test_a_run_says_which_of_its_data_were_simulated(tmp_path, simulated_shards):
    words = text_of(page([made.make_pretraining(tmp_path / "run", shards=str(simulated_shards))]))
    assert "Simulated data: sim_cattle, sim_horses" in words
    assert "not known" not in words
    assert re.search(r"sim_cattle train [23] \d", words), words


def test_recorded_data_are_not_called_simulated(tmp_path, shard_set):
    words = text_of(page([made.make_pretraining(tmp_path / "run", shards=str(shard_set))]))
    assert "Simulated" not in words
    assert "not known" not in words


def test_a_pretraining_is_compared_with_a_straight_line(pretraining):
    rows = [json.loads(line) for line in (pretraining / "metrics.jsonl").read_text().splitlines()]
    last = [row["val/masked_mse"] for row in rows if "val/masked_mse" in row][-1]
    words = text_of(page([pretraining]))
    assert "step 400: segments of held-out subjects" in words
    assert f"mean square error of {last:.3f}, less than a straight line through them (0.090)" in words


def test_a_fine_tuning_run_shows_its_test_side(tmp_path):
    folder = made.make_finetuning(tmp_path / "run")
    told = json.loads((folder / "metrics.json").read_text())
    words = text_of(page([folder]))
    assert f"macro F1 {told['macro_f1']:.3f}" in words
    assert "one fold has no interval" in words
    assert "herd/0" in words


def test_a_target_has_errors_and_no_classes(tmp_path):
    folder = made.make_regression(tmp_path / "folds")
    html = page([folder])
    assert "mean absolute error" in html
    assert "Lower error on 4 of 4 subjects" in text_of(html)
    assert "By class" not in html
    assert "predicted (upwards) against measured" in html


def test_several_runs_make_one_page(folds, pretraining):
    html = page([folds, pretraining])
    assert re.findall(r'<section class="run" id="(\w+)">', html) == ["r1", "r2"]
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


def test_a_folder_of_a_usual_size_gives_a_light_page(tmp_path):
    classes = [f"behaviour {k}" for k in range(8)]
    folder = made.make_folds(tmp_path / "folds", classes=classes, n_subjects=20, per_subject=60)
    assert len(page([folder]).encode()) < 1_000_000


NEEDED = ("name", "datasets", "methods", "subjects", "n_folds")
BROKEN = {
    "nothing": (lambda p: None, "found nothing; expected a folds folder"),
    "a file": (lambda p: p.write_text("x"), "found a file; expected"),
    "an empty folder": (lambda p: p.mkdir(), "found an empty folder; expected"),
    "other files": (lambda p: (p.mkdir(), (p / "a.txt").touch()), "found a.txt; expected"),
    "half of the folds": (lambda p: made.write(p / "folds.json", {}), "run the same launch/folds.py again"),
    "no JSON": (lambda p: (p.mkdir(), (p / "results.json").write_text("{")), "results.json: not JSON"),
    "a list": (lambda p: made.write(p / "results.json", []), "found a list, expected an object"),
    "other JSON": (lambda p: made.write(p / "results.json", {}), "name, datasets, methods, subjects, n_folds missing"),
    "no methods": (
        lambda p: made.write(p / "results.json", {"methods": [], **dict.fromkeys(NEEDED, 1)}),
        "no list of methods",
    ),
    "no YAML": (
        lambda p: (made.write(p / "metrics.jsonl", {}), (p / "config.yaml").write_text("a: [")), "config.yaml: not YAML"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "told"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_run_is_one_line(tmp_path, capsys, make, told):
    make(tmp_path / "run")
    with pytest.raises(SystemExit) as left:
        main([str(tmp_path / "run"), "--out", str(tmp_path / "page.html")])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert told in said
    assert said.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("name", ["embeddings.parquet", "runs/pretrained/seed_1/fold_0/predictions_fold_0.parquet"])
def test_a_damaged_file_is_one_line(folds, tmp_path, capsys, name):
    folder = shutil.copytree(folds, tmp_path / "folds")
    (folder / name).write_bytes(b"PAR1 and no more")
    with pytest.raises(SystemExit) as left:
        main([str(folder)])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert f"{folder / name}: cannot be read as Parquet" in said
    assert said.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_what_is_not_there_is_left_out(folds, tmp_path):
    folder = shutil.copytree(folds, tmp_path / "folds")
    (folder / "embeddings.parquet").unlink()
    shutil.rmtree(folder / "runs")
    words = text_of(page([folder]))
    assert "Methods compared" in words
    for heading in ("Embedding map", "Loss curves", "Held-out animals in time"):
        assert heading not in words


def test_the_command_writes_into_the_folder_or_where_it_is_told(folds, tmp_path, capsys):
    folder = shutil.copytree(folds, tmp_path / "folds")
    cli.main(["report", str(folder)])
    main([str(folder)])  # its own page may be made again
    out = tmp_path / "new" / "page.html"
    main([str(folder), "--out", str(out)])
    assert out.read_bytes() == (folder / "report.html").read_bytes()
    assert str(out) in capsys.readouterr().out
    main([str(folder), "--out", str(out)])  # and so may any page of this program
    out.write_text("my own notes")
    with pytest.raises(SystemExit):
        main([str(folder), "--out", str(out)])
    assert "is no page of this program; give another name, or --overwrite" in capsys.readouterr().err
    assert out.read_text() == "my own notes"
    main([str(folder), "--out", str(out), "--overwrite"])
    assert out.read_bytes() == (folder / "report.html").read_bytes()


def test_write_page_replaces_what_stood_there(folds, tmp_path):
    out = tmp_path / "page.html"
    out.write_text("old")
    assert write_page([folds], out) == out
    assert out.read_text() == page([folds])
    assert list(tmp_path.iterdir()) == [out]
