"""The commands as they are typed."""

import json

import pytest

from aar_dist.cli import main


@pytest.mark.parametrize("name", ["audit", "embed", "export"])
def test_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: aar-dist {name}" in capsys.readouterr().out


def test_audit_in_json(shard_set, recordings, capsys):
    main(["audit", str(shard_set), "--json"])
    assert json.loads(capsys.readouterr().out) == []
    main(["audit", str(shard_set), str(recordings / "slow"), "--json"])
    assert json.loads(capsys.readouterr().out) == [], "a set beside what it was built from is no second recording"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["audit", "nowhere"], "nowhere: no such folder"),
        (["audit", "{set}", "--folds", "none.json"], "none.json: No such file or directory; expected a folds.json"),
        (["export", "npy", "{set}", "{out}", "--segment_duration", "60"], "was built for segments up to 1 s"),
        (["export", "npy", "{set}", "{out}", "--kinds", "ecg", "--segment_duration", "1"], "kinds ['ecg']"),
        (["export", "npy", "{set}", "{out}", "--segment_durations", "1"], "did you mean --segment_duration?"),
        (["embed", "nowhere", "{set}", "{out}"], "nowhere is no stored model"),
    ],
)
def test_what_is_wrong_is_one_line(argv, said, shard_set, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([word.format(set=shard_set, out=tmp_path / "out") for word in argv])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
