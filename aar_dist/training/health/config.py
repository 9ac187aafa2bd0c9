"""What counts as unwell."""

from dataclasses import dataclass
from datetime import timedelta

from aar_dist.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class HealthConfig:
    """What counts as unwell; how many steps in a row may be left out is ``train.max_skipped_steps``."""

    hang_timeout_s: float | None = 600.0
    """Longest time without a sign of progress; then every rank writes its stack and the job ends. null: for ever."""
    slow_timeout_s: float = 3600.0
    """The same for the first step, saving and publishing, which may compile, download or write for long."""
    spike_window: int = 128
    """Steps whose losses a step's loss is compared with."""
    spike_sigma: float = 6.0
    """Standard deviations above their mean that make a loss spike; 0: none is looked for."""

    @property
    def collective_timeout(self) -> timedelta:
        """When a collective gives up: long after a hang has been found, since all that it could say is that."""
        return timedelta(seconds=max(1800.0, self.slow_timeout_s + 600.0))

    def __post_init__(self) -> None:
        for name, rule, holds in (
            ("hang_timeout_s", "positive, or null for never", self.hang_timeout_s is None or self.hang_timeout_s > 0),
            (
                "slow_timeout_s",
                f"no less than health.hang_timeout_s, {self.hang_timeout_s}",
                self.slow_timeout_s >= (self.hang_timeout_s or 0),
            ),
            ("spike_window", "8 or more, so that there is something to compare with", self.spike_window >= 8),
            ("spike_sigma", "0 or more", self.spike_sigma >= 0),
        ):
            if not holds:
                raise ConfigError(f"health.{name} must be {rule}, got {getattr(self, name)}")
