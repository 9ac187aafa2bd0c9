"""Errors for the person at the terminal.

AarError  ->  one line on stderr, exit code 2, no traceback
Ctrl-C    ->  one line, exit code 130
SystemExit, or the end of a rank  ->  run_door ends the process at once
anything else is our own mistake and keeps its traceback
"""

import atexit
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn, ParamSpec, TypeVar

from aar_dist.base.addresses import without_secrets
from aar_dist.base.interrupts import Terminated
from aar_dist.base.last_word import LastWord

P = ParamSpec("P")
R = TypeVar("R")

USER_ERROR_EXIT = 2
# Rank 0 speaks first. A launcher ends the other ranks within a second of its exit, so an error that all
# ranks share is printed once; an error of one rank alone is printed by that rank after this pause.
OTHER_RANK_PAUSE_S = 5.0


class AarError(Exception):
    """Something the user can mend: the message names the file or key, what was found, what was expected, what to do."""

    may_pass = False
    """True if the same command may succeed later with nobody changing it: ``launch/supervise.py`` tries again."""
    alone = False
    """True if no other rank has this error: it is told at once, whichever rank has it."""
    told = False
    """True if the terminal shows it already: another rank has printed it there."""


class ConfigError(AarError):
    """A configuration key, flag or value that cannot be used."""


class RecordingError(AarError):
    """A recording (HDF5 file or a published source file) that breaks the contract."""


class ShardError(AarError):
    """A shard set that is missing, damaged or of another build."""


class CheckpointError(AarError):
    """A checkpoint or a stored model that is missing, damaged or of another run."""


class StorageError(AarError):
    """A file system or server that refused: disk full, no permission, path in use."""

    may_pass = True


class PassingError(AarError):
    """A condition that passes by itself: another rank that is gone, a run directory or a port that is in use."""

    may_pass = True


def one_line(error: BaseException) -> str:
    """The message of an error on a single line, its URLs without secrets."""
    return without_secrets(" ".join(str(error).split())) or type(error).__name__


def user_entry(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command's ``main``: user errors become one line and exit code 2."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except (AarError, OSError) as error:
            told = user_error(error)
            if told is None:
                raise
            _leave(told)
        except KeyboardInterrupt as stop:
            if os.environ.get("RANK", "0") == "0":
                print(": ".join(["interrupted", *map(str, stop.args)]), file=sys.stderr, flush=True)
            raise SystemExit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)) from None

    return run


def last_word(error: AarError) -> LastWord:
    """The error as the program that started this one is told it."""
    return LastWord(type(error).__name__, one_line(error), error.may_pass)


def user_error(error: AarError | OSError) -> AarError | None:
    """The error as the user is told it; None for one that is our own mistake."""
    if isinstance(error, AarError):
        return error
    return None if error.errno is None else StorageError(f"{error.filename or 'the file system'}: {error.strerror}")


def error_line(error: AarError, rank: str) -> str:
    """What is printed of an error; ``rank`` names the one that has it, empty for rank 0."""
    return f"error: {rank}: {one_line(error)}" if rank else f"error: {one_line(error)}"


def _leave(error: AarError) -> NoReturn:
    """Print the error once per launch and leave with the exit code of bad input."""
    last_word(error).leave()
    rank = int(os.environ.get("RANK", "0"))
    if rank != 0 and not error.alone:
        time.sleep(OTHER_RANK_PAUSE_S)
    if not error.told:
        print(error_line(error, f"rank {rank}" if rank else ""), file=sys.stderr, flush=True)
    raise SystemExit(USER_ERROR_EXIT) from None


def run_door(main: Callable[[], object] | str) -> None:
    """Call a program's ``main``; a rank, or a program that leaves early, ends on the spot. Of a module that is named,
    Ctrl-C is one line while it is imported too.

    A rank that fails inside a collective must not wait for its peers in atexit handlers, and an interpreter that is
    taken down around threads of native code aborts now and then, finished or not ("terminate called without an active
    exception"): the launcher would call a finished run failed.
    """
    if "RANK" in os.environ:  # a lost connection is our line, and no page of C++ frames
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        if "AAR_DIST_ENVIRONMENT" in os.environ:  # before torch is imported, which reads some of it
            user_entry(import_module("aar_dist.base.carried").load)()
        (import_module(main).main if isinstance(main, str) else main)()
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("interrupted: nothing had begun", file=sys.stderr)
        _end(128 + signal.SIGINT)
    except SystemExit as left:
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
        _end(left.code if isinstance(left.code, int) else int(left.code is not None))
    except Exception as error:
        LastWord(type(error).__name__, one_line(error), may_pass=True).leave()
        raise
    if "RANK" in os.environ:
        atexit._run_exitfuncs()
        _end(0)


def _end(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
