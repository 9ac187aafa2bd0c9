"""Every fault of the otariids, on the published files."""

import csv
import shutil
from collections import Counter

import numpy as np
import pytest

from aar_dist.base.errors import ConfigError, RecordingError
from aar_dist.recordings.contract import check_values, find_recordings, read_labels, read_samples
from aar_dist.recordings.convert import convert
from aar_dist.recordings.converter import Options
from aar_dist.recordings.otariids import BEHAVIOURS, CONVERTER, DISPUTED, TYPES, clock, read_species

pytestmark = pytest.mark.real


def published(otariids, source: str) -> list[dict[str, str]]:
    (path,) = otariids.raw.rglob(source)
    return list(csv.DictReader(path.open(newline="")))


@pytest.fixture(scope="module")
def index(shared_data):
    rows = csv.DictReader((shared_data / "otariids_index.csv").open())
    told = {f"{r['folder']}/{r['animal']}/{r['date']}.csv": r for r in rows}
    assert len(told) == 79
    return {source: r for source, r in told.items() if source not in DISPUTED}


def test_everything_is_there_at_two_rates(otariids, index):
    rows, rates = Counter(), Counter()
    for recording in otariids.recordings:
        check_values(recording)
        (acc,) = recording.sensors
        rows[recording.source] += acc.n_samples
        assert acc.rate_hz == float(index[recording.source]["hz_nominal"])
        assert acc.units == "g"
        assert recording.start_time is None, "the time column is not to be trusted"
    assert rows == {source: int(r["rows"]) for source, r in index.items()}
    rates = Counter({r.source: r.sensors[0].rate_hz for r in otariids.recordings}.values())
    assert rates == {25.0: 61, 20.0: 16}
    assert sum(r.duration_s for r in otariids.recordings) / 3600 == pytest.approx(11.43, abs=0.01)


@pytest.mark.parametrize(
    ("source", "row"), [("behaviour_rawdata/maxine/28-10-14.csv", 7194), ("behaviour_rawdata/miri/20-10-14.csv", 10975)]
)
def test_gaps_split(otariids, source, row):
    first, second = sorted(otariids.of(source), key=lambda r: int(r.recording.split("_")[-1]))
    assert first.sensors[0].n_samples == row + 1
    rows = published(otariids, source)
    values = np.array([[r["x"], r["y"], r["z"]] for r in rows], np.float32)
    np.testing.assert_array_equal(read_samples(second, "acc"), values[row + 1 :])
    assert f"{source}: gap after row {row}" in " ".join(otariids.notes)
    assert sum("gap after row" in n for n in otariids.notes) == 2


def test_misspelt_rows_are_corrected_and_told(otariids, shared_data, tmp_path):
    source = "behaviour_rawdata/malie/11-09-14.csv"
    rows = published(otariids, source)
    odd = np.array([r["behaviour"] == "foraigng" and r["type"] == "NA" for r in rows])
    assert odd.sum() == 118
    (recording,) = otariids.of(source)
    assert set(read_labels(recording)[odd]) == {TYPES.index("Foraging")}
    assert f"{source}: 118 rows of foraigng/NA taken as foraging/Foraging" in otariids.notes
    options = Options(source=shared_data / "otariids_raw.tar.xz", label="behaviour")
    folder, _ = convert(CONVERTER, tmp_path, options)
    assert folder.name == "otariids_behaviour"
    (recording,) = [r for r in find_recordings(folder) if r.source == source]
    assert recording.label.classes == BEHAVIOURS
    assert len(BEHAVIOURS) == 28
    assert set(read_labels(recording)[odd]) == {BEHAVIOURS.index("foraging")}


def test_labels_are_those_published(otariids):
    published_types, counts = Counter(), Counter()
    for recording in otariids.recordings:
        assert recording.label.classes == TYPES
        counts.update(TYPES[i] for i in read_labels(recording))
    for path in otariids.raw.rglob("behaviour*/*/*.csv"):
        if "/".join(path.parts[-3:]) not in DISPUTED:
            published_types.update(r["type"] for r in csv.DictReader(path.open(newline="")))
    published_types["Foraging"] += published_types.pop("NA")
    assert counts == published_types


