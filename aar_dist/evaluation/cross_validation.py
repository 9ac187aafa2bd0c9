"""Every fold of every method, then what they say together: what ``launch/folds.py`` does.

Study -> jobs on Ray (done ones are kept, killed ones go on) -> embeddings -> results.json -> final model
"""

import importlib.metadata
import math
import os
import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from aar_dist.base import storage
from aar_dist.base.addresses import without_secrets
from aar_dist.base.errors import AarError, ConfigError
from aar_dist.base.jobs import Workers, available_cores, run_jobs
from aar_dist.evaluation.embed import embed
from aar_dist.evaluation.fold_jobs import FoldJob, Outcome, carry_out, tidy
from aar_dist.evaluation.fold_plan import Left, network_job
from aar_dist.evaluation.fold_table import FoldTable
from aar_dist.evaluation.folds import carried_classes
from aar_dist.evaluation.nested.choice import best_of_all
from aar_dist.evaluation.results import gather
from aar_dist.evaluation.results_text import as_markdown, headline
from aar_dist.evaluation.review.tables import write_tables
from aar_dist.evaluation.study import FOLDS, Study, open_study, settings_of
from aar_dist.stream.windows import WindowTable
from aar_dist.training.finetuning.config import CrossValidationConfig
from aar_dist.training.finetuning.folds import Folds
from aar_dist.training.finetuning.predictions import METRICS
from aar_dist.training.finetuning.trained import CHOICE
from aar_dist.training.publishing import prepare_store
from aar_dist.training.run_directory import RunDirectory

EMBEDDINGS, RESULTS, TEXT, FINAL = "embeddings.parquet", "results.json", "results.md", "final"
HISTORY = "jobs.jsonl"
MAPPED = 2000
"""Windows of the embedding map."""
PACKAGES = ("aar_dist", "torch", "deepspeed", "numpy", "scikit-learn", "aeon", "webdataset")


class FoldsFailed(AarError):
    """Some folds failed; all others are done, and what they say is written."""


def cross_validate(argv: Sequence[str], present: Callable[[Path], Path]) -> None:
    """Train what is left to train and write the results.

    Args:
        argv: Flags of launch/finetune.py.
        present: Makes a page of the folder, and says where; a failed fold does not keep it from its turn.

    Raises:
        ConfigError: bad settings; nothing has been written then.
        FoldsFailed: names the folds that failed.
    """
    study = open_study(argv)
    who = workers(study.options, torch.cuda.device_count())
    with ExitStack() as stack:
        directory = RunDirectory.of(study.config.out)
        stack.enter_context(directory.lock())
        prepare_store(study.config, directory)
        study.write()
        announce(study)
        jobs = study.jobs()
        failed = run(jobs, study.options, who, study.out / HISTORY)
        map_embeddings(study)
        results = write_results(study, jobs, failed, argv)  # the card of the final model tells what is in it
        if study.options.final and (late := final_model(study, jobs, who)):
            failed += late
            results = write_results(study, jobs, failed, argv)
    print(headline(results))
    print(f"  the page: {present(study.out)}", flush=True)
    if failed:
        names = "; ".join(f"{o.job.name} ({o.failed})" for o in failed[:3])
        raise FoldsFailed(
            f"{len(failed)} of {len(jobs)} failed: {names}{' and others' if len(failed) > 3 else ''}. The others are "
            f"done and in {study.out}; the same command tries these again"
        )


def announce(study: Study) -> None:
    """Say what is about to happen."""
    table, folds = study.table, study.folds
    subjects = len(np.unique(table.subject))
    print(f"{study.out}: {len(table)} windows of {subjects} subjects, {len(folds)} folds by subject")
    if study.simulated():
        print(f"  SIMULATED data: {', '.join(study.simulated())}; what comes out says nothing about animals")
    for line in _balance(table):
        print(f"  {line}")
    if study.left_out:
        print(f"  left out, too little data: {', '.join(study.left_out)}")
    if study.options.baselines == ["auto"] and table.classes and "minirocket" not in study.baselines:
        print("  without the baseline minirocket: aeon is not installed; pip install 'aar_dist[baselines]'")
    pairs = len(folds.audit.get("shared", []))
    leaks = len(folds.audit["leaks"])
    across = f"WARNING: {leaks} of them across sides" if leaks else "none of them across sides"
    print(f"  audit: {folds.audit['recordings']} recordings, {pairs} pairs share samples or time, {across}")
    for line in [*seen_lines(study), *(f"WARNING: {line}" for line in study.lacking)]:
        print(f"  {line}")


