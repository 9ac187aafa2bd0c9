"""Under which licence a data set was published, as far as its name tells.

Licences do not travel with recordings: a set that one of the converters here made is known by its name.
"""

from typing import NamedTuple

SIMULATED = "simulated: no animal was recorded"
UNKNOWN = "not known here: ask who recorded it"


class Licence(NamedTuple):
    """Of a data set."""

    text: str
    source: str
    """The publisher's address; empty where it is not known."""


def licence_of(dataset: str) -> Licence:
    """That of ``hapt``, or of ``but_ppg_hr``: a set and one of its labels."""
    from aar_dist.recordings.convert import CONVERTERS  # imports every converter

    for name, converter in CONVERTERS.items():
        if converter.about.licence != "yours" and (dataset == name or dataset.startswith(f"{name}_")):
            return Licence(converter.about.licence, converter.about.source)
    return Licence(UNKNOWN, "")
