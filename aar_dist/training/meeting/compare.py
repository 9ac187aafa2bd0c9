"""Whether the ranks of a launch are alike. Pure: facts in, complaints out.

all ranks' Facts -> complaints (each names who, what and what to do)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aar_dist.base.wording import some
from aar_dist.training.meeting.facts import Facts


def complaints(facts: Sequence[Facts]) -> Iterator[str]:
    """What forbids these ranks to train together; rank 0 is the measure."""
    for each in facts:
        yield from (f"{each.who}: {problem}" for problem in each.problems)
    yield from _differ(
        facts, lambda each: each.world_size, "was started for {} ranks", "give every host the same hostfile"
    )
    for package in sorted({name for each in facts for name in each.versions}):
        yield from _differ(
            facts,
            lambda each, package=package: each.versions.get(package, "none"),  # type: ignore[misc]
            f"has {package} {{}}",
            "install the same on every host (pip install -c constraints.txt)",
        )
    yield from _differ(facts, lambda each: each.code, "runs aar_dist of code {}", "copy the same code to every host")
    yield from _differ(
        facts,
        lambda each: "the CPU" if each.device == "cpu" else "a GPU",
        "computes on {}",
        "check its driver, and that DS_ACCELERATOR is the same on every host (.deepspeed_env)",
    )


def remarks(facts: Sequence[Facts]) -> Iterator[str]:
    """What is odd about these ranks, and no reason to stop."""
    yield from _differ(facts, lambda each: each.device, "computes on {}", "the slowest sets the pace of all")


def _differ(facts: Sequence[Facts], value: Callable[[Facts], Any], said: str, remedy: str) -> Iterator[str]:
    """A complaint for each value that is not rank 0's."""
    first = facts[0]
    others: dict[Any, list[Facts]] = {}
    for each in facts:
        if value(each) != value(first):
            others.setdefault(value(each), []).append(each)
    for found, who in others.items():
        yield f"{group(who)} {said.format(found)}, but {first.who} {said.format(value(first))}; {remedy}"


def group(who: Sequence[Facts]) -> str:
    """Some ranks in a sentence: all of a host's by the host."""
    if len(who) == 1:
        return who[0].who
    return f"{len(who)} ranks on {some(list(dict.fromkeys(each.host for each in who)))}"


def one_complaint(found: Iterable[str]) -> str | None:
    """The first, and how many there are beside it."""
    said = list(found)
    return f"{said[0]} (and {len(said) - 1} more like this)" if len(said) > 1 else next(iter(said), None)


def changed_keys(mine: Mapping[str, Any], first: Mapping[str, Any], *, free: Sequence[str] = ()) -> dict[str, Any]:
    """Dotted key -> (value here, value on rank 0), of two nested configurations; ``free`` keys and what is below them
    may differ."""
    here, there = _flat(mine), _flat(first)
    return {
        key: (here.get(key), there.get(key))
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key) and not any(key == each or key.startswith(f"{each}.") for each in free)
    }


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
