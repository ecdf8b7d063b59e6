"""The same answers at every size of a subgroup that lavapipe can have: 4, 8 and 16, as on Intel's, Arm's and others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hetero_vulkan.choosing import VARIABLE
from tests.vulkan.machine import Machine

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "backends"), str(ROOT / "kernels")])


@pytest.mark.parametrize(("width", "subgroup"), [(128, 4), (256, 8), (512, 16)])
def test_shaders_and_commands_pass_at_every_subgroup_size(machine: Machine, width: int, subgroup: int) -> None:
    if machine.choice.physical.driver != "llvmpipe":
        pytest.skip(f"{machine.choice.physical.name} is not lavapipe")
    environment = environment_of(width)
    code = (
        "from hetero_vulkan.opening import open_device\n"
        "device = open_device('llvmpipe')\n"
        "print(device.physical.subgroup)\n"
        "device.close()"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert int(told.stdout) == subgroup
    must_pass(["test_kernels.py", "test_commands.py"], environment)


@pytest.mark.parametrize("width", [128, 512])
def test_operators_pass_at_other_subgroup_sizes(machine: Machine, width: int) -> None:
    if machine.choice.physical.driver != "llvmpipe":
        pytest.skip(f"{machine.choice.physical.name} is not lavapipe")
    subjects = ("gemm", "attention", "elementwise", "indexing", "movement", "rows", "windows")
    must_pass([*(f"test_kernels_{subject}.py" for subject in subjects), "test_storage.py"], environment_of(width))


@pytest.mark.parametrize("width", [128, 512])
def test_networks_and_onnx_s_own_tests_pass_at_other_subgroup_sizes(machine: Machine, width: int) -> None:
    if machine.choice.physical.driver != "llvmpipe":
        pytest.skip(f"{machine.choice.physical.name} is not lavapipe")
    # Each shader is compiled anew for each size: two networks that need nearly all of them are enough.
    names = ["test_networks.py", "test_onnx_node_tests.py"]
    must_pass(names, environment_of(width), "-k", "roberta or audio or subgroups")


def environment_of(width: int) -> dict[str, str]:
    """A process's, in which lavapipe computes with vectors of so many bits.

    Not with what the outer run was asked for, such as a least coverage, which these few tests do not reach.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return {**plain, "LP_NATIVE_VECTOR_WIDTH": str(width), VARIABLE: "llvmpipe", "PYTHONPATH": PATHS}


def must_pass(names: Sequence[str], environment: dict[str, str], *more: str) -> None:
    """Run files of tests in a process of their own: a driver reads its environment once."""
    files = [str(Path(__file__).parent / name) for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, *more],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
