"""Recordings written by a peer's own writer, in the environment of the peers. Prints the seconds it took.

    .venv-peers/loaders/bin/python benchmarks/peers/write_shards.py mds FOLDER OUT
    .venv-peers/loaders/bin/python benchmarks/peers/write_shards.py litdata FOLDER OUT

Both keep fixed windows, cut beforehand (10 s of 3 axes, uncompressed); mosaicml-streaming hashes them with sha256, as
we do, litdata hashes nothing. What is imported and warmed up is not counted.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
from numpy.typing import NDArray

WINDOW, AXES, SHARD_BYTES = 1000, 3, 64_000_000


def windows_of(path: str) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The whole windows of one recording."""
    with h5py.File(path, locking=False) as file:
        values = file["acc"][:]
    for i in range(0, len(values) - WINDOW + 1, WINDOW):
        yield {"acc": values[i : i + WINDOW]}


def mds(paths: list[str], out: Path) -> None:
    """mosaicml-streaming."""
    # Its data sets of pictures import torchvision, of which the wheel may be built for another torch; we need neither.
    sys.modules["streaming.vision"] = ModuleType("streaming.vision")
    from streaming import MDSWriter

    columns = {"acc": f"ndarray:float32:{WINDOW},{AXES}"}
    with MDSWriter(out=str(out), columns=columns, hashes=["sha256"], size_limit=SHARD_BYTES) as writer:
        for path in paths:
            for sample in windows_of(path):
                writer.write(sample)


def litdata(paths: list[str], out: Path) -> None:
    """litdata, one worker process of its own."""
    from litdata import optimize

    optimize(fn=windows_of, inputs=paths, output_dir=str(out), chunk_bytes=SHARD_BYTES, num_workers=1)


if __name__ == "__main__":
    name, folder, target = sys.argv[1:]
    write, recordings = {"mds": mds, "litdata": litdata}[name], sorted(map(str, Path(folder).glob("*.hdf5")))
    write(recordings[:1], Path(target) / "warm")
    began = time.perf_counter()
    write(recordings, Path(target) / "timed")
    print(f"seconds {time.perf_counter() - began:.4f}")
