"""What a run that a fold may choose leaves behind, and what is told of the choice.

trained.json   validation loss of its best weights; they stay in checkpoints/
choice.json    in the chosen one: what there was to choose from, and which it was
"""

from pathlib import Path
from typing import Any

from aar_dist.base import storage

TRAINED, CHOICE = "trained.json", "choice.json"


def choice_in(folder: Path) -> dict[str, Any]:
    """What metrics.json says of the choice that a run came out of; {} of one that was no candidate."""
    file = folder / CHOICE
    return {"choice": storage.read_json(file)} if file.exists() else {}
