"""``aar-dist plan``: what a run will need, before any money is spent.

aar-dist plan SHARDS --nodes 64 --ranks_per_node 8 …                 what it reads, fetches and waits for
aar-dist plan CONFIG.yaml --gpu_memory_gb 80 --ranks 8               what fits: ZeRO stage, offload, micro-batch
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from aar_dist.base.cli import Parser, joined
from aar_dist.base.errors import ConfigError, user_entry

MEMORY_FLAG = "--gpu_memory_gb"
HELP = """what fits a GPU: ZeRO stage, offload, activation checkpointing and micro-batch of a training configuration

aar-dist plan CONFIG.yaml --gpu_memory_gb 80 --ranks 8 [--model.n_layers 24 …]"""
OTHER_HELP = f"""{HELP}

aar-dist plan {MEMORY_FLAG} 80 --help tells more; what follows is about reading: aar-dist plan SHARDS --nodes 64 …
"""


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Print the plan: of memory where a GPU's is told, else of reading."""
    flags = list(sys.argv[1:] if argv is None else argv)
    if any(flag.split("=")[0] == MEMORY_FLAG for flag in flags):
        print(_memory(flags))
        return
    if flags and flags[0].endswith((".yaml", ".yml")):
        raise ConfigError(
            f"plan {flags[0]}: a configuration is planned for a GPU, {MEMORY_FLAG} 80; what it will read is planned "
            f"for shard sets: aar-dist plan SHARDS --config {flags[0]}"
        )
    from aar_dist.stream.plan.command import main as reading

    if "--help" in flags:
        print(OTHER_HELP)
    reading(flags)


def _memory(flags: list[str]) -> str:
    parser = Parser(HELP, prog="aar-dist plan")
    parser.add_argument("config", nargs="?", help="training configuration (.yaml); without one, the defaults")
    parser.add_argument("--config", dest="named", help="the same, as in training")
    parser.add_argument(MEMORY_FLAG, type=float, required=True, help="memory of one GPU [GB]")
    parser.add_argument("--ranks", type=int, default=1, help="GPUs of the whole run (%(default)s)")
    parser.add_argument(
        "--host_memory_gb", type=float, help="memory of a host for each of its GPUs [GB]; default: enough"
    )
    parser.add_argument("--axes", type=int, default=3, help="of a segment (%(default)s)")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    args, overrides = parser.parse_known_args(joined(parser, flags))
    for name, least in (("gpu_memory_gb", 0), ("ranks", 1), ("host_memory_gb", 0), ("axes", 1)):
        value = getattr(args, name)
        if value is not None and not (value >= least and value > 0):
            raise ConfigError(f"--{name} must be {'1 or more' if least else 'positive'}, got {value:g}")
    from aar_dist.base.config import load
    from aar_dist.training.config import SCHEMA
    from aar_dist.training.sizes.fits import what_fits
    from aar_dist.training.sizes.fits_text import render

    path = args.named or args.config
    config = load(SCHEMA, [*(["--config", path] if path else []), *overrides])
    host_bytes = None if args.host_memory_gb is None else round(args.host_memory_gb * 1e9)
    fits = what_fits(config, round(args.gpu_memory_gb * 1e9), args.ranks, host_bytes=host_bytes, axes=args.axes)
    return json.dumps(asdict(fits), indent=1) if args.json else render(fits, path)
