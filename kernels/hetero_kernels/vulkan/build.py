"""Makes SPIR-V of the GLSL beside it: `python -m hetero_kernels.vulkan.build [--check] [NAME ...]`.

Needs glslang (`pip install 'hetero[build-kernels]'`, which pins the version that the files were made with); found
beside this Python, on the PATH, or by `HETERO_GLSLANG`. Where `spirv-val` is found too, what was made is validated.

A source may name what it is made for in a line of its own: `// target: vulkan1.2`; else it is Vulkan 1.1, whose
SPIR-V 1.3 every driver takes that hetero does. Files named `*.glsl` can be included.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
TARGETS = ("vulkan1.1", "vulkan1.2")
"""What a shader may be made for; SPIR-V 1.3 and 1.5."""

VARIABLE = "HETERO_GLSLANG"


class BuildError(Exception):
    """A source that glslang refuses, or no glslang."""


def sources(names: Sequence[str] = ()) -> list[Path]:
    """The GLSL files of these shaders, or of all.

    Raises:
        BuildError: There is none of that name.
    """
    found = {path.stem: path for path in sorted(FOLDER.glob("*.comp"))}
    unknown = [name for name in names if name not in found]
    if unknown:
        raise BuildError(f"there is no {', '.join(unknown)}; there are {', '.join(found)}")
    return [found[name] for name in names] if names else list(found.values())


def tool(name: str) -> str | None:
    """Where a program of glslang's or of the SPIR-V tools' is; None: it is not here."""
    given = os.environ.get(VARIABLE)
    beside = [str(Path(given).expanduser().parent)] if given else []
    return shutil.which(
        name, path=os.pathsep.join([*beside, str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )


def build(source: Path) -> bytes:
    """The SPIR-V of one source.

    Raises:
        BuildError: glslang is not here, or refuses it; in its own words.
    """
    glslang = tool("glslang") or tool("glslangValidator")
    if glslang is None:
        raise BuildError("glslang is not here: pip install 'hetero[build-kernels]'")
    text = source.read_text()
    asked = re.search(r"^// target: (\S+)$", text, re.MULTILINE)
    target = asked[1] if asked else TARGETS[0]
    if target not in TARGETS:
        raise BuildError(f"{source.name} is for {target}, expected {' or '.join(TARGETS)}")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.spv"
        _run([glslang, "--quiet", "-V", "--target-env", target, f"-I{FOLDER}", "-o", str(made), str(source)], source)
        validator = tool("spirv-val")
        if validator is not None:
            _run([validator, "--target-env", target, str(made)], source)
        return made.read_bytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, or compare with what is there; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hetero_kernels.vulkan.build", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these shaders")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 where a file is not up to date"
    )
    chosen = parser.parse_args(arguments)
    stale = []
    try:
        for source in sources(chosen.names):
            target, made = source.with_suffix(".spv"), build(source)
            if target.is_file() and target.read_bytes() == made:
                continue
            stale.append(target.name)
            if not chosen.check:
                target.write_bytes(made)
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if stale:
        sys.stdout.write(f"{'not up to date' if chosen.check else 'made'}: {', '.join(stale)}\n")
    return 1 if stale and chosen.check else 0


def _run(command: Sequence[str], source: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{source.name}: {(done.stdout + done.stderr).strip()}")


if __name__ == "__main__":
    sys.exit(main())
