"""``aar-dist store ls`` and ``show``: what a store has, without reading any weights.

manifests -> rows -> a table | JSON
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from aar_dist.base.cli import human_bytes
from aar_dist.base.errors import CheckpointError, StorageError, one_line
from aar_dist.base.wording import some
from aar_dist.store.commands.options import opened, parser, version_of
from aar_dist.store.manifest import CARD, METRICS, WEIGHTS
from aar_dist.store.pins import Pin, pins
from aar_dist.store.registry import SCHEME, Store

AT_ONCE = 16
"""Models asked for at one time."""
WIDEST = 160
MOST_NAMES = 60
"""Letters of the classes in a row."""


def ls(argv: Sequence[str]) -> None:
    """A row for each model, or for each version of one."""
    options = parser("ls", "What a store has: a row for each model, or for each version of one.")
    options.add_argument("name", nargs="?", help="a model; without it all of them")
    options.add_argument("--json", action="store_true", help="machine-readable")
    args = options.parse_args(argv)
    store = opened(args.store)
    if args.name:
        name, _ = version_of(args.name)
        store.look(name)  # or which names there are
        rows = [_row(number, manifest) for number, manifest in store.newest_first(name)]
    else:
        names = store.shelf.names()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            rows = [row for row in pool.map(lambda name: _newest(store, name), names) if row]
    if args.json:
        print(json.dumps(rows, indent=1))
    elif rows:
        print(_table(rows))
    else:
        print(f"{store}: no model here", file=sys.stderr)


def show(argv: Sequence[str]) -> None:
    """A version's card and what else is known of it."""
    options = parser("show", "A version's card, its hashes, and what starts from it. No weights are read.")
    options.add_argument("model", help="NAME or NAME@3")
    options.add_argument("--json", action="store_true", help="manifest, metrics and pins")
    args = options.parse_args(argv)
    store = opened(args.store)
    name, which = version_of(args.model)
    number, manifest = store.look(name, which)
    held: list[Pin] | None = None
    with suppress(StorageError):  # a web server lists nothing
        held = pins(store.shelf.place, name, number)
    if args.json:
        metrics = _metrics(store, name, number, manifest)
        print(
            json.dumps(
                manifest | {"metrics": metrics, "pins": None if held is None else list(map(asdict, held))}, indent=1
            )
        )
        return
    print(store.text(name, number, manifest, CARD).rstrip())
    print(f"\n{_facts(store, number, manifest, held)}")


def _metrics(store: Store, name: str, number: int, manifest: Mapping[str, Any]) -> Any:
    try:
        return json.loads(store.text(name, number, manifest, METRICS))
    except ValueError as error:
        raise CheckpointError(f"{SCHEME}{name}@{number}: {METRICS}: no JSON ({one_line(error)})") from None


def _newest(store: Store, name: str) -> dict[str, Any] | None:
    """The row of a model; a damaged one says so."""
    try:
        all_of = list(store.newest_first(name))
        return _row(*all_of[0]) | {"versions": [number for number, _ in all_of][::-1]} if all_of else None
    except CheckpointError as error:
        return {"name": name, "damaged": one_line(error)}


def _row(number: int, manifest: Mapping[str, Any]) -> dict[str, Any]:
    classes = manifest.get("classes")
    return {
        "name": manifest["name"],
        "version": number,
        "task": task_of(manifest),
        "classes": classes if isinstance(classes, list) else None,
        "datasets": manifest.get("datasets"),
        "bytes": manifest.get("bytes", {}).get(WEIGHTS),
        "published": manifest.get("published"),
    }


def task_of(manifest: Mapping[str, Any]) -> str:
    """What a model was made for, as far as its manifest tells."""
    if manifest.get("classes"):
        return "classification"
    return "regression" if "classes" in manifest else "pretraining"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    many = any("versions" in row for row in rows)
    for head in ["name", *(["versions"] if many else []), "latest" if many else "version", "task", "classes"]:
        table.add_column(head, overflow="fold")
    for head in ("size", "published"):
        table.add_column(head, justify="right" if head == "size" else "left", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, many))
    terminal = Console()
    console = Console(width=terminal.width if terminal.is_terminal else WIDEST, markup=False, highlight=False)
    with console.capture() as shown:
        console.print(table)
    return "\n".join(line.rstrip() for line in shown.get().splitlines())


def _cells(row: Mapping[str, Any], many: bool) -> Iterable[str]:
    if "damaged" in row:
        return [row["name"], row["damaged"]]
    classes = ", ".join(map(str, row["classes"] or [])) or "-"
    classes = classes if len(classes) <= MOST_NAMES else f"{len(row['classes'])} classes"
    size = "-" if row["bytes"] is None else human_bytes(row["bytes"])
    there = [ranges(row.get("versions", []))] if many else []
    number = str(row["version"])
    return [row["name"], *there, number, row["task"], classes, size, str(row["published"] or "-")[:10]]


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers, in short: ``1-4, 6``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _facts(store: Store, number: int, manifest: Mapping[str, Any], held: Sequence[Pin] | None) -> str:
    size = manifest.get("bytes", {}).get(WEIGHTS)
    told = {
        "version": f"store://{manifest['name']}@{number} of {store}",
        "published": manifest.get("published", "-"),
        "code": manifest.get("code", "-"),
        "weights": ("" if size is None else f"{human_bytes(size)}, ") + f"sha256 {manifest['files'][WEIGHTS]}",
        "shards": manifest.get("shards", "-"),
        "pinned by": "not told here" if held is None else some([str(pin) for pin in held]) or "nothing",
    }
    return "\n".join(f"{key:<10} {value}" for key, value in told.items())
