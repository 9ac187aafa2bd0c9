"""``aar-dist inspect``: look before anything runs.

shard set     -> hours, subjects, rates, labels, balance          (--picture FILE draws it)
CONFIG.yaml   -> parameters, tokens and FLOPs a segment, memory a rank at each ZeRO stage
stored model  -> its card, shards and hashes
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from aar_dist.base.cli import Parser, joined
from aar_dist.base.errors import ConfigError, user_entry
from aar_dist.base.remote import is_url
from aar_dist.shards.format import INFO, MANIFEST
from aar_dist.store.manifest import ADDRESS, WEIGHTS

PICTURES = (".png", ".svg", ".pdf")


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Print what a path holds."""
    parser = Parser(__doc__, prog="aar-dist inspect")
    parser.add_argument(
        "path",
        help="a shard set or a stored model (folder, URL, store://name@version), or a configuration (.yaml)",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--picture", type=Path, help="shard set: write its figure to this .png or .svg")
    parser.add_argument("--world_size", type=int, default=2, help="configuration: ranks (%(default)s)")
    parser.add_argument("--store", help="folder or URL of the store that store:// speaks of (AAR_DIST_STORE)")
    args, overrides = parser.parse_known_args(joined(parser, sys.argv[1:] if argv is None else argv))
    if args.world_size < 1:
        raise ConfigError(f"--world_size must be 1 or more, got {args.world_size}")
    if args.picture and args.picture.suffix not in PICTURES:
        raise ConfigError(f"--picture {args.picture}: no such format; give it one of the endings {', '.join(PICTURES)}")
    path = args.path if is_url(args.path) else Path(args.path)
    if isinstance(path, Path) and path.suffix in (".yaml", ".yml") and not path.is_dir():
        print(_config(path, overrides, args.world_size, args.json), end="")
        return
    if overrides:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    if _is_model(path, args.path):
        print(_model(args.path, args.store, args.json), end="")
    else:
        print(_shards(path, args.json, args.picture), end="")


def _is_model(path: Path | str, text: str) -> bool:
    if isinstance(path, str):
        return bool(ADDRESS.fullmatch(path))
    return text.startswith("store://") or (path / WEIGHTS).is_file()


def _shards(location: Path | str, as_json: bool, picture: Path | None) -> str:
    from aar_dist.base.plots import save_figure
    from aar_dist.shards.summary import figure, render, summarize

    here = (MANIFEST, INFO, ".build")
    if isinstance(location, Path) and location.is_dir() and not any((location / name).exists() for name in here):
        raise ConfigError(
            f"{location}: neither a shard set nor a stored model; give one of these or a .yaml configuration"
        )
    summary = summarize(location)
    if picture:
        save_figure(figure(summary), picture)
        print(f"wrote {picture}", file=sys.stderr)
    return summary.as_json() + "\n" if as_json else render(summary)


def _config(path: Path, overrides: Sequence[str], world_size: int, as_json: bool) -> str:
    from aar_dist.base.config import load
    from aar_dist.training.config import SCHEMA
    from aar_dist.training.footprint import describe_config, render

    description = describe_config(load(SCHEMA, ["--config", str(path), *overrides]), world_size)
    return json.dumps(description, indent=1) + "\n" if as_json else render(description)


def _model(reference: str, store: str | None, as_json: bool) -> str:
    from aar_dist.store.checkpoint import CARD
    from aar_dist.store.registry import resolve

    checkpoint = resolve(reference, store)
    if as_json:
        return json.dumps(checkpoint.manifest | {"metrics": checkpoint.metrics()}, indent=1) + "\n"
    return (checkpoint.path / CARD).read_text()
