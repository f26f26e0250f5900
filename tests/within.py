"""Imported by the server of `programs`: the servers that its programs begin are forked from it too."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import programs

programs.fork_servers_too()
warnings.filterwarnings("ignore", "'ckptswap.executors.forkserver' found in sys.modules", RuntimeWarning)
sys.path.remove(str(Path(__file__).parent))
