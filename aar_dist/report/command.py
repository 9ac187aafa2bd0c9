"""``aar-dist report``: one page that shows what a model is worth.

aar-dist report out/folds                           # out/folds/report.html
aar-dist report out/run out/folds --out page.html   # a pretraining and what came of it, on one page
aar-dist report embeddings.parquet                  # embeddings.html: the map of what aar-dist embed wrote

RUN is a folds folder (results.json), a pretraining or fine-tuning run, finished or not, or the file of embeddings. The
page needs nothing beside it: mail it, put it on a server, open it on a phone.
"""

from collections.abc import Sequence
from pathlib import Path

from aar_dist.base.cli import Parser, human_bytes
from aar_dist.base.errors import ConfigError, user_entry

NAME = "report.html"
GENERATOR = b'<meta name="generator" content="aar_dist report">'


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = Parser(__doc__, prog="aar-dist report")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folds folder, a run directory, embeddings")
    parser.add_argument("--out", type=Path, help=f"the HTML file (default: {NAME} in the first RUN, or beside it)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is no report")
    args = parser.parse_args(argv)
    first = args.runs[0]
    out = args.out or (first.with_suffix(".html") if first.is_file() else first / NAME)
    if out.is_dir():
        raise ConfigError(f"{out}: is a folder, expected the name of an HTML file")
    if not args.overwrite and not _replaceable(out):
        raise ConfigError(f"{out}: exists and is no page of this program; give another name, or --overwrite")
    from aar_dist.report.page import write_page

    write_page(args.runs, out)
    print(f"{out}: {human_bytes(out.stat().st_size)}")


def _replaceable(out: Path) -> bool:
    """True where nothing stands, or a page that can be made again."""
    if not out.exists():
        return True
    with open(out, "rb") as file:
        return GENERATOR in file.read(1000)
