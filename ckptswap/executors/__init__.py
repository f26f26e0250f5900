"""Where the blocks of a sweep are computed, if not in its own process: in several, on a Slurm or a Ray cluster.

An executor is a `sweep.runner.Executor`, found by its name through the registry: `build(task, jobs, options)`.
Ours divide the work by cost into shards, one a worker, and are pools of workers (`pool.WorkerPool`) that differ in
how workers are begun, looked after and stopped (`pool.JobHandle`). Results never pass through them: workers write
files of their own, and whoever waits reads these.
"""
