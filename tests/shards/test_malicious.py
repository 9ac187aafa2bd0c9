"""Shard sets made to do harm: one line, exit code 2, nothing written, nothing run, no memory taken."""

import io
import json
import math
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forging import Forged, npy, parquet, small_tar
from hypothesis import given
from hypothesis import strategies as st
from servers import faulty

from aar_dist.base.errors import AarError, ShardError
from aar_dist.cli import main as aar_dist
from aar_dist.evaluation.tracks import tracks_of_shards
from aar_dist.shards import checks
from aar_dist.shards.format import INFO, LABELS, MANIFEST, MANIFEST_SCHEMA
from aar_dist.shards.members import Members, Place
from aar_dist.shards.summary import summarize
from aar_dist.shards.verify import verify_shards
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream
from aar_dist.stream.maps import TORCH

TB = 10**13


@pytest.fixture
def forged(shard_set, tmp_path) -> Forged:
    return Forged(shard_set, tmp_path / "set")


def stream(folder: Path) -> None:
    data = DataConfig(shards=[str(folder)], segment_duration=1.0, lanes=16, normalize="recording")
    with open_stream(data, "train") as opened:
        next(opened.batches(0, 64, 64))


DOORS = {"stream": stream, "verify": verify_shards, "inspect": summarize}


def assert_refused(folder: Path, words: str, doors: tuple[str, ...] = tuple(DOORS)) -> None:
    for door in doors:
        with pytest.raises(AarError, match=words) as caught:
            DOORS[door](folder)
        assert isinstance(caught.value, ShardError), door
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 1000


def test_what_may_be_stored_can_be_read():
    assert set(checks.DTYPES) == {dtype for dtype in TORCH if dtype not in checks.PACKED}


ROWS = {
    "shard": ["../outside.tar", "/etc/passwd", "/tmp/x.tar", "a/b.tar", "..", ".tar", "x.tar\n", "..\\x.tar", ""],
    "sha256": ["../../../etc/x", "", "A" * 64, "0" * 63],
    "split": ["test", ""],
    "dtype": ["|O", "O", "object", "<U4", "<c8", "|V8", "|S8", ">f4", "<M8[s]", "nonsense"],
    "axes": [",".join("x" * 5000), "x,\x1b[2J"],
    "shard_bytes": [TB, -1, 0, 2**62],
    "offset": [-1, 2**62, 10**9, TB, 641],
    "n_samples": [-5, TB, 2**62, 2**63 - 1],
    "owned_starts": [-1, 10**6, 2**62],
    "rate_hz": [0.0, -50.0, math.nan, math.inf, 1e300, 1e-300],
    "start_s": [math.nan, -1.0, math.inf, 1e300],
    "scale": [[math.nan] * 3, [math.inf] * 3, [0.0, 1.0, 1.0], [1e300] * 3, [1.0], [], [1.0] * 4],
    "zero": [[math.nan] * 3, [-math.inf] * 3, [1e39] * 3, []],
    "mean": [[math.nan] * 3, [math.inf] * 3, [0.0]],
    "std": [[-1.0] * 3, [math.nan] * 3],
    "n_valid": [[-1] * 3, [2**62] * 3],
    "subject": ["\x1b[2Jx", "a\nb", "x" * 5000],
    "key": ["a\x00b", "k" * 5000],
    "recording": ["\x07"],
}  # fmt: skip
CASES = [(name, value) for name, values in ROWS.items() for value in values]
LAZY = {"mean", "std", "n_valid", "key", "subject", "recording"}
"""Read by some doors only."""


@pytest.mark.parametrize(("name", "value"), CASES, ids=[f"{name}-{str(value)[:12]!r}" for name, value in CASES])
def test_rows_that_lie(forged, name, value):
    folder = forged.with_rows(lambda row: row.update({name: value}))
    words = f"{name}|rows|bytes" if name in ("shard_bytes", "offset", "n_samples") else name
    assert_refused(folder, words, ("verify", "inspect") if name in LAZY else tuple(DOORS))


@pytest.mark.parametrize("name", MANIFEST_SCHEMA.names)
def test_a_column_of_another_type_or_none_at_all(forged, name):
    table = pa.Table.from_pylist(forged.rows, MANIFEST_SCHEMA)
    place = table.schema.names.index(name)
    for other in (pa.array([[["deep"]]] * len(table)), pa.nulls(len(table), MANIFEST_SCHEMA.field(name).type)):
        assert_refused(forged.with_table(table.set_column(place, name, other)), name, ("verify", "inspect"))
    assert_refused(forged.with_table(table.drop_columns([name])), f"no column {name}", ("verify", "inspect"))


