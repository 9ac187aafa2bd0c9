"""What is said when nobody listens."""

import os
import subprocess
import sys

SPEAKS = """
from aar_dist.training.console import Console
from aar_dist.training.ranks import Ranks
import os, sys
console = Console(Ranks(0, 1, 0, 1), 10)
from aar_dist.training.supervision.saying import say
for i in range(3):
    say("an attempt")
    console.say(f"line {i}")
    console.warn(f"warning {i}")
os.write(int(sys.argv[1]), b"trains on")
"""


def test_a_run_goes_on_when_its_listener_is_gone():
    """Its supervisor was killed, or ``| tee`` ended."""
    gone, its_end = os.pipe()
    os.close(gone)
    heard, told = os.pipe()
    command = [sys.executable, "-c", SPEAKS, str(told)]
    done = subprocess.run(command, stdout=its_end, stderr=its_end, pass_fds=[told])
    os.close(its_end)
    os.close(told)
    with open(heard) as file:
        assert file.read() == "trains on"
    assert done.returncode == 0
