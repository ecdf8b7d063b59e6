"""A kernel's name is all that a user needs: `rt.load("attention_i8_64x64")` runs it on the CPU."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import numpy as np
import pytest

import hetero
from hetero_kernels import get, names
from tests.kernels.test_specs import SIZED, inputs_of


@pytest.fixture
def rt(host: hetero.Host) -> Iterator[hetero.Runtime]:
    if not any(point.value == "hetero_kernels" for point in importlib.metadata.entry_points(group="hetero.programs")):
        pytest.skip("hetero is on the path but not installed, so that no entry point leads to the kernels")
    with hetero.Runtime(host=host) as runtime:
        if not any(device.name == "cpu" for device in runtime.devices):
            pytest.skip("the cpu backend is not on this machine: " + "; ".join(map(str, runtime.absent)))
        yield runtime


@pytest.mark.parametrize("name", [*names(), *SIZED])
@pytest.mark.parametrize("items", [1, 3])
def test_a_kernel_runs_by_name_on_the_cpu_with_the_exact_answer(rt: hetero.Runtime, name: str, items: int) -> None:
    kernel = get(name)
    given = inputs_of(kernel, items)
    (expected,) = kernel.reference(**given).values()
    session = rt.load(name, device="cpu")
    got = session(*given.values())
    np.testing.assert_array_equal(got, expected, strict=True)


def test_tiles_of_differing_number_are_refused_by_name(rt: hetero.Runtime) -> None:
    given = inputs_of(get("attention_i8_64x64"), 2)
    session = rt.load("attention_i8_64x64", device="cpu")
    with pytest.raises(hetero.HeteroError, match="tiles = 1, but 'q' has tiles = 2"):
        session(given["q"], given["k"][:1], given["v"])
