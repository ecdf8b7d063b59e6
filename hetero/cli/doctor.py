"""`hetero doctor`: whether each device is there and answers rightly, and what to do about those that do not."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hetero.backend import Check, Device
from hetero.cache import cache_dir
from hetero.cli import runtime
from hetero.cli.console import echo_json, folder_size, marked, milliseconds, plain, size
from hetero.cli.devices import device_dict
from hetero.cli.failures import FAILED
from hetero.cli.trials import Finding, own_trials, trials, try_on
from hetero.energy.meters import find_meters
from hetero.errors import Unavailable

if TYPE_CHECKING:
    from hetero.runtime import Runtime

_PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-directml",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-vitisai",
    "rknn-toolkit-lite2",
    "vulkan",
    "av",
    "tokenizers",
)

_MARKS = {
    "ok": ("ok", "green"),
    "unsupported": ("not supported", "yellow"),
    "failed": ("FAILED", "red"),
    "wrong": ("WRONG ANSWER", "red"),
}


_LEVELS = {"ok": ("", ""), "note": ("note:", "yellow"), "problem": ("problem:", "red")}


@click.command("doctor")
@click.option("--device", metavar="NAME", help="Test only this device, or this backend's.")
@runtime.machine_options
@runtime.json_option
@click.pass_context
def command(
    ctx: click.Context, device: str | None, chain: str | None, simulate: tuple[str, ...], as_json: bool
) -> None:
    """Check this machine: versions, the cache, each backend, and a real program on each device.

    A device is asked to multiply matrices (ONNX), to run an int8 attention kernel, and each kernel that is compiled for
    it; the answers are compared with numpy's. Exit code 1 when a device fails or answers wrongly, something that it
    needs is broken, or a plugin is; a backend that is not here, or a program that a device does not support, is no
    failure.
    """
    with runtime.make_runtime(chain=chain, simulate=simulate) as rt, tempfile.TemporaryDirectory() as folder:
        chosen = [found for _, found in rt.select(device)]
        tests, missing = trials(rt, Path(folder))
        backends = {found.name: backend for backend, found in rt.select(device)}
        owned = {backend: own_trials(rt, backend) for backend in dict.fromkeys(backends.values())}
        missing += [reason for _, reasons in owned.values() for reason in reasons]
        asked = rt.backends if device is None else set(backends.values())
        checks = {name: list(rt.backends[name].checks()) for name in asked}
        if not as_json:
            _echo_machine(_versions(), _cache())
            _echo_meters(_meters(rt))
            _echo_absent(rt, checks)
        findings: dict[str, list[Finding]] = {}
        shown: set[str] = set()
        for tested in chosen:
            findings[tested.name] = []
            if not as_json:
                _echo_device(tested)
                if backends[tested.name] not in shown:
                    _echo_checks(_news(checks[backends[tested.name]], tested))
                shown.add(backends[tested.name])
            for trial in (*tests, *owned[backends[tested.name]][0]):
                findings[tested.name].append(try_on(rt, tested.name, trial))
                if not as_json:
                    _echo_finding(findings[tested.name][-1], tested.simulated)
        problems = _problems(rt, findings, missing, checks)
        if as_json:
            echo_json(_report(rt, chosen, findings, checks, problems))
        else:
            _echo_problems(problems, len(chosen))
    if problems:
        ctx.exit(FAILED)


def _report(
    rt: Runtime,
    chosen: list[Device],
    findings: Mapping[str, list[Finding]],
    checks: Mapping[str, Sequence[Check]],
    problems: list[str],
) -> dict[str, Any]:
    absent = {entry.backend: entry for entry in rt.absent}
    owned = rt.select()
    return {
        "ok": not problems,
        "problems": problems,
        "versions": _versions(),
        "cache": _cache(),
        "power_meters": _meters(rt),
        "backends": [
            {
                "name": name,
                "present": any(backend == name for backend, _ in owned),
                "devices": [device.name for backend, device in owned if backend == name],
                "reason": absent[name].reason if name in absent else "",
                "fix": absent[name].fix if name in absent else "",
                "checks": plain(checks.get(name, ())),
            }
            for name in dict.fromkeys([*rt.backends, *absent])
        ],
        "devices": [{**device_dict(device), "trials": plain(findings[device.name])} for device in chosen],
        "broken_plugins": plain(rt.broken_plugins),
    }


def _problems(
    rt: Runtime, findings: Mapping[str, list[Finding]], missing: list[str], checks: Mapping[str, Sequence[Check]]
) -> list[str]:
    problems = [str(broken) for broken in rt.broken_plugins]
    problems += [f"a trial is missing: {reason}" for reason in missing]
    # What is wrong with a backend that is not here is why it is not.
    present = {backend for backend, _ in rt.select()}
    problems += [
        f"{backend}: {check.name}: {check.found}"
        for backend, each in checks.items()
        for check in each
        if check.level == "problem" and backend in present
    ]
    for device, each in findings.items():
        problems += [f"{device}: {found.trial}: {found.reason}" for found in each if found.sick]
    return problems


def _versions() -> dict[str, str]:
    versions = {"hetero": importlib.metadata.version("hetero"), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**versions, "system": f"{platform.system()} {platform.release()} {platform.machine()}"}


def _cache() -> dict[str, Any]:
    folder = cache_dir()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return {
        "path": str(folder),
        "exists": folder.is_dir(),
        "bytes": folder_size(folder),
        "writable": there.is_dir() and os.access(there, os.W_OK),
    }


def _meters(rt: Runtime) -> list[dict[str, str]]:
    """The power meters, and why one cannot be read now."""
    told = []
    for meter in find_meters(rt.host.sysroot):
        reason = fix = ""
        try:
            meter.read()
        except Unavailable as error:
            reason, fix = error.problem, error.fix
        told.append({"name": meter.name, "label": meter.label, "scope": meter.scope, "reason": reason, "fix": fix})
    return told


def _echo_meters(meters: Sequence[Mapping[str, str]]) -> None:
    for meter in meters:
        name = f"{meter['name']} {meter['label']}".strip()
        click.echo(f"power meter: {name} ({meter['scope']})" + (f": {meter['reason']}" if meter["reason"] else ""))
        if meter["fix"]:
            click.echo(f"  fix: {meter['fix']}")
    if not meters:
        click.echo("power meter: none")


def _echo_machine(versions: Mapping[str, str], cache: Mapping[str, Any]) -> None:
    click.echo(", ".join(f"{name} {version}" for name, version in versions.items()))
    state = size(cache["bytes"]) if cache["exists"] else "not made yet"
    click.echo(f"cache: {cache['path']}, {state}, {'writable' if cache['writable'] else 'NOT writable'}")
    if not cache["writable"]:
        click.echo("  fix: mend the folder's permissions, or set HETERO_CACHE_DIR to another folder")


def _echo_absent(rt: Runtime, checks: Mapping[str, Sequence[Check]]) -> None:
    for entry in rt.absent:
        click.echo(f"\n{click.style(entry.backend, bold=True)}: not on this machine: {entry.reason}")
        if entry.fix:
            click.echo(f"  fix: {entry.fix}")
        _echo_checks(checks.get(entry.backend, ()))


def _news(checks: Sequence[Check], device: Device) -> list[Check]:
    """Those that tell more than the device's properties do."""
    return [check for check in checks if check.level != "ok" or check.name not in device.properties]


