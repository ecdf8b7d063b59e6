"""What starting costs: `import hetero` over `import numpy`, and `hetero devices`, in fresh interpreters.

    python benchmarks/startup.py [--rounds 15] [--json]

The cases are interleaved, so that a busy machine slows all of them alike; medians and ratios are printed. Modules are
compiled to bytecode first, as an installer does it, whatever PYTHONDONTWRITEBYTECODE says.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

VENDORS = ("onnxruntime", "onnx", "rknnlite", "pyxrt", "vulkan", "av", "tokenizers")


def commands() -> dict[str, list[str]]:
    script = shutil.which("hetero", path=str(Path(sys.executable).parent)) or shutil.which("hetero")
    if script is None:
        sys.exit("the command `hetero` is not installed: pip install -e .")
    return {
        "python": [sys.executable, "-c", "pass"],
        "import numpy": [sys.executable, "-c", "import numpy"],
        "import hetero": [sys.executable, "-c", "import numpy, hetero"],
        # The package's names come in when they are first used, so `import hetero` alone tells too little.
        "import hetero, use Runtime": [sys.executable, "-c", "import numpy, hetero; hetero.Runtime, hetero.Backend"],
        "Runtime() in it": [sys.executable, "-c", "import numpy, hetero; hetero.Runtime()"],
        "hetero devices": [script, "devices"],
    }


def measure(rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as bytecode:
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return _measure(rounds, {**environ, "PYTHONPYCACHEPREFIX": bytecode})


def _measure(rounds: int, environ: dict[str, str]) -> dict[str, float]:
    cases = commands()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, command in cases.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environ)
            if turn:  # the first turn fills the file cache and compiles
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) * 1e3 for name, values in times.items()}


def vendor_modules() -> list[str]:
    code = f"import sys, hetero; hetero.Runtime; print([m for m in {VENDORS!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return [str(name) for name in json.loads(done.stdout.replace("'", '"'))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    medians = measure(options.rounds)
    numpy = medians["import numpy"]
    result = {
        "median_ms": {name: round(value, 1) for name, value in medians.items()},
        "ratio_to_import_numpy": {name: round(value / numpy, 2) for name, value in medians.items()},
        "import_hetero_over_numpy_ms": round(medians["import hetero"] - numpy, 1),
        "making_a_runtime_ms": round(medians["Runtime() in it"] - medians["import hetero, use Runtime"], 1),
        "with_runtime_over_numpy_ms": round(medians["import hetero, use Runtime"] - numpy, 1),
        "vendor_modules_imported": vendor_modules(),
    }
    if options.json:
        print(json.dumps(result))
        return
    table = Table("in a fresh interpreter", "median ms", "ratio to import numpy")
    for name, value in medians.items():
        table.add_row(name, f"{value:.0f}", f"{value / numpy:.2f}")
    console = Console()
    console.print(table)
    console.print(f"import hetero over import numpy: {result['import_hetero_over_numpy_ms']} ms")
    console.print(f"with its Runtime over import numpy: {result['with_runtime_over_numpy_ms']} ms")
    console.print(f"making a Runtime with the installed plugins: {result['making_a_runtime_ms']} ms")
    console.print(f"vendor modules that import hetero brings in: {result['vendor_modules_imported'] or 'none'}")


if __name__ == "__main__":
    main()
