"""What a corpus takes on disk as shards, as packed shards, and as the arrays of the first system. Prints JSON.

    python benchmarks/disk.py --json out/disk.json     # a tenth of the hours, the same shares
    python benchmarks/disk.py --scale 1                # all of it: 10 GB of disk

The corpus is the first system's worked example: horses, 20 animals at 25 Hz, 23 h; cows, 100 animals at 100 Hz, 500 h;
half of the animals train; segments of 20 s, oversampling 4, imbalance 5, padded to 2000 samples. Its arrays hold the
segments of one epoch, the shards every sample once. Hours are scaled, rates and animals are not, so that the segments
and all bytes but headers scale along.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from telling import keep

from aar_dist.evaluation.exporting.npy import export_pretraining
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig, MixtureConfig

HERDS = {"horses_2022": (20, 25.0, 23.0), "cows_2023": (100, 100.0, 500.0)}
"""Animals, rate [Hz], hours in all."""
SEGMENT_S, WINDOW = 20.0, 2000
MIXTURE = MixtureConfig(oversampling_factor=4, max_dataset_imbalance=5)


def record(root: Path, scale: float) -> None:
    """Each animal's hours as one recording of three axes in float32."""
    rng = np.random.default_rng(0)
    for name, (animals, rate_hz, hours) in HERDS.items():
        frames = round(hours * scale * 3600 * rate_hz / animals)
        for i in range(animals):
            values = rng.standard_normal((frames, 3), np.float32)
            acc = SensorData(values=values, rate_hz=rate_hz, units="g", axes=("x", "y", "z"))
            species = name.partition("_")[0]
            dataset_to_hdf5(root / name, dataset=name, species=species, subject=f"{i:03d}", sensors={"acc": acc})


def bytes_in(folder: Path) -> int:
    """Of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(root: Path, scale: float) -> dict[str, Any]:
    """Build all forms and weigh them."""
    record(root / "recordings", scale)
    plain = BuildOptions(datasets=tuple(HERDS))
    packed = BuildOptions(datasets=tuple(HERDS), pack={"acc": "int16"})
    shards = build(root / "recordings", root / "shards", plain, workers=1)
    small = build(root / "recordings", root / "packed", packed, workers=1)
    data = DataConfig(
        shards=[str(shards.folder)], segment_duration=SEGMENT_S, max_window_length=WINDOW, mixture=MIXTURE
    )
    segments = export_pretraining(data, root / "arrays")
    taken = {name: bytes_in(root / name) for name in ("recordings", "shards", "packed", "arrays")}
    return {
        "disk": round(taken["shards"] / taken["arrays"], 4),
        "disk_packed": round(taken["packed"] / taken["arrays"], 4),
        "scale": scale,
        "segments": segments,
        "megabytes": {name: round(n / 1e6, 2) for name, n in taken.items()},
        "overlap": round(shards.info["totals"]["overlap"], 5),
        "worst_pack_error_of_std": max(max(one["error_of_std"]) for one in small.info["packing"]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1, help="of the hours (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's folder for such files)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        print(keep(measure(Path(name), args.scale), args.json))


if __name__ == "__main__":
    main()
