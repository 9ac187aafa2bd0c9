"""Which chunk of which recording goes into which shard: pure, and the same for any number of workers.

    recordings -> subjects split -> chunks in a seeded order -> shards of equal bytes

Chunks are cut where a shard is full, so shards of a data set are equal to within ``BALANCE``, its last one aside.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.model_selection import train_test_split

from aar_dist.base.hashing import hash_int, word
from aar_dist.recordings.contract import Recording, Sensor
from aar_dist.shards.format import SPLITS, shard_name
from aar_dist.shards.layout import NPY_HEADER, DatasetLayout, clock, label_rate, layouts_of, overhead, padded

CHUNK_SEGMENTS = 200  # a chunk is this many of the longest segments: their overlap is 0.5 % of it
SHARD_SEGMENTS = 250  # a shard holds at least this many: cutting at its end costs at most 0.4 %
BALANCE = 0.009  # a shard may miss the target by this share on either side
SHARD_SAMPLES = 120  # and this many of the smallest sample that a cut may leave, so that one fits into that share


@dataclass(frozen=True, kw_only=True)
class SensorSpan:
    """The stretch of one sensor in one chunk, in that sensor's samples."""

    sensor: str
    start: int
    stop: int
    owned: int


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A stretch of one recording, in samples of its slowest sensor (the clock)."""

    recording: int  # index into the recordings of the plan
    start: int  # first owned start
    stop: int  # one past the last owned start; the recording's length for its last chunk


@dataclass(frozen=True, kw_only=True)
class ShardSpec:
    """One shard to write."""

    name: str
    dataset: str
    split: str
    chunks: tuple[Chunk, ...]


def span_of(recording: Recording, sensor: Sensor, chunk: Chunk, longest_segment_s: float) -> SensorSpan:
    """The samples of one sensor that belong to a chunk, with the overlap into the next one."""
    base = clock(recording)

    def place(tick: int) -> int:
        return tick if sensor.rate_hz == base.rate_hz else round(tick / base.rate_hz * sensor.rate_hz)

    n = sensor.n_samples
    start = min(place(chunk.start), n)
    last = chunk.stop >= base.n_samples
    owned = (n if last else min(place(chunk.stop), n)) - start
    # A sensor of another rate begins at the rounded time of the first one's start: one sample more.
    longest = segment_samples(longest_segment_s, sensor.rate_hz) + (sensor.rate_hz != base.rate_hz)
    return SensorSpan(sensor=sensor.name, start=start, stop=min(start + owned + longest - 1, n), owned=owned)


def label_span(recording: Recording, chunk: Chunk, longest_segment_s: float) -> SensorSpan:
    """The labels of a chunk on their own clock: as long in time as its samples."""
    base, rate = clock(recording), label_rate(recording)
    samples = span_of(recording, base, chunk, longest_segment_s)
    n = recording.label.n if recording.label is not None else base.n_samples

    def place(tick: int) -> int:
        return min(tick if rate == base.rate_hz else round(tick / base.rate_hz * rate), n)

    last = chunk.stop >= base.n_samples
    start, owned_stop = place(samples.start), n if last else place(chunk.stop)
    stop = n if samples.stop >= base.n_samples else place(samples.stop)
    return SensorSpan(sensor="label", start=start, stop=stop, owned=owned_stop - start)


def segment_samples(seconds: float, rate_hz: float) -> int:
    """Samples of a segment; at least one."""
    return max(1, round(seconds * rate_hz))


def split_subjects(subjects: Sequence[str], train_ratio: float, random_seed: int) -> dict[str, str]:
    """Subject -> split. Whole subjects, drawn as the first system draws them; a lone subject trains."""
    ordered = sorted(set(subjects))
    n_train = min(max(math.floor(train_ratio * len(ordered)), 0), len(ordered))
    if 0 < train_ratio < 1 and len(ordered) > 1:
        n_train = min(max(n_train, 1), len(ordered) - 1)
    if n_train in (0, len(ordered)) or len(ordered) < 2:
        only = "val" if n_train == 0 and len(ordered) > 1 else "train"
        return dict.fromkeys(ordered, only)
    train, _ = train_test_split(ordered, train_size=n_train, test_size=len(ordered) - n_train, random_state=random_seed)
    return {s: SPLITS[0] if s in set(train) else SPLITS[1] for s in ordered}


def plan_shards(
    recordings: Sequence[Recording],
    *,
    train_ratio: float,
    random_seed: int,
    longest_segment_s: float,
    shard_bytes: int,
) -> list[ShardSpec]:
    """The shards of all data sets, in the order of their names."""
    specs: list[ShardSpec] = []
    for dataset, layout in layouts_of(recordings).items():
        members = [i for i, r in enumerate(recordings) if r.dataset == dataset]
        split = split_subjects([recordings[i].subject for i in members], train_ratio, random_seed)
        for name in SPLITS:
            chosen = [i for i in members if split[recordings[i].subject] == name]
            packer = _Packer(recordings, layout, longest_segment_s)
            groups = packer.pack(_ordered_chunks(recordings, chosen, longest_segment_s, random_seed), shard_bytes)
            specs += [
                ShardSpec(name=shard_name(dataset, name, k), dataset=dataset, split=name, chunks=tuple(chunks))
                for k, chunks in enumerate(groups)
            ]
    return specs


def _ordered_chunks(
    recordings: Sequence[Recording], chosen: list[int], longest_segment_s: float, seed: int
) -> list[Chunk]:
    """Chunks of about CHUNK_SEGMENTS longest segments in a seeded order, so that a shard is a fair sample."""
    chunks = [c for i in chosen for c in _cut(recordings[i], i, longest_segment_s)]

    def draw(chunk: Chunk) -> tuple[int, int, int]:
        name = word(recordings[chunk.recording].recording)
        return hash_int(seed, word("chunk order"), name, chunk.start), chunk.recording, chunk.start

    return sorted(chunks, key=draw)


def _cut(recording: Recording, index: int, longest_segment_s: float) -> Iterator[Chunk]:
    base = clock(recording)
    parts = max(1, round(base.n_samples / (CHUNK_SEGMENTS * segment_samples(longest_segment_s, base.rate_hz))))
    edges = [base.n_samples * k // parts for k in range(parts + 1)]
    for start, stop in itertools.pairwise(edges):
        yield Chunk(recording=index, start=start, stop=stop)


@dataclass
class _Packer:
    """Fills shards to equal bytes, cutting the chunk that crosses the end of one."""

    recordings: Sequence[Recording]
    layout: DatasetLayout
    longest_segment_s: float
    _overheads: dict[int, int] = field(default_factory=dict)

    def pack(self, chunks: list[Chunk], shard_bytes: int) -> list[list[Chunk]]:
        if not chunks:
            return []
        total = sum(map(self.bytes_of, chunks))
        smallest = max(map(self._smallest_shard, chunks))
        n_shards = max(1, min(math.ceil(total / shard_bytes), total // smallest))
        target = total / n_shards
        shards: list[list[Chunk]] = [[]]
        used = 0.0
        for chunk in chunks:
            rest: Chunk | None = chunk
            while rest is not None:
                if target - used < BALANCE * target and len(shards) < n_shards:
                    shards.append([])
                    used = 0.0
                room = target - used if len(shards) < n_shards else math.inf
                part, rest = self._fit(rest, room, BALANCE * target)
                shards[-1].append(part)
                used += self.bytes_of(part)
        return shards

    def _fit(self, chunk: Chunk, room: float, slack: float) -> tuple[Chunk, Chunk | None]:
        """As much of the chunk as fits, and the rest."""
        size = self.bytes_of(chunk)
        if size <= room + slack or chunk.stop - chunk.start < 2:
            return chunk, None
        low, high = chunk.start + 1, chunk.stop - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.bytes_of(replace(chunk, stop=middle)) <= room:
                low = middle
            else:
                high = middle - 1
        return replace(chunk, stop=low), replace(chunk, start=low)

    def bytes_of(self, chunk: Chunk) -> int:
        """Bytes of the chunk's members in the tar."""
        recording = self.recordings[chunk.recording]
        size = self._overhead(chunk.recording)
        size += (len(self.layout.sensors) - len(recording.sensors)) * padded(NPY_HEADER)
        for sensor in recording.sensors:
            span = span_of(recording, sensor, chunk, self.longest_segment_s)
            size += padded(NPY_HEADER + (span.stop - span.start) * sensor.n_axes * np.dtype(sensor.dtype).itemsize)
        if self.layout.labelled:
            labels = label_span(recording, chunk, self.longest_segment_s)
            size += padded(NPY_HEADER + (labels.stop - labels.start) * np.dtype(self.layout.label_dtype).itemsize)
        return size

    def _overhead(self, index: int) -> int:
        if index not in self._overheads:
            self._overheads[index] = overhead(self.layout, self.recordings[index])
        return self._overheads[index]

    def _smallest_shard(self, chunk: Chunk) -> int:
        recording = self.recordings[chunk.recording]
        segment = sum(
            segment_samples(self.longest_segment_s, s.rate_hz) * s.n_axes * np.dtype(s.dtype).itemsize
            for s in recording.sensors
        )
        return max(SHARD_SEGMENTS * segment, SHARD_SAMPLES * (segment + self._overhead(chunk.recording)))
