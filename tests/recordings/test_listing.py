"""`aar-dist convert --list`: everything that a person needs, no wider than a terminal, and the same for programs."""

import json
from dataclasses import fields

import pytest

from aar_dist.base.errors import USER_ERROR_EXIT
from aar_dist.recordings.convert import CONVERTERS, main
from aar_dist.recordings.converter import About
from aar_dist.recordings.listing import WIDEST, as_table

FIELDS = [field.name for field in fields(About)]


def listed(capsys, *arguments: str) -> str:
    main(["--list", *arguments])
    return capsys.readouterr().out


def test_every_converter_tells_everything(capsys):
    lines = listed(capsys).splitlines()
    assert max(map(len, lines)) <= WIDEST
    assert [line.split()[0] for line in lines if line and not line.startswith(" ")] == list(CONVERTERS)
    for field in FIELDS:
        assert sum(line[: line.find(field) + len(field)].split()[-1:] == [field] for line in lines) >= len(CONVERTERS)
    for converter in CONVERTERS.values():
        assert all(getattr(converter.about, field).strip() for field in FIELDS)


def test_one_of_them(capsys):
    told = listed(capsys, "troika")
    assert told.startswith("troika")
    assert "hapt" not in told
    assert "125 Hz" in told
    with pytest.raises(SystemExit) as left:
        main(["--list", "troyka"])
    assert left.value.code == USER_ERROR_EXIT
    assert capsys.readouterr().err.startswith("error: troyka: no such converter; use one of cow_walking, otariids")


def test_it_wraps_where_the_terminal_is_narrow():
    converter = CONVERTERS["hapt"]
    lines = as_table([converter], width=70).splitlines()
    assert max(map(len, lines)) <= 70
    words = " ".join(line[15:].strip() for line in lines)
    assert all(part in words for part in converter.about.watch.split())


def test_the_same_for_programs(capsys):
    told = json.loads(listed(capsys, "--json"))
    assert [about["name"] for about in told] == list(CONVERTERS)
    for about, converter in zip(told, CONVERTERS.values(), strict=True):
        assert {field: about[field] for field in FIELDS} == {f: getattr(converter.about, f) for f in FIELDS}
        assert (about["label"], about["takes"]) == (list(converter.labels), list(converter.takes))
    (only,) = json.loads(listed(capsys, "ucr", "--json"))
    assert only["takes"] == ["rate_hz", "sensor", "units"]


def test_every_choice_of_label_and_flag_is_told():
    for converter in CONVERTERS.values():
        text = " ".join(getattr(converter.about, field) for field in FIELDS)
        for name in converter.labels:
            assert f"--label {name}" in text
        for name in converter.takes:
            assert f"--{name}" in text
