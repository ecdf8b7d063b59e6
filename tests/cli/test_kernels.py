"""`hetero kernels` lists, checks and builds what plugins bring, and says what is missing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import hetero
from hetero.errors import ProgramNotFound
from hetero.kernel_tools import KernelEntry, Rung, Size
from hetero.plugins import Plugins
from hetero.testing.xrt.stand_in import write_stand_in
from hetero_kernels import hetero_kernel_tools
from tests.cli.conftest import Line


@pytest.fixture(autouse=True)
def no_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "aie", None)
    monkeypatch.setenv("HETERO_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def compiler() -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")


class Fake:
    """Kernels whose checks end as a test says."""

    target = "fake1"
    compilers = ("cc",)
    rungs = ((1, "first"), (2, "second"))

    def __init__(self, *states: str) -> None:
        self.states = states
        self.asked: list[Size] = []

    def kernels(self, folders: Sequence[Path]) -> list[KernelEntry]:
        return [KernelEntry("square", "x * x", True, True, None, "small numbers only")]

    def verify(self, name: str, rungs: Sequence[int], compiler: str, size: Size) -> Iterator[Rung]:
        if name != "square":
            raise ProgramNotFound(f"there is no kernel {name!r}")
        self.asked.append(size)
        for number in rungs:
            state = self.states[number - 1]
            yield Rung(number, self.rungs[number - 1][1], state, f"found {number}", f"mend {number}")  # type: ignore[arg-type]

    def build(self, name: str, folder: Path, size: Size) -> list[Path]:
        self.asked.append(size)
        return [folder / "square.xclbin", folder / "kernel.toml"]


def put(monkeypatch: pytest.MonkeyPatch, *tools: Fake) -> None:
    class Plugin:
        def __init__(self, one: Fake) -> None:
            self._one = one

        @hetero.hookimpl
        def hetero_kernel_tools(self) -> Fake:
            return self._one

    def discover(self: Plugins, environ: object = None) -> None:
        for one in tools:
            self.register(Plugin(one))

    monkeypatch.setattr(Plugins, "discover", discover)


def test_the_kernels_are_listed_with_what_there_is_of_each(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stand_in(tmp_path / "built" / "gelu_i8", "gelu_i8")
    monkeypatch.setenv("HETERO_XRT_KERNELS", str(tmp_path / "built"))
    found = {entry["name"]: entry for entry in line.json("kernels", "list")["kernels"]}
    assert set(found) >= {"attention_i8_64x64", "gelu_i8", "layernorm_i8_256", "matmul_i8_64x64"}
    assert found["gelu_i8"]["compiled"] == str(tmp_path / "built" / "gelu_i8")
    assert found["matmul_i8_64x64"]["compiled"] is None
    assert all(found["gelu_i8"][key] is True for key in ("reference", "source", "design"))
    assert "never run on an NPU" in line("kernels", "list").stdout


def test_a_kernel_is_verified_as_far_as_this_machine_can(line: Line, compiler: None) -> None:
    rungs = line.json("kernels", "verify", "gelu_i8", "--columns", 2, "--rows", 1)["kernels"]["gelu_i8"]
    assert [(rung["number"], rung["state"]) for rung in rungs] == [
        (1, "passed"),
        (2, "passed"),
        (3, "passed"),
        (4, "not here"),
        (5, "not here"),
        (6, "not here"),
    ]
    assert "819,200 values" in rungs[1]["detail"]
    assert "2 x 1 cores" in rungs[2]["detail"]
    assert "pip install mlir_aie" in rungs[3]["fix"]


FAMILIES = ["attention_i8_exact_{T}", "gemm_i8_i32_{K}x{N}", "gemm_i8_i8_{K}x{N}", "layernorm_i8_{D}", "mel_i16_{M}"]


def test_families_are_listed_by_pattern_with_their_usual_sizes_and_limits(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stand_in(tmp_path / "gemm_i8_i32_64x64", "gemm_i8_i32_64x64")
    monkeypatch.setenv("HETERO_XRT_KERNELS", str(tmp_path))
    found = {entry["name"]: entry for entry in line.json("kernels", "list")["kernels"]}
    for name in FAMILIES:
        assert found[name]["source"] is found[name]["design"] is True
        assert "never run on an NPU" in found[name]["limits"]
        assert found[name]["usual"]
    assert found["gemm_i8_i32_64x64"]["compiled"] == str(tmp_path / "gemm_i8_i32_64x64")
    assert found["gemm_i8_i32_{K}x{N}"]["compiled"] is None
    assert "usual sizes are mel_i16_80, mel_i16_128" in line("kernels", "list").stdout


@pytest.mark.parametrize(
    "name", ["attention_i8_exact_1536", "gemm_i8_i32_384x1536", "gemm_i8_i8_384x384", "layernorm_i8_384", "mel_i16_80"]
)
def test_a_kernel_of_a_family_is_verified_by_its_name(name: str, line: Line, compiler: None) -> None:
    rungs = line.json("kernels", "verify", name, "--rung", 1, "--rung", 2)["kernels"][name]
    assert [rung["state"] for rung in rungs] == ["passed", "passed"]
    compared = int(rungs[1]["detail"].split(" values")[0].replace(",", ""))
    assert compared >= 200 * (8 * 80 if name == "mel_i16_80" else 4096)


def test_which_size_was_checked_in_place_of_a_large_one_is_told(line: Line, compiler: None) -> None:
    asked = ("--rung", 2, "--rung", 3, "--columns", 1, "--rows", 1)
    rungs = line.json("kernels", "verify", "gemm_i8_i32_8192x1024", *asked)["kernels"]["gemm_i8_i32_8192x1024"]
    assert [rung["detail"].rpartition("; ")[2] for rung in rungs] == ["of gemm_i8_i32_128x128"] * 2
    rungs = line.json("kernels", "verify", "gemm_i8_i32_192x64", *asked, "--full")["kernels"]["gemm_i8_i32_192x64"]
    assert all("; of" not in rung["detail"] for rung in rungs)


def test_a_pattern_stands_for_the_usual_sizes_and_all_for_those_of_every_family(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = line.json("kernels", "verify", "mel_i16_{M}", "--rung", 1)
    assert list(document["kernels"]) == ["mel_i16_80", "mel_i16_128"]
    some, every = (line.json("kernels", "verify", *all_, "--rung", 1)["kernels"] for all_ in ((), ("--all",)))
    assert {"gelu_i8", "gemm_i8_i8_384x384", "layernorm_i8_384"} <= set(some) < set(every)
    assert {"gemm_i8_i8_1536x384", "attention_i8_exact_1536"} <= set(every) - set(some)


def test_a_family_of_a_wrong_size_is_refused(line: Line) -> None:
    line.refuses("kernels", "verify", "gemm_i8_i32_100x64", says="K = 100 cannot be")
    line.refuses("kernels", "verify", "gemm_i8_i32_384x384", "--columns", 4, says="4 columns cannot share 6 blocks")
    line.refuses("kernels", "verify", "mel_i16_80", "--layout", "separate", says="buffers for all columns together")


def test_a_build_of_a_family_without_the_tools_says_what_is_missing(line: Line, tmp_path: Path) -> None:
    for name in ("gemm_i8_i8_384x384", "attention_i8_exact_1536", "mel_i16_80"):
        line.refuses("kernels", "build", name, "-o", tmp_path / name, code=3, says="AMD's tools")
        assert not (tmp_path / name).exists()


def test_a_check_that_fails_is_told_and_ends_with_1(line: Line) -> None:
    result = line("kernels", "verify", "attention_i8_64x64", "--rung", 1, "--stack", 1024)
    assert result.exit_code == 1
    assert "failed" in result.stdout
    assert "stack has 1,024 bytes, and attention_i8_64x64 takes 6,144" in result.stdout
    assert "fix: take a stack of 6,144 bytes or more" in result.stdout


def test_a_size_whose_transfers_no_shim_takes_is_told_with_the_limit(line: Line) -> None:
    result = line("kernels", "verify", "mel_i16_80", "--rung", 1, "--tiles-per-core", 32)
    assert result.exit_code == 1
    assert "1,024 entries of a shim's second dimension, and there are 1,023" in " ".join(result.stdout.split())
    assert "fewer tiles a core" in " ".join(result.stdout.split())


def test_what_was_asked_for_and_is_not_here_ends_with_3(line: Line) -> None:
    document = line.json("kernels", "verify", "gelu_i8", "--rung", 4, code=3)
    assert document["kernels"]["gelu_i8"][0]["state"] == "not here"


def test_without_a_compiler_the_cpp_is_not_checked(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    rungs = line.json("kernels", "verify", "gelu_i8")["kernels"]["gelu_i8"]
    assert [rung["state"] for rung in rungs] == ["passed", *["not here"] * 5]
    assert rungs[1]["fix"] == "apt install g++"


@pytest.mark.parametrize(
    ("states", "arguments", "code"),
    [
        (("passed", "passed"), (), 0),
        (("passed", "not here"), (), 0),
        (("passed", "not here"), ("--rung", "2"), 3),
        (("failed", "not here"), (), 1),
        (("failed", "passed"), ("--rung", "2"), 0),
    ],
)
def test_the_exit_code_is_that_of_the_worst_check(
    states: tuple[str, ...], arguments: tuple[str, ...], code: int, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, Fake(*states))
    result = line("kernels", "verify", *arguments)
    assert result.exit_code == code, result.output
    assert "square" in result.stdout


def test_the_size_goes_to_the_tools(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake("passed", "passed")
    put(monkeypatch, fake)
    line.json("kernels", "verify", "square", "--full")
    assert fake.asked.pop() == Size(full=True)
    size = ("--columns", 2, "--rows", 3, "--tiles-per-core", 7, "--layout", "separate", "--stack", 2048)
    line.json("kernels", "verify", "square", *size)
    document = line.json("kernels", "build", "square", "-o", "out", *size)
    assert fake.asked == [Size(2, 3, 7, "separate", 2048)] * 2
    assert document == {"kernel": "square", "folder": "out", "files": ["square.xclbin", "kernel.toml"]}
    assert "HETERO_XRT_KERNELS=" in line("kernels", "build", "square", "-o", "kernels/square").stdout


def test_a_build_without_the_tools_says_what_is_missing_and_writes_nothing(line: Line, tmp_path: Path) -> None:
    told = line.refuses("kernels", "build", "gelu_i8", "-o", tmp_path / "out" / "gelu_i8", code=3, says="AMD's tools")
    assert "no mlir-aie (aiecc), no Peano (llvm-aie)" in told
    assert "https://github.com/Xilinx/llvm-aie/releases" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("verify", "gelu_i9"), "there is no kernel 'gelu_i9'"),
        (("verify", "gelu_i8", "--rung", "7"), "there is no rung 7"),
        (("verify", "gelu_i8", "--compiler", "tcc"), "there is no compiler 'tcc'"),
        (("verify", "gelu_i8", "--columns", "5"), "Invalid value for '--columns'"),
        (("build", "nothing", "-o", "out"), "there is no kernel 'nothing'"),
        (("build", "gelu_i8"), "Missing option '-o'"),
    ],
)
def test_wrong_usage_is_refused(arguments: tuple[str, ...], says: str, line: Line) -> None:
    line.refuses("kernels", *arguments, says=says)


def test_without_kernels_the_plugins_are_to_blame(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch)
    line.refuses("kernels", "list", code=3, says="no installed plugin brings kernels")


def test_tools_of_a_plugin_that_raises_do_no_harm(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @hetero.hookimpl
        def hetero_kernel_tools(self) -> None:
            raise RuntimeError("no such thing")

    class Good:
        @hetero.hookimpl
        def hetero_kernel_tools(self) -> object:
            return hetero_kernel_tools()

    def discover(self: Plugins, environ: object = None) -> None:
        self.register(Broken(), "hetero.programs:broken")
        self.register(Good(), "hetero.programs:good")

    monkeypatch.setattr(Plugins, "discover", discover)
    document = json.loads(line("kernels", "list", "--json").stdout)
    assert len(document["kernels"]) >= 4
