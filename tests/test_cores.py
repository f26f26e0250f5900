from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckptswap.cores import usable_cores

V1 = "33 32 0:29 {top} /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
V2 = "34 32 0:30 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
MEMORY = "35 32 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64), raising=False)


def machine(root: Path, mounts: str, members: str, **files: str) -> Path:
    """The files by which Linux tells a process its control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(f"{MEMORY}\n{mounts}\n")
    (root / "proc/self/cgroup").write_text(f"4:memory:/elsewhere\n{members}\n")
    for path, text in files.items():
        (root / "sys/fs/cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / path).write_text(text)
    return root


def v1(group: str, quota: str) -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": "100000\n"}


def test_affinity_is_what_counts_without_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores(tmp_path) == 64
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 6})
    assert usable_cores(tmp_path) == 3


def test_the_strictest_group_of_version_2_counts(tmp_path: Path) -> None:
    files = {"user/cpu.max": "max 100000\n", "cpu.max": "900000 100000\n", "user/job/cpu.max": "1250000 50000\n"}
    root = machine(tmp_path, V2.format(top="/"), "0::/user/job", **files)
    assert usable_cores(root) == 9, "the group above allows less than its own 25"


@pytest.mark.parametrize(("quota", "cores"), [("150000", 2), ("5000", 1), ("-1", 64)])
def test_a_quota_of_version_1_is_rounded_up(tmp_path: Path, quota: str, cores: int) -> None:
    root = machine(tmp_path, V1.format(top="/"), "3:cpuacct,cpu:/a", **v1("cpu/a", quota))
    assert usable_cores(root) == cores


def test_a_container_sees_its_own_group_as_the_uppermost(tmp_path: Path) -> None:
    root = machine(tmp_path, V1.format(top="/docker/1f"), "3:cpu,cpuacct:/docker/1f", **v1("cpu", "400000"))
    assert usable_cores(root) == 4
    root = machine(tmp_path / "v2", V2.format(top="/"), "0::/../other", **{"cpu.max": "300000 100000\n"})
    assert usable_cores(root) == 3, "a group beside the namespace's own cannot be looked at"


def test_what_cannot_be_understood_limits_nothing(tmp_path: Path) -> None:
    root = machine(tmp_path, V2.format(top="/"), "0::/a", **{"a/cpu.max": "1 0\n", "cpu.max": "soon\n"})
    assert usable_cores(root) == 64
