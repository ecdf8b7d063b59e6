"""A fresh environment: a venv of its own with hetero's wheel in it, and what hetero depends on taken from this one."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.packaging.test_packages import ROOT, build

TOOLS = {
    "hetero": "-m hetero",
    "pytest": "-m pytest -p no:cacheprovider -p no:xdist",
    "mypy": "-m mypy",
}


class Environment:
    """The venv, and running commands in it as a person at a terminal would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        # Behind the venv's own packages, and without this environment's editable hetero, whose hook stays unused.
        site = Path(self._python("import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
        here = {sysconfig.get_paths()[place] for place in ("purelib", "platlib")}
        (site / "dependencies.pth").write_text("\n".join(sorted(here)) + "\n")
        for name, arguments in TOOLS.items():
            self._command(name, f'exec "{self.python}" {arguments} "$@"')
        # `python -m ruff` would find the command that is written here, and so itself.
        self._command("ruff", f'exec "{sysconfig.get_paths()["scripts"]}/ruff" "$@"')
        # No test needs the network: what a package depends on is here.
        install = (
            f'exec "{self.python}" -m pip install -q --no-deps --no-build-isolation --disable-pip-version-check "$@"'
        )
        self._command("pip", f'[ "$1" = install ] || exit 2\nshift\n{install}')

    def _command(self, name: str, line: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def _python(self, code: str) -> str:
        return subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True).stdout

    def run(self, command: str, cwd: Path, code: int = 0, **environ: str) -> str:
        """Stdout of a shell command that must end with that exit code."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON", "COV"))}
        path = f"{self.folder / 'bin'}:{kept.get('PATH', '')}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=cwd,
            env={**kept, "PATH": path, "HETERO_CACHE_DIR": str(self.folder / "cache"), "NO_COLOR": "1", **environ},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, f"$ {command}\nexit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def fresh_environment(folder: Path) -> Environment:
    """A new venv with hetero installed in it, from its wheel."""
    environment = Environment(folder / "venv")
    environment.run(f"pip install {build(ROOT, folder)}", folder)
    where = environment.run("python -c 'import hetero; print(hetero.__file__)'", folder).strip()
    assert Path(where).is_relative_to(environment.folder), f"{where} is not the wheel's; {sys.prefix}"
    return environment
