"""``aar-dist export onnx|torch``: a stored model as one file, from the samples of a window to its answer.

aar-dist export onnx store://cow_walking@latest shard_set cow.onnx --store run/store
aar-dist export torch run/store/models/aar/3 shard_set aar.pt2 --rate_hz 25

A fine-tuned model says the probability of each class, or a value; a pretrained one (or any, with --embedding) an
embedding. The input is float32 (batch, samples, channels) in the units of training, NaN where nothing was recorded; the
normalisation is inside. SHARDS hold real windows to compare on, and for a pretrained model tell what it takes. Where
the file says anything else than the stored model, nothing is written. See docs/export.md.
"""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from aar_dist.base import storage
from aar_dist.base.cli import Parser, human_bytes
from aar_dist.base.errors import CheckpointError, ConfigError
from aar_dist.evaluation.exporting import formats
from aar_dist.evaluation.exporting.parity import TIMED, Parity, compare, latencies, plain
from aar_dist.evaluation.exporting.prepare import TOLERANCE, WINDOWS, ExportOptions, Prepared, prepare
from aar_dist.store.checkpoint import WEIGHTS, Checkpoint
from aar_dist.store.registry import resolve

Format = Literal["onnx", "torch"]
SUFFIX: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}


@dataclass(frozen=True)
class Exported:
    """A file that was written."""

    path: Path
    about: dict[str, Any]
    """What it takes and says: the JSON in it."""
    parity: Parity | None
    plain_ms: dict[int, float]
    """Windows in a batch -> milliseconds of the stored model."""
    exported_ms: dict[int, float]
    stored_bytes: int
    """Of the weights in the store."""

    def summary(self) -> str:
        """For the terminal."""
        about = self.about
        takes = (
            f"{about['window_s']:g} s of {', '.join(about['channels'])} [{', '.join(dict.fromkeys(about['units']))}]"
        )
        shape = f"float32 (batch, {about['samples']}, {len(about['channels'])})"
        says = f"{about['output']} of {', '.join(about['classes'])}" if about["classes"] else about["output"]
        checked = "not checked" if self.parity is None else str(self.parity)
        rows = [
            f"  batch of {n:<5} {self.exported_ms[n]:.2f} ms in one thread; the stored model {self.plain_ms[n]:.2f} ms"
            for n in TIMED
        ]
        return "\n".join(
            [
                f"{self.path}: {human_bytes(self.path.stat().st_size)}; stored {human_bytes(self.stored_bytes)}",
                f"  takes          {takes} at {about['rate_hz']:g} Hz: {shape}",
                f"  says           {says}",
                f"  parity         {checked}",
                *rows,
            ]
        )


def export(
    checkpoint: Checkpoint, shards: Sequence[str], out: Path, format: Format, options: ExportOptions | None = None
) -> Exported:
    """Write a model, and beside it ``<out>.json``, what it takes and says; whole or not at all.

    Args:
        checkpoint: Pretrained or fine-tuned.
        shards: With windows to compare on; for a pretrained model they tell rates and channels, too.
        out: A name that ends in .onnx or .pt2; it must not exist.

    Raises:
        ConfigError: what to export is not clear, ``out`` exists, or packages are not installed.
        CheckpointError: the file says anything else than the model.
    """
    options = options or ExportOptions()
    _check_out(out, format)
    stored_bytes = (checkpoint.path / WEIGHTS).stat().st_size
    if format == "onnx":
        formats.check_onnx(stored_bytes)
    prepared = prepare(checkpoint, shards, options)
    folder = storage.staging_name(out)
    with storage.one_line_errors(out, folder):
        folder.mkdir(parents=True)
        made = _made(prepared, folder / out.name, format, stored_bytes)
        _check_parity(made, checkpoint, options)
        beside = storage.json_bytes({**made.about, "parity": made.parity and asdict(made.parity)})
        (folder / f"{out.name}.json").write_bytes(beside)
        storage.replace(folder / f"{out.name}.json", out.with_name(f"{out.name}.json"))
        storage.publish(folder / out.name, out)
        folder.rmdir()
    return replace(made, path=out)


def _check_out(out: Path, format: Format) -> None:
    if out.suffix != SUFFIX[format]:
        raise ConfigError(f"{out}: export {format} writes a {SUFFIX[format]} file; name it {out.stem}{SUFFIX[format]}")
    if out.exists():
        raise ConfigError(f"{out}: exists; remove it, or give another name")


def _made(prepared: Prepared, path: Path, format: Format, stored_bytes: int) -> Exported:
    """Write the file, and ask it from what was written."""
    write, ask = {
        "onnx": (formats.write_onnx, formats.ask_onnx),
        "torch": (formats.write_torch, formats.ask_torch),
    }[format]
    model, known = prepared.model, prepared.known
    write(formats.trace(model), prepared.about, path)
    told = ask(path)
    values = model.example().numpy() if known is None else known.values
    return Exported(
        path=path,
        about=prepared.about,
        parity=None if known is None else compare(told, model, known),
        plain_ms=latencies(plain(model), values),
        exported_ms=latencies(told, values),
        stored_bytes=stored_bytes,
    )


def _check_parity(made: Exported, checkpoint: Checkpoint, options: ExportOptions) -> None:
    if made.parity is not None and not made.parity.error <= options.tolerance:
        raise CheckpointError(
            f"{made.path.name}: says something else than {checkpoint.reference}: {made.parity}, at most "
            f"{options.tolerance:g} is allowed; nothing was written. Try the other format, or other versions of torch "
            "and onnxruntime; --tolerance allows more"
        )


def onnx(argv: Sequence[str]) -> None:
    """The command for ONNX."""
    _main(argv, "onnx")


def torch(argv: Sequence[str]) -> None:
    """The command for torch.export."""
    _main(argv, "torch")


def _main(argv: Sequence[str], format: Format) -> None:
    args = _parser(format).parse_intermixed_args(argv)
    made = export(resolve(args.checkpoint, args.store), args.shards, args.out, format, _options(args))
    print(made.summary())


def _options(args: Namespace) -> ExportOptions:
    return ExportOptions(
        embed=args.embedding,
        rate_hz=args.rate_hz,
        channels=tuple(args.channels) if args.channels else None,
        statistics_of=args.statistics_of,
        parity=not args.no_parity,
        windows=args.windows,
        tolerance=args.tolerance,
    )


def _parser(format: Format) -> Parser:
    parser = Parser(__doc__, prog=f"aar-dist export {format}")
    parser.add_argument("checkpoint", help="a stored model: store://name@version, or folder or URL of a version")
    parser.add_argument("shards", nargs="*", help="shard sets with windows to compare on")
    parser.add_argument("out", type=Path, help=f"the {SUFFIX[format]} file to write")
    parser.add_argument("--store", help="folder or URL of the store that store:// speaks of (AAR_DIST_STORE)")
    parser.add_argument("--embedding", action="store_true", help="what a fine-tuned model makes of a window, no class")
    parser.add_argument("--rate_hz", type=float, help="of the windows, where the model knows several")
    parser.add_argument("--channels", nargs="+", help="of the windows, where the model knows several sets")
    parser.add_argument("--statistics_of", metavar="DATASET[/SENSOR]", help="to scale by (data.normalize dataset)")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="at most so many to compare on (%(default)s)")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest difference allowed (%(default)s)")
    parser.add_argument("--no_parity", action="store_true", help="do not compare; a fine-tuned model needs no SHARDS")
    return parser
