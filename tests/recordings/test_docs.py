"""What docs/recordings.md shows is what runs."""

import re
from pathlib import Path

import pytest

from aar_dist.recordings.layout import read_layout
from aar_dist.recordings.units import FACTORS, factor_to_canonical

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/recordings.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_yaml_is_the_example_file():
    assert blocks("yaml") == [(ROOT / "configs/convert/collar.yaml").read_text()]


@pytest.mark.parametrize("path", sorted((ROOT / "configs/convert").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_yaml_loads(path):
    assert read_layout(path).sensors["acc"].units == "g"


def test_the_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reading, writing = blocks("python")
    exec(writing, {})
    names = {}
    exec(reading, names)
    assert [r.subject for r in names["recordings"]] == ["12", "13"]


def test_every_unit_of_the_page_is_known():
    for kind, cell in re.findall(r"^\| `(acc|gyr|mag|ecg)` \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE):
        for unit in re.split(r"[,()]\s*|\s+\(", cell.replace("(gauss)", "")):
            if unit.strip():
                assert factor_to_canonical(kind, unit.strip(), "here") > 0
    assert set(FACTORS) == {"acc", "gyr", "mag", "ecg"}


@pytest.mark.parametrize(
    ("kind", "unit", "factor"),
    [("acc", "m/s²", 1 / 9.80665), ("acc", "mg", 1e-3), ("gyr", "°/s", 0.017453292519943295), ("mag", "µT", 1.0),
     ("ecg", "uV", 1e-3), ("ppg", "nA", 1.0), ("acc", "counts", 1.0)],
)  # fmt: skip
def test_factors(kind, unit, factor):
    assert factor_to_canonical(kind, unit, "here") == pytest.approx(factor)
