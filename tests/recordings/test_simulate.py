"""The simulated herd: the same for the same seed, physical, labelled, and openly simulated."""

import hashlib

import numpy as np
import pytest

from aar_dist.base.errors import USER_ERROR_EXIT
from aar_dist.recordings.contract import check_values, find_recordings, read_labels, read_samples
from aar_dist.recordings.herd import CATTLE, HERDS, HORSES, simulate_subject
from aar_dist.recordings.simulate import main


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


GOLDEN = {
    "sim_cattle": (
        "e4afb98c36e2972d",
        [0.334385, 0.440029, 0.880679, -0.696922, 0.329913, 0.658692],
        [-0.003648, 0.001777, 0.003616, -0.000606, 0.002923, 0.006987],
    ),
    "sim_horses": (
        "d42a4d996d618cb3",
        [-0.517376, -0.365349, 0.80293, 1.319456, 0.030776, 1.447375],
        [-0.004708, 0.005247, 6.6e-05, -0.012271, -0.024447, 0.012532],
    ),
}


@pytest.mark.parametrize("species", HERDS, ids=lambda s: s.dataset)
def test_golden(species):
    signals = simulate_subject(species, 1, 300, 578)
    label, acc, gyr = GOLDEN[species.dataset]
    assert digest(signals.label) == label
    np.testing.assert_allclose(signals.acc[::5000][:2].ravel(), acc, atol=1e-6)
    np.testing.assert_allclose(signals.gyr[::5000][:2].ravel(), gyr, atol=1e-6)


@pytest.mark.parametrize("species", HERDS, ids=lambda s: s.dataset)
def test_physics(species):
    signals = simulate_subject(species, 0, 3600, 1)
    strength = np.array([signals.acc[signals.label == i].std(axis=0).max() for i in range(len(species.classes))])
    assert set(np.unique(signals.label)) == set(range(len(species.classes)))
    assert strength.argmin() == 0, "the first behaviour is the quietest"
    still = np.linalg.norm(signals.acc[signals.label == 0], axis=1)
    assert still.mean() == pytest.approx(1, abs=0.02), "a sensor at rest feels gravity"
    assert np.abs(signals.gyr).max() < 5


def test_subjects_and_seeds_differ_and_repeat():
    one = simulate_subject(CATTLE, 0, 60, 1).acc
    assert np.array_equal(one, simulate_subject(CATTLE, 0, 60, 1).acc)
    assert not np.allclose(one, simulate_subject(CATTLE, 1, 60, 1).acc)
    assert not np.allclose(one, simulate_subject(CATTLE, 0, 60, 2).acc)


def test_a_trot_has_two_beats_a_stride():
    signals = simulate_subject(HORSES, 0, 3600, 578)
    trotting = signals.acc[signals.label == HORSES.classes.index("trotting"), 2][:4096]
    beat_hz = np.fft.rfftfreq(4096, 0.01)[1:][np.abs(np.fft.rfft(trotting - trotting.mean()))[1:].argmax()]
    assert beat_hz == pytest.approx(2 * 1.4, rel=0.2)


def test_command(tmp_path, capsys):
    main([str(tmp_path), "--subjects", "2", "--hours_per_subject", "0.05"])
    assert "simulated" in capsys.readouterr().out
    for species in HERDS:
        recordings = find_recordings(tmp_path / species.dataset)
        assert len(recordings) == 2 * 3, "two pauses for each animal"
        assert {r.subject for r in recordings} == {"0", "1"}
        assert sum(r.duration_s for r in recordings) == pytest.approx(2 * 180)
        for recording in recordings:
            check_values(recording)
            assert recording.dataset.startswith("sim_")
            assert recording.species.startswith("sim_")
            assert recording.location == "simulated"
            assert len(read_labels(recording)) == len(read_samples(recording, "acc"))
    cow = find_recordings(tmp_path / "sim_cattle")[0]
    assert cow.sensors[0].dtype == "<i2"
    in_g = read_samples(cow, "acc") * cow.sensors[0].scale
    whole = simulate_subject(CATTLE, 0, 180, 578).acc[: len(in_g)]
    np.testing.assert_allclose(in_g, whole, atol=1 / 4096)


def test_a_folder_in_use_is_left_alone(tmp_path, capsys):
    arguments = [str(tmp_path), "--subjects", "1", "--hours_per_subject", "0.01"]
    main(arguments)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.hdf5")}
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == USER_ERROR_EXIT
    assert "already holds something" in capsys.readouterr().err
    main([*arguments, "--overwrite"])
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.hdf5")} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sim_cattle", "sim_horses"]


@pytest.mark.parametrize("flags", [["--subjects", "0"], ["--hours_per_subject", "-1"], ["--subject", "1"]])
def test_bad_flags(tmp_path, flags, capsys):
    with pytest.raises(SystemExit) as left:
        main([str(tmp_path / "herd"), *flags])
    assert left.value.code == USER_ERROR_EXIT
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "herd").exists()
