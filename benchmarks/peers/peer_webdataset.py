"""webdataset: windows cut beforehand and shuffled, or whole recordings from which crops are taken."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import webdataset as wds
from samples import NAMES, folder, precut, recordings

SHUFFLE = 2000


def readers(settings: dict[str, Any]) -> dict[str, Iterator[Any]]:
    """Batches for ever, (512, 1000, 3)."""
    found = {}
    for name in NAMES:
        found[f"webdataset pre-cut {name}"] = iter(_stream(settings, f"{name}", precut(settings, name), None))
        crops = _Crops(settings["window"])
        found[f"webdataset crops {name}"] = iter(_stream(settings, f"crops-{name}", recordings(settings, name), crops))
    return found


class _Crops:
    """As many crops of each recording as windows would fit into it."""

    def __init__(self, window: int) -> None:
        self.window, self.rng = window, np.random.default_rng(0)

    def __call__(self, samples: Iterable[tuple[Any]]) -> Iterator[tuple[Any]]:
        for (whole,) in samples:
            for start in self.rng.integers(0, len(whole) - self.window + 1, len(whole) // self.window):
                yield (whole[start : start + self.window],)


def _stream(settings: dict[str, Any], name: str, samples: Any, crops: _Crops | None) -> Iterable[Any]:
    where = folder(settings, "webdataset", name)
    with wds.ShardWriter(str(where / "%06d.tar"), maxsize=64e6, verbose=0) as writer:
        for i, values in enumerate(samples):
            writer.write({"__key__": f"{i:09d}", "x.npy": np.asarray(values)})
    urls = sorted(str(path) for path in where.glob("*.tar"))
    stream = wds.WebDataset(urls, shardshuffle=len(urls), seed=0, empty_check=False).decode().to_tuple("x.npy")
    if crops is not None:
        stream = stream.compose(crops)
    batched = stream.repeat().shuffle(SHUFFLE).batched(settings["batch"], partial=False)
    return (batch[0] for batch in batched)
