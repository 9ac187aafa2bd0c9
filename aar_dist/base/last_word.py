"""What a process says last, for the program that started it and must decide whether to start it again.

    AAR_DIST_LAST_WORD=FILE  ->  {"kind": "ConfigError", "text": "…", "may_pass": false}

Of all ranks the first to speak is heard: the others fail because of it.
"""

import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "AAR_DIST_LAST_WORD"
STOPPED, TIME_LIMIT = "Stopped", "TimeLimit"
"""Kinds of an end that is none of an error."""


@dataclass(frozen=True)
class LastWord:
    """How a process ended, in its own words."""

    kind: str
    """Class of the error, or one of the kinds above."""
    text: str
    """One line."""
    may_pass: bool
    """True if the same command may succeed later with nobody changing it."""

    def leave(self) -> None:
        """Write it where the environment says, if it does and nobody was faster. Raises nothing: who comes after must
        live with a process that said nothing, since one may be killed or its disk full."""
        name = os.environ.get(VARIABLE)
        if not name:
            return
        own = Path(f"{name}.{socket.gethostname()}-{os.getpid()}")
        with contextlib.suppress(OSError):
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_text(json.dumps(asdict(self)) + "\n")
            try:
                os.link(own, name)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                if not Path(name).exists():
                    own.rename(name)
        with contextlib.suppress(OSError):
            own.unlink()


def read(path: Path) -> LastWord | None:
    """What was said, or None."""
    try:
        return LastWord(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
