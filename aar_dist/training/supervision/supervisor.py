"""Start a run, again and again, until its marker stands.

hosts -> lock -> launch -> watch -> leftovers ended -> recorded -> judged -> (wait) -> …
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from aar_dist.base import last_word, storage
from aar_dist.base.errors import USER_ERROR_EXIT, PassingError, StorageError, one_line
from aar_dist.base.locks import locked
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.supervision import attempts
from aar_dist.training.supervision.cluster import Cluster
from aar_dist.training.supervision.judge import End, Verdict, judge
from aar_dist.training.supervision.launching import Launching, Patience
from aar_dist.training.supervision.request import Request
from aar_dist.training.supervision.saying import say
from aar_dist.training.supervision.watch import Noticed, newest_step

GAVE_UP_EXIT = 1


def supervise(
    script: Sequence[str], directory: RunDirectory, cluster: Cluster, patience: Patience, fits: Callable[[int], bool]
) -> int:
    """Until the run is finished, or there is no sense in another attempt; returns the exit code.

    Args:
        script: The training script and its arguments.
        fits: True for a number of ranks among which the batch can be shared.

    Raises:
        PassingError: another supervisor is at work on this run.
    """
    request = Request().listen()
    launching = Launching(script, directory, cluster, patience, request, fits)
    failures = 0
    with _alone(directory), closing(launching):  # what a killed supervisor has left goes too
        while not directory.finished():
            end = attempt(launching, directory, cluster, patience, request)
            verdict = judge(end, failures, patience.max_failures)
            failures = verdict.failures
            if (code := _then(verdict, end, directory, patience, request)) is not None:
                return code
            request.sleep(verdict.wait_s)
    say(f"{directory.root} is finished")
    return 0


def attempt(
    launching: Launching, directory: RunDirectory, cluster: Cluster, patience: Patience, request: Request
) -> End:
    """One launch, from start to end, recorded."""
    hosts = launching.hosts()
    launching.wait_for_lock()
    if request:
        return _not_begun("", request)
    number = max((made.number for made in attempts.read(directory.root)), default=0) + 1
    try:
        watch = launching.launch(number, hosts)
    except StorageError as error:
        return _not_begun(one_line(error), request)
    noticed: Noticed = watch.until_noticed(patience.stall_s, lambda: launching.look(hosts))
    # Ranks that only lost their launcher can still save; those that wait for a lost rank cannot.
    cluster.sweep(hosts, 0.0 if noticed.hopeless else patience.grace_s)
    watch.end()
    launching.close()
    progressed = newest_step(directory) > watch.from_step
    finished = directory.finished() is not None
    end = End(
        finished=finished,
        said=last_word.read(launching.said),
        noticed=noticed.what,
        asked=request.why,
        progressed=progressed,
        worked_before=launching.worked and watch.ready is None,
    )
    launching.worked |= watch.ready is not None
    made = watch.attempt(number, [host.name for host in hosts], sum(host.slots for host in hosts), end.how)
    say(f"attempt {number} ended at step {made.reached}, saved at {made.to_step}: {end.how}")
    try:
        attempts.append(directory.root, made)
    except OSError as error:
        say(f"{directory.root / attempts.NAME} cannot be written: {error.strerror}")
    return end


def _not_begun(why: str, request: Request) -> End:
    return End(finished=False, said=None, noticed=why, asked=request.why, progressed=False)


def _then(verdict: Verdict, end: End, directory: RunDirectory, patience: Patience, request: Request) -> int | None:
    """Say what follows; the exit code if nothing does."""
    match verdict.then:
        case "again" if not verdict.failures:
            say("again at once")
            return None
        case "again":
            say(
                f"{end.how}; again in {verdict.wait_s:.0f} s (failure {verdict.failures} of {patience.max_failures} in "
                "a row without a newer checkpoint)"
            )
            return None
        case "done":
            say(f"{directory.root} is finished")
            return 0
        case "stopped":
            say("stopped; the same command goes on")
            return 128 + request.numbers[0] if request else 0
        case "mistake":
            say(f"no other attempt would end otherwise: {end.how}")
            return USER_ERROR_EXIT
        case "give up":
            say(f"gave up after {verdict.failures} attempts in a row without a newer checkpoint: {end.how}")
            return GAVE_UP_EXIT


@contextmanager
def _alone(directory: RunDirectory) -> Iterator[None]:
    """No two supervisors for one run. The lock dies with its owner."""
    with storage.one_line_errors(directory.root):
        (directory.root / "log").mkdir(parents=True, exist_ok=True)
        file = open(directory.root / ".supervisor", "a")  # noqa: SIM115 (closed below)
    with file:
        if not locked(file):
            raise PassingError(f"{directory.root} is supervised by another process; wait for it, or end it")
        yield
