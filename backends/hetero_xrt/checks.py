"""What `hetero doctor` tells about an NPU behind XRT: each part of the system that it needs, and each kernel."""

from __future__ import annotations

import grp
import os
import pwd
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from hetero.backend import Check, Host
from hetero.errors import HeteroError
from hetero.kernel_manifest import KERNEL_TOML
from hetero_xrt.finding import VARIABLE
from hetero_xrt.instructions import IN_TURN, columns_in_turn
from hetero_xrt.manifest import Manifest
from hetero_xrt.power import Tool
from hetero_xrt.reading import read_manifest
from hetero_xrt.system import SystemReport, built_pyxrts, memory_lock_limit, system_report

_DRIVER_SINCE = (6, 14)
"""The version of Linux that brought `amdxdna`."""


def checks_of(host: Host) -> list[Check]:
    """Everything that can be told; where there is no NPU, the kernels alone."""
    report = system_report(host)
    found = [] if report.node is None else list(_system(host, report))
    return [*found, *_kernels(host)]


def good_kernels(host: Host) -> list[str]:
    """The kernels in the folder that the environment names, of which everything that is written is in order."""
    return [entry.logical for _, entry in _manifests(host) if isinstance(entry, Manifest)]


def _system(host: Host, report: SystemReport) -> Iterator[Check]:
    assert report.node is not None
    yield _kernel_version(host)
    for key in ("kernel driver", "firmware", "device type"):
        if key in report.properties:
            yield Check(key, str(report.properties[key]))
    yield _node(report.node)
    yield _memory_lock()
    tool = Tool(host)
    yield _tool(tool)
    yield _pyxrt(host, report)
    yield _contexts(host, tool, report)


def _kernel_version(host: Host) -> Check:
    try:
        release = (host.sysroot / "proc/sys/kernel/osrelease").read_text(encoding="utf-8").strip()
    except OSError:
        return Check("Linux", "unknown version")
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None or (int(numbers[1]), int(numbers[2])) >= _DRIVER_SINCE:
        return Check("Linux", release)
    since = ".".join(map(str, _DRIVER_SINCE))
    return Check(
        "Linux",
        f"{release}, older than {since}: the driver is not the kernel's own",
        "note",
        f"where anything fails, use Linux {since} or later, or the newest xdna-driver",
    )


def _node(node: Path) -> Check:
    place = f"/dev/accel/{node.name}"
    try:
        stat = node.stat()
    except OSError:
        return Check("device node", f"{place} is not here", "problem", f"in a container pass it in: --device {place}")
    group = _group(stat.st_gid)
    belongs = f"{place}, group {group}, mode {stat.st_mode & 0o777:o}"
    if os.access(node, os.R_OK | os.W_OK):
        return Check("device node", f"{belongs}: this user may open it")
    user = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() in {entry.pw_uid for entry in pwd.getpwall()} else "USER"
    listed = group in {entry.gr_name for entry in grp.getgrall() if user in entry.gr_mem}
    if listed and stat.st_gid not in os.getgroups():
        told, fix = f"{user} is in the group, but not since this login", "log in again"
    else:
        told, fix = f"{user} is not in the group", f"sudo usermod -aG {group} {user}, then log in again"
    return Check("device node", f"{belongs}: this user may not open it ({told})", "problem", fix)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _memory_lock() -> Check:
    told, enough = memory_lock_limit()
    if enough:
        return Check("memory lock limit", told)
    return Check(
        "memory lock limit",
        f"{told}, too little for the NPU's buffers",
        "problem",
        "put `* - memlock unlimited` into /etc/security/limits.d/99-npu.conf and log in again",
    )


def _tool(tool: Tool) -> Check:
    try:
        return Check("XRT", f"{'.'.join(map(str, tool.version))} ({tool.path})")
    except HeteroError as error:
        return Check("XRT", error.problem, "note", error.fix)


def _pyxrt(host: Host, report: SystemReport) -> Check:
    mine = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    built = "; ".join(f"{place} is for {version}" for place, version in built_pyxrts(host))
    if report.module:
        return Check("pyxrt", f"{mine} can import it" + (f" ({built})" if built else ""))
    return Check("pyxrt", f"{mine} cannot import it" + (f": {built}" if built else ""), "problem", report.module_fix)


def _contexts(host: Host, tool: Tool, report: SystemReport) -> Check:
    """Who has the NPU open: as the tool tells it, else those processes whose files this user may look at."""
    if report.bdf is not None:
        try:
            partitions = tool.report("aie-partitions", report.bdf).get("aie_partitions", {}).get("partitions") or ()
            held = [context for partition in partitions for context in partition["hw_contexts"]]
            users = sorted({f"{context.get('process_name', '?')} ({context['pid']})" for context in held})
            return Check("contexts in use", f"{len(held)}" + (f": {', '.join(users)}" if users else ""))
        except (HeteroError, KeyError, TypeError, AttributeError) as error:
            why = error.problem if isinstance(error, HeteroError) else "xrt-smi's report has another form"
    else:
        why = "the NPU's address is not known"
    assert report.node is not None
    users = list(_openers(host, f"/dev/accel/{report.node.name}"))
    return Check("contexts in use", f"open in {', '.join(users) or 'no process that this user may see'} ({why})")


def _openers(host: Host, node: str) -> Iterator[str]:
    for folder in sorted((host.sysroot / "proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            targets = {os.readlink(link) for link in (folder / "fd").iterdir()}
            name = (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        if node in targets:
            yield f"{name} ({folder.name})"


def _kernels(host: Host) -> Iterator[Check]:
    folder = host.environ.get(VARIABLE)
    if not folder:
        return
    entries = list(_manifests(host))
    if not entries:
        yield Check(
            "kernels",
            f"{VARIABLE}={folder} holds none",
            "problem",
            f"it has to hold a folder for each kernel, with its {KERNEL_TOML}, xclbin and instructions (docs: xrt)",
        )
    for name, entry in entries:
        if not isinstance(entry, Manifest):
            yield Check(f"kernel {name}", entry.problem, "problem", entry.fix)
            continue
        columns = f"{entry.columns} column{'s' if entry.columns > 1 else ''}"
        told = f"{columns}, {entry.tiles_per_launch} tiles a launch, for {entry.target}"
        if columns_in_turn(entry.instructions):
            yield Check(
                f"kernel {name}",
                f"{told}; its columns {IN_TURN}",
                "note",
                "put all columns' transfers into their queues before anything is waited for, and build it again",
            )
        else:
            yield Check(f"kernel {name}", told)


def _manifests(host: Host) -> Iterator[tuple[str, Manifest | HeteroError]]:
    named = host.environ.get(VARIABLE)
    folders = sorted(Path(named).expanduser().glob(f"*/{KERNEL_TOML}")) if named else []
    for path in folders:
        try:
            manifest = read_manifest(path)
        except HeteroError as error:
            yield path.parent.name, error
            continue
        if manifest.logical != path.parent.name:
            yield (
                path.parent.name,
                HeteroError(f"{path} describes {manifest.logical!r}", fix=f"call its folder {manifest.logical}"),
            )
        else:
            yield path.parent.name, manifest
