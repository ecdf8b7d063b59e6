"""Kernels are found by name, and their functions keep to their specs."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hetero_kernels
from hetero.errors import InputError, ProgramNotFound
from hetero.plugins import Plugins
from hetero.tensors import Array
from hetero_kernels import Family, Kernel, families, get, names

NAMES = (
    "attention_i8_64x64",
    "attention_i8_64x64_v2",
    "gelu_i8",
    "gelu_i8_scaled",
    "layernorm_i8_256",
    "matmul_i8_64x64",
)
PATTERNS = ("attention_i8_exact_{T}", "gemm_i8_i32_{K}x{N}", "gemm_i8_i8_{K}x{N}", "layernorm_i8_{D}", "mel_i16_{M}")
SIZED = ("attention_i8_exact_128", "gemm_i8_i32_64x128", "gemm_i8_i8_128x64", "layernorm_i8_192", "mel_i16_128")
ROOT = Path(__file__).parents[2]

every_kernel = pytest.mark.parametrize("kernel", [get(name) for name in (*NAMES, *SIZED)], ids=(*NAMES, *SIZED))


def inputs_of(kernel: Kernel, items: int) -> dict[str, Array]:
    """Inputs from the whole range of their dtypes."""
    rng = np.random.default_rng(items)
    given = {}
    for spec in kernel.inputs:
        shape = [dim if isinstance(dim, int) else items for dim in spec.shape or ()]
        limits = np.iinfo(spec.dtype)
        given[spec.name] = rng.integers(limits.min, limits.max, shape, endpoint=True).astype(spec.dtype)
    return given


def batched(kernel: Kernel) -> set[str]:
    """The inputs that have one item per tile, row or element; the others are the same for all."""
    return {spec.name for spec in kernel.inputs if spec.shape and isinstance(spec.shape[0], str)}


@pytest.fixture
def plugins() -> Plugins:
    plugins = Plugins()
    plugins.register(hetero_kernels, "kernels")
    return plugins


def test_the_names_are_those_of_the_docs() -> None:
    assert names() == NAMES
    assert tuple(family.pattern for family in families()) == PATTERNS
    docs = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    assert [name for name in (*NAMES, *PATTERNS) if f"`{name}`" not in docs] == []


def test_an_unknown_kernel_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ProgramNotFound, match="attention_i8_64x64, attention_i8_64x64_v2") as caught:
        get("attention_i8_64x46")
    assert caught.value.fix == "use 'attention_i8_64x64'"


@pytest.mark.parametrize("family", families(), ids=PATTERNS)
def test_a_familys_kernels_are_found_by_the_names_that_it_gives_them(family: Family) -> None:
    for sizes in family.usual:
        name = family.name(**sizes)
        assert get(name).name == name
        assert get(name) is get(name)


def test_sizes_that_cannot_be_are_refused_with_those_that_can(plugins: Plugins) -> None:
    for ask in (get, plugins.program):
        with pytest.raises(
            ProgramNotFound, match=r"K = 100 cannot be.* K is a multiple of 64 from 64 to 8192"
        ) as caught:
            ask("gemm_i8_i32_100x1536")
        assert caught.value.fix.startswith("use 'gemm_i8_i32_128x1536'")
    with pytest.raises(ProgramNotFound, match="K = 1 and N = 8256 cannot be") as caught:
        get("gemm_i8_i8_1x8256")
    assert caught.value.fix.startswith("use 'gemm_i8_i8_64x8192'")


@pytest.mark.parametrize("name", ["gemm_i8_i32_064x64", "gemm_i8_i32_64x64 ", "gemm_i8_i32_64", "gemm_i8_i32_-64x64"])
def test_a_name_that_only_looks_like_a_familys_is_unknown(name: str, plugins: Plugins) -> None:
    assert plugins.program(name) is None
    with pytest.raises(ProgramNotFound, match=re.escape("gemm_i8_i32_{K}x{N}")):
        get(name)


@every_kernel
def test_the_hook_gives_a_program_that_carries_the_kernel(kernel: Kernel, plugins: Plugins) -> None:
    program = plugins.program(kernel.name)
    assert program is not None
    assert (program.name, program.source) == (kernel.name, kernel.name)
    assert (program.inputs, program.outputs) == (kernel.inputs, kernel.outputs)
    (artifact,) = program.artifacts
    assert (artifact.kind, artifact.name, artifact.path) == ("kernel", kernel.name, None)
    assert artifact.payload is kernel


def test_the_hook_leaves_unknown_names_to_other_plugins(plugins: Plugins) -> None:
    assert plugins.program("whisper-tiny.en") is None
    assert hetero_kernels.hetero_program("ATTENTION_I8_64X64") is None


def test_the_hook_lists_names_and_patterns(plugins: Plugins) -> None:
    assert plugins.program_names() == sorted((*NAMES, *PATTERNS))


@every_kernel
@pytest.mark.parametrize("items", [0, 1, 3, 5])
def test_reference_and_model_keep_to_the_specs(kernel: Kernel, items: int) -> None:
    given = inputs_of(kernel, items)
    checked = kernel.program().signature.feed([given])
    got = kernel.reference(**checked)
    kernel.program().signature.check_outputs(got)
    assert list(got) == [spec.name for spec in kernel.outputs]
    model = kernel.model(**checked)
    assert {name: array.shape for name, array in model.items()} == {name: array.shape for name, array in got.items()}
    assert {array.dtype for array in model.values()} == {np.dtype(np.float32)}
    assert all(array.shape[0] == items for array in got.values())


@every_kernel
def test_the_first_dimension_is_symbolic_and_one_name_in_a_kernel(kernel: Kernel) -> None:
    firsts = {
        spec.shape[0] for spec in (*kernel.inputs, *kernel.outputs) if spec.shape and spec.name in batched(kernel)
    }
    firsts |= {spec.shape[0] for spec in kernel.outputs if spec.shape}
    assert len(firsts) == 1
    assert isinstance(firsts.pop(), str)


@every_kernel
def test_items_do_not_depend_on_their_neighbours(kernel: Kernel) -> None:
    # 70 tiles are more than the attention reference takes at once, and no multiple of that.
    given = inputs_of(kernel, 70)
    together = kernel.reference(**given)
    for i in (0, 31, 32, 69):
        alone = kernel.reference(**{name: a[i : i + 1] if name in batched(kernel) else a for name, a in given.items()})
        for name, array in alone.items():
            np.testing.assert_array_equal(array[0], together[name][i])


@every_kernel
def test_inputs_are_only_read_and_never_handed_out(kernel: Kernel) -> None:
    given = inputs_of(kernel, 3)
    before = {name: array.copy() for name, array in given.items()}
    for array in given.values():
        array.setflags(write=False)
    got = kernel.reference(**given)
    for name, array in given.items():
        np.testing.assert_array_equal(array, before[name])
        assert not any(np.shares_memory(array, output) for output in got.values())
    assert all(output.flags.writeable for output in got.values())


@every_kernel
def test_the_memory_layout_of_inputs_does_not_matter(kernel: Kernel) -> None:
    given = inputs_of(kernel, 6)
    strided = {name: np.repeat(array, 2, axis=0)[::2] for name, array in given.items()}
    expected = kernel.reference(**given)
    for name, array in kernel.reference(**strided).items():
        np.testing.assert_array_equal(array, expected[name])


@every_kernel
def test_a_call_of_the_kernel_checks_its_inputs(kernel: Kernel) -> None:
    given = inputs_of(kernel, 2)
    expected = kernel.reference(**given)
    for name, array in kernel(*given.values()).items():
        np.testing.assert_array_equal(array, expected[name])
    with pytest.raises(InputError, match=r"has dtype float32, expected int(8|16)"):
        kernel({name: array.astype(np.float32) for name, array in given.items()})
    with pytest.raises(InputError, match="has shape"):
        kernel({name: array[..., np.newaxis] for name, array in given.items()})


@every_kernel
def test_kernels_can_be_sent_to_another_process(kernel: Kernel) -> None:
    copy = pickle.loads(pickle.dumps(kernel))
    assert copy == kernel
    assert hash(copy) == hash(kernel)


@every_kernel
def test_every_text_is_filled_in(kernel: Kernel) -> None:
    assert all((kernel.title, kernel.description, kernel.scales))


def test_importing_the_kernels_needs_no_vendor_library() -> None:
    code = "import sys, hetero_kernels; print('\\n'.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    loaded = set(done.stdout.split())
    assert {"hetero_kernels", "numpy"} <= loaded
    assert not loaded & {"onnx", "onnxruntime", "av", "tokenizers", "huggingface_hub", "safetensors", "click", "rich"}
