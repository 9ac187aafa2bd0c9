"""Hosts of their own on this machine: what is tested on two computers, without a second one.

    world (network and mount namespace): a bridge, ssh, pdsh, the shell where a launch is typed
    └── host<k> (network, process, mount and name namespaces): 10.77.0.<k>, an sshd, its own /tmp and /dev/shm

    with two_hosts(tmp_path, tmp_path, ROOT) as hosts:       # folders that all hosts see, as with NFS
        launch = hosts.start([DEEPSPEED, "--hostfile", hosts.hostfile, …])
        hosts[1].kill(); hosts[1].boot(); hosts[0].cut(); hosts[0].mend()

Needs root. Nothing outside is changed: networks are nobody else's, /etc and ~/.ssh stay as they are, and all of it is
gone as soon as the process that made it is, however that ended: every init waits on a pipe of its owner.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

PACKAGES = Path(sys.prefix) / "debian"
"""Where launch/packages.sh unpacks what this machine lacks."""
SUBNET = "10.77.0"
PORT = 29500
BOOT_S = 60.0
Command = Sequence[str | Path]

WORLD = """
set -eu
ip link set lo up
ip link add br0 type bridge
ip addr add {subnet}.254/24 dev br0
ip link set br0 up
if [ -d {packages}/usr ]; then mount -t overlay overlay -o lowerdir={packages}/usr:/usr /usr; fi
for file in passwd hosts ssh/ssh_config; do mount --bind {folder}/$(basename $file) /etc/$file; done
mount -t tmpfs tmpfs /run
hostname login
echo ready
read -r _ || true
"""

HOST = """
set -eu
read -r _                                # the link is there
hostname {name}
ip link set lo up
ip addr add {address}/24 dev eth0
ip link set eth0 up
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd /run/all
mount --bind / /run/all                  # the shared folders, before /tmp hides them
mount -t tmpfs tmpfs /tmp
for folder in {shared}; do
    case $folder in /tmp/*) mkdir -p "$folder"; mount --bind "/run/all$folder" "$folder";; esac
done
umount /run/all
# As Debian has it: a host knows its own name as the loopback.
{{ echo "127.0.1.1 {name}"; grep -v " {name}$" {folder}/hosts; }} >/run/hosts
mount --bind /run/hosts /etc/hosts
"$(command -v sshd)" -f {folder}/sshd_config
echo ready
read -r _ || true
"""

SSHD = """
Port 22
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
MaxStartups 100
"""

SSH = """
Host *
    IdentityFile {folder}/key
    IdentitiesOnly yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
    ConnectTimeout 10
"""


class Namespaces:
    """A shell in namespaces of its own that says "ready" and then holds them until it dies, or we do."""

    def __init__(self, prefix: Command, script: str, log: Path) -> None:
        self.log = log
        with open(log, "w") as errors:
            self.shell = subprocess.Popen(
                [*map(str, prefix), "bash", "-c", script],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip

    def write(self, line: str) -> None:
        assert self.shell.stdin is not None
        self.shell.stdin.write(line + "\n")
        self.shell.stdin.flush()

    def wait_ready(self) -> None:
        assert self.shell.stdout is not None
        said = self.shell.stdout.readline()
        assert said == "ready\n", f"{self.log.stem} does not start: {said}{self.log.read_text()}"

    def close(self) -> None:
        if self.shell.stdin is not None:
            self.shell.stdin.close()
        try:
            self.shell.wait(10)
        except subprocess.TimeoutExpired:
            self.shell.kill()
            self.shell.wait()


class Host:
    """One of the computers."""

    def __init__(self, number: int, world: "Hosts") -> None:
        self.name, self.address, self.link = f"host{number}", f"{SUBNET}.{number}", f"link{number}"
        self.ethernet = f"02:00:0a:4d:00:{number:02x}"  # the same after a restart, as the others remember it
        self._world = world
        self._space: Namespaces | None = None

    @property
    def init(self) -> int:
        """Process id of the host's first process."""
        assert self._space is not None, f"{self.name} is down"
        return int(self._children()[0])

    @property
    def up(self) -> bool:
        return self._space is not None

    def boot(self) -> None:
        """Start it; returns when its sshd listens."""
        unshare = ["unshare", "--pid", "--mount-proc", "--net", "--uts", "--fork", "--kill-child"]
        folder, shared = self._world.folder, " ".join(f"'{folder}'" for folder in self._world.shared)
        script = HOST.format(name=self.name, address=self.address, folder=folder, shared=shared)
        self._space = Namespaces([*self._world.enter, *unshare], script, folder / f"{self.name}.log")
        _wait(lambda: bool(self._children()), f"{self.name} does not start")
        eth0 = ["name", "eth0", "address", self.ethernet, "netns", str(self.init)]
        self._ip("link", "add", self.link, "type", "veth", "peer", *eth0)
        self._ip("link", "set", self.link, "master", "br0", "up")
        self._space.write("the link is there")
        self._space.wait_ready()

    def kill(self) -> None:
        """Pull its plug: no farewell reaches the others."""
        if self._world.has(self.link):
            self.cut()
        assert self._space is not None
        for pid in self._children():
            os.kill(int(pid), signal.SIGKILL)
        self._space.close()
        self._space = None
        # The kernel keeps a network until the last of its connections has timed out.
        self._world.start(["ip", "link", "del", self.link]).communicate()
        _wait(lambda: not self._world.has(self.link), f"{self.name} does not go")

    def cut(self) -> None:
        """Pull its network cable."""
        self._ip("link", "set", self.link, "down")

    def mend(self) -> None:
        self._ip("link", "set", self.link, "up")

    def start(self, command: Command, *, cwd: Path | None = None, **options) -> subprocess.Popen:
        """A command on this host, past ssh; it sees the host's own files, processes and network."""
        enter = ["nsenter", "--target", str(self.init), "--pid", "--mount", "--net", "--uts", "--"]
        return _popen([*enter, *_in(cwd), *command], **options)

    def run(self, command: Command, **options) -> str:
        return _output(self.start(command, **options))

    def processes(self) -> dict[int, list[str]]:
        """Command lines by process id, the id being that of this machine: ``os.kill`` takes it."""
        inside, outside = os.readlink(f"/proc/{self.init}/ns/net"), os.readlink("/proc/self/ns/pid")
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(folder / "ns" / "net") == inside and os.readlink(folder / "ns" / "pid") != outside:
                    found[int(folder.name)] = (folder / "cmdline").read_text().split("\0")[:-1]
            except OSError:
                continue  # it has just ended
        return found

    def ranks(self) -> dict[int, int]:
        """Process id of each rank that runs here."""
        found = {}
        for pid, words in self.processes().items():
            if any(word.endswith(("pretrain.py", "finetune.py")) for word in words):
                try:
                    said = dict(
                        p.split("=", 1) for p in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in p
                    )
                except OSError:
                    continue
                if "RANK" in said:
                    found[int(said["RANK"])] = pid
        return found

    def launchers(self) -> list[int]:
        """Process ids of DeepSpeed's launcher on this host, the parent of its ranks."""
        return [
            pid for pid, words in self.processes().items() if words[1:4] == ["-u", "-m", "deepspeed.launcher.launch"]
        ]

    def _children(self) -> list[str]:
        assert self._space is not None
        pid = self._space.shell.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def _ip(self, *words: str) -> None:
        self._world.run(["ip", *words])


class Hosts(list[Host]):
    """The hosts, and the shell beside them where launches are typed."""

    def __init__(self, folder: Path, shared: Sequence[Path]) -> None:
        assert os.geteuid() == 0, "hosts in namespaces need root"
        super().__init__()
        self.folder = folder / "hosts"
        self.shared = [path.resolve() for path in (self.folder, *shared, Path(sys.prefix))]
        self.hostfile, self.env_file = self.folder / "hostfile", self.folder / "deepspeed_env"
        self._write_files()
        script = WORLD.format(subnet=SUBNET, packages=PACKAGES, folder=self.folder)
        self._space = Namespaces(["unshare", "--mount", "--net", "--uts"], script, self.folder / "world.log")
        self._space.wait_ready()

    @property
    def enter(self) -> list[str]:
        """In front of a command that is to run in the world of these hosts."""
        return ["nsenter", "--target", str(self._space.shell.pid), "--mount", "--net", "--uts", "--"]

    def start(self, command: Command, *, cwd: Path | None = None, **options) -> subprocess.Popen:
        """A command typed beside the hosts: it reaches them, and has the processes of this machine."""
        return _popen([*self.enter, *_in(cwd), *command], **options)

    def run(self, command: Command, **options) -> str:
        """The output of a command that must succeed."""
        return _output(self.start(command, **options))

    def has(self, link: str) -> bool:
        return f" {link}@" in self.run(["ip", "link"])

    def close(self) -> None:
        for host in self:
            if host.up:
                host.kill()
        self._space.close()

    def _write_files(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "key")]
        subprocess.run(key, check=True)
        (self.folder / "ssh_config").write_text(SSH.format(folder=self.folder))
        (self.folder / "sshd_config").write_text(SSHD.format(folder=self.folder))
        self.env_file.write_text("DS_ACCELERATOR=cpu\nOMP_NUM_THREADS=1\n")
        users = Path("/etc/passwd").read_text()
        if "\nsshd:" not in users:
            users += "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
        (self.folder / "passwd").write_text(users)
        names = "".join(f"{SUBNET}.{k} host{k}\n" for k in range(1, 10))
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{SUBNET}.254 login\n{names}")


@contextmanager
def two_hosts(folder: Path, *shared: Path, n: int = 2, slots: int = 1) -> Iterator[Hosts]:
    """Hosts 10.77.0.1 … that see ``shared`` at its own place; keys and the hostfile are put into ``folder``."""
    hosts = Hosts(folder, shared)
    with ExitStack() as stack:
        stack.callback(hosts.close)
        for number in range(1, n + 1):
            hosts.append(Host(number, hosts))
            hosts[-1].boot()
        hosts.hostfile.write_text("".join(f"{host.address} slots={slots}\n" for host in hosts))
        yield hosts


def _in(cwd: Path | None) -> list[str]:
    return ["env", f"--chdir={cwd}"] if cwd else []


def _popen(command: Command, **options) -> subprocess.Popen:
    """What is started here does not outlive us, whatever ends us."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *map(str, command)], **(settings | options))


def _output(process: subprocess.Popen) -> str:
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    return str(said)


def _wait(done, problem: str) -> None:
    deadline = time.monotonic() + BOOT_S
    while not done():
        assert time.monotonic() < deadline, problem
        time.sleep(0.02)
