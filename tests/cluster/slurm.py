"""A SLURM whose nodes are hosts of their own.

with two_hosts(…) as hosts, slurm_on(hosts) as slurm:
    job = slurm.submit(["launch/slurm/pretrain.sbatch", …], cwd=…)
    slurm.wait(job, "COMPLETED")
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hosts import SUBNET, Hosts

CONF = """
ClusterName=two
SlurmctldHost=login({subnet}.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# How long a requeued job waits is the life of its credential.
AuthInfo=socket=/run/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir=/run/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/linear
ReturnToService=2
SlurmdTimeout=30
KillWait=30
MinJobAge=3600
SchedulerParameters=batch_sched_delay=1,sched_min_interval=100000
SchedulerType=sched/builtin
NodeName={names} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
MUNGED = "munged --force --socket=/run/munge.socket --pid-file=/run/munged.pid --log-file=/run/munged.log"

ALONE = ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child"]  # what it starts ends with it


@dataclass(frozen=True)
class Slurm:
    """The cluster, from where jobs are submitted."""

    hosts: Hosts
    folder: Path

    def command(self, *words: str | Path, cwd: Path | None = None) -> str:
        """What one of SLURM's commands says."""
        return self.hosts.run(words, cwd=cwd, env=os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")})

    def submit(self, words: Sequence[str | Path], *, cwd: Path, env: dict[str, str]) -> int:
        """Hand in a job; returns its number."""
        process = self.hosts.start(
            ["sbatch", "--parsable", *words], cwd=cwd, env=env | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        )
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 0, said
        return int(said)

    def job(self, number: int) -> dict[str, str]:
        """What SLURM knows of a job."""
        return dict(re.findall(r"(\w+)=(\S*)", self.command("scontrol", "show", "job", str(number))))

    def wait(self, number: int, *states: str, timeout_s: float = 300) -> dict[str, str]:
        """Wait until a job is in one of these states."""
        deadline = time.monotonic() + timeout_s
        while (said := self.job(number))["JobState"] not in states:
            assert time.monotonic() < deadline, f"{said}\n{self.command('sinfo')}"
            time.sleep(0.3)
        return said


@contextmanager
def slurm_on(hosts: Hosts) -> Iterator[Slurm]:
    """Start the daemons, and wait until every node is idle."""
    folder = hosts.folder / "slurm"
    (folder / "state").mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    names = ",".join(host.name for host in hosts)
    (folder / "slurm.conf").write_text(CONF.format(subnet=SUBNET, folder=folder, names=names))
    slurm = Slurm(hosts, folder)
    with ExitStack() as stack:
        for where, name, daemon in [(hosts, "login", "slurmctld"), *((host, host.name, "slurmd") for host in hosts)]:
            script = f"{MUNGED} --key-file={key} --seed-file=/run/munge.seed; exec {daemon} -D -f {folder}/slurm.conf"
            with open(folder / f"{name}.out", "w") as out:
                stack.callback(_end, where.start([*ALONE, "bash", "-c", script], stdout=out))
        _wait_idle(slurm, len(hosts))
        yield slurm
        slurm.command("scancel", "--state=RUNNING", "--user=root")


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def _wait_idle(slurm: Slurm, n: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        process = slurm.hosts.start(
            ["sinfo", "-h", "-o", "%D %t"], env=os.environ | {"SLURM_CONF": str(slurm.folder / "slurm.conf")}
        )
        said = process.communicate(timeout=60)[0]
        if said.split() == [str(n), "idle"]:
            return
        logs = "\n".join(f"{log}: {log.read_text()[-600:]}" for log in slurm.folder.glob("*.[lo][ou]?"))
        assert time.monotonic() < deadline, f"{said}\n{logs}"
        time.sleep(0.2)
