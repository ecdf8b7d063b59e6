"""How many CPUs this process may use: affinity mask, whole cores, and the quotas of control groups.

ONNX Runtime counts the machine's cores and knows nothing of quotas, so in a container that may use two CPUs of 64 it
starts 64 threads, which the kernel then stops for most of every period (onnxruntime #23523).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def available_threads(sysroot: Path) -> int:
    """Threads that can compute at once: whole cores that the process may use, within its quota; at least 1.

    Whole cores, as ONNX Runtime itself counts: two threads on one core share its vector units. A quota of 2.5 CPUs
    gives 2: a third thread would be stopped for half of each period while the others wait for it.
    """
    cores = _whole_cores(allowed_cpus(sysroot), sysroot)
    quota = cpu_quota(sysroot)
    return max(1, cores if quota is None else min(cores, int(quota)))


def pool_threads(threads: int, lanes: int) -> int:
    """The size of the one thread pool that all lanes share, so that `threads` threads compute when every lane is busy.

    ONNX Runtime's size counts the calling thread; with several lanes there are several callers.
    """
    return max(1, threads - lanes + 1)


def allowed_cpus(sysroot: Path) -> frozenset[int]:
    """The CPUs of the affinity mask, which cpusets narrow too."""
    for line in (_read(sysroot / "proc/self/status") or "").splitlines():
        if line.startswith("Cpus_allowed_list:"):
            cpus = _cpu_list(line.partition(":")[2])
            if cpus:
                return cpus
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cpu_quota(sysroot: Path) -> float | None:
    """CPUs' worth of time that the tightest control group around this process grants; None without a limit."""
    quotas: list[float] = []
    for line in (_read(sysroot / "proc/self/cgroup") or "").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                for folder in _with_parents(sysroot / mount, path):
                    quotas += _quota(_read(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for mount in (f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"):
                for folder in _with_parents(sysroot / mount, path):
                    runtime, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                    quotas += _quota(f"{runtime} {period}")
    return min(quotas, default=None)


def _quota(text: str | None) -> list[float]:
    """`max 100000` or `150000 100000` (microseconds in each period) as CPUs; nothing where there is no limit."""
    try:
        runtime, period = map(int, (text or "").split())
    except ValueError:
        return []
    return [runtime / period] if runtime > 0 and period > 0 else []


def _with_parents(mount: Path, path: str) -> Iterator[Path]:
    """The folders of a control group and of all around it; a container may see its own as the mount itself."""
    group = PurePosixPath(path.strip().lstrip("/"))
    if ".." not in group.parts:
        for folder in (group, *group.parents):
            if folder.parts:
                yield mount / folder
    yield mount


def _whole_cores(cpus: frozenset[int], sysroot: Path) -> int:
    topology = sysroot / "sys/devices/system/cpu"
    return len({_read(topology / f"cpu{cpu}/topology/thread_siblings_list") or f"cpu{cpu}" for cpu in cpus})


def _cpu_list(text: str) -> frozenset[int]:
    """`0-3,8` as numbers; empty when it is no such list."""
    cpus: set[int] = set()
    try:
        for part in text.strip().split(","):
            first, _, last = part.partition("-")
            cpus.update(range(int(first), int(last or first) + 1))
    except ValueError:
        return frozenset()
    return frozenset(cpus)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