def _echo_checks(checks: Sequence[Check]) -> None:
    for check in checks:
        mark, color = _LEVELS[check.level]
        head = f"  {click.style(mark, fg=color)} " if mark else "  "
        click.echo(f"{head}{check.name}: {check.found}")
        if check.fix:
            click.echo(f"    fix: {check.fix}")


def _echo_device(device: Device) -> None:
    name = click.style(marked(device.name, device.simulated), bold=True)
    lanes = f"{device.lanes} lane{'s' if device.lanes != 1 else ''}"
    click.echo(f"\n{name}: {device.kind}, {lanes}" + (f", {device.description}" if device.description else ""))
    for key, value in device.properties.items():
        click.echo(f"  {key}: {value}")
    for note in device.notes:
        click.echo(f"  note: {note}")


def _echo_finding(finding: Finding, simulated: bool) -> None:
    mark, color = _MARKS[finding.outcome]
    parts = [click.style(mark, fg=color)]
    if finding.reason:
        parts.append(finding.reason)
    if finding.outcome == "ok":
        parts.append(f"greatest error {finding.max_error:g}")
    if finding.units and not finding.sick:
        parts.append(f"each by itself: {', '.join(finding.units)}")
    if finding.run_seconds is not None:
        loaded = f" (loaded in {milliseconds(finding.load_seconds)})" if finding.load_seconds is not None else ""
        parts.append(f"{milliseconds(finding.run_seconds)}{loaded}" + (", the simulator's time" if simulated else ""))
    click.echo(f"  {finding.trial}: " + "; ".join(parts))


def _echo_problems(problems: list[str], devices: int) -> None:
    click.echo()
    if not problems:
        click.echo(click.style("all well", fg="green") + f": {devices} device{'s' if devices != 1 else ''} tested")
    for problem in problems:
        click.echo(click.style("problem: ", fg="red", bold=True) + problem)