def seen_lines(study: Study) -> list[str]:
    """What pretraining has seen of those who are tested."""
    seen = study.audit.seen
    return seen.lines() if seen and seen.models else []


def run(jobs: Sequence[FoldJob], options: CrossValidationConfig, who: Workers, history: Path) -> list[Outcome]:
    """Carry out what is not done; returns what failed.

    Args:
        history: A file that keeps who began what, and how it ended.
    """
    left = Left(jobs)
    for job in jobs:
        if job.done:
            tidy(job)
    if left.n_done:
        print(f"{left.n_done} of {len(jobs)} runs are done already", flush=True)
    with FoldTable(jobs, left.n_left, history) as table:
        outcomes = run_jobs(
            carry_out,
            left.now,
            who,
            on_start=table.started,
            on_done=table.finished,
            on_again=table.again,
            on_crash=Outcome,
            on_tick=table.tick,
            on_say=table.say,
            failure=lambda outcome: outcome.failed if outcome.again else None,
            retries=options.retries,
            then=left.after,
        )
    for outcome in outcomes:
        with suppress(OSError), os.scandir(outcome.job.folder.parent), os.scandir(outcome.job.folder):
            pass  # opening a folder of NFS makes this machine see what another one has written there
    return [outcome for outcome in outcomes if outcome.failed]


