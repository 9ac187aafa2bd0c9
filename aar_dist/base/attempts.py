"""How often a job may be tried, and where not again: the one place that decides, whoever does the work.

    a job ends badly -> Attempts.lost | crashed | failed -> True: once more, elsewhere | False: that was the last time

Three ends are told apart. Its machine is gone: no fault of the job, which goes to another machine. Its process died: a
job too big for the memory does so wherever it runs, so three more times at most. It failed and says why: as often as
the caller allows.
"""

from dataclasses import dataclass, field

CRASHES = 3
"""A job is given up when its process has died once more than that."""
MACHINES = 10
"""… or so many machines have gone under it."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Who does a job."""

    node: str
    """Ray's own name of the machine; empty without Ray."""
    host: str
    address: str
    process: int

    def __str__(self) -> str:
        return self.host or self.address


@dataclass
class Attempts:
    """What has become of one job so far."""

    retries: int = 0
    """Times it may be tried again after it has failed."""
    n_lost: int = 0
    n_crashed: int = 0
    n_failed: int = 0
    avoid: set[str] = field(default_factory=set)
    """Machines where its process died, or where it failed."""

    def lost(self) -> bool:
        """Its machine is gone."""
        self.n_lost += 1
        return self.n_lost < MACHINES

    def crashed(self, place: Place | None) -> bool:
        """Its process died."""
        self.n_crashed += 1
        self._leave(place)
        return self.n_crashed <= CRASHES

    def failed(self, place: Place | None) -> bool:
        """It says that it could not be done."""
        self.n_failed += 1
        self._leave(place)
        return self.n_failed <= self.retries

    def elsewhere(self, machines: set[str]) -> set[str]:
        """The machines to leave out this time, of those with room for it: none if nothing else is left."""
        return self.avoid & machines if machines - self.avoid else set()

    @property
    def told(self) -> str:
        """Why it is given up, where it could not say so itself."""
        if self.n_lost >= MACHINES:
            return f"{self.n_lost} machines have gone under it"
        return f"its process died {self.n_crashed} times"

    def _leave(self, place: Place | None) -> None:
        if place and place.node:
            self.avoid.add(place.node)
