"""The recordings that the benchmarks of the stream read: noise, made as shards by our own builder and as plain files.

40 recordings of 3 axes, 100 Hz -> HDF5 -> shard set;  the same values end to end in one file -> memmap
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build

RATE_HZ, AXES = 100.0, 3
DTYPES = {"f32": "<f4", "i16": "<i2"}
COUNTS_PER_G = 1000


@dataclass(frozen=True)
class Corpus:
    """Recordings of one type in the two forms that are compared."""

    name: str
    shards: Path
    """The shard set, made by our own builder."""
    flat: Path
    """All recordings end to end, (frames, 3), without a header."""
    n_recordings: int
    frames: int
    """Of each recording."""

    @property
    def dtype(self) -> str:
        """As NumPy writes it."""
        return DTYPES[self.name]

    def memmap(self) -> np.memmap[tuple[int, int], np.dtype[np.generic]]:
        """All frames, (recordings * frames, 3)."""
        return np.memmap(self.flat, self.dtype, mode="r", shape=(self.n_recordings * self.frames, AXES))

    def starts(self, n: int, window: int, seed: int) -> NDArray[np.int64]:
        """Uniform starts, weighted by length, of windows that stay within a recording."""
        rng = np.random.default_rng(seed)
        inside = rng.integers(0, self.frames - window + 1, n)
        return rng.integers(0, self.n_recordings, n) * self.frames + inside


def make_corpus(root: Path, name: str, *, n_recordings: int, frames: int) -> Corpus:
    """Write the recordings below ``root`` and build their shards."""
    made = Corpus(name, root / f"{name}-shards", root / f"{name}.bin", n_recordings, frames)
    rng = np.random.default_rng(0)
    folder = root / f"{name}-hdf5" / "noise"
    with made.flat.open("wb") as flat:
        for i in range(n_recordings):
            values = rng.standard_normal((frames, AXES), np.float32)
            if name == "i16":
                values = (values * COUNTS_PER_G).astype("<i2")
            flat.write(values.tobytes())
            scale = 1 / COUNTS_PER_G if name == "i16" else None
            acc = SensorData(values=values, rate_hz=RATE_HZ, units="g", axes=("x", "y", "z"), scale=scale)
            dataset_to_hdf5(folder, dataset="noise", species="cow", subject=f"{i:03d}", sensors={"acc": acc})
    options = BuildOptions(datasets=("noise",), train_ratio=1.0)
    build(folder.parent, made.shards, options, workers=1)
    return made
