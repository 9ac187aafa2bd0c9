"""How fast segments are read, against memory, against the plain ways and against other loaders, in one run.

    python benchmarks/stream.py --json stream.json          # 200 MB of float32, 100 MB of int16: four minutes
    python benchmarks/stream.py --json stream.json --small  # a few MB: seconds; shows that it works, measures nothing
    python benchmarks/stream.py --page docs/performance.md --picture docs/stream.png
    make bench-peers                                        # beforehand: the other loaders, in .venv-peers/loaders

Batches are 512 segments of 1000 samples of 3 axes, at uniform starts, out of 40 recordings. Readers take turns in
rounds; told are medians of segments per CPU-second (of all threads and worker processes of a reader), for prefetch
threads and worker processes segments per second. Cold: 1600 segments, the shards
dropped from the page cache before.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from cold import Cold
from corpus import AXES, DTYPES, Corpus, make_corpus
from peer import LOADERS, PEERS, Peer, available
from readers import Reader, our_readers, plain_readers, threaded_readers
from stream_report import Figures, picture, ratios, table
from telling import keep, put, say

Measure = Callable[[], float]
SLICE_S, PEER_SLICE_S, COLD_SEGMENTS = 0.25, 0.5, 1600


def rate_of(reader: Reader, batch: int, seconds: float, clock: Callable[[], float]) -> float:
    """Segments per second of ``clock``."""
    began, used, n = time.perf_counter(), clock(), 0
    while time.perf_counter() - began < seconds or not n:
        reader()
        n += batch
    return n / (clock() - used)


def here(corpus: Corpus, args: argparse.Namespace) -> Iterator[tuple[str, Measure]]:
    """What runs in this process."""
    alone = plain_readers(corpus, args.batch, args.window) | our_readers(corpus, args.batch, args.window)
    for name, reader in alone.items():
        yield f"{name} {corpus.name}", lambda r=reader: rate_of(r, args.batch, args.slice, time.process_time)
    for name, reader in threaded_readers(corpus, args.batch, args.window).items():
        yield f"{name} {corpus.name}", lambda r=reader: rate_of(r, args.batch, args.slice, time.perf_counter)


def there(peer: Peer, args: argparse.Namespace) -> Iterator[tuple[str, Measure]]:
    """What runs in the process of a peer. Its files are made by the first read."""
    for name in peer.readers:

        def rate(name: str = name) -> float:
            found = peer.read(name, args.peer_slice)
            return found["segments"] / found["wall_s" if "2 workers" in name else "cpu_s"]

        yield name, rate


def cold_readers(corpus: Corpus, args: argparse.Namespace, kept: list[float]) -> Iterator[tuple[str, Measure]]:
    """The cold readers; ``kept`` gathers the shares of pages that could not be dropped."""
    cold = Cold(corpus, args.window, args.cold)
    for name in cold.readers:

        def rate(name: str = name) -> float:
            seconds, stayed = cold.seconds(name)
            kept.append(stayed)
            return cold.n / seconds

        yield f"{name} {corpus.name}", rate


def measure(args: argparse.Namespace, root: Path) -> Figures:
    """All readers in turn, some rounds, and their medians."""
    say(f"recordings and shards in {root}")
    corpora = [make_corpus(root, name, n_recordings=args.recordings, frames=args.frames) for name in DTYPES]
    kept: list[float] = []
    with ExitStack() as stack:
        measures = {name: m for corpus in corpora for name, m in here(corpus, args)}
        measures |= dict(cold_readers(corpora[0], args, kept))
        for name in args.peers:
            say(f"{name} starts and writes its own files")
            peer = stack.enter_context(Peer(f"peer_{name}", settings_of(corpora, root, args)))
            measures |= dict(there(peer, args))
        rates: dict[str, list[float]] = {name: [] for name in measures}
        for k in range(-1, args.rounds):  # the first warms up
            say(f"round {k + 1} of {args.rounds}, {len(measures)} readers" if k >= 0 else "warming up")
            for name, m in measures.items():
                rate = m()
                if k >= 0:
                    rates[name].append(rate)
    return Figures(rates={name: statistics.median(r) for name, r in rates.items()}, kept_pages=max(kept))


def settings_of(corpora: list[Corpus], root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What a peer must know."""
    flat = {c.name: str(c.flat) for c in corpora}
    shape = {"n_recordings": args.recordings, "frames": args.frames, "axes": AXES}
    return {**flat, **shape, "window": args.window, "batch": args.batch, "root": str(root / "peers"), "dtypes": DTYPES}


def arguments() -> argparse.Namespace:
    """The command line, with the sizes of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write ratios and medians here")
    parser.add_argument("--picture", type=Path, help="draw the medians (png, svg)")
    parser.add_argument("--page", type=Path, help="put the table between the marks of this page (docs/performance.md)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument("--no_peers", action="store_true", help="only what needs no other environment")
    args = parser.parse_args()
    small = args.small
    args.recordings, args.frames, args.window, args.batch = (4, 20_000, 100, 64) if small else (40, 416_700, 1000, 512)
    args.slice, args.peer_slice, args.cold = (0.01, 0.01, 128) if small else (SLICE_S, PEER_SLICE_S, COLD_SEGMENTS)
    args.peers = PEERS if available(LOADERS) and not args.no_peers else ()
    return args


def main() -> None:
    """Measure, print, write."""
    args = arguments()
    torch.set_num_threads(1)
    if not args.peers:
        say("without the other loaders (make bench-peers installs them)" if not args.no_peers else "without peers")
    with tempfile.TemporaryDirectory() as name:
        figures = measure(args, Path(name))
    print(table(figures))
    about = {"rounds": args.rounds, "small": args.small, "cores": os.cpu_count()}
    keep(ratios(figures) | asdict(figures) | about, args.json)
    if args.picture:
        picture(figures, args.picture)
    if args.page:
        put(table(figures), args.page, "stream")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # prefetch threads of streams that were never read to an end
