"""``aar-dist inspect`` and ``verify``: what a path holds, told before anything runs."""

import json
import shutil
from pathlib import Path

import pytest

from aar_dist.cli import main

AAR = str(Path(__file__).parents[2] / "configs/pretrain/aar.yaml")


def inspected(capsys, *arguments: str) -> dict:
    main(["inspect", *arguments, "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("flags", "parameters"),
    [
        ([], 801_664),
        (["--model.d_embedding", "256", "--n_layers", "6"], 4_755_712),
        (["--data.sensors", "acc", "gyr", "--d_embedding", "256", "--n_layers=6"], 4_755_712),
        (["--d_embedding", "256", "--n_layers", "6", "--embedding_type", "conv"], 4_914_560),
    ],
)
def test_a_configuration_tells_the_published_sizes(capsys, flags, parameters):
    told = inspected(capsys, AAR, *flags)
    if "acc" not in flags:  # the end of several values is not to be seen
        assert inspected(capsys, *flags, AAR) == told
    assert told["parameters"]["backbone"] == parameters
    assert [s["tokens"] for s in told["segments"]] == [30, 120]
    assert {row["zero_stage"] for row in told["memory"]["rows"]} == {0, 1, 2, 3}


def test_a_configuration_as_a_table(capsys):
    main(["inspect", AAR])
    printed = capsys.readouterr().out
    for word in ("801,664", "GFLOP", "Memory of one of 2 ranks"):
        assert word in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([AAR, "--d_embedding", "100"], "model.d_embedding must be a positive multiple of 64, got 100"),
        ([AAR, "--model.d_embeding", "128"], "did you mean model.d_embedding?"),
        ([AAR, "--masking_ratio", "2"], "objective.masking_ratio"),
        ([AAR, "--world_size", "3"], "train.batch_size 512 is not a multiple of 3 ranks"),
        ([AAR, "--world_size", "0"], "--world_size must be 1 or more, got 0"),
        (["nowhere", "--picture", "p.xyz"], "--picture p.xyz: no such format; give it one of the endings .png, .svg"),
        (["nowhere"], "no such folder"),
        (["nowhere.yaml"], "No such file"),
        (["store://aar"], "expected store://name@latest"),
    ],
)
def test_one_line_and_exit_2(capsys, arguments, said):
    with pytest.raises(SystemExit) as left:
        main(["inspect", *arguments])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert said in error


def test_a_shard_set(capsys, shard_set, tmp_path):
    told = inspected(capsys, str(shard_set), "--picture", str(tmp_path / "balance.png"))
    assert {(p["dataset"], p["split"]) for p in told["parts"]} == {
        (d, s) for d in ("fast", "slow") for s in ("train", "val")
    }
    assert (tmp_path / "balance.png").stat().st_size > 5000


def test_verify_names_what_is_whole_and_what_is_not(capsys, shard_set, tmp_path):
    main(["verify", str(shard_set)])
    assert "all hashes match" in capsys.readouterr().out
    shutil.copytree(shard_set, tmp_path / "set")
    (tmp_path / "set" / "labels.parquet").write_bytes(b"PAR1")
    for path, said in ((tmp_path / "set", "labels.parquet"), (tmp_path, "nothing here to verify")):
        with pytest.raises(SystemExit):
            main(["verify", str(path)])
        assert said in capsys.readouterr().err
