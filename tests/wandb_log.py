"""What a ``.wandb`` file holds: blocks of 32 KiB with records in pieces (LevelDB's log format), each a message."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

BLOCK, HEADER = 32768, 7
FULL, LAST = 1, 4
WANDB = str(Path(sys.executable).with_name("wandb"))


def summary(folder: Path) -> str:
    """What W&B's own reader finds in an offline run."""
    command = [WANDB, "leet", "inspect", "--summary", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def records(folder: Path) -> list[pb.Record]:
    """All whole records of the run in this folder."""
    (file,) = folder.glob("*.wandb")
    data, found, piece = file.read_bytes(), [], b""
    at = HEADER  # the file's own header is as long as a record's
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        at += HEADER
        piece += data[at : at + length]
        at += length
        if kind in (FULL, LAST):
            record = pb.Record()
            record.ParseFromString(piece)
            found.append(record)
            piece = b""
    return found


def history(folder: Path) -> list[dict[str, Any]]:
    """Rows, as logged."""
    rows = [record.history for record in records(folder) if record.WhichOneof("record_type") == "history"]
    return [{"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in row.item} for row in rows]
