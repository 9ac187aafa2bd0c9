"""Folds folders and runs as the launches leave them, with small numbers that were computed and not written down."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from aar_dist.base.metrics import SCORES, classification_scores, interval, regression_scores, resampled_scores
from aar_dist.base.plots import reconstruction_figure, save_figure

CLASSES = ["Grazing", "Lying", "Ruminating", "Walking"]
SKILL = {"majority": None, "logistic": 0.55, "minirocket": 0.68, "scratch": 0.6, "frozen": 0.5, "pretrained": 0.8}
NETWORKS = ("scratch", "frozen", "pretrained")
FAILED = {"method": "frozen", "seed": 2, "fold": 1}
N_FOLDS, WINDOW_S = 3, 10.0


def write(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def herd(classes, n_subjects: int, per_subject: int, rng) -> dict[str, np.ndarray]:
    """Labels of all windows: behaviour that lasts for a while."""
    weights = np.linspace(2, 1, len(classes))
    bouts = rng.choice(len(classes), (n_subjects, per_subject // 5), p=weights / weights.sum())
    label = np.repeat(bouts, 5, axis=1)
    n = label.size
    subject = np.repeat([f"herd/{i}" for i in range(n_subjects)], label.shape[1])
    start = np.tile(np.arange(label.shape[1]) * WINDOW_S, n_subjects)
    start += np.where(start >= start.max() / 2, 900.0, 0.0)  # a pause at noon
    recording = np.array([f"{s.split('/')[1]}_ds_0" for s in subject])
    fold = np.repeat(np.arange(n_subjects) % N_FOLDS, label.shape[1])
    return {"label": label.reshape(n), "subject": subject, "start": start, "recording": recording, "fold": fold}


def answers(method: str, herd, classes, rng) -> np.ndarray:
    """What a method of some skill says; animals differ in how hard they are."""
    label = herd["label"]
    if SKILL[method] is None:
        return np.zeros_like(label)
    hard = {s: rng.uniform(-0.12, 0.12) for s in np.unique(herd["subject"])}
    right = rng.random(len(label)) < SKILL[method] + np.array([hard[s] for s in herd["subject"]])
    return np.where(right, label, rng.integers(0, len(classes), len(label)))


def predictions(folder: Path, fold: int, herd, rows, y_true, y_pred) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "dataset": ["herd"] * int(rows.sum()),
        "subject": herd["subject"][rows].tolist(),
        "recording": herd["recording"][rows].tolist(),
        "start_s": herd["start"][rows],
        "stop_s": herd["start"][rows] + WINDOW_S,
        "y_true": y_true[rows],
        "y_pred": y_pred[rows],
    }
    pq.write_table(pa.table(columns), folder / f"predictions_fold_{fold}.parquet")


def training(folder: Path, rng, level: float) -> int:
    """metrics.jsonl of a run whose loss falls and whose validation turns up again; returns the best step."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("split: {fold: 0}\n")
    rows = [{"step": s, "loss": level + np.exp(-s / 60) + 0.05 * rng.random(), "lr": 3e-4} for s in range(1, 201)]
    val = {
        s: level + 0.15 + np.exp(-s / 50) + 0.0015 * max(0, s - 140) + 0.01 * rng.random() for s in range(20, 201, 20)
    }
    rows += [{"step": s, "val/loss": v} for s, v in val.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    write(folder / "finished", {"step": 200})
    return min(val, key=val.get)


def scores_over(herd, said: list[np.ndarray], classes, rows) -> dict:
    """As results.json tells them: all test windows of all seeds together."""
    n, label = len(said), herd["label"][rows]
    y_true, y_pred, subject = (
        np.tile(label, n),
        np.concatenate([y[rows] for y in said]),
        np.tile(herd["subject"][rows], n),
    )
    whole, drawn = (
        classification_scores(y_true, y_pred, classes),
        resampled_scores(subject, y_true, y_pred, classes, 200),
    )
    found = {}
    for name in SCORES:
        each = [classification_scores(label, y[rows], classes)[name] for y in said]
        sides = [rows & (herd["fold"] == k) for k in range(N_FOLDS)]
        folds = [classification_scores(herd["label"][s], y[s], classes)[name] for y in said for s in sides if s.any()]
        between = interval(drawn[name])
        found[name] = {
            "value": whole[name],
            "low": between.low,
            "high": between.high,
            "folds_mean": float(np.mean(folds)),
            "folds_sd": float(np.std(folds, ddof=1)) if len(folds) > 1 else None,
            "seeds_sd": float(np.std(each, ddof=1)) if len(each) > 1 else None,
        }
    return found


def method_of(out: Path, name: str, herd, classes, seeds, seen, rng) -> dict:
    """One entry of ``methods``, with the files of its runs."""
    network = name in NETWORKS
    seeds = seeds if network else [seeds[0]]
    y_true, said, runs = herd["label"], [], []
    for seed in seeds:
        y_pred = answers(name, herd, classes, rng)
        said.append(y_pred)
        for fold in range(N_FOLDS):
            if {"method": name, "seed": seed, "fold": fold} == FAILED:
                continue
            rows, folder = herd["fold"] == fold, out / "runs" / name / f"seed_{seed}" / f"fold_{fold}"
            predictions(folder, fold, herd, rows, y_true, y_pred)
            best = {"best_step": training(folder, rng, 1 - SKILL[name])} if network else {}
            scores = classification_scores(y_true[rows], y_pred[rows], classes)
            runs.append(
                {
                    "seed": seed,
                    "fold": fold,
                    "n": scores["n"],
                    **{k: scores[k] for k in SCORES},
                    "seconds": 12.5,
                    **best,
                }
            )
    about = {"name": name, "kind": "network" if network else "baseline", "seeds": seeds, "runs": runs, "scores": None}
    if name == FAILED["method"]:
        return about
    everything, first = np.ones(len(y_true), bool), said[0]
    whole = classification_scores(y_true, first, classes)
    per_subject = {}
    for s in sorted(set(herd["subject"])):
        of = herd["subject"] == s
        scores = classification_scores(y_true[of], first[of], classes)
        per_subject[s] = {"n": scores["n"], **{k: scores[k] for k in SCORES}}
    unseen = np.isin(herd["subject"], [s for s in per_subject if not seen[s]])
    return about | {
        "scores": scores_over(herd, said, classes, everything),
        "unseen": scores_over(herd, said, classes, unseen),
        "per_class": whole["per_class"], "per_subject": per_subject, "confusion": whole["confusion"],
    }  # fmt: skip


def head(name: str, subjects, classes, simulated: bool) -> dict:
    """What every results.json begins and ends with."""
    return {
        "name": name, "made_at": "2026-11-20T15:00:00+00:00", "datasets": ["herd"],
        "simulated": ["herd"] if simulated else [],
        "classes": classes, "shards": "ab" * 32, "init_from": "store://herd@1", "n_folds": N_FOLDS, "seeds": [1, 2],
        "windows": {"segment_duration": WINDOW_S, "hop_s": None, "min_share": 1.0}, "subjects": subjects,
        "failed": [{**FAILED, "reason": "the loss is not finite; lower optim.lr"}],
        "audit": {"recordings": len(subjects), "shared": [], "leaks": []},
        "command": "python launch/folds.py --config configs/finetune/quickstart.yaml --out folds",
        "versions": {"aar_dist": "0.1.0", "torch": "2.13.0", "numpy": "2.3.5"},
        "hashes": {"folds.json": "cd" * 32, "embeddings.parquet": "ef" * 32},
    }  # fmt: skip


def make_folds(
    out: Path, *, classes=CLASSES, n_subjects=6, per_subject=60, simulated=True, name="herd", seed=0
) -> Path:
    """A folds folder with two seeds of two strategies, three baselines, embeddings and one failed fold."""
    rng = np.random.default_rng(seed)
    classes = list(classes)
    of = herd(classes, n_subjects, per_subject, rng)
    seen = {f"herd/{i}": i % 2 == 0 for i in range(n_subjects)}
    subjects = {
        s: {
            "fold": i % N_FOLDS,
            "windows": {c: int(((of["subject"] == s) & (of["label"] == k)).sum()) for k, c in enumerate(classes)},
            "pretrained_on": seen[s],
        }
        for i, s in enumerate(seen)
    }
    methods = [method_of(out, method, of, classes, [1, 2], seen, rng) for method in SKILL]
    compared = [
        {"a": "pretrained", "b": b, "score": k, "difference": 0.1, "low": low, "high": 0.21}
        for b, low in (("minirocket", 0.034), ("scratch", -0.02))
        for k in SCORES
    ]
    results = head(name, subjects, classes, simulated) | {"methods": methods, "comparisons": compared}
    write(out / "results.json", results)
    write(out / "folds.json", {"folds": [], "classes": classes})
    config = {"data": {"shards": ["no/such/shards"]}, "store": {"path": "s3://me:secret@bucket/store"}, "windows": {}}
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    embeddings(out / "embeddings.parquet", of, classes, rng)
    return out


def embeddings(path: Path, of, classes, rng) -> None:
    """Classes that lie apart, subjects that lie a little apart."""
    of = {name: column[::4] for name, column in of.items()}
    n = len(of["label"])
    centre, own = rng.normal(size=(len(classes), 8)) * 2, rng.normal(size=(99, 8)) * 0.7
    number = np.array([int(s.split("/")[1]) for s in of["subject"]])
    vectors = (centre[of["label"]] + own[number] + rng.normal(size=(n, 8))).astype(np.float32)
    columns = {
        "dataset": ["herd"] * n, "subject": of["subject"].tolist(), "recording": of["recording"].tolist(),
        "start_s": of["start"], "stop_s": of["start"] + WINDOW_S, "label": [classes[k] for k in of["label"]],
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8),
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)


