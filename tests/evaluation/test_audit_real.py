"""The audit on the published files: it names exactly what is known to be there twice."""

import json
import shutil
from pathlib import Path

import h5py
import pytest
import yaml

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.audit import SAMPLES, audited, find_shared, leaks
from aar_dist.evaluation.audit_command import main as audit
from aar_dist.evaluation.folds import make_folds
from aar_dist.evaluation.tracks import tracks_of_recordings, tracks_of_shards
from aar_dist.recordings.contract import find_recordings
from aar_dist.recordings.convert import CONVERTERS, convert
from aar_dist.recordings.converter import Options
from aar_dist.recordings.otariids import DISPUTED
from aar_dist.shards.build import BuildOptions, build

pytestmark = pytest.mark.real
CONFIGS = Path(__file__).parents[2] / "configs/convert"
TWINS = {(290, 291): 141}
OVERLAPS = {(61, 62): 51, (103, 106): 51, (104, 106): 81, (105, 106): 51, (278, 283): 91, (243, 246): 271,
            (271, 289): 111}  # fmt: skip


@pytest.fixture(scope="module")
def cattle(tmp_path_factory, shared_data) -> Path:
    out = tmp_path_factory.mktemp("cattle")
    source = Options(source=shared_data / "cow_walking_raw.tar.xz")
    return convert(CONVERTERS["cow_walking"], out, source, keep_duplicates=True)[0]


def test_cattle(cattle, tmp_path):
    """290 is 291, and they lie in one cow, as the other pairs do: folds by cow leak none of them."""
    recordings = find_recordings(cattle)
    number = {(r.dataset, r.recording): int(r.source.split("_")[0]) for r in recordings}
    options = BuildOptions(datasets=("cow_walking",), longest_segment_s=6.0)
    shards = build(cattle.parent, tmp_path / "set", options, workers=1).folder
    tracks = {"recordings": tracks_of_recordings(recordings), "shards": tracks_of_shards([shards])}
    for of in tracks.values():
        shared = find_shared(of)
        pairs = {tuple(sorted(number[place] for place in s.places)): s for s in shared}
        assert {pair: round(10 * s.duration_s) for pair, s in pairs.items()} == TWINS | OVERLAPS
        assert {s.what for s in shared} == {SAMPLES}
        assert all(s.first.subject == s.second.subject for s in shared)
    folds = make_folds([t.subject for t in tracks["shards"]], 5)
    audit = audited(folds, tracks["shards"]).audit
    assert (audit["recordings"], len(audit["shared"]), audit["leaks"]) == (439, 8, [])
    # A split by file, every second one tested, would leak all that fall apart.
    side = {place: "test" if n % 2 else "train" for place, n in number.items()}
    apart = {pair for pair in TWINS | OVERLAPS if (pair[0] - pair[1]) % 2}
    assert {tuple(sorted(number[p] for p in s.places)) for s in leaks(shared, side)} == apart
    assert (290, 291) in apart


def test_the_start_times_alone_tell_the_overlaps_of_cattle(cattle):
    """With samples that cannot agree, the eight pairs are found by their times."""
    tracks = tracks_of_recordings(find_recordings(cattle))
    mute = [t for t in tracks if t.sensor == "acc"]
    silent = [type(t)(**{**vars(t), "read": lambda a, b, r=t.read: r(a, b)[:, :1] * 0}) for t in mute]
    found = {tuple(sorted(int(t.name.split("_")[0]) for t in (s.first, s.second))) for s in find_shared(silent)}
    assert found == {*TWINS, *OVERLAPS}


def test_motionsense_split_by_trial(tmp_path, shared_data):
    """`sit_5/sub_1` is `sit_13/sub_1`: a split by trial leaks it and is refused by name, a split by person is not."""
    layout = yaml.safe_load((CONFIGS / "motionsense.yaml").read_text())
    (tmp_path / "by_trial.yaml").write_text(yaml.safe_dump(layout | {"subject": {"path": "trial"}}))
    options = Options(source=shared_data / "motionsense_raw.tar.xz", yaml=tmp_path / "by_trial.yaml")
    folder, _ = convert(CONVERTERS["table"], tmp_path / "data", options, keep_duplicates=True)
    tracks = tracks_of_recordings(find_recordings(folder))
    (shared,) = find_shared(tracks)
    assert {t.name for t in (shared.first, shared.second)} == {
        "A_DeviceMotion_data/sit_5/sub_1.csv", "A_DeviceMotion_data/sit_13/sub_1.csv"
    }  # fmt: skip
    assert shared.duration_s == shared.first.duration_s == shared.second.duration_s
    trials = [t.subject for t in tracks]
    with pytest.raises(ConfigError, match=r"sit_13/sub_1\.csv of motionsense_user/13 from 0 s and .*sit_5/sub_1\.csv"):
        audited(make_folds(trials, "leave_one_out"), tracks)
    person = {(t.dataset, t.recording): t.name.split("sub_")[1] for t in tracks}
    assert leaks([shared], person) == []


