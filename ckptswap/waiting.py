"""Whether threads that wait for others sleep or spin. Those of torch's OpenMP spin unless they are told not to:
where a machine is shared, a thread that waits then keeps the one it waits for from the processor. No torch."""

import os
import sys

POLICY = "OMP_WAIT_POLICY"
SAID_BY = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""The variables by which a person says it, to one of the libraries or to all."""


def let_waiting_threads_sleep() -> None:
    """Say so in the environment, which OpenMP reads when torch loads it: unless that has happened, or a person has
    said something else. What threads compute stays the same, to the last bit.

    >>> let_waiting_threads_sleep()
    """
    if not how_threads_wait() and "torch" not in sys.modules:
        os.environ[POLICY] = "passive"


def how_threads_wait() -> str:
    """What the environment says of it, as a shell would; '' where it says nothing.

    >>> "=" in how_threads_wait() or not how_threads_wait()
    True
    """
    return " ".join(f"{name}={os.environ[name]}" for name in SAID_BY if name in os.environ)
