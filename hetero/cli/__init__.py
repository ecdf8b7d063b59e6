"""The command line `hetero`: one module a command, imported when that command is called."""

from __future__ import annotations


def main() -> None:
    """Run the command line with the arguments of this process, and exit with its code."""
    from hetero.cli.root import cli

    cli.main(prog_name="hetero")