def workers(options: CrossValidationConfig, gpus: int) -> Workers:
    """One fold a GPU, or a core. Each has a process apart, whose settings do not depend on how many there are.

    Args:
        options: What is asked for.
        gpus: Of this machine; a cluster has its own.
    """
    ranks, cores = options.ranks, options.ranks * options.cores
    each = ranks * (1.0 if options.gpus is None else options.gpus)
    if options.ray_address is not None:
        return Workers(
            count=options.workers or 1, address=options.ray_address, cores=cores, gpus=each, always_apart=True
        )
    count = options.workers or max(1, int(gpus / each + 1e-6) if gpus else available_cores() // cores)
    if options.gpus is None and ranks == 1 and count > gpus:
        each = 1 / math.ceil(count / gpus) if gpus else 0
    if gpus and count * each > gpus + 1e-6:
        raise ConfigError(
            f"{count} folds of {ranks} ranks need {count * each:g} GPUs, there are {gpus}; lower workers, or gpus"
        )
    return Workers(count=count, cores=cores, gpus=each if gpus else 0, always_apart=True)


def final_model(study: Study, jobs: Sequence[FoldJob], who: Workers) -> list[Outcome]:
    """Train on every subject, as the first strategy, for the median of the epochs that its folds were best at."""
    first = next(iter(study.strategies))
    runs = [job for job in jobs if job.method == first and job.fraction == 1]
    if not all(job.done for job in runs):
        return []
    epochs = max(1, round(statistics.median(_best_epoch(study, job) for job in runs)))
    recipe = study.strategies[first]
    if first in study.choices:
        recipe = study.choices[first][best_of_all([storage.read_json(job.folder / CHOICE) for job in runs])].config
    job = network_job(first, recipe, study.frame, 0, study.options.seeds[0])
    config = replace(
        job.config,
        out=str(study.out / FINAL),
        split=replace(recipe.split, folds=None, fold="all"),
        train=replace(job.config.train, stop_after=epochs, max_steps=None, patience=None),
        store=recipe.store,
        tracking=replace(job.config.tracking, name="final"),
    )
    job = replace(job, config=config, fold="all")
    if job.done:
        tidy(job)
        train = yaml.safe_load((job.folder / "config.yaml").read_text())["train"]
        made = train.get("stop_after") or train["epochs"]
        if made != epochs:
            print(f"the final model stays: {made} epochs, now {epochs}. Remove {job.folder} for another", flush=True)
        return []
    print(f"the final model: all subjects, {epochs} epochs", flush=True)
    return run([job], study.options, who, study.out / HISTORY)


def _best_epoch(study: Study, job: FoldJob) -> float:
    """Epochs after which the validation loss of a fold was least."""
    told = storage.read_json(job.folder / METRICS)
    of_earlier_versions = np.isin(study.table.subject, told["split"]["train"]).sum()
    n = int(told.get("trained_on", {}).get("windows_of_an_epoch", of_earlier_versions))
    return float(told["best_step"]) / max(1, round(n / job.config.train.batch_size))


def map_embeddings(study: Study) -> None:
    """What the stored model makes of the windows, before any label."""
    out = study.out / EMBEDDINGS
    if study.checkpoint is None or out.exists():
        return
    data, windows, rename = study.config.data, study.config.windows, study.config.model.init_args.get("rename")
    embed(study.checkpoint, data.shards, out, data=data, windows=windows, limit=MAPPED, rename=rename)


def write_results(study: Study, jobs: Sequence[FoldJob], failed: Sequence[Outcome], argv: Sequence[str]) -> Any:
    """results.json, results.md and the two tables; returns the first."""
    table, folds, seen = study.table, study.folds, study.pretrained_on()
    classes = None if table.classes is None else list(table.classes)
    unseen = [name for name, of in seen.items() if of is False]
    write_tables(study.out, jobs, classes, folds.repeats)
    results = {
        "name": study.config.store.name,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "datasets": sorted(set(table.dataset.tolist())),
        "simulated": study.simulated(),
        "classes": classes,
        "shards": study.source.identity,
        "init_from": without_secrets(study.config.init_from or "") or None,  # others read it
        "n_folds": len(folds),
        "repeats": folds.repeats,
        "seeds": list(study.options.seeds),
        "windows": settings_of(study),
        "subjects": _subjects(table, folds, seen),
        **gather(jobs, classes, unseen if len(unseen) < len(seen) else (), repeats=folds.repeats, folds=folds.folds),
        "failed": [
            {
                "method": o.job.method,
                "seed": o.job.seed,
                "fold": o.job.fold,
                "fraction": o.job.fraction,
                "reason": o.failed,
            }
            for o in failed
        ],
        "audit": folds.audit,
        "pretraining": study.audit.seen.as_json() if study.audit.seen else None,
        "command": without_secrets(shlex.join(["python", "launch/folds.py", *argv])),
        "versions": _versions(),
        "hashes": _hashes(study.out, jobs),
    }
    storage.write_json(study.out / RESULTS, results)
    storage.write_text(study.out / TEXT, as_markdown(results))
    return results


def _subjects(table: WindowTable, folds: Folds, seen: dict[str, bool | None]) -> dict[str, Any]:
    """Who was tested in which fold of the first repeat, with how many windows."""
    first = folds.folds[: len(folds) // folds.repeats]
    fold_of = {subject: k for k, fold in enumerate(first) for subject in fold.test}
    made = {}
    for subject in carried_classes(table):
        label = table.label[table.subject == subject]
        windows = {name: int((label == k).sum()) for k, name in enumerate(table.classes or ())}
        made[subject] = {"fold": fold_of.get(subject), "windows": windows or {"all": len(label)}}
        made[subject]["pretrained_on"] = seen[subject]
    return made


def _balance(table: WindowTable) -> list[str]:
    counts = Counter(table.label.tolist()) if table.classes is not None else {}
    return [
        f"{name}: {counts[k]} windows of {len(np.unique(table.subject[table.label == k]))} subjects"
        for k, name in enumerate(table.classes or ())
    ]


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _hashes(out: Path, jobs: Sequence[FoldJob]) -> dict[str, str]:
    """sha256 of what the results were made from; another machine can compare."""
    files = [out / FOLDS, *(job.folder / f"predictions_fold_{job.fold}.parquet" for job in jobs if job.done)]
    return {str(file.relative_to(out)): storage.sha256(file) for file in files}
