"""The options that say which devices a command uses, and the Runtime made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from hetero.runtime import Runtime
    from hetero.thermal.settings import Thermal

Command = TypeVar("Command", bound=Callable[..., Any])
Options = dict[str, dict[str, str]]

LEFT_ALONE = "the call was left alone (--timeout gives it longer)"
"""What is said of a call that hangs."""


def make_runtime(
    *,
    chain: str | None = None,
    simulate: tuple[str, ...] = (),
    options: Options | None = None,
    thermal: Thermal = True,
) -> Runtime:
    """The Runtime of a command. Every command calls it through this module, so that tests can put in their own."""
    from hetero.runtime import Runtime

    return Runtime(chain=chain, simulate=simulate or None, options=options, thermal=thermal)


def thermal_of(profile: str | None, on_hot: str | None) -> Thermal:
    """`--thermal` and `--on-hot` as `Runtime` takes them; what is not given is as the environment has it."""
    import os
    from dataclasses import replace

    from hetero.thermal.settings import settings_of
    from hetero.thermal.steering import check_on_hot

    settings = settings_of(True if profile is None else profile, os.environ)
    if settings is None:
        return False
    return settings if on_hot is None else replace(settings, on_hot=check_on_hot(on_hot))


def parse_options(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Options:
    """`("cpu.threads=2",)` as `{"cpu": {"threads": "2"}}`; the backend checks names and values.

    Raises:
        click.BadParameter: Not of the form BACKEND.OPTION=VALUE.
    """
    options: Options = {}
    for text in values:
        place, equals, value = text.partition("=")
        backend, dot, name = place.strip().partition(".")
        if not (equals and dot and backend and name):
            raise click.BadParameter(f"{text!r} is not of the form BACKEND.OPTION=VALUE, as in cpu.threads=2")
        options.setdefault(backend, {})[name.strip()] = value.strip()
    return options


def _split(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for scripts.")(command)


def machine_options(command: Command) -> Command:
    """`--chain` and `--simulate`: which devices there are."""
    simulate = click.option(
        "--simulate",
        multiple=True,
        metavar="MACHINE",
        callback=_split,
        help="Also imitate this machine's devices (rk3588, phoenix); may be repeated. [env: HETERO_SIMULATE]",
    )
    chain = click.option(
        "--chain", metavar="NAMES", help="Devices or backends in order of preference: xrt,cpu. Default: NPU, GPU, CPU."
    )
    return chain(simulate(command))


def load_options(command: Command) -> Command:
    """`--fallback`, `--option`, `--thermal`, `--on-hot`, `--chain`, `--simulate`: how a program is loaded."""
    fallback = click.option(
        "--fallback",
        type=click.Choice(["allow", "forbid"]),
        default="allow",
        show_default=True,
        help="Whether another device may answer when the first one fails.",
    )
    return fallback(backend_options(command))


def timeout_option(command: Command) -> Command:
    """`--timeout`."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0.0),
        default=60.0,
        show_default=True,
        help="Seconds after which a call counts as hung: its device is given up, the others go on. 0: wait for ever.",
    )(command)


def backend_options(command: Command) -> Command:
    """`--option`, `--thermal`, `--on-hot`, `--chain`, `--simulate`."""
    option = click.option(
        "--option",
        "options",
        multiple=True,
        metavar="BACKEND.OPTION=VALUE",
        callback=parse_options,
        help="A backend's option, as `hetero devices --options` lists them; may be repeated.",
    )
    on_hot = click.option(
        "--on-hot",
        type=click.Choice(["pace", "steer", "auto"]),
        help="Work for a hot device: slower, elsewhere, or elsewhere where that takes fewer joules.",
    )
    thermal = click.option(
        "--thermal",
        metavar="PROFILE|off",
        help="Keep devices from getting too hot: default, llm_inference, continuous_audio, burst, battery, or off; "
        "and ,patience=SECONDS: how long a stopped device is waited for, before others do its work. "
        "[env: HETERO_THERMAL]",
    )
    return option(thermal(on_hot(machine_options(command))))
