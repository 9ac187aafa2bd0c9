"""The corpus as a peer sees it: whole recordings, or windows cut beforehand."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = ("f32", "i16")


def recordings(settings: dict[str, Any], name: str) -> NDArray[Any]:
    """(recordings, frames, 3) of a memory map."""
    shape = (settings["n_recordings"], settings["frames"], settings["axes"])
    return np.memmap(settings[name], settings["dtypes"][name], mode="r", shape=shape)


def precut(settings: dict[str, Any], name: str) -> NDArray[Any]:
    """(windows, window, 3): each recording cut end to end."""
    whole, window = recordings(settings, name), settings["window"]
    kept = whole[:, : whole.shape[1] // window * window]
    return kept.reshape(-1, window, whole.shape[2])


def folder(settings: dict[str, Any], peer: str, name: str) -> Path:
    """An empty folder for the peer's own files."""
    made = Path(settings["root"]) / f"{peer}-{name}"
    made.mkdir(parents=True)
    return made
