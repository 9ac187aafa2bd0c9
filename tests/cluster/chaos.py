"""One training run on two hosts, under launch/supervise.py, and faults at random moments.

    python tests/cluster/chaos.py --faults 50 --seed 1 --json out/chaos.json        # make chaos: at most an hour
    python tests/cluster/chaos.py --faults 5

It ends by itself; then the run is held against an undisturbed one: the segments of every micro-batch, every number of
metrics.jsonl, and the final weights, to the bit. A reader checks the newest checkpoint and model all the while.
"""

import argparse
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from faults import FAULTS, HELPER, Victim, killed_in_publishing
from hosts import Hosts, two_hosts
from launching import ROOT, TINY, environment, flags
from tiny_sets import LONGEST_S, write_dataset
from witness import Reader, differences

from aar_dist.base import storage
from aar_dist.shards.build import BuildOptions, build
from aar_dist.training.environment import extensions_folder
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.supervision import attempts

STEPS_A_FAULT = 20
STEP_S = 0.15
"""How long a step of the disturbed run takes: there must be something to disturb."""
DISK = Path("/media")
"""Where the run's own disk is mounted, in the namespace of the hosts alone."""
DISK_BYTES = 64_000_000
RECOVERS_S = 400.0
DISTURBS_S = 50 * 60.0
"""No fault begins later than this: the whole must end within an hour."""
PUBLISHINGS = 3
"""Kills while the model is being published, after all other faults."""


@dataclass
class Report:
    """What befell the run, and what became of it."""

    faults: list[dict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    reader: dict[str, int] = field(default_factory=dict)
    attempts: int = 0

    def table(self) -> list[dict]:
        """Seconds lost by each kind of fault."""
        lost = defaultdict(list)
        for fault in self.faults:
            lost[fault["kind"]].append(fault["lost_s"])
        return [
            {"kind": kind, "n": len(s), "median_s": round(statistics.median(s), 1), "longest_s": round(max(s), 1)}
            for kind, s in lost.items()
        ]


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} chaos: {text}", flush=True)


def chaos(folder: Path, shards: Path, kinds: list[str], seed: int, publishings: int = 0) -> Report:
    """Run it, disturb it, hold it against an undisturbed run.

    Args:
        folder: Empty; everything is put there.
        kinds: The faults, in order.
        publishings: Further kills while the model is published, as far as they hit.
    """
    report, began = Report(), time.monotonic()
    settings = TINY | {
        "train.max_steps": STEPS_A_FAULT * (len(kinds) + 1),
        "train.val_every": 40,
        "train.log_every": 50,
    }
    with two_hosts(folder, folder, shards, ROOT) as hosts:
        disk = _mount(hosts)
        extensions = _extensions(folder)
        whole = folder / "whole"
        said = _start(hosts, whole, shards, settings, extensions).communicate(timeout=600)[0]
        assert (whole / "run" / "finished").exists(), said
        report.seconds["undisturbed"] = time.monotonic() - began
        say(f"the undisturbed run took {report.seconds['undisturbed']:.0f} s with its start")
        victim = Victim(hosts, disk / "run", str(DISK / "run"), extensions, random.Random(seed))
        reader = Reader(disk / "run")
        with _supervised(hosts, shards, settings, extensions, folder / "supervise.log") as supervisor:
            reader.start()
            _disturb(victim, kinds, supervisor, report, publishings)
            code = supervisor.wait(RECOVERS_S)
        reader.stop()
        if code:
            report.problems.append(f"the supervisor ended with exit code {code}")
        report.problems += [*dict.fromkeys(reader.broken), *differences(whole, disk)]
        report.reader = {"looks": reader.looks, "seen": len(reader.seen)}
        made = attempts.read(disk / "run")
        report.attempts = len(made)
        _charge(report.faults, made)
        (folder / "attempts.txt").write_text(attempts.table(made) + "\n")
    report.seconds["disturbed"] = time.monotonic() - began - report.seconds["undisturbed"]
    return report


def _disturb(victim: Victim, kinds: list[str], supervisor: subprocess.Popen, report: Report, publishings: int) -> None:
    def until(holds: Callable[[], bool], what: str) -> None:
        def there() -> bool:
            assert supervisor.poll() is None, f"the supervisor left with exit code {supervisor.returncode}"
            return holds()

        victim.until(there, what, RECOVERS_S)

    def ended() -> int:
        return len(attempts.read(victim.run))

    began = time.monotonic()
    for number, kind in enumerate(kinds):
        if time.monotonic() - began > DISTURBS_S:
            report.problems.append(f"only {number} of {len(kinds)} faults in {DISTURBS_S / 60:.0f} minutes")
            break
        at = STEPS_A_FAULT * number + victim.random.randrange(2, STEPS_A_FAULT)
        until(lambda at=at: victim.step >= at, f"step {at}")
        step, before = victim.step, ended()
        fault = _note(report, kind, step)
        if FAULTS[kind](victim) is not False:
            until(lambda before=before: ended() > before, "the end of an attempt")
        until(lambda step=step: victim.step > step, f"step {step + 1}")
        seconds = time.time() - fault["at"]
        say(f"{number + 1}/{len(kinds)} {kind} at step {step}: at step {victim.step} after {seconds:.1f} s")
    finished = RunDirectory(victim.run).finished
    for _ in range(publishings):
        before = ended()
        if killed_in_publishing(victim, lambda: finished() is not None):
            _note(report, "SIGKILL in publishing", victim.step)
            say("SIGKILL in publishing")
            victim.until(lambda before=before: ended() > before, "the end of an attempt", RECOVERS_S)