def make_regression(out: Path) -> Path:
    """A folds folder of a target."""
    rng = np.random.default_rng(1)
    of = herd(["x"], 4, 40, rng)
    target = (60 + 20 * rng.random(len(of["label"]))).astype(np.float32)
    methods = []
    for name, error in (("mean", 9.0), ("pretrained", 3.0)):
        said = (target + rng.normal(size=len(target)) * error).astype(np.float32)
        for fold in range(N_FOLDS):
            predictions(out / "runs" / name / "seed_1" / f"fold_{fold}", fold, of, of["fold"] == fold, target, said)
        runs = [
            {"seed": 1, "fold": k, "seconds": 1.0, **regression_scores(target[of["fold"] == k], said[of["fold"] == k])}
            for k in range(N_FOLDS)
        ]
        whole = regression_scores(target, said)
        spread = {"folds_mean": None, "folds_sd": None, "seeds_sd": None}
        scores = {
            k: {"value": whole[k], "low": whole[k] * 0.9, "high": whole[k] * 1.1, **spread}
            for k in ("mae", "rmse", "r")
        }
        each = {
            s: regression_scores(target[of["subject"] == s], said[of["subject"] == s])
            for s in sorted(set(of["subject"]))
        }
        kind = "network" if name == "pretrained" else "baseline"
        methods.append(
            {
                "name": name,
                "kind": kind,
                "seeds": [1],
                "runs": runs,
                "scores": scores,
                "unseen": None,
                "per_subject": each,
            }
        )
    subjects = {f"herd/{i}": {"fold": i % N_FOLDS, "windows": {"all": 40}, "pretrained_on": None} for i in range(4)}
    write(out / "results.json", head("heart rate", subjects, None, False) | {"methods": methods, "failed": []})
    (out / "config.yaml").write_text("data: {shards: [no/such/shards]}\n")
    return out


