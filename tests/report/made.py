"""Folds folders and runs as the launches leave them, with small numbers that were computed and not written down."""

import json
from itertools import product
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from aar_dist.base.plots import reconstruction_figure, save_figure
from aar_dist.base.stats import paired
from aar_dist.evaluation.fold_jobs import FoldJob
from aar_dist.evaluation.results import gather
from aar_dist.stream.windows import WindowTable
from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.predictions import VALIDATION, Predictions, file_of, write_windows
from aar_dist.training.finetuning.predictions import write as write_run

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
    """Probabilities (n, K) of a method of some skill, surer than it should be; animals differ in how hard they are."""
    label, k = herd["label"], len(classes)
    if SKILL[method] is None:
        return np.tile(np.eye(k)[0] * 0.6 + 0.4 / k, (len(label), 1))
    hard = {s: rng.uniform(-0.12, 0.12) for s in np.unique(herd["subject"])}
    right = rng.random(len(label)) < SKILL[method] + np.array([hard[s] for s in herd["subject"]])
    said = np.where(right, label, rng.integers(0, k, len(label)))
    sure = np.where(said == label, rng.beta(9, 1, len(label)), rng.beta(5, 2, len(label)))[:, None]
    return sure * np.eye(k)[said] + (1 - sure) / k


def side(herd, rows, said, classes) -> Predictions:
    """Some windows as a run keeps them; of a target without classes."""
    start, n = herd["start"][rows], int(rows.sum())
    table = WindowTable(
        item=np.arange(n), start=np.arange(n), label=herd["label"][rows], dataset=np.full(n, "herd"),
        subject=herd["subject"][rows], recording=herd["recording"][rows], start_s=start, stop_s=start + WINDOW_S,
        classes=classes and tuple(classes),
    )  # fmt: skip
    return Predictions(table, said[rows].astype(np.float32))


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


def jobs_of(out: Path, name: str, herd, classes, seeds, rng, fraction: float = 1.0) -> list[FoldJob]:
    """The runs of a method with their files, as launch/folds.py leaves them."""
    made = []
    for seed in seeds if name in NETWORKS else seeds[:1]:
        said = answers(name, herd, classes, rng)
        if fraction < 1:
            said = np.where(rng.random((len(said), 1)) < 0.4 + 0.6 * fraction, said, rng.permuted(said, axis=1))
        made += jobs_that_said(out, name, herd, said, classes, seed, rng, fraction)
    return made


def jobs_that_said(out: Path, name: str, herd, said, classes, seed, rng, fraction=1.0) -> list[FoldJob]:
    """Every fold with one seed; ``said`` are its probabilities, or its values of a target."""
    kind, share = "network" if name in NETWORKS else "baseline", [] if fraction == 1 else [f"share_{100 * fraction:g}"]
    made = []
    for fold in range(N_FOLDS):
        folder = Path(out, "runs", name, f"seed_{seed}", *share, f"fold_{fold}")
        config = FinetuneConfig(out=str(folder))
        made.append(FoldJob(method=name, kind=kind, seed=seed, fold=fold, config=config, fraction=fraction))
        if {"method": name, "seed": seed, "fold": fold} != FAILED:
            one_run(made[-1], herd, said, classes, rng)
    return made


def one_run(job: FoldJob, herd, said, classes, rng) -> None:
    """The next fold's subjects are those that choose."""
    folder, fold = job.folder, job.fold
    folder.mkdir(parents=True)
    test, choose = herd["fold"] == fold, herd["fold"] == (fold + 1) % N_FOLDS
    train = np.unique(herd["subject"][~test & ~choose]).tolist()
    about = {"split": {"train": train[: max(1, round(job.fraction * len(train)))]}}
    if job.kind == "network":
        about["best_step"] = training(folder, rng, 1 - SKILL[job.method])
        write_windows(side(herd, choose, said, classes), file_of(folder, VALIDATION, fold))
    write_run(side(herd, test, said, classes), folder, fold, about)
    write(folder / "seconds.json", {"seconds": 12.5})


def found_in(jobs: list[FoldJob], classes, unseen=()) -> dict:
    """What results.json says of them."""
    with mock.patch.object(paired, "SAMPLED", 500):
        return gather(jobs, classes, unseen)


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
    out: Path, *, classes=CLASSES, n_subjects=6, per_subject=60, simulated=True, name="herd", seed=0, few=False
) -> Path:
    """A folds folder with two seeds of two strategies, three baselines, embeddings and one failed fold; ``few``: also
    of some strategies with few subjects to learn from."""
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
    jobs = [job for method in SKILL for job in jobs_of(out, method, of, classes, [1, 2], rng)]
    for method, fraction in product(("scratch", "pretrained") if few else (), (0.1, 0.5)):
        jobs += jobs_of(out, method, of, classes, [1], rng, fraction)
    found = found_in(jobs, classes, [name for name in seen if not seen[name]])
    write(out / "results.json", head(name, subjects, classes, simulated) | found)
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
    of["label"] = target
    jobs = []
    for name, error in (("mean", 9.0), ("pretrained", 3.0)):
        said = target + rng.normal(size=len(target)) * error
        jobs += jobs_that_said(out, name, of, said, None, 1, rng)
    subjects = {f"herd/{i}": {"fold": i % N_FOLDS, "windows": {"all": 40}, "pretrained_on": None} for i in range(4)}
    results = head("heart rate", subjects, None, False) | found_in(jobs, None)
    write(out / "results.json", results | {"failed": []})
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
    write_run(side(of, rows, said, CLASSES), out, 0, {})
    return out
