"""`hetero devices`: what is on this machine, and what is not, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hetero.backend import Device, Option
from hetero.cli import runtime
from hetero.cli.console import echo_json, echo_table, marked, plain

if TYPE_CHECKING:
    from hetero.runtime import Runtime


@click.command("devices")
@runtime.machine_options
@click.option("--options", "with_options", is_flag=True, help="Also list the options of each backend.")
@runtime.json_option
def command(chain: str | None, simulate: tuple[str, ...], with_options: bool, as_json: bool) -> None:
    """List the devices in the order in which they are tried, and what is not here and why.

    A program runs on the first device that takes it and falls back to the next ones. `hetero doctor` tests each device.
    """
    with runtime.make_runtime(chain=chain, simulate=simulate) as rt:
        if as_json:
            echo_json(
                {
                    "devices": [device_dict(device) for device in rt.devices],
                    "absent": plain(rt.absent),
                    "broken_plugins": plain(rt.broken_plugins),
                    "options": {
                        name: [option_dict(option) for option in backend.options]
                        for name, backend in sorted(rt.backends.items())
                    },
                }
            )
            return
        _echo_devices(rt)
        echo_absent(rt)
        if with_options:
            _echo_options(rt)


def device_dict(device: Device) -> dict[str, Any]:
    """A device as JSON-ready values."""
    values: dict[str, Any] = plain(device)
    return values


def option_dict(option: Option) -> dict[str, Any]:
    """A backend's option as JSON-ready values; its type by name."""
    values: dict[str, Any] = {**plain(option), "type": option.type_name}
    return values


def echo_absent(rt: Runtime) -> None:
    """The backends without a device here and the broken plugins, each with its reason and fix."""
    if rt.absent:
        click.echo("\nnot on this machine:")
    for absent in rt.absent:
        click.echo(f"  {absent.backend}: {absent.reason}")
        if absent.fix:
            click.echo(f"    fix: {absent.fix}")
    if rt.broken_plugins:
        click.echo("\nbroken plugins:")
    for broken in rt.broken_plugins:
        click.echo(f"  {broken}")


def _echo_devices(rt: Runtime) -> None:
    if not rt.devices:
        click.echo("no devices")
        return
    rows = [
        (str(place), marked(device.name, device.simulated), device.kind, str(device.lanes), device.description)
        for place, device in enumerate(rt.devices, 1)
    ]
    echo_table(("", "device", "kind", "lanes", "description"), rows)
    for device in rt.devices:
        for note in device.notes:
            click.echo(f"  note on {device.name}: {note}")


def _echo_options(rt: Runtime) -> None:
    click.echo("\noptions (--option BACKEND.OPTION=VALUE):")
    rows = [
        (f"{name}.{option.name}", _type_text(option), _value_text(option.default), option.help)
        for name, backend in sorted(rt.backends.items())
        for option in backend.options
    ]
    if rows:
        echo_table(("option", "type", "default", "meaning"), rows)
    else:
        click.echo("  none")


def _type_text(option: Option) -> str:
    if option.choices:
        return " | ".join(map(_value_text, option.choices))
    name = {"tuple": "a,b,..."}.get(option.type_name, option.type_name)
    return name if option.minimum is None else f"{name} >= {option.minimum:g}"


def _value_text(value: Any) -> str:
    if value is None:
        return "-"  # what that means, each option's text says
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value) if value != "" else '""'
