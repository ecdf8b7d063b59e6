"""`hetero plugins`: what is installed beside hetero, what it brings, and a skeleton for a backend of one's own."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hetero.cli import runtime
from hetero.cli.console import echo_json, echo_table, plain
from hetero.plugins import InstalledPlugin, Plugins


@click.group(invoke_without_command=True)
@runtime.json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the installed plugins, what each one brings, and which are broken or disabled; or make a new one.

    HETERO_DISABLE_PLUGINS=1 keeps out all that do not come with hetero itself, HETERO_DISABLE_PLUGINS=a,b the plugins a
    and b; HETERO_ALLOW_PLUGINS=a,b lets in only these besides hetero's own. Without a subcommand: list.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_plugins, as_json=as_json)
    elif as_json:
        raise click.UsageError(f"write --json behind {ctx.invoked_subcommand}")


@command.command("list")
@runtime.json_option
def list_plugins(as_json: bool) -> None:
    """List the installed plugins: name, distribution, backends and programs, and why one is not in order."""
    plugins = Plugins()
    plugins.discover(os.environ)
    found = plugins.installed()
    if as_json:
        echo_json({"plugins": plain(found)})
        return
    if not found:
        click.echo("no plugins")
        return
    columns = ("plugin", "group", "module", "distribution", "state", "backends", "programs")
    echo_table(columns, [_row(plugin) for plugin in found])
    for plugin in found:
        if plugin.reason:
            click.echo(f"\n{plugin.name} of {plugin.group} is {plugin.state}: {plugin.reason}")
            click.echo(f"  fix: {plugin.fix}")


@command.command()
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path(),
    help="Where the folder hetero-NAME is made; by default here.",
)
@runtime.json_option
def new(name: str, folder: Path, as_json: bool) -> None:
    """Write a new backend called NAME: a small one that works, to put a vendor's calls into.

    The folder hetero-NAME is a package with its pyproject.toml, the backend, and tests by hetero's conformance kit,
    which it passes as it is. What exists is left alone.

    \b
        hetero plugins new toy
        pip install -e hetero-toy
        hetero devices
        pytest hetero-toy
    """  # noqa: D301
    from hetero.cli.skeleton import write_skeleton

    target, files = write_skeleton(name, folder)
    if as_json:
        echo_json({"name": name, "folder": target, "files": files})
        return
    click.echo(f"wrote the backend {name} to {target}:")
    for file in files:
        click.echo(f"  {file}")
    click.echo(f"next: pip install -e {target} && hetero devices && pytest {target}")


def _row(plugin: InstalledPlugin) -> tuple[str, ...]:
    brought = f"{plugin.distribution} {plugin.version}".strip()
    gives = (_listed(plugin.backends), _listed(plugin.programs))
    return plugin.name, plugin.group, plugin.value, brought, plugin.state, *gives


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "-"
