"""The number of threads respects whatever narrows what this process may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero_cpu.threads import allowed_cpus, available_threads, cpu_quota, pool_threads


def machine(root: Path, files: dict[str, str], cpus: str = "0-7") -> Path:
    """A sysroot with these files; its affinity mask is set, so that the real machine's does not matter."""
    for name, text in {"proc/self/status": f"Name:\tpython\nCpus_allowed_list:\t{cpus}\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def test_without_control_groups_every_allowed_cpu_counts(tmp_path: Path) -> None:
    assert available_threads(machine(tmp_path, {}, cpus="0-3,6")) == 5


def test_two_threads_of_one_core_count_once(tmp_path: Path) -> None:
    siblings = {
        f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}" for n in range(8)
    }
    assert available_threads(machine(tmp_path, siblings)) == 4


def test_siblings_that_are_not_allowed_do_not_hide_a_core(tmp_path: Path) -> None:
    siblings = {
        f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}" for n in range(8)
    }
    assert available_threads(machine(tmp_path, siblings, cpus="5-6")) == 2


@pytest.mark.parametrize(
    ("cpu_max", "threads"),
    [
        ("300000 100000", 3),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("6400000 100000", 8),
        ("max 100000", 8),
        ("garbage", 8),
        ("", 8),
        ("100000 0", 8),
        ("-1 100000", 8),
    ],
)
def test_a_v2_quota_narrows_the_number_and_nonsense_does_not(tmp_path: Path, cpu_max: str, threads: int) -> None:
    files = {"proc/self/cgroup": "0::/app", "sys/fs/cgroup/app/cpu.max": cpu_max}
    assert available_threads(machine(tmp_path, files)) == threads


def test_the_tightest_of_nested_v2_groups_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pod/container/app",
        "sys/fs/cgroup/pod/cpu.max": "200000 100000",
        "sys/fs/cgroup/pod/container/cpu.max": "400000 100000",
        "sys/fs/cgroup/pod/container/app/cpu.max": "max 100000",
    }
    assert cpu_quota(machine(tmp_path, files)) == 2.0


def test_a_container_that_sees_its_own_group_as_the_root_is_narrowed(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}
    assert available_threads(machine(tmp_path, files)) == 2


def test_a_group_outside_the_namespace_does_not_lead_out_of_the_mount(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/../../other",
        "sys/fs/cgroup/cpu.max": "300000 100000",
        "sys/other/cpu.max": "100000 100000",
    }
    assert cpu_quota(machine(tmp_path, files)) == 3.0


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize(("quota", "expected"), [("150000", 1.5), ("-1", None), ("what", None)])
def test_v1_quotas_are_read(tmp_path: Path, mount: str, quota: str, expected: float | None) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/app\n3:cpu,cpuacct:/app\n2:cpuset:/app",
        f"sys/fs/cgroup/{mount}/app/cpu.cfs_quota_us": quota,
        f"sys/fs/cgroup/{mount}/app/cpu.cfs_period_us": "100000",
    }
    assert cpu_quota(machine(tmp_path, files)) == expected


def test_a_v1_path_of_the_host_falls_back_to_the_mount_of_the_container(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "3:cpu,cpuacct:/docker/0123abcd",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert cpu_quota(machine(tmp_path, files)) == 4.0


def test_of_both_versions_at_once_the_tighter_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "1:cpu:/app\n0::/app",
        "sys/fs/cgroup/cpu/app/cpu.cfs_quota_us": "600000",
        "sys/fs/cgroup/cpu/app/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/unified/app/cpu.max": "500000 100000",
    }
    assert cpu_quota(machine(tmp_path, files)) == 5.0


@pytest.mark.parametrize("listed", ["", "zero", "1-", "0-x,3"])
def test_an_unreadable_affinity_mask_is_asked_of_the_system_instead(tmp_path: Path, listed: str) -> None:
    assert len(allowed_cpus(machine(tmp_path, {}, cpus=listed))) >= 1
    assert available_threads(tmp_path / "nothing here") >= 1


@pytest.mark.parametrize(
    ("threads", "lanes", "size"), [(8, 1, 8), (8, 2, 7), (8, 4, 5), (4, 4, 1), (2, 8, 1), (1, 1, 1)]
)
def test_lanes_share_the_threads_and_each_brings_its_own(threads: int, lanes: int, size: int) -> None:
    assert pool_threads(threads, lanes) == size
    if lanes <= threads:
        assert (size - 1) + lanes == threads  # the pool's own threads, and a caller in each lane
