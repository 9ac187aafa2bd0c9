"""DeepSpeed's hostfile: ``name slots=N``, one host a line.

path -> parse_hostfile -> {"10.0.0.1": 8, "10.0.0.2": 8}
"""

import re
from pathlib import Path

from aar_dist.base.errors import ConfigError

LINE = re.compile(r"(\S+)\s+slots=(\d+)\s*(#.*)?")


def read_hostfile(path: str | Path) -> dict[str, int]:
    """Host -> slots, in the order of the file. Raises ``ConfigError`` if it is not there or not to be understood."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            f"hostfile {path}: there is no such file, and deepspeed would train on this machine alone; "
            "mend the path, or leave --hostfile out"
        )
    try:
        return parse_hostfile(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"hostfile {path}: cannot be read ({error})") from None


def parse_hostfile(text: str, name: str = "hostfile") -> dict[str, int]:
    """Host -> slots. Raises ``ConfigError`` that names the line."""
    hosts: dict[str, int] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"{name}, line {number}: {line!r} is no host, expected: NAME slots=N")
        if match[1] in hosts:
            raise ConfigError(f"{name}, line {number}: {match[1]} stands there twice; one line a host")
        if not int(match[2]):
            raise ConfigError(f"{name}, line {number}: {match[1]} has no slot; leave the line out")
        hosts[match[1]] = int(match[2])
    if not hosts:
        raise ConfigError(f"{name}: there is no host in it, expected lines such as: NAME slots=N")
    return hosts
