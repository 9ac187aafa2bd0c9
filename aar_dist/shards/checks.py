"""What a manifest, labels and dataset.json may say. They come from anywhere, and what they say decides what is read.

    columns of the manifest -> check_column (each by itself), Places (the samples of every row lie inside its shard)

Everything is vectorised: a million rows take a tenth of a second. Text is looked at once for each different text.
"""

import math
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aar_dist.base.errors import ShardError

DTYPES = ("<f4", "<f8", "<f2", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8")
"""What samples may be stored as: numbers, little endian. Objects, which NumPy would unpickle, are none of them."""
PACKED = ("int16", "float16")
"""What a manifest calls the type of packed samples."""
MISSING = -32768
"""Of packed int16: the place of NaN."""
MOST_AXES, LONGEST_TEXT = 4096, 1024
MOST_COLUMNS, MOST_GROUPS, MOST_PAGE = 100, 10_000, 64_000_000
LARGEST_SHARD = 1 << 50
LOWEST_HZ, HIGHEST_HZ = 1e-7, 1e9
FURTHEST_S = 1e12
LARGEST_VALUE = 1e30  # float32, which the model sees, ends at 3e38

PLACES = ["shard", "shard_bytes", "sha256", "dtype", "axes", "offset", "n_samples", "owned_starts"]
"""Columns of the manifest that tell where samples lie."""

Problem = str | None
Numbers = NDArray[Any]


def plain_shard_name(name: str) -> bool:
    """True for the name of a tar in the set's own folder."""
    return bool(re.fullmatch(r"[^/\\\x00-\x1f\x7f.][^/\\\x00-\x1f\x7f]*\.tar", name)) and len(name) <= 255


def _text(name: str) -> bool:
    return len(name) <= LONGEST_TEXT and not re.search(r"[\x00-\x1f\x7f]", name)


def _digest(name: str) -> bool:
    return bool(re.fullmatch(r"[0-9a-f]{64}", name))


def _axes(names: str) -> bool:
    return names.count(",") < MOST_AXES and all(map(_text, names.split(",")))


def _within(low: float, high: float) -> Callable[[Numbers], Numbers]:
    return lambda x: (x >= low) & (x <= high)


def _scales(x: Numbers) -> Numbers:
    return (np.abs(x) >= 1 / LARGEST_VALUE) & (np.abs(x) <= LARGEST_VALUE)


TEXTS: dict[str, tuple[Callable[[str], bool], str]] = {
    "shard": (plain_shard_name, "the plain name of a .tar in the set's own folder"),
    "sha256": (_digest, "64 hex digits"),
    "split": (("train", "val").__contains__, "train or val"),
    "dtype": ((*DTYPES, *PACKED).__contains__, f"one of {' '.join((*DTYPES, *PACKED))}"),
    "axes": (_axes, f"at most {MOST_AXES} names joined by commas"),
}
NUMBERS: dict[str, tuple[Callable[[Numbers], Numbers], str]] = {
    "shard_bytes": (_within(1024, LARGEST_SHARD), f"1024 to {LARGEST_SHARD}"),
    "offset": (_within(0, LARGEST_SHARD), "a place in the shard"),
    "n_samples": (_within(0, LARGEST_SHARD), "a number of samples"),
    "owned_starts": (_within(0, LARGEST_SHARD), "a number of starts"),
    "rate_hz": (_within(LOWEST_HZ, HIGHEST_HZ), f"{LOWEST_HZ:g} to {HIGHEST_HZ:g} Hz"),
    "start_s": (_within(0, FURTHEST_S), f"0 to {FURTHEST_S:g} s"),
    "stop_s": (_within(0, FURTHEST_S), f"0 to {FURTHEST_S:g} s"),
    "scale": (_scales, "finite and not 0"),
    "zero": (_within(-LARGEST_VALUE, LARGEST_VALUE), "finite"),
    "mean": (_within(-LARGEST_VALUE, LARGEST_VALUE), "finite"),
    "std": (_within(0, LARGEST_VALUE), "finite and not negative"),
    "n_valid": (_within(0, LARGEST_SHARD), "a number of samples"),
    "value": (lambda x: ~np.isinf(x), "finite"),  # NaN stands for null
}


def check_extent(metadata: Any, n_bytes: int) -> Problem:
    """What is wrong with the extent that a Parquet file tells: a bomb is small, and large when it is decoded.

    A chunk has means and deviations of its own: no manifest stores a row in less than a byte, or 32 values in one.
    """
    groups = [metadata.row_group(i) for i in range(min(metadata.num_row_groups, MOST_GROUPS))]
    if metadata.num_columns > MOST_COLUMNS or metadata.num_row_groups > MOST_GROUPS:
        return f"{metadata.num_columns} columns in {metadata.num_row_groups} groups"
    columns = [group.column(i) for group in groups for i in range(metadata.num_columns)]
    n_values, unpacked = sum(c.num_values for c in columns), sum(c.total_uncompressed_size for c in columns)
    if metadata.num_rows > n_bytes or n_values > 32 * n_bytes or unpacked > 100 * n_bytes:
        return (
            f"its {n_bytes} bytes hold {metadata.num_rows} rows, {n_values} values, {unpacked} bytes unpacked: a bomb"
        )
    return None


def check_pages(sizes: Iterable[int], n_bytes: int) -> Problem:
    """What is wrong with the sizes that the pages themselves tell: a footer may say less."""
    total = 0
    for size in sizes:
        total += size
        if size > MOST_PAGE or total > 100 * n_bytes:
            return f"a page of {size} bytes unpacked, {total} with those before it: a bomb"
    return None


def check_column(name: str, column: pa.ChunkedArray, n_axes: Numbers | None = None) -> Problem:
    """What is wrong with a column, in words; None if nothing is.

    Args:
        n_axes: (r,) of each row: what lists must be as long as. None skips that.
    """
    if name not in ("class", "value") and column.null_count:
        return f"{name} is missing in {column.null_count} rows"
    if pa.types.is_list(column.type):
        return _check_lists(name, column, n_axes)
    if name in NUMBERS:
        return _check_numbers(name, column.to_numpy())
    return _check_texts(name, column)


def _check_numbers(name: str, values: Numbers) -> Problem:
    fits, expected = NUMBERS[name]
    good = fits(values)
    return None if good.all() else f"{name} is {values[np.argmin(good)]}, expected {expected}"


def _check_lists(name: str, column: pa.ChunkedArray, n_axes: Numbers | None) -> Problem:
    for chunk in column.chunks:
        values = chunk.flatten()
        if values.null_count:
            return f"{name} lacks values"
        if problem := _check_numbers(name, values.to_numpy()):
            return problem
    if n_axes is not None and not np.array_equal(pc.list_value_length(column).to_numpy(), n_axes):
        return f"{name} does not have one value for each axis"
    return None


def _check_texts(name: str, column: pa.ChunkedArray) -> Problem:
    fits, expected = TEXTS.get(name, (_text, "text on one line"))
    for chunk in column.chunks:
        texts = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:
            return f"{name} is not UTF-8"
        if name not in TEXTS and len(texts) > 1000:  # keys, a different one for each chunk
            if pc.any(pc.match_substring_regex(texts, r"[\x00-\x1f\x7f]")).as_py():
                return f"{name} holds control characters, expected {expected}"
            if (pc.max(pc.binary_length(texts)).as_py() or 0) > LONGEST_TEXT:
                return f"{name} is longer than {LONGEST_TEXT} characters"
        elif bad := [text for text in texts.to_pylist() if not fits(text)]:
            return f"{name} is {bad[0][:80]!r}, expected {expected}"
    return None


def check_places(table: pa.Table) -> tuple[Problem, Numbers]:
    """Do the samples of each row lie in its shard, and does each shard have one size and hash?

    Args:
        table: the columns ``PLACES``; each passed :func:`check_column`.

    Returns:
        What is wrong, and the number of axes (r,).
    """
    itemsize = _each(table["dtype"], lambda dtype: np.dtype(dtype).itemsize)
    n_axes = _each(table["axes"], lambda axes: axes.count(",") + 1)
    size, offset, n = (table[name].to_numpy() for name in ("shard_bytes", "offset", "n_samples"))
    room = (size - offset) // (itemsize * n_axes)  # no product that could overflow
    bad = np.flatnonzero(n > room)
    if bad.size:
        i = int(bad[0])
        return (
            f"row {i}: {n[i]} samples at {offset[i]} do not fit into {table['shard'][i]} of {size[i]} bytes",
            n_axes,
        )
    if (offset % itemsize).any():
        return f"row {np.argmax(offset % itemsize)}: samples do not begin at a multiple of their size", n_axes
    if (table["owned_starts"].to_numpy() > n).any():
        return "owned_starts is larger than n_samples", n_axes
    return _check_one_file_a_name(table, size), n_axes


def _check_one_file_a_name(table: pa.Table, size: Numbers) -> Problem:
    shard, names = _codes(table["shard"])
    digest, _ = _codes(table["sha256"])
    first = np.full(len(names), -1, np.int64)
    first[shard[::-1]] = np.arange(len(shard))[::-1]
    differs = (size != size[first[shard]]) | (digest != digest[first[shard]])
    return f"two sizes or hashes of {names[shard[np.argmax(differs)]]}" if differs.any() else None


def _codes(column: pa.ChunkedArray) -> tuple[Numbers, list[str]]:
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # of no rows
        return np.zeros(0, np.int64), []
    return whole.indices.to_numpy(), whole.dictionary.to_pylist()


def _each(column: pa.ChunkedArray, value: Callable[[str], int]) -> Numbers:
    codes, names = _codes(column)
    return np.array([value(name) for name in names], np.int64)[codes]


def check_runs(labels: pa.Table) -> Problem:
    """What is wrong with label runs whose columns are right, in words."""
    start, stop = labels["start_s"].to_numpy(), labels["stop_s"].to_numpy()
    if (stop < start).any():
        return f"a label run ends at {stop[np.argmax(stop < start)]} s, before it starts"
    if (labels["class"].is_null().to_numpy() == labels["value"].is_null().to_numpy()).any():
        return "a label run has neither a class nor a value, or both"
    return None


def check_info(info: Any) -> Problem:
    """What is wrong with a dataset.json of this format version."""
    if not all(_digest(str(info.get(name))) for name in ("identity", "manifest_sha256", "labels_sha256")):
        return "identity, manifest_sha256 and labels_sha256 must be 64 hex digits each"
    options, totals = info.get("options"), info.get("totals")
    if not isinstance(options, dict) or not isinstance(totals, dict):
        return "options and totals are missing"
    if not _positive(options.get("longest_segment_s")):
        return f"options.longest_segment_s is {options.get('longest_segment_s')!r}, expected seconds"
    if bad := [k for k, v in totals.items() if not isinstance(v, int | float) or not math.isfinite(v) or v < 0]:
        return f"totals.{bad[0]} is no number"
    skipped, classes = info.get("skipped", []), info.get("classes", {})
    if not _lines(skipped) or not isinstance(classes, dict) or not all(map(_lines, [[*classes], *classes.values()])):
        return "skipped and classes must be lists of names"
    packing = info.get("packing", [])
    if not isinstance(packing, list) or not all(map(_is_packing, packing)):
        return "packing must tell data set, sensor, format, units, recordings, kept and errors"
    return None


def _is_packing(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and _lines([one.get(name) for name in ("dataset", "sensor", "format", "units")])
        and isinstance(one.get("recordings"), int)
        and _lines(one.get("kept"))
        and all(_errors(one.get(name)) for name in ("error", "error_of_std", "error_of_range"))
    )


def _errors(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, int | float) and v >= 0 for v in value)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value <= FURTHEST_S


def _lines(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, str) and _text(v) for v in value)


def file_problem(path: Path, size: int | None = None) -> Problem:
    """What is wrong with a file of a shard set, in words: it is to be an ordinary file, as long as its manifest says.

    A link may lead to another file of the set, nowhere else: what a set holds must not depend on its machine.
    """
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
            return "is a link out of the shard set; put the file itself there"
        found = path.stat()
    except FileNotFoundError:
        return "missing, though the manifest names it"
    except (OSError, RuntimeError) as error:  # no permission; a link to itself
        return f"cannot be read ({type(error).__name__})"
    if not stat.S_ISREG(found.st_mode):
        return "is no file"
    if size is not None and found.st_size != size:
        return f"has {found.st_size} bytes, the manifest says {size}: cut short or of another build"
    return None


def check_file(path: Path, size: int | None = None) -> None:
    """Raise a ``ShardError`` if there is a :func:`file_problem`."""
    if problem := file_problem(path, size):
        raise ShardError(f"{path}: {problem}; copy the shard set again")


def refuse(where: object, problem: Problem) -> None:
    """Raise a ``ShardError`` if there is a problem."""
    if problem:
        raise ShardError(f"{where}: {problem}; do not trust this shard set, or build it again")
