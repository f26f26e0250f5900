"""One sweep on disk: its plan, its journal, its lock, its samples, and whether it is whole and whose it is."""