def make_pretraining(out: Path, *, shards: str = "no/such/shards", finished: bool = True) -> Path:
    """A pretraining run on two data sets, with a picture."""
    rng = np.random.default_rng(2)
    out.mkdir(parents=True)
    config = {
        "init_from": None,
        "data": {"shards": [shards]},
        "train": {"max_steps": 400},
        "objective": {"class_path": "M"},
    }
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    rows = []
    for step in range(401):
        each = {d: f * (0.04 + 0.5 * np.exp(-step / 80)) for d, f in (("cows", 1.0), ("horses", 1.6))}
        if step:
            rows.append({"step": step, "loss": 0.05 * rng.random() + np.mean([*each.values()]), "lr": 1e-3}
                        | {f"loss/{d}": v * (1 + 0.2 * rng.random()) for d, v in each.items()})  # fmt: skip
        if step % 100 == 0:
            level = {"": float(np.mean([*each.values()]))} | {f"/{d}": v for d, v in each.items()}
            row = {f"val/{name}{of}": 1.1 * v for name in ("loss", "masked_mse") for of, v in level.items()}
            row |= {f"val/interpolation_mse{of}": 0.09 for of in level} | {f"val/zero_mse{of}": 0.3 for of in level}
            rows.append({"step": step} | row)
    (out / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    values = np.sin(np.arange(200) / 6)[None, :, None] * np.ones((2, 1, 3))
    masked = np.zeros(values.shape, bool)
    masked[:, 50:90] = True
    figure = reconstruction_figure(
        values,
        values * 0.9,
        masked,
        np.ones_like(masked),
        rate_hz=[25.0, 25.0],
        titles=["cows", "horses"],
        channels=["x", "y", "z"],
    )
    (out / "pictures").mkdir()
    save_figure(figure, out / "pictures" / "step_00000400.png")
    if finished:
        write(
            out / "finished", {"step": 400, "model": "store://herd@1", "path": "store/models/herd/1", "store": "store"}
        )
    return out


def make_finetuning(out: Path) -> Path:
    """One fold of a fine-tuning, tested."""
    rng = np.random.default_rng(3)
    of = herd(CLASSES, 4, 40, rng)
    said, rows = answers("pretrained", of, CLASSES, rng), of["fold"] == 0
    training(out, rng, 0.3)
    predictions(out, 0, of, rows, of["label"], said)
    write(out / "metrics.json", {"fold": 0, **classification_scores(of["label"][rows], said[rows], CLASSES)})
    return out