def test_animals_and_species(otariids):
    (details,) = otariids.raw.rglob("animal_details2.csv")
    assert b"\r" in details.read_bytes()
    assert b"\n" not in details.read_bytes()
    species = read_species(details)
    seen = {r.subject: r.species for r in otariids.recordings}
    assert set(species) - set(seen) == {"april", "portia"}
    assert len(seen) == 12
    assert len(set(seen.values())) == 3
    assert all(species[animal] == s for animal, s in seen.items())


def test_one_recording_under_two_names_is_left_out_and_told(otariids, shared_data, tmp_path):
    mav, ronnie = (published(otariids, source) for source in DISPUTED)
    axes = ("x", "y", "z")
    assert [[r[a] for a in axes] for r in mav[714 : 714 + len(ronnie)]] == [[r[a] for a in axes] for r in ronnie]
    differ = np.mean([a["type"] != b["type"] for a, b in zip(mav[714:], ronnie, strict=False)])
    assert 0.6 < differ < 0.7
    assert not {r.source for r in otariids.recordings} & {*DISPUTED}
    assert sum("has another animal's name too" in note for note in otariids.notes) == 2
    options = Options(source=otariids.raw, index=shared_data / "otariids_index.csv")
    kept = convert(CONVERTER, tmp_path, options, keep_duplicates=True)[1]
    assert {r.source for r in kept.recordings} >= {*DISPUTED}


def test_full_scale_differs(otariids, index):
    """1.1 g to 8 g in the published files; nothing is clipped on the way."""
    for source in index:
        peak = max(np.abs(read_samples(r, "acc")).max() for r in otariids.of(source))
        assert peak == pytest.approx(float(index[source]["absmax_g"]), rel=1e-6)


def refused(otariids, tmp_path, shared_data, **changes) -> str:
    options = {"source": otariids.raw, "index": shared_data / "otariids_index.csv"} | changes
    with pytest.raises((RecordingError, ConfigError)) as caught:
        convert(CONVERTER, tmp_path / "out", Options(**options))
    assert list((tmp_path / "out").glob("*")) == []
    return str(caught.value)


def test_no_rate_without_an_index(otariids, tmp_path, shared_data):
    assert "rates (25 or 20 Hz) stand only in an index" in refused(otariids, tmp_path, shared_data, index=None)
    lost = tmp_path / "index.csv"
    lines = (shared_data / "otariids_index.csv").read_text().splitlines()
    lost.write_text("\n".join(line for line in lines if "malie,11-09-14" not in line))
    assert "11-09-14.csv: is not in the index" in refused(otariids, tmp_path, shared_data, index=lost)


def test_an_unknown_label_and_an_unknown_choice(otariids, tmp_path, shared_data):
    copy = tmp_path / "copy/behaviour/rocky"
    copy.mkdir(parents=True)
    shutil.copy(next(otariids.raw.rglob("animal_details2.csv")), tmp_path / "copy")
    text = next(otariids.raw.rglob("behaviour/rocky/22-01-14.csv")).read_text()
    (copy / "22-01-14.csv").write_text(text.replace("Resting", "Restin"))
    told = refused(otariids, tmp_path, shared_data, source=tmp_path / "copy")
    assert "22-01-14.csv: label 'Restin'" in told
    assert "is none of Foraging" in told
    assert "type or behaviour" in refused(otariids, tmp_path, shared_data, label="place")


def test_clock():
    counter = np.array(["00:00:00.04", "00:00:00.00", "10", "12", "14", "90", "92", "5"])
    seconds, gaps = clock(counter, 25.0)
    assert gaps == [(5, 76), (7, -87)]
    assert (np.diff(seconds) > 1.5 / 25).tolist() == [False, False, False, False, True, False, True]
