"""What subjects belong to, so that folds keep it together: a data set, a place, a name, or what a table says.

cross_validation.group, shard sets -> subject -> group
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from aar_dist.base.errors import ConfigError
from aar_dist.base.wording import meant
from aar_dist.shards.format import read_info, read_manifest
from aar_dist.stream.source import Source

COLUMNS = ("dataset", "species", "location")
"""Of the manifest."""
KINDS = ("subject", "name", *COLUMNS)
KEY = "cross_validation.group"


def groups_of(source: Source, subjects: Sequence[str], group: str) -> dict[str, str] | None:
    """Subject -> group; None where each is its own.

    Args:
        source: What the subjects were recorded in.
        subjects: ``<data set>/<subject>``.
        group: ``subject``; ``name``: subjects of one name are one, whatever their data sets; a column of the manifest;
            or a CSV file with the columns ``subject`` and ``group``.

    Raises:
        ConfigError: no such column or file; a subject of no group, or of two.
    """
    if group == "subject":
        return None
    if group == "name":
        return {subject: subject.partition("/")[2] for subject in subjects}
    if group.endswith(".csv"):
        return _of_table(Path(group), subjects)
    if group not in COLUMNS:
        raise ConfigError(f"{KEY}: {group!r} is no way of grouping, nor a .csv file; {meant(group, KINDS)}")
    return _of_column(source, subjects, group)


def _of_column(source: Source, subjects: Sequence[str], column: str) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for folder in source.folders:
        rows = read_manifest(folder, read_info(folder), ["dataset", "subject", *{column} - {"dataset"}], source.cache)
        for row in rows.group_by(rows.column_names).aggregate([]).to_pylist():
            found.setdefault(f"{row['dataset']}/{row['subject']}", set()).add(str(row[column]))
    several = {subject: of for subject in subjects if len(of := found[subject]) > 1}
    if several:
        subject, of = next(iter(several.items()))
        raise ConfigError(
            f"{KEY} {column}: {subject} was recorded with several ({', '.join(sorted(of))}); choose another"
        )
    return {subject: found[subject].pop() for subject in subjects}


def _of_table(path: Path, subjects: Sequence[str]) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{KEY} {path}: {error}; give a CSV file with the columns subject and group") from None
    if not rows or not {"subject", "group"} <= {*rows[0]}:
        raise ConfigError(
            f"{KEY} {path}: expected the columns subject and group, found {list(rows[0]) if rows else []}"
        )
    told: dict[str, str] = {}
    for row in rows:
        if told.setdefault(row["subject"], row["group"]) != row["group"]:
            raise ConfigError(
                f"{KEY} {path}: {row['subject']} is of two groups, {told[row['subject']]} and {row['group']}"
            )
    return _all_of(subjects, told, path)


def _all_of(subjects: Sequence[str], told: Mapping[str, str], path: Path) -> dict[str, str]:
    for subject in subjects:
        if not told.get(subject):
            raise ConfigError(
                f"{KEY} {path}: no group of {subject}, written <data set>/<subject>; {meant(subject, told)}"
            )
    return {subject: told[subject] for subject in subjects}