def with_values(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    place = MANIFEST_SCHEMA.names.index(name)
    return table.set_column(place, name, pa.array(values, MANIFEST_SCHEMA.field(name).type))


def repeated(rows: list[dict], n: int) -> pa.Table:
    """The first row n times: a few kilobytes of Parquet."""
    return pa.Table.from_pylist(rows[:1], MANIFEST_SCHEMA).take(pa.array(np.zeros(n, np.int64)))


def test_parquet_bombs(forged):
    assert_refused(forged.with_table(repeated(forged.rows, 1_000_000)), "1000000 rows.*a bomb")
    long_keys = with_values(repeated(forged.rows, 20_000), "key", ["k" * 1000] * 20_000)
    assert_refused(forged.with_table(long_keys), "keys take .* bytes: a bomb", ("verify", "inspect"))
    long_lists = with_values(repeated(forged.rows, 2000), "zero", [[0.0] * 4096] * 2000)
    assert_refused(forged.with_table(long_lists), "values.*a bomb")


def varint(number: int) -> bytes:
    """A number as the footer of a Parquet file holds it."""
    number, out = number << 1, bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def test_a_footer_that_hides_a_bomb(forged):
    """One key of 70 MB in 20 kB, of which the footer says that it is small."""
    data = parquet(with_values(repeated(forged.rows, 1), "key", ["k" * 70_000_000]))
    column = MANIFEST_SCHEMA.names.index("key")
    unpacked = varint(pq.read_metadata(io.BytesIO(data)).row_group(0).column(column).total_uncompressed_size)
    forged.sign(MANIFEST, data)
    assert_refused(forged.folder, "bytes unpacked: a bomb")
    forged.sign(MANIFEST, data.replace(unpacked, b"\x82" + b"\x80" * (len(unpacked) - 2) + b"\0"))
    assert_refused(forged.folder, "a page of 70000004 bytes unpacked")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\xff" * 200 + b"PAR1", b"\0" * 5000])
def test_a_manifest_that_is_none(forged, data):
    forged.sign(MANIFEST, data)
    assert_refused(forged.folder, "manifest.parquet: cannot be read")


@pytest.mark.parametrize(
    "run",
    [
        {"start_s": math.nan, "stop_s": 1.0},
        {"start_s": 5.0, "stop_s": 1.0},
        {"start_s": 0.0, "stop_s": math.inf},
        {"start_s": 0.0, "stop_s": 1.0, "class": "\x1b[31m"},
        {"start_s": 0.0, "stop_s": 1.0, "class": None},
        {"start_s": 0.0, "stop_s": 1.0, "class": None, "value": math.inf},
    ],
    ids=str,
)
def test_label_runs_that_lie(forged, run):
    folder = forged.with_runs({"dataset": "fast", "recording": "r", "class": "walk", "value": None} | run)
    assert_refused(folder, "labels.parquet: ", ("verify", "inspect"))


INFOS = {
    "large": b'{"format_version": 1, "x": "' + b"x" * 17_000_000 + b'"}',
    "deep": b"[" * 1_000_000,
    "deep objects": b'{"a":' * 1_000_000,
    "long number": b'{"format_version": ' + b"9" * 1_000_000 + b"}",
    "list": b"[1]",
    "nothing": b"",
    "not text": b"\xff\xfe",
    "no hashes": b'{"format_version": 1}',
}


@pytest.mark.parametrize("kind", INFOS)
def test_a_dataset_json_that_is_none(forged, kind):
    forged.put(INFO, INFOS[kind])
    assert_refused(forged.folder, "dataset.json: ")


@pytest.mark.parametrize(
    "change",
    [
        {"manifest_sha256": "../../../etc/passwd"},
        {"identity": 7},
        {"options": {"longest_segment_s": "long"}},
        {"options": {"longest_segment_s": math.inf}},
        {"options": None},
        {"totals": {"overlap": math.nan}},
        {"totals": []},
        {"skipped": [{"a": 1}]},
        {"classes": {"fast": "walk"}},
        {"format_version": "1"},
    ],
    ids=str,
)
def test_a_dataset_json_that_lies(forged, change):
    forged.put(INFO, json.dumps(forged.info | change).encode())
    assert_refused(forged.folder, "dataset.json: ")


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def objects(trap: Path) -> bytes:
    return npy(np.array([Evil(trap)], dtype=object), allow_pickle=True)


MEMBERS = {
    "climbs": ("../../evil.npy", npy(np.zeros((1, 3), "<f4")), {}),
    "absolute": ("/tmp/evil.npy", npy(np.zeros((1, 3), "<f4")), {}),
    "folder": ("a/b.acc.npy", npy(np.zeros((1, 3), "<f4")), {}),
    "hidden": (".npy", b"", {}),
    "pickle": ("k-0.acc.pkl", pickle.dumps([1]), {}),
    "python": ("k-0.acc.pyd", b"x", {}),
    "no npy": ("k-0.acc.npy", b"not an array", {}),
    "link": ("k-0.json", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    "hard link": ("k-0.json", b"", {"type": tarfile.LNKTYPE, "linkname": "../x"}),
    "device": ("k-0.json", b"", {"type": tarfile.CHRTYPE}),
    "pipe": ("k-0.json", b"", {"type": tarfile.FIFOTYPE}),
    "directory": ("k-0.json", b"", {"type": tarfile.DIRTYPE}),
    "10 TB": ("k-0.json", b"", {"size": TB}),
    "negative": ("k-0.json", b"", {"size": -5}),
    "extended of 10 TB": ("k-0.json", b"", {"size": TB, "type": tarfile.XHDTYPE}),
    "extended size": ("x", b"12 size=123\n", {"type": tarfile.XHDTYPE}),
    "extended climbs": ("x", b"20 path=../evil.npy\n", {"type": tarfile.XHDTYPE}),
    "GNU name": ("x", b"../evil.npy", {"type": tarfile.GNUTYPE_LONGNAME}),
    "shape": ("k-0.acc.npy", npy(np.zeros((1, 3), "<f4")).replace(b"(1, 3)", b"(9, 9)"), {}),
    "objects": ("k-0.acc.npy", None, {}),
    "large json": ("k-0.json", b" " * 1_000_001, {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", MEMBERS)
def test_members_of_a_shard(forged, kind, tmp_path, capsys):
    name, data, header = MEMBERS[kind]
    trap = tmp_path / "run"
    folder = forged.with_member(name, objects(trap) if data is None else data, **header)
    with pytest.raises(SystemExit) as left:
        aar_dist(["verify", str(folder)])
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert error.startswith(f"error: {folder}: 1 of 10 shards: {forged.shard}: ")
    assert error.count("\n") == 1
    assert "do not trust it" in error
    with pytest.raises(ShardError, match=forged.shard):
        tracks_of_shards([folder])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"], "nothing was run or written"


def test_names_are_shown_as_they_are(forged, tmp_path, capsys):
    """Neither markup of the terminal nor a formula of a figure."""
    for row in forged.rows:
        row["dataset"] = "[/red]$\\frac{$:smile:"
    folder = forged.with_rows(lambda row: None)
    aar_dist(["inspect", str(folder), "--picture", str(tmp_path / "x.png")])
    assert "[/red]" in capsys.readouterr().out


def test_ends_of_a_shard(forged):
    whole = (forged.folder / forged.shard).read_bytes()
    assert_refused(forged.with_shard(whole[:-1024]), "has no end", ("verify",))
    assert_refused(forged.with_shard(whole + b"\0" * 512 + b"x" * 512), "behind the end", ("verify",))


def test_rows_that_speak_of_other_bytes_of_the_shard(forged):
    """Inside the shard, so harmless, but not what was recorded."""
    folder = forged.with_rows(lambda row: row.update(offset=row["offset"] + 4, owned_starts=0))
    assert_refused(folder, "the manifest says .* the shard holds", ("verify",))


def linked(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def test_links_lead_nowhere_else(forged, tmp_path):
    shard = forged.folder / forged.shard
    os.link(shard, tmp_path / "outside.tar")
    linked(shard, tmp_path / "outside.tar")
    assert_refused(forged.folder, "link out of the shard set", ("stream", "verify"))
    linked(shard, shard)
    assert_refused(forged.folder, "cannot be read", ("stream", "verify"))
    os.link(tmp_path / "outside.tar", forged.folder / "other.tar")
    linked(shard, Path("other.tar"))
    verify_shards(forged.folder)
    for name in (MANIFEST, LABELS, INFO):
        os.link(forged.folder / name, tmp_path / name)
        linked(forged.folder / name, tmp_path / name)
        assert_refused(forged.folder, f"{name}: is a link out", ("verify", "inspect"))
        linked(forged.folder / name, tmp_path / name)
        (forged.folder / name).unlink()
        os.link(tmp_path / name, forged.folder / name)


@pytest.mark.parametrize("name", ["shard", LABELS, INFO])
def test_pipes_are_not_waited_for(forged, name):
    path = forged.folder / (forged.shard if name == "shard" else name)
    path.unlink()
    os.mkfifo(path)
    assert_refused(forged.folder, "is no file", ("verify",))


@pytest.mark.parametrize("name", [INFO, MANIFEST])
def test_a_server_that_tells_of_terabytes(shard_set, name):
    with faulty(shard_set) as server:
        server.always[name] = "huge"
        with pytest.raises(AarError, match=rf"{name}: has 10\.0 TB, expected at most"):
            verify_shards(server.url)


# --- the checks themselves --------------------------------------------------------------------------------------------

INTS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-10, 5000), st.sampled_from([TB, 2**31, 2**62]))


@given(st.lists(st.tuples(INTS, INTS, INTS, INTS, st.integers(1, 9), st.sampled_from(checks.DTYPES)), max_size=5))
def test_places_are_those_of_exact_arithmetic(rows):
    size, offset, n, owned, axes, dtype = (list(column) for column in zip(*rows, strict=True)) if rows else [[]] * 6
    columns = {
        "shard": [f"{i}.tar" for i in range(len(rows))], "sha256": ["0" * 64] * len(rows), "dtype": dtype,
        "axes": [",".join("x" * a) for a in axes], "shard_bytes": size, "offset": offset, "n_samples": n,
        "owned_starts": owned,
    }  # fmt: skip
    table = pa.table({name: pa.array(values, MANIFEST_SCHEMA.field(name).type) for name, values in columns.items()})
    alone = [checks.check_column(name, table[name]) for name in table.schema.names]
    problem = next(filter(None, alone), None) or checks.check_places(table)[0]
    limit = checks.LARGEST_SHARD
    itemsize = [np.dtype(d).itemsize for d in dtype]
    good = all(
        1024 <= s <= limit and o >= 0 and o % i == 0 and m >= 0 and 0 <= w <= m and o + m * a * i <= s
        for (s, o, m, w, a, _), i in zip(rows, itemsize, strict=True)
    )
    assert (problem is None) == good


@given(st.lists(st.floats(), min_size=1), st.sampled_from(["rate_hz", "start_s", "scale", "zero", "mean", "std"]))
def test_numbers_are_finite_and_of_a_possible_size(values, name):
    kind = MANIFEST_SCHEMA.field(name).type
    column = pa.chunked_array([pa.array([values] if pa.types.is_list(kind) else values, kind)])
    problem = checks.check_column(name, column)
    low = {"rate_hz": 1e-7, "start_s": 0.0, "std": 0.0}.get(name, -1e30)
    high = {"rate_hz": 1e9, "start_s": 1e12}.get(name, 1e30)
    good = all(low <= x <= high and (name != "scale" or abs(x) >= 1e-30) for x in values)
    assert (problem is None) == good


@pytest.fixture(scope="module")
def tar(tmp_path_factory) -> bytes:
    return small_tar(tmp_path_factory.mktemp("tar") / "x.tar")


def looked_at(data: bytes, cuts: list[int]) -> Members:
    members = Members(len(data))
    for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True):
        members.write(data[a:b])
    return members


@given(st.data())
def test_members_do_not_depend_on_how_the_bytes_come(tar, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(tar)), max_size=8)))
    one, many = looked_at(tar, []), looked_at(tar, cuts)
    assert many.arrays == one.arrays
    assert len(one.arrays) == 3
    assert many.finish([]) is None
    followed = Members(len(tar))
    followed.follow(io.BytesIO(tar))
    assert (followed.arrays, followed.texts, followed.finish([])) == (one.arrays, one.texts, None)
    for place in one.arrays.values():
        assert place.offset % 64 == 0


@given(st.data())
def test_bytes_of_any_kind_are_looked_at_without_an_exception(tar, data):
    changed = bytearray(tar)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(tar) - 1))] = data.draw(st.integers(0, 255))
    members = looked_at(bytes(changed[: data.draw(st.integers(0, len(tar)))]), [])
    assert all(isinstance(place, Place) and place.offset <= len(tar) for place in members.arrays.values())
    members.finish([])
