"""``aar-dist export``: files for programs that know nothing of this one.

aar-dist export onnx store://cow_walking@latest shard_set cow.onnx --store run/store   # for onnxruntime, on anything
aar-dist export torch store://cow_walking@latest shard_set cow.pt2 --store run/store   # for torch.export.load
aar-dist export npy shard_set arrays                                                   # arrays of the first system

Each has its own --help.
"""

import importlib
import sys
from collections.abc import Sequence

from aar_dist.base.cli import Parser
from aar_dist.base.errors import user_entry

FORMATS = {"onnx": "model:onnx", "torch": "model:torch", "npy": "npy:main"}


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Export in one of the formats."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(__doc__, prog="aar-dist export")
    parser.add_argument("format", choices=FORMATS, help="what to write")
    format = parser.parse_args(arguments[:1]).format
    module, function = FORMATS[format].split(":")
    getattr(importlib.import_module(f"aar_dist.evaluation.exporting.{module}"), function)(arguments[1:])
