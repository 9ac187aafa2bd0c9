"""What is wrong with a recording ends the build in one line, exit code 2, and nothing is written."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_build import assert_refused


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return apply


def no_rate(file: h5py.File) -> None:
    file.attrs.pop("sr", None)
    file["acc"].attrs.pop("sr", None)


def no_units(file: h5py.File) -> None:
    del file["acc"].attrs["units"]


def unequal(file: h5py.File) -> None:
    attributes = dict(file["gyr"].attrs)
    values = file["gyr"][:-700]
    del file["gyr"]
    file.create_dataset("gyr", data=values).attrs.update(attributes)


def only_nan(file: h5py.File) -> None:
    file["acc"][:] = np.nan


def outside(file: h5py.File) -> None:
    file["label"][17] = 3


FAULTS = {
    "cut in half": (cut_in_half, "not readable as HDF5"),
    "without a rate": (edit(no_rate), "sr"),
    "without units": (edit(no_units), "units"),
    "unequal lengths": (edit(unequal), "gyr"),
    "only NaN": (edit(only_nan), "NaN"),
    "label outside the classes": (edit(outside), "label"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_one_line_exit_2_nothing_written(name, recordings, tmp_path, capsys):
    damage, word = FAULTS[name]
    (tmp_path / "data" / "fast").mkdir(parents=True)
    for k in (0, 1):
        victim = tmp_path / "data" / "fast" / f"cow_f{k}_ds_0.hdf5"
        victim.write_bytes((recordings / "fast" / victim.name).read_bytes())
    damage(victim)
    arguments = ["--data_root", tmp_path / "data", "--output_folder", tmp_path / "out", "--workers", 1]
    assert_refused(capsys, arguments, victim.name, word, "1 of 2 recordings")
    assert not (tmp_path / "out").exists()
