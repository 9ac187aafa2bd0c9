"""``aar-dist plan`` as it is typed: page, JSON, picture, errors; a small set whose figures are known."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from manifests import Made, make

from aar_dist.cli import main
from aar_dist.stream.columns import Coded, distinct, grouped
from aar_dist.stream.config import DataConfig, MixtureConfig
from aar_dist.stream.plan.config import PlanConfig, ShapeConfig
from aar_dist.stream.plan.picture import figure
from aar_dist.stream.plan.report import make_plan
from aar_dist.stream.source import open_source

ROOT = Path(__file__).parents[2]
CLUSTER = "--nodes 4 --ranks_per_node 2 --bandwidth 10MB/s --cache 40MB --batch_size 64 --step_seconds 0.02 --epochs 2"


@pytest.fixture(scope="module")
def herds(tmp_path_factory) -> Path:
    """700 chunks of five data sets, the manifest alone."""
    return make(
        tmp_path_factory.mktemp("herds") / "set", Made(chunks=700, datasets=5, chunks_per_shard=10, chunk_s=600)
    )


def planned(capsys, *flags: str) -> dict:
    main(["plan", *map(str, flags), "--json"])
    return json.loads(capsys.readouterr().out)


def refused(capsys, *flags: object) -> str:
    with pytest.raises(SystemExit) as left:
        main(["plan", *map(str, flags)])
    assert left.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    return told.err.strip()


def test_figures_of_a_small_set(herds, capsys):
    plan = planned(capsys, herds, *CLUSTER.split(), "--lanes", "16")
    found = {key: plan[key] for key in GOLDEN}
    assert found == GOLDEN
    assert plan["demand"] == DEMAND
    assert {key: plan["caching"][key] for key in CACHING} == pytest.approx(CACHING)
    assert set(plan) == KEYS
    assert len(plan["timeline"]["step"]) == len(plan["timeline"]["cached_most"]) == 100
    assert max(plan["timeline"]["cached_most"]) <= 40e6


GOLDEN = {
    "world_size": 8,
    "segments_per_rank": 8,
    "lanes": 16,
    "segments": 116763,
    "data_sets": {"herd0000": 27228, "herd0001": 24044, "herd0002": 31821, "herd0003": 22769, "herd0004": 10901},
    "chunks": 390,
    "n_shards": 40,
    "bytes": 101467136,
    "steps_per_epoch": 1824.42,
    "steps": 3648,
    "epochs_played": 2,
    "batch_sizes": [56, 64, 72],
    "even_lanes": [8, 16, 32],
}
DEMAND = {
    "shards_per_rank": {"least": 7.002, "mean": 8.377, "most": 10.502},
    "shards_per_node": {"least": 12.003, "mean": 14.628, "most": 16.504},
    "bytes_per_node": {"least": 32187154.882, "mean": 36960034.551, "most": 40412544.901},
    "readers_per_shard": 1.462,
    "rank_maps": {"least": 13016064.0, "mean": 15162240.0, "most": 17974784.0},
    "node_uses": {"least": 24631296.0, "mean": 26975616.0, "most": 28896768.0},
}
CACHING = {"fits": True, "least": 28896768, "no_refetch": 62457540, "evicted": 44, "stall_s": 5.160153599999992}
KEYS = {
    "shards", "identity", "world_size", "batch_size", "segments_per_rank", "lanes", "shuffle_block", "segments",
    "data_sets", "chunks", "n_shards", "bytes", "steps_per_epoch", "steps", "epochs", "epochs_played", "demand",
    "caching", "quality", "batch_sizes", "even_lanes", "not_exact", "timeline", "advice",
}  # fmt: skip


def test_a_page_on_a_laptop_by_default(herds, capsys):
    main(["plan", str(herds)])
    page = capsys.readouterr().out
    assert "1 nodes x 1 ranks = 1 ranks" in page
    assert "cache of a node" in page
    assert "waited" not in page  # nothing is known of link and step
    assert max(map(len, page.splitlines())) <= 120


def test_a_batch_of_many_epochs_is_told_and_drawn(herds, capsys):
    flags = ["--data.mixture.oversampling_factor", "0.01", "--batch_size", "65536", "--bandwidth", "1GB/s"]
    main(["plan", str(herds), *flags])
    page = capsys.readouterr().out
    assert "fetched in epoch 2 " in page
    assert "fetched in epoch 3 " not in page
    assert "after these" in page
    config = PlanConfig(
        data=DataConfig(shards=[str(herds)], mixture=MixtureConfig(oversampling_factor=0.01)),
        train=ShapeConfig(batch_size=65536),
    )
    drawn = figure(make_plan(config), config).axes[0].lines
    assert [(line.get_xydata().tolist()[0][1] > 0, line.get_marker()) for line in drawn] == [(True, "o")] * 2


def test_a_larger_cache_fetches_less_and_a_faster_link_waits_less(herds, capsys):
    def play(cache: str, bandwidth: str) -> dict:
        return planned(capsys, herds, *CLUSTER.split(), "--cache", cache, "--bandwidth", bandwidth)["caching"]

    small, large, fast = play("60MB", "10MB/s"), play("1TB", "10MB/s"), play("60MB", "1GB/s")
    assert sum(e["again"]["mean"] for e in small["epochs"]) > 0
    assert sum(e["again"]["mean"] for e in large["epochs"]) == 0 == large["evicted"]
    assert fast["stall_s"] < small["stall_s"]
    assert fast["epochs"] == small["epochs"]
    assert small["least"] <= small["no_refetch"] == large["no_refetch"]


def test_a_cache_below_what_is_in_use_is_told(herds, capsys):
    plan = planned(capsys, herds, *CLUSTER.split(), "--cache", "1MB")
    assert not plan["caching"]["fits"]
    assert plan["caching"]["stall_s"] is None
    assert any("cannot hold what a node has in use" in line for line in plan["advice"])


def test_advice_is_tried(herds, capsys):
    """One lane and short blocks shuffle badly; with what is advised instead nothing is left to advise."""
    poor = [str(herds), "--nodes", "2", "--batch_size", "64"]
    advice = planned(capsys, *poor, "--lanes", "1", "--shuffle_block", "16")["advice"]
    assert advice[0].startswith("raise data.lanes to ")
    words = advice[0].replace(":", "").split()
    lanes = words[words.index("data.lanes") + 2]
    block = words[words.index("data.shuffle_block") + 2] if "data.shuffle_block" in words else "16"
    assert not any(
        line.startswith("raise")
        for line in planned(capsys, *poor, "--lanes", lanes, "--shuffle_block", block)["advice"]
    )


def test_the_settings_of_a_training_run_are_taken(herds, tmp_path, capsys):
    recipe = tmp_path / "run.yaml"
    recipe.write_text(f"out: x\ndata: {{shards: {herds}, lanes: 32}}\ntrain: {{batch_size: 96, seed: 1}}\n")
    plan = planned(capsys, "--config", recipe, "--epochs", "2")
    assert (plan["lanes"], plan["batch_size"], plan["epochs"]) == (32, 96, 2)


def test_a_picture(herds, tmp_path, capsys):
    main(["plan", str(herds), *CLUSTER.split(), "--picture", str(tmp_path / "plan.png")])
    capsys.readouterr()
    assert (tmp_path / "plan.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "plan.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--nodes 3 --ranks_per_node 2 --batch_size 512",
            "not divisible by 3 nodes x 2 ranks = 6; choose 510 or 516",
        ),
        ("--nodes 1000", "--batch_size 512 is not divisible by 1000 nodes x 1 ranks = 1000; choose 1000"),
        ("--nodes 0", "--nodes must be 1 or more, got 0"),
        ("--cache plenty", "--cache: 'plenty' is no size, expected one such as 1TB"),
        ("--bandwidth 2GB/h", "--bandwidth: '2GB/h' is no size, expected one such as 2GB/s"),
        ("--step_seconds 1 --segments_per_second 9", "say the same: give one of them"),
        ("--bandwith 2GB/s", "unknown flag --bandwith (did you mean cluster.bandwidth?)"),
        ("--picture plan.gif", "no such format"),
        ("--segment_duration 60", "was built for segments up to 30 s"),
    ],
)
def test_errors_are_one_line(herds, capsys, flags, message):
    told = refused(capsys, herds, *flags.split())
    assert message in told
    assert told.startswith("error: ")
    assert "\n" not in told


def test_no_shard_set_is_one_line(capsys):
    assert "name one or several first" in refused(capsys, "--nodes", "2")


def test_a_large_set_costs_bytes_by_the_row(tmp_path):
    """What is kept of a row, whatever its names and lists are."""
    folder = make(tmp_path / "set", Made(chunks=20_000, datasets=20, train_ratio=1.0))
    source = open_source(DataConfig(shards=[str(folder)]), "train")
    columns = [v for of in (source.rows, source.items) for v in vars(of).values()] + list(source.origin.values())
    kept = {id(a): a.nbytes for c in columns for a in ([c.codes, c.values] if isinstance(c, Coded) else [c])}
    assert len(source.items.dataset) == 20_000
    assert sum(kept.values()) + source.parts.nbytes < 140 * 20_000


def test_the_benchmark_of_scale_tells_its_figures(tmp_path):
    script = [sys.executable, str(ROOT / "benchmarks/scale.py"), "--chunks", "5000", "--rounds", "1"]
    subprocess.run([*script, "--json", str(tmp_path / "scale.json")], check=True, capture_output=True)
    told = json.loads((tmp_path / "scale.json").read_text())
    assert told["items"] == 5000
    assert told["import_mb"] < told["peak_mb"] < 500
    assert {"open_s", "plan_s", "import_s", "at_99", "reached"} <= set(told)


def test_codes_are_those_of_the_values():
    rng = np.random.default_rng(0)
    for shape in ((50,), (50, 3), (0,), (1, 2)):
        values = rng.integers(0, 3, shape)
        codes, first = distinct(values)
        assert np.array_equal(values[first][codes], values)
        assert len(first) == len(np.unique(values, axis=0))
    a, b = rng.integers(0, 4, 60), rng.integers(0, 5, 60)
    codes, first = grouped(a, b)
    assert len(first) == len(np.unique(np.c_[a, b], axis=0))
    assert np.array_equal(np.c_[a, b][first][codes], np.c_[a, b])
