"""`hetero power`: the power modes of this machine's devices, and setting one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hetero.cli import runtime
from hetero.cli.console import echo_json, echo_table, plain
from hetero.cli.failures import FAILED
from hetero.errors import HeteroError, Unavailable
from hetero.power import MODES, PROFILES, PowerState, mode_of

if TYPE_CHECKING:
    from hetero.power import PowerModes
    from hetero.runtime import Runtime


@click.command("power")
@click.option("--mode", type=click.Choice(MODES), help="Set this mode; it stays until another one is set.")
@click.option(
    "--profile",
    type=click.Choice(tuple(PROFILES)),
    help=f"Set the mode for a use: {', '.join(f'{profile} ({mode})' for profile, mode in PROFILES.items())}.",
)
@click.option("--device", metavar="NAME", help="Only this device, or this backend's.")
@runtime.machine_options
@runtime.json_option
@click.pass_context
def command(
    ctx: click.Context,
    mode: str | None,
    profile: str | None,
    device: str | None,
    chain: str | None,
    simulate: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the power modes of the devices that have some, or set one.

    What is set here stays. For the time of one program: `Runtime(power="balanced")`, which puts the mode of before
    back. Exit code 1 when a device refuses, 3 when none has modes.
    """
    if mode and profile:
        raise click.UsageError("give --mode or --profile, not both")
    with runtime.make_runtime(chain=chain, simulate=simulate) as rt:
        chosen = {found.name for _, found in rt.select(device)}
        refused: dict[str, HeteroError] = {}
        wanted = mode_of(mode or profile or "default")
        if mode or profile:
            refused = _set(rt.power, chosen, wanted)
        states = [state for state in rt.power.states() if state.device in chosen]
        without = [found.name for _, found in rt.select(device) if found.name not in rt.power.devices]
        if as_json:
            echo_json(_document(states, without, refused, wanted if mode or profile else None))
        else:
            _echo(rt, states, without, refused)
    if refused:
        ctx.exit(FAILED)


def _set(power: PowerModes, chosen: set[str], mode: str) -> dict[str, HeteroError]:
    """Set a mode on the devices that have some.

    Returns:
        The refusals by device.

    Raises:
        Unavailable: None of the devices has modes.
    """
    devices = [name for name in power.devices if name in chosen]
    if not devices:
        raise Unavailable(
            "no device here has power modes that can be set", fix="`hetero devices` tells what is here, and what is not"
        )
    refused: dict[str, HeteroError] = {}
    for name in devices:
        try:
            power.set(name, mode)
        except HeteroError as error:
            refused[name] = error
    return refused


def _document(
    states: list[PowerState], without: list[str], refused: dict[str, HeteroError], wanted: str | None
) -> dict[str, Any]:
    return {
        "devices": [
            {
                "device": state.device,
                "mode": state.mode,
                "modes": plain(state.modes),
                "wanted": wanted,
                "problem": refused[state.device].problem if state.device in refused else state.problem,
                "fix": refused[state.device].fix if state.device in refused else state.fix,
            }
            for state in states
        ],
        "without": without,
        "profiles": PROFILES,
    }


def _echo(rt: Runtime, states: list[PowerState], without: list[str], refused: dict[str, HeteroError]) -> None:
    if states:
        echo_table(
            ("device", "mode", "can be set"),
            [(state.device, state.mode or "unknown", ", ".join(state.modes) or "-") for state in states],
        )
    for state in states:
        for mode, meaning in state.modes.items():
            click.echo(f"  {mode}: {meaning}")
        error = refused.get(state.device)
        problem, fix = (error.problem, error.fix) if error is not None else (state.problem, state.fix)
        if problem:
            click.echo(f"  problem on {state.device}: {problem}")
        if fix:
            click.echo(f"    fix: {fix}")
    if without:
        click.echo(f"without power modes: {', '.join(without)}")
    if not states and not without:
        click.echo("no devices")
