"""``aar-dist store verify`` and ``rm``."""

import sys
from collections.abc import Iterator, Sequence

from aar_dist.base.errors import CheckpointError, ConfigError, one_line
from aar_dist.base.remote import Remote
from aar_dist.store.checkpoint import verified
from aar_dist.store.commands.options import opened, parser, version_of
from aar_dist.store.manifest import Removed
from aar_dist.store.pulled import damage
from aar_dist.store.registry import Store
from aar_dist.store.remove import remove
from aar_dist.store.shelf import FolderShelf, folder_of


def verify(argv: Sequence[str]) -> None:
    """Every file of every version, or of those of one model, or of one."""
    options = parser("verify", "Every file against its hash, where it lies.")
    options.add_argument("model", nargs="?", help="NAME or NAME@3; without it everything")
    args = options.parse_args(argv)
    store = opened(args.store)
    checked, bad = 0, []
    for name, number in _chosen(store, args.model):
        checked += 1
        try:
            print(f"store://{name}@{number}: {check(store, name, number)} files, all hashes match", flush=True)
        except CheckpointError as error:
            bad.append(one_line(error))
            print(f"store://{name}@{number}: {bad[-1]}", flush=True)
    if bad:
        raise CheckpointError(f"{store}: {len(bad)} of {checked} versions damaged; the first: {bad[0]}")
    print(f"{store}: {checked} versions whole")


def check(store: Store, name: str, number: int) -> int:
    """How many files were found whole. Raises ``CheckpointError``."""
    manifest = store.look(name, str(number))[1]
    if isinstance(store.shelf, FolderShelf):
        verified(store.shelf.root / folder_of(name, number))
    elif isinstance(store.shelf.place, Remote) and (
        bad := damage(store.shelf.place, folder_of(name, number), manifest)
    ):
        raise CheckpointError(f"{bad}. Publish the model again, or use another version")
    return len(manifest["files"])


def rm(argv: Sequence[str]) -> None:
    """Take a version out."""
    options = parser("rm", "Take a version out. Its number is never used again.")
    options.add_argument("model", help="NAME@3")
    options.add_argument("--force", action="store_true", help="although runs or folds start from it")
    options.add_argument("--yes", action="store_true", help="do not ask before the latest version goes")
    options.add_argument("--why", default="", help="a line for those who ask for it later")
    args = options.parse_args(argv)
    name, which = version_of(args.model)
    if which == "latest" and "@" not in args.model:
        raise ConfigError(f"rm {args.model}: of which version? Give its number: {name}@3")
    store = opened(args.store)
    number = store.look(name, which)[0]
    if not args.yes and number == store.look(name)[0]:
        _ask(store, name, number)
    remove(store, name, number, force=args.force, why=args.why)
    print(f"store://{name}@{number} is removed from {store}")


def _ask(store: Store, name: str, number: int) -> None:
    """Let a person confirm. Raises ``ConfigError`` where nobody does."""
    before = [n for n in store.versions(name) if n < number]
    then = f"@latest will be {before[-1]} then" if before else "it is the only one"
    what = f"store://{name}@{number} of {store} is the latest version; {then}"
    if not sys.stdin.isatty():
        raise ConfigError(f"{what}: say --yes to remove it")
    print(f"{what}. Remove it? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was removed")


def _chosen(store: Store, model: str | None) -> Iterator[tuple[str, int]]:
    if model is None:
        for name in store.shelf.names():
            yield from ((name, number) for number in _numbers(store, name))
        return
    name, which = version_of(model)
    if "@" in model:
        yield name, store.look(name, which)[0]
        return
    store.look(name)
    yield from ((name, number) for number in _numbers(store, name))


def _numbers(store: Store, name: str) -> Iterator[int]:
    """Also those whose manifest is damaged; not those that were taken out, or are being published."""
    for number in store.shelf.numbers(name):
        try:
            if store.manifest(name, number) is None:
                continue
        except Removed:
            continue
        except CheckpointError:
            pass
        yield number