def test_one_recording_of_two_seals(tmp_path, shared_data):
    """It stands under two names, out of step by 714 samples: folds by animal would leak it."""
    options = Options(source=shared_data / "otariids_raw.tar.xz")
    kept, _ = convert(CONVERTERS["otariids"], tmp_path / "kept", options, keep_duplicates=True)
    tracks = tracks_of_recordings(find_recordings(kept))
    (shared,) = find_shared(tracks)
    assert {t.name for t in (shared.first, shared.second)} == {*DISPUTED}
    assert (shared.what, round(shared.duration_s * 25)) == (SAMPLES, 23435)
    with pytest.raises(ConfigError, match=r"otariids/mav from 28\.56 s and .* of otariids/ronnie from 0 s"):
        audited(make_folds([t.subject for t in tracks], "leave_one_out"), tracks)
    once, _ = convert(CONVERTERS["otariids"], tmp_path / "once", options)
    assert find_shared(tracks_of_recordings(find_recordings(once))) == []


@pytest.fixture(scope="module")
def troika(tmp_path_factory, shared_data) -> dict[str, Path]:
    """Shard sets: all of TROIKA packed (``whole``), and its training and test recordings as two data sets (``parts``,
    and one each), as who follows the published split has them."""
    root = tmp_path_factory.mktemp("troika")
    source = Options(source=shared_data / "troika_ieeespc2015.tar.xz")
    folder, _ = convert(CONVERTERS["troika"], root, source)
    for recording in find_recordings(folder):
        dataset = "troika_test" if recording.source.startswith("TEST") else "troika_train"
        (root / dataset).mkdir(exist_ok=True)
        copy = Path(shutil.copy(recording.path, root / dataset))
        with h5py.File(copy, "r+") as file:
            file.attrs["dataset"] = dataset
    sets = {"whole": ("troika",), "parts": ("troika_test", "troika_train"), "train": ("troika_train",),
            "test": ("troika_test",)}  # fmt: skip
    pack = {"whole": {"ppg": "int16", "acc": "int16"}}
    return {
        name: build(
            root,
            root / "sets" / name,
            BuildOptions(datasets=of, longest_segment_s=8.0, train_ratio=1.0, pack=pack.get(name, {})),
            workers=1,
        ).folder
        for name, of in sets.items()
    }


def of_names(path: Path, train: list[str], test: list[str]) -> str:
    """A folds.json of one fold, written by hand."""
    path.write_text(json.dumps({"folds": [{"train": train, "test": test}]}))
    return str(path)


def test_troika_as_it_was_published_has_one_person_on_both_sides(troika, tmp_path, capsys):
    """S04 is in the extra training set and in the test set; the recordings differ, so the names alone can tell."""
    subjects = {name: sorted({t.subject for t in tracks_of_shards([troika[name]])}) for name in ("whole", "parts")}
    people = {name: [s for s in subjects["parts"] if s.startswith(name)] for name in ("troika_train", "troika_test")}
    assert [len(of) for of in people.values()] == [13, 8]
    as_one = [[f"troika/{s.partition('/')[2]}" for s in of] for of in people.values()]
    pair = "troika_test/S04 and troika_train/S04 bear one name in data sets of one family, one on the test"
    cases = (
        ("whole", as_one, "folds.json: subject troika/S04 is twice in fold 0, train and test; one side only"),
        ("parts", list(people.values()), f"fold 0: {pair} and one on the train side; if they are one"),
    )
    for name, sides, said in cases:
        with pytest.raises(SystemExit) as stop:
            audit([str(troika[name]), "--folds", of_names(tmp_path / "folds.json", *sides)])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
    # Kept together by name, nothing leaks.
    person = {s: s.partition("/")[2] for s in subjects["parts"]}
    folds = make_folds(subjects["parts"], 5, groups=person, one_each=True)
    assert audited(folds, tracks_of_shards([troika["parts"]])).audit["leaks"] == []


def test_who_of_troika_a_pretraining_has_seen(troika, capsys):
    """On the published training set: S04 by name. On all of it, packed: everybody, by their samples."""
    audit([str(troika["test"]), "--pretraining", str(troika["train"])])
    told = capsys.readouterr().out
    assert "in pretraining: troika_test/S04 and troika_train/S04 bear one name in data sets of one family" in told
    assert "transductive: pretraining saw signals, never labels, of 1 of 8 subjects, troika_test/S04" in told
    audit([str(troika["test"]), "--pretraining", str(troika["whole"]), "--json"])
    seen = json.loads(capsys.readouterr().out)["pretraining"]
    assert seen["transductive"] == [f"troika_test/S0{k}" for k in range(1, 9)]
    recordings = {place["recording"] for pair in seen["pairs"] for place in (pair["first"], pair["second"])
                  if pair["what"] == SAMPLES and place["dataset"] == "troika_test"}  # fmt: skip
    assert len(recordings) == 10, "found in other bytes"
