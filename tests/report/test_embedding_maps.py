"""The maps of the embeddings: where points lie, what they tell, how separable names are."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aar_dist.base.timelines import PALETTE
from aar_dist.report.command import main
from aar_dist.report.embedding import embedding_map
from aar_dist.report.neighbours import alike
from aar_dist.report.projection import principal, projections


class NeighboursFirst:
    """In place of UMAP, whose compilation takes longer than all tests of the page: a map that is known."""

    def __init__(self, **settings) -> None:
        self.settings = settings

    def fit_transform(self, vectors):
        assert self.settings["random_state"] is not None
        return vectors[:, :2] * 10


@pytest.fixture
def with_umap(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=NeighboursFirst))


def write(path, n=120, *, label=lambda k: ["eat", "rest"][k % 2], n_subjects=4, datasets=("herd",), told=None):
    """Embeddings that tell labels apart; subjects in turn."""
    rng = np.random.default_rng(0)
    labels = [label(k) for k in range(n)]
    vectors = rng.normal(size=(n, 8)).astype(np.float32) * 0.1
    vectors[:, 0] += [1.0 if one == "eat" else -1.0 for one in labels]
    vectors[:, 1] += 3.0
    columns = {
        "dataset": [datasets[k % len(datasets)] for k in range(n)],
        "subject": [f"{datasets[k % len(datasets)]}/{k // 2 % n_subjects}" for k in range(n)],
        "recording": [f"r_{k % 3}" for k in range(n)],
        "start_s": [10.0 * k for k in range(n)],
        "stop_s": [10.0 * k + 10 for k in range(n)],
        "label": labels,
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8),
    }
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(told), path)
    return path


def test_neighbours_are_of_other_subjects():
    """Each subject is a clump, and in each the classes lie alike: its own windows would say more than others do."""
    subject = np.repeat(["a", "b", "c", "d"], 40)
    names = np.tile(np.repeat(["eat", "rest"], 20), 4)
    rng = np.random.default_rng(0)
    own = rng.normal(size=(160, 6)) * 0.01 + np.repeat(np.eye(6)[:4], 40, axis=0)
    assert alike(own, names, np.arange(160).astype(str)).right == pytest.approx(0.5, abs=0.1)
    told = own + np.where(names == "eat", 1.0, -1.0)[:, None] * np.eye(6)[4]
    assert alike(told, names, subject).of == {"eat": 1.0, "rest": 1.0}
    assert alike(own, subject, names).right == 1.0
    assert alike(own, subject, names).chance == 0.25
    alone = np.where(subject == "a", "only a's", names)
    assert set(alike(told, alone, subject).of) == {"eat", "rest"}, "nobody else could tell it"
    assert alike(told, np.array(["x"] * 160), subject) is None
    assert alike(told[:0], names[:0], subject[:0]) is None


def test_a_rare_name_counts_as_much_as_a_frequent_one():
    names = np.array(["often"] * 90 + ["seldom"] * 10)
    vectors = np.tile([1.0, 0.0], (100, 1))
    score = alike(vectors, names, np.arange(100).astype(str))
    assert score.of == {"often": 1.0, "seldom": 0.0}
    assert score.right == score.chance == 0.5


def test_principal_components_tell_their_share():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(300, 5)) * np.sqrt([6.0, 3.0, 0.5, 0.3, 0.2])
    made = principal(vectors)
    variance = np.linalg.eigvalsh(np.cov(vectors.T))[::-1]
    assert (
        made.about == " and ".join(f"{100 * v / variance.sum():.0f}\u00a0%" for v in variance[:2]) + " of the variance"
    )
    np.testing.assert_allclose(made.places.var(axis=0, ddof=1), variance[:2])
    assert principal(np.ones((4, 1))).places.shape == (4, 2)


def test_umap_is_drawn_where_it_is_installed(with_umap, monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(50, 4))
    assert [one.title for one in projections(vectors, 1)] == ["principal components", "UMAP"]
    assert len(projections(vectors[:30], 1)) == 1, "too few for neighbours"
    monkeypatch.setitem(sys.modules, "umap", None)
    assert len(projections(vectors, 1)) == 1


@pytest.mark.slow
def test_the_real_umap_keeps_clumps_apart_and_repeats_itself(monkeypatch):
    monkeypatch.delitem(sys.modules, "umap")
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(size=(60, 6)), rng.normal(size=(60, 6)) + 8])
    (_, made), (_, again) = projections(vectors, 5), projections(vectors, 5)
    np.testing.assert_array_equal(made.places, again.places)
    centre = made.places[:60].mean(0), made.places[60:].mean(0)
    spread = max(made.places[:60].std(), made.places[60:].std())
    assert np.linalg.norm(centre[0] - centre[1]) > 2 * spread


def test_points_tell_their_origin_and_have_a_colour_for_each_name(tmp_path, with_umap):
    made = embedding_map(write(tmp_path / "e.parquet", datasets=("herd", "<b>&")))
    assert [picture.title for picture in made.pictures] == ["principal components", "UMAP"]
    assert [(one.key, one.groups) for one in made.switch] == [
        ("class", ["eat", "rest"]),
        ("subject", [f"{name}/{k}" for name in ("<b>&", "herd") for k in range(4)]),
        ("dataset", ["<b>&", "herd"]),
    ]
    for picture in made.pictures:
        assert picture.svg.count('class="point"') == picture.svg.count("<title>") == made.shown == 120
        assert "<title>herd/0 · r_0 · 0 to 10 s · eat</title>" in picture.svg
        assert "&lt;b&gt;&amp;/0 · r_1 · 10 to 20 s · rest" in picture.svg
        assert "<b>" not in picture.svg
        (first,) = re.findall(r'style="([^"]+)" d="[^"]+"><title>herd/0 · r_0 · 0 to', picture.svg)
        assert first == f"--class:{PALETTE[0]};--subject:{PALETTE[4]};--dataset:{PALETTE[1]}"
    by_class, by_subject, _ = made.colourings
    assert by_class.told.startswith(
        "By its 10 nearest neighbours in other subjects, a window is given its own class 100"
    )
    assert by_class.told.endswith("(mean over 2 classes; by chance 50\u00a0%).")
    assert "in other recordings, a window is given its own subject" in by_subject.told


def test_more_names_than_colours_have_a_map_each(tmp_path):
    made = embedding_map(write(tmp_path / "e.parquet", n=300, n_subjects=30))
    assert [one.key for one in made.switch] == ["class"]
    by_subject = next(one for one in made.colourings if one.key == "subject")
    assert [panel.title for panel in by_subject.each] == [f"herd/{k}" for k in range(30)]
    assert sum(panel.svg.count(" id=") for panel in by_subject.each) == 1, "what all share stands once"
    assert "--subject" not in made.pictures[0].svg


@pytest.mark.parametrize("n", [11, 12])
def test_no_two_subjects_share_a_colour(tmp_path, n):
    made = embedding_map(write(tmp_path / "e.parquet", n_subjects=n))
    (legend,) = [one.legend for one in made.switch if one.key == "subject"]
    assert [colour for _, colour in legend] == list(PALETTE[:n])


@pytest.mark.parametrize("label", [lambda k: None, lambda k: 0.5 * k], ids=["no labels", "a target"])
def test_without_classes_subjects_are_told(tmp_path, label):
    path = write(tmp_path / "e.parquet", label=label)
    made = embedding_map(path)
    assert [one.key for one in made.switch] == ["subject"]
    assert ("1 · r_2 · 20 to 30 s · 1<" in made.pictures[0].svg) == (label(1) is not None)


def test_windows_without_a_label_are_a_group_and_no_class(tmp_path):
    made = embedding_map(write(tmp_path / "e.parquet", label=lambda k: [None, "eat", "rest"][k % 3]))
    assert made.switch[0].groups == ["eat", "rest", "no label"]
    assert set(made.switch[0].alike.of) == {"eat", "rest"}


def test_a_file_of_embeddings_is_a_page(tmp_path, capsys):
    path = write(tmp_path / "e.parquet", told={"model": "store://aar@3", "shards": "ab" * 32})
    main([str(path)])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'e.html'}: ")
    html = (tmp_path / "e.html").read_text()
    assert "store://aar@3 sees 120 windows of 4 subjects." in html
    assert "120 windows as store://aar@3 sees them" in html
    assert "ab" * 32 in html
    assert "<script" not in html
    for broken, said in ((write(tmp_path / "f.parquet", n=2), "holds 2 windows; a map needs three"),
                         (tmp_path / "g.parquet", "found nothing; expected")):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main([str(broken)])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
