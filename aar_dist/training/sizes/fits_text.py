"""What fits, as a page: a table of all layouts, the recommended one marked, and the flags for it."""

from rich.console import Console

from aar_dist.base.cli import human_bytes
from aar_dist.training.footprint import table
from aar_dist.training.sizes.fits import Fits, Option

WIDTH = 116


def render(fits: Fits, path: str | None) -> str:
    """The table and what to do; ``path`` of the configuration is repeated in the command."""
    model, rows = fits.model, [_row(option, fits) for option in fits.options]
    columns = ["ZeRO", "offload", "checkpointing", "states", "working", "a segment", "micro-batch", "needs", "host"]
    title = (
        f"One of {fits.ranks} rank(s) of {human_bytes(fits.gpu_bytes)}, batch {fits.batch_size}: {model.parameters:,} "
        f"parameters in {model.precision}, {model.tokens} tokens a segment"
    )
    console = Console(width=WIDTH)
    with console.capture() as capture:
        console.print(table(title, ["", *columns], rows))
    text = "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
    return text + _advice(fits, path)


def _row(option: Option, fits: Fits) -> list[str]:
    size = option.micro_batch_size
    return [
        "→" if option == fits.recommended else "",
        str(option.zero_stage),
        option.offload,
        "yes" if option.activation_checkpointing else "no",
        *map(human_bytes, (option.states, option.working, option.segment)),
        "none" if size is None else f"{size}",
        human_bytes(option.needs(size or 1)),
        human_bytes(option.host),
    ]


def _advice(fits: Fits, path: str | None) -> str:
    here = fits.configured
    needs = human_bytes(here.needs(here.micro_batch_size or 1))
    verdict = "fits" if fits.configured_fits else "does not fit"
    return f"as configured: {here.flags}: {needs}, {verdict}\n{_way(fits, path)}"


def _way(fits: Fits, path: str | None) -> str:
    if fits.recommended:
        config = f" --config {path}" if path else ""
        return f"→ deepspeed launch/pretrain.py{config} {fits.recommended.flags}"
    least = min(fits.options, key=lambda option: option.needs(1))
    return (
        f"→ nothing fits: one segment at a time needs {human_bytes(least.needs(1))} at best (ZeRO-{least.zero_stage}, "
        f"offload {least.offload}); take GPUs with more memory, or more of them"
    )
