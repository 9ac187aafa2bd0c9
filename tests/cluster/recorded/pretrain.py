"""launch/pretrain.py that also writes down which segments each rank trains on: AAR_DIST_RECORD/rank_<k>, a line for
each micro-batch: its place on the tape, and a hash of its segments' keys. AAR_DIST_PACE seconds pass before each.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from aar_dist.base.errors import run_door
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.loader import SegmentStream

batches = SegmentStream.batches


def recorded(
    self: SegmentStream, position: int, batch_size: int, micro_batch_size: int, device="cpu"
) -> Iterator[SegmentBatch]:
    file = os.open(Path(os.environ["AAR_DIST_RECORD"]) / f"rank_{self.rank}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    mine = batch_size // self.world_size
    for number, batch in enumerate(batches(self, position, batch_size, micro_batch_size, device)):
        step, done = divmod(number * micro_batch_size, mine)
        keys = hashlib.sha256(batch.key.numpy().tobytes()).hexdigest()[:16]
        os.write(file, f"{position + step * batch_size + done} {keys}\n".encode())
        time.sleep(float(os.environ["AAR_DIST_PACE"]))
        yield batch


SegmentStream.batches = recorded

if __name__ == "__main__":
    run_door("aar_dist.training.pretrain")
