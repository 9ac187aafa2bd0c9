"""What the terminal shows: the supervisor's own lines, among those of the launch."""

import os
import sys
import time


def say(text: str) -> None:
    """A line for the person at the terminal."""
    show(f"{time.strftime('%H:%M:%S')} supervise: {text}\n".encode())


def show(line: bytes) -> None:
    """A line as it comes. Without a listener (a ``| tee`` that ended) the run goes on: its log has what it said."""
    try:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
