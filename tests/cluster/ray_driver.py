"""A Ray driver as a program of its own: `ray_driver.py ADDRESS NODE DIARY` runs one task, at first on NODE.

Ray reads RAY_AUTH_TOKEN when it is imported, prints what befalls nodes to stdout, and leaves threads behind: not
in the process that runs the tests.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def main(address: str, first_choice: str, diary: str) -> None:
    """Prints the address of the node on which the task ended; the diary has a line for each attempt."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")

    @ray.remote(num_cpus=1, max_retries=2)
    def endless_on_first_choice() -> str:
        here = ray.util.get_node_ip_address()
        with Path(diary).open("a", encoding="utf-8") as file:
            file.write(f"{here} {os.getpid()}\n")
        while here == first_choice:
            time.sleep(1)
        return here

    alive = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
    there = NodeAffinitySchedulingStrategy(alive[first_choice], soft=True)
    print(f"ended on {ray.get(endless_on_first_choice.options(scheduling_strategy=there).remote())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
