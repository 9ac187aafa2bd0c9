"""The supervisor's own lines, among those of the launch."""

import time


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(f"{time.strftime('%H:%M:%S')} supervise: {text}", flush=True)
