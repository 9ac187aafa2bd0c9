"""Commands that end with the process that started them, and take all that they started along.

this process ---pipe---> guard          is killed, however -> the pipe ends -> SIGTERM to the whole group
           \\--- sh --- launcher --- ranks
"""

import subprocess
from collections.abc import Sequence
from typing import IO

# Launchers that are killed say nothing to those they started, and who kills this process may kill its children too:
# so the guard is a grandchild, and hears of it by the end of the pipe.
GUARDED = """
exec 3<&0
{ cat <&3 >/dev/null; kill -TERM 0; } &
guard=$!
"$@" </dev/null 3<&-
code=$?
kill $guard
exit $code
"""


def run_bound(command: Sequence[object], log: IO[bytes]) -> int:
    """Run a command to its end and return its exit code.

    Args:
        command: Program and arguments.
        log: Takes both of its streams.
    """
    guarded = ["sh", "-c", GUARDED, "sh", *map(str, command)]
    with subprocess.Popen(
        guarded, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        return process.wait()
