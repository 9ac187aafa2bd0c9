"""Commands on other hosts, by ssh as DeepSpeed uses it: without a question, with this folder, Python and code.

host, command -> ssh -> argv;   module, arguments -> there -> the command
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence

AT_ONCE = 64
"""Hosts that are asked at one time."""
CONNECT_S = 5
"""A host that does not take a connection by then does not answer."""


def ssh(host: str, command: Sequence[str]) -> list[str]:
    """What is run here to run a command there."""
    return ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}", host, "--", shlex.join(command)]


def there(module: str, *arguments: str, variables: Mapping[str, str] | None = None) -> list[str]:
    """The command that runs a module on another host as it would run here."""
    said = {**(variables or {}), "PYTHONPATH": python_path(os.getcwd())}
    exports = [f"{name}={value}" for name, value in said.items()]
    return ["env", f"--chdir={os.getcwd()}", *exports, sys.executable, "-m", module, *arguments]


def python_path(first: str) -> str:
    """``PYTHONPATH`` with a folder in front."""
    return os.pathsep.join([first, *filter(None, [os.environ.get("PYTHONPATH")])])
