"""The rules of the house: data moves one way, files stay short, help comes at once."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
LONGEST_FILE = 400


def test_data_moves_one_way():
    done = subprocess.run([BIN / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_too_long():
    sources = [
        p for folder in ("aar_dist", "benchmarks", "launch", "shards", "tests") for p in (ROOT / folder).rglob("*.py")
    ]
    assert len(sources) > 60
    assert {p.name: n for p in sources if (n := len(p.read_text().splitlines())) > LONGEST_FILE} == {}


def test_help_imports_nothing_heavy():
    code = (
        "import sys, aar_dist.cli as c; c.main(['--help']); print(sorted(set(sys.modules) & {'torch', 'numpy', 'ray'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_is_one_line():
    start = time.monotonic()
    done = subprocess.run([BIN / "aar-dist", "inspekt"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: aar-dist inspekt: no such command; did you mean inspect?"
    assert time.monotonic() - start < 5