def _note(report: Report, kind: str, step: int) -> dict:
    report.faults.append({"kind": kind, "step": step, "at": time.time()})
    return report.faults[-1]


def _charge(faults: list[dict], made: list[attempts.Attempt]) -> None:
    """Write to each fault what the attempts cost that ended after it and before the next one."""
    until = [*(fault["at"] for fault in faults[1:]), math.inf]
    for fault, end in zip(faults, until, strict=True):
        ended = [(a, s) for a, s in zip(made, attempts.lost_s(made), strict=True) if fault["at"] <= a.ended < end]
        fault |= {"lost_s": round(sum(s or 0.0 for _, s in ended), 1), "ends": [a.how for a, _ in ended]}


def _mount(hosts: Hosts) -> Path:
    """A small disk of the run's own, which all hosts see; returns where this process sees it."""
    hosts.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", DISK])
    for host in hosts:  # they see what was there when they were booted
        host.kill()
        host.boot()
    return Path(f"/proc/{hosts._space.shell.pid}/root{DISK}")


def _extensions(folder: Path) -> Path:
    """DeepSpeed's compiled helper, the run's own copy if there is one already."""
    built = extensions_folder() / HELPER
    if (built / f"{HELPER}.so").exists():
        shutil.copytree(built, folder / "extensions" / HELPER)
    return folder / "extensions"


def _start(
    hosts: Hosts, out: Path, shards: Path, settings: dict, extensions: Path, pace: float = 0.0, **options
) -> subprocess.Popen:
    """The run, supervised, on the hosts."""
    seen = Path(f"/proc/{hosts._space.shell.pid}/root{out}")
    (seen / "segments").mkdir(parents=True)
    door = [sys.executable, "launch/supervise.py", "--hostfile", hosts.hostfile, "--probe_s", "2", "--wait_s", "600"]
    script = [ROOT / "tests" / "cluster" / "recorded" / "pretrain.py", "--out", out / "run", "--data.shards", shards]
    env = environment(
        DS_ENV_FILE=str(hosts.env_file),
        TORCH_EXTENSIONS_DIR=str(extensions),
        AAR_DIST_RECORD=str(out / "segments"),
        AAR_DIST_PACE=str(pace),
        PYTHONPATH=str(ROOT),
    )
    return hosts.start([*door, *script, *flags(settings)], cwd=ROOT, env=env, **options)


@contextmanager
def _supervised(hosts: Hosts, shards: Path, settings: dict, extensions: Path, log: Path):
    with open(log, "w") as file:
        supervisor = _start(hosts, DISK, shards, settings, extensions, pace=STEP_S, stdout=file)
    try:
        yield supervisor
    except BaseException:
        say(f"the last lines of {log}:\n" + "\n".join(log.read_text().splitlines()[-20:]))
        raise
    finally:
        supervisor.kill()
        supervisor.wait()


def schedule(n: int, seed: int) -> list[str]:
    """Every kind as often as any other, shuffled."""
    kinds = [list(FAULTS)[k % len(FAULTS)] for k in range(n)]
    random.Random(seed).shuffle(kinds)
    return kinds


def tiny_shards(folder: Path) -> Path:
    """A small set of two simulated data sets."""
    write_dataset(folder / "in", "slow", rate=10.0, seconds={f"s{i}": [900.0 + 13 * i] for i in range(4)}, dtype="<i2")
    write_dataset(folder / "in", "fast", rate=50.0, seconds={f"f{i}": [900.0 + 7 * i] for i in range(4)}, gyr=True)
    options = BuildOptions(datasets=("fast", "slow"), longest_segment_s=LONGEST_S, shard_bytes=700_000)
    return build(folder / "in", folder / "shards", options, workers=1).folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the report there")
    parser.add_argument("--only", help="this kind alone")
    given = parser.parse_args()
    kinds = [given.only] * given.faults if given.only else schedule(given.faults, given.seed)
    folder = Path(tempfile.mkdtemp(prefix="aar_dist_chaos_"))
    say(f"{given.faults} faults, seed {given.seed}, in {folder}")
    report = chaos(folder, tiny_shards(folder), kinds, given.seed, PUBLISHINGS)
    said = {"table": report.table(), **vars(report)}
    print("| fault | times | median seconds lost | longest |\n|---|---|---|---|")
    for row in said["table"]:
        print(f"| {row['kind']} | {row['n']} | {row['median_s']:.0f} | {row['longest_s']:.0f} |")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        storage.write_json(given.json, {"seed": given.seed, **said})
    for problem in report.problems:
        print(f"PROBLEM: {problem}")
    say(f"{len(report.faults)} faults, {report.attempts} attempts, {json.dumps(report.reader)} by the reader")
    if report.problems:
        sys.exit(f"the run differs from an undisturbed one, or was seen half written: {folder}")
    shutil.rmtree(folder)
    say("segments, numbers and weights equal those of an undisturbed run; nothing was seen half written")


if __name__ == "__main__":
    main()
