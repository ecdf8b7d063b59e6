"""A stand-in for `xrt-smi`: a script with the syntax of a version, whose calls are kept, and a laptop to put it on."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hetero

BDF = "0000:c5:00.1"

_SCRIPT = textwrap.dedent(
    """\
    #!{python} -IS
    import json, os, sys, time
    folder = {folder!r}
    def kept(name, default):
        path = os.path.join(folder, name)
        return json.load(open(path)) if os.path.exists(path) else default
    def keep(name, value):
        json.dump(value, open(os.path.join(folder, name), "w"))
    def fail(words):
        print(); print("ERROR: " + words); print("COMMAND: configure"); sys.exit(1)
    said = sys.argv[1:]
    keep("calls", kept("calls", []) + [said])
    how = kept("how", {{}})
    version = how.get("version", "2.18.0")
    time.sleep(how.get("sleep", 0))
    def value(*names):
        return next((said[said.index(name) + 1] for name in names if name in said), None)
    if said == ["--version"]:
        print(how.get("banner", "                 Version : " + version + "\\n                  Branch : HEAD"))
        print("     NPU Driver Version : 9.9.9")
    elif said[0] == "configure":
        number = tuple(int(part) for part in version.split(".")[:2])
        option = "--pmode" if number >= (2, 18) else "--performance"
        words = dict(default=0, powersaver=1, balanced=2, performance=3, turbo=4)
        if number == (2, 17):
            words = dict(DEFAULT=0, POWERSAVER=1, BALANCED=2, PERFORMANCE=3)
        if number == (2, 16):
            words = dict(DEFAULT=0, LOW=1, MEDIUM=2, HIGH=3)
        if value("-d", "--device") != {bdf!r}:
            fail("Specified device BDF not found")
        if option not in said:
            fail("Unrecognized options: " + " ".join(said))
        if value(option) not in words:
            fail("Invalid pmode value: " + value(option))
        if "refuse" in how:
            fail(how["refuse"])
        if not how.get("deaf"):
            keep("mode", words[value(option)])
        print("Power mode is set to " + value(option))
    elif said[0] == "examine":
        file = value("-o", "--output")
        if file is None or os.path.exists(file):
            fail("The output file already exists")
        if value("-f", "--format") != "JSON" or value("-d", "--device") != {bdf!r}:
            fail("wrong arguments")
        names = how.get("names", ["default", "powersaver", "balanced", "performance", "turbo"])
        report = {{
            "platform": {{"platforms": [{{"status": {{"power_mode": names[kept("mode", 0)]}}}}]}},
            "aie-partitions": {{"aie_partitions": {{"partitions": how.get("partitions", "")}}}},
        }}[value("-r", "--report")]
        open(file, "w").write(how.get("report") or json.dumps({{"devices": [{{"device_id": {bdf!r}, **report}}]}}))
    """
)


class Smi:
    """The script, put into a folder.

    Args:
        folder: For the script and what it keeps.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.path = folder / "xrt-smi"
        self.path.write_text(_SCRIPT.format(python=sys.executable, folder=str(folder), bdf=BDF))
        self.path.chmod(0o755)

    def behave(self, **how: Any) -> None:
        """`version`, `refuse` (its words), `deaf` (says yes and does nothing), `sleep`, `report`, `partitions`."""
        (self.folder / "how").write_text(json.dumps(how))

    @property
    def mode(self) -> int:
        """What the NPU is set to, in the driver's numbers."""
        file = self.folder / "mode"
        return int(file.read_text()) if file.exists() else 0

    def calls(self, command: str) -> list[Sequence[str]]:
        """The arguments of each call of a command so far."""
        file = self.folder / "calls"
        calls: list[Sequence[str]] = json.loads(file.read_text()) if file.exists() else []
        return [call for call in calls if call[0] == command]


def laptop(host: hetero.Host, smi: Smi | None = None, **environ: str) -> hetero.Host:
    """A system with an NPU, and with the tool on its PATH where one is given."""
    device = host.sysroot / "sys/class/accel/accel0/device"
    device.mkdir(parents=True, exist_ok=True)
    (device / "vbnv").write_text("NPU Phoenix\n")
    (device / "fw_version").write_text("1.5.5.391\n")
    (device / "uevent").write_text(f"DRIVER=amdxdna\nPCI_ID=1022:1502\nPCI_SLOT_NAME={BDF}\n")
    node = host.sysroot / "dev/accel/accel0"
    node.parent.mkdir(parents=True, exist_ok=True)
    node.touch()
    path = {"PATH": str(smi.folder)} if smi is not None else {}
    return hetero.Host(environ={**path, **environ}, sysroot=host.sysroot, cache=host.cache)
