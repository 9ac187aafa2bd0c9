"""The health of a run, as the loop tells it.

micro-batch -> micro()                 kept until the next step: two tensors, no question to the device
step        -> stepped()               left out? found out why, told, given up after train.max_skipped_steps in a row
row of metrics.jsonl -> looked_at()    a spike?
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from aar_dist.base.errors import ConfigError
from aar_dist.objectives.base import Metrics
from aar_dist.stream.batch import Origin, SegmentBatch
from aar_dist.stream.loader import SegmentStream
from aar_dist.training.config import RunConfig
from aar_dist.training.console import Console
from aar_dist.training.health.events import Events, cut_back
from aar_dist.training.health.hang import Watch
from aar_dist.training.health.pulse import Pulse
from aar_dist.training.health.spikes import Spikes
from aar_dist.training.health.suspects import Finding, look, merged, worst_recording
from aar_dist.training.metrics import Row, read_rows
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import from_main, to_main
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.tracking import Run

TOLD, TOLD_EVERY = 3, 10
"""Of a row of steps that were left out, the first few and then some are told on the terminal."""
Origins = Callable[[int, int], Sequence[Origin]]
"""(position, batch size) -> where this rank's segments of that global batch were recorded."""


class Health:
    """Every rank has one; rank 0 alone has ``events``, and speaks."""

    def __init__(
        self,
        config: RunConfig,
        console: Console,
        origins: Origins,
        *,
        events: Events | None,
        progress: Progress,
        rows: Sequence[Row] = (),
        pulse: Pulse | None = None,
    ) -> None:
        """
        Args:
            events: On rank 0.
            progress: Where the run stands.
            rows: Of metrics.jsonl so far, on rank 0.
            pulse: Of this rank, which is watched.
        """
        self.pulse = pulse or Pulse()
        self._config, self._console, self._origins, self._events = config, console, origins, events
        self._losses: list[Tensor] = []
        self._values: list[Tensor] = []
        self._in_a_row = from_main(lambda: self._streak(progress.step))
        self._spikes = Spikes(config.health.spike_window, config.health.spike_sigma)
        self._spikes.replay(rows)

    def micro(self, batch: SegmentBatch, metrics: Metrics, *, first: bool) -> None:
        """One micro-batch of this rank; ``first`` begins a step."""
        if first:
            self._losses, self._values = [], []
        self._losses.append(metrics["loss"])
        self._values.append(batch.values)

    def stepped(self, progress: Progress, *, applied: bool) -> None:
        """The run stands at ``progress``, one step further. Every rank must call it; it costs nothing after a step that
        was applied.

        Raises:
            ConfigError: too many steps in a row were left out.
        """
        self.pulse.warm()
        self._in_a_row = 0 if applied else self._in_a_row + 1
        if applied:
            return
        size = self._config.train.batch_size
        mine = look(self._losses, self._values, lambda: self._origins(progress.position - size, size))
        found = to_main(mine)
        if self._events:
            self._tell(progress.step, merged(found))
        if self._in_a_row >= self._config.train.max_skipped_steps:
            from_main(lambda: self._give_up(progress.step))

    def looked_at(self, row: Row) -> Row:
        """What else there is to say of a step: ``spike``, the height of a spike in its loss in standard deviations."""
        height = self._spikes.see(row.get("loss")) if self._events else None
        if self._events is None or height is None:
            return {}
        before = f"the {self._config.health.spike_window} steps before"
        text = f"loss {row['loss']:.4g} is {height:.1f} standard deviations above {before}"
        self._console.warn(f"step {row['step']}: {text}")
        self._events.tell("spike", "Loss spike", f"step {row['step']}: {text}", step=row["step"], height=height)
        return {"spike": height}

    def stopped(self, step: int, reason: str) -> None:
        """All ranks stop at this step, and the run is to go on later."""
        if self._events:
            self._events.tell("stopped", "Stopped", f"step {step}: {reason}", level="info", step=step, alert=False)

    def _tell(self, step: int, found: Finding) -> None:
        assert self._events is not None, "rank 0 tells"
        if self._in_a_row <= TOLD or self._in_a_row % TOLD_EVERY == 0:
            self._console.warn(f"step {step} was left out: {found.text}")
        about: dict[str, Any] = {"n_segments": found.n_segments, "n_broken": found.n_broken, "segments": found.segments}
        # Of a row of steps the first is news.
        news = self._in_a_row == 1
        self._events.tell("skipped", "Step left out", f"step {step}: {found.text}", step=step, alert=news, **about)

    def _give_up(self, step: int) -> None:
        assert self._events is not None, "rank 0 tells"
        events = self._events.steps_of("skipped")
        row = [events[s]["segments"] for s in range(step - self._in_a_row + 1, step + 1) if s in events]
        text = (
            f"{self._in_a_row} steps in a row had a loss or gradients that are not finite, worst: "
            f"{worst_recording(row)}; look for damaged values there ({self._events.path.name} names all), or "
            f"{self._config.optim.slower}, set deepspeed.gradient_clipping"
        )
        self._events.tell("gave_up", "Gave up", text, level="error", step=step, alert=False)  # the error itself is
        raise ConfigError(text)

    def _streak(self, step: int) -> int:
        """Steps left out in a row, up to this one."""
        skipped = self._events.steps_of("skipped") if self._events else {}
        streak = 0
        while step - streak in skipped:
            streak += 1
        return streak


def look_after(
    config: RunConfig,
    console: Console,
    stream: SegmentStream,
    directory: RunDirectory,
    progress: Progress,
    tracker: Run,
    watch: Watch,
) -> Health:
    """The health of a run that stands at ``progress``; its metrics are cut back to there."""
    told = cut_back(directory.events, progress.step) if console.main else -1
    rows = read_rows(directory.metrics) if console.main else []
    events = Events(directory.events, tracker, told=told)
    watch.tell = lambda text, step: events.tell("hang", "Hang", text, level="error", step=step)
    return Health(
        config,
        console,
        stream.origins_at,
        events=events if console.main else None,
        progress=progress,
        rows=rows,
        pulse=watch.pulse,
    )
