"""Where the blocks of a sweep are computed, if not in its own process: in several, on a Slurm or a Ray cluster.

Ours are pools of workers (`pool.WorkerPool`) that differ in how these are begun, looked after and stopped.
"""
