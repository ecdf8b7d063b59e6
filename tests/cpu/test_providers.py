"""Every other execution provider is a device of its own, and none runs on the CPU in silence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero import Artifact, Program, TensorSpec
from hetero.backend import Unavailable, Unsupported
from hetero.errors import AllDevicesFailed, OptionError
from hetero_cpu.backend import CpuBackend, OrtProvidersBackend
from hetero_cpu.executable import OrtExecutable
from hetero_cpu.library import Installed
from hetero_cpu.providers import may_have_providers
from tests import models
from tests.cpu.fake_ort import EpDevice, FakeOrt

SPEC = TensorSpec("x", np.dtype(np.float32), (4,))
PROGRAM = Program("p", (SPEC,), (TensorSpec("y", SPEC.dtype, (4,)),), (Artifact("onnx", path=Path("p.onnx")),))
X = np.arange(4, dtype=np.float32)

Install = Callable[..., FakeOrt]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a fake onnxruntime with these providers in the place of the real one; no plugin packages are installed."""
    monkeypatch.setattr("hetero_cpu.providers._plugin_packages", lambda: iter(()))

    def put(*providers: str, devices: tuple[EpDevice, ...] = ()) -> FakeOrt:
        ort = FakeOrt(*providers, devices=devices)
        monkeypatch.setitem(sys.modules, "onnxruntime", ort)
        return ort

    return put


def load(host: hetero.Host, **options: Any) -> OrtExecutable:
    """The program on the first device."""
    backend = OrtProvidersBackend(host)
    device = backend.probe()[0]
    executable = backend.load(PROGRAM, device, options)
    assert isinstance(executable, OrtExecutable)
    return executable


def test_each_provider_is_a_device_with_its_kind_and_place(install: Install, host: hetero.Host) -> None:
    install("VitisAIExecutionProvider", "DmlExecutionProvider", "XnnpackExecutionProvider", "AzureExecutionProvider")
    devices = {device.name: device for device in OrtProvidersBackend(host).probe()}
    assert {name: (device.kind, device.rank) for name, device in devices.items()} == {
        "ort:vitisai": ("npu", 150),
        "ort:dml": ("gpu", 250),
        "ort:xnnpack": ("cpu", 290),
    }
    assert "DmlExecutionProvider" in devices["ort:dml"].description


@pytest.mark.parametrize("providers", [(), ("AzureExecutionProvider",)])
def test_the_cpu_alone_and_remote_inference_are_no_devices(
    install: Install, host: hetero.Host, providers: tuple[str, ...]
) -> None:
    install(*providers)
    with pytest.raises(Unavailable, match="only the CPU provider") as got:
        OrtProvidersBackend(host).probe()
    assert "onnxruntime-openvino" in got.value.fix


def test_the_default_chain_puts_the_cpu_last_and_a_chain_reorders(install: Install, host: hetero.Host) -> None:
    install("DmlExecutionProvider", "VitisAIExecutionProvider")
    backends = [CpuBackend, OrtProvidersBackend]
    with hetero.Runtime(backends=backends, plugins=False, host=host) as rt:
        assert [device.name for device in rt.devices] == ["ort:vitisai", "ort:dml", "cpu"]
    with hetero.Runtime(backends=backends, plugins=False, host=host, chain=["ort:dml", "cpu", "ort:vitisai"]) as rt:
        assert [device.name for device in rt.devices] == ["ort:dml", "cpu", "ort:vitisai"]


def test_a_request_runs_on_the_provider_that_was_asked_for(install: Install, host: hetero.Host) -> None:
    ort = install("DmlExecutionProvider", "VitisAIExecutionProvider")
    with hetero.Runtime(backends=[OrtProvidersBackend], plugins=False, host=host) as rt:
        result = rt.load(PROGRAM, device="ort:dml").run(X)
        assert result.record.device == "ort:dml"
        np.testing.assert_array_equal(result.value, X * 2)
    assert ort.sessions[0].active[0] == "DmlExecutionProvider"


def test_a_hybrid_chain_passes_over_what_is_missing_and_tells_it(install: Install, host: hetero.Host) -> None:
    install("DmlExecutionProvider")
    chain = ["ort:vitisai", "ort:dml", "cpu"]
    with hetero.Runtime(chain=chain, backends=[CpuBackend, OrtProvidersBackend], plugins=False, host=host) as rt:
        assert [device.name for device in rt.devices] == ["ort:dml", "cpu"]
        record = rt.load(PROGRAM, standby=False).run(X).record
    assert [(attempt.device, attempt.outcome) for attempt in record.attempts] == [
        ("ort:vitisai", "unavailable"),
        ("ort:dml", "ok"),
    ]


def test_onnxruntimes_own_fallback_is_always_off(install: Install, host: hetero.Host) -> None:
    for devices in ((), (EpDevice("WebGpuExecutionProvider", "GPU"),)):
        ort = install("DmlExecutionProvider", devices=devices)
        load(host)
        assert [session.enable_fallback for session in ort.sessions] == [0]


def test_a_session_without_the_wanted_provider_is_refused(install: Install, host: hetero.Host) -> None:
    ort = install("CUDAExecutionProvider")
    ort.missing = {"CUDAExecutionProvider"}
    with pytest.raises(Unsupported, match="CUDAExecutionProvider did not start, onnxruntime came up with CPUExec"):
        load(host)


def test_a_provider_that_takes_no_node_is_refused(install: Install, host: hetero.Host) -> None:
    ort = install("QNNExecutionProvider")
    ort.nodes = {"CPUExecutionProvider": 12}
    with pytest.raises(Unsupported, match="QNNExecutionProvider takes none of the model's 12 nodes"):
        load(host)


def test_details_tell_what_is_really_active(install: Install, host: hetero.Host) -> None:
    ort = install("QNNExecutionProvider")
    ort.nodes = {"QNNExecutionProvider": 10, "CPUExecutionProvider": 2}
    details = load(host).details
    assert details["providers"] == ["QNNExecutionProvider", "CPUExecutionProvider"]
    assert details["nodes"] == {"QNNExecutionProvider": 10, "CPUExecutionProvider": 2}


def test_an_onnxruntime_that_cannot_tell_nodes_is_taken_at_its_word(install: Install, host: hetero.Host) -> None:
    install("QNNExecutionProvider")
    assert load(host).details["nodes"] == "not told by onnxruntime"


@pytest.mark.parametrize(("partition", "expected"), [("allow", None), ("forbid", "1")])
def test_partition_forbid_keeps_nodes_off_the_cpu(
    install: Install, host: hetero.Host, partition: str, expected: str | None
) -> None:
    ort = install("VitisAIExecutionProvider")
    load(host, partition=partition)
    session = ort.sessions[0]
    assert session.options.config.get("session.disable_cpu_ep_fallback") == expected
    # Naming the CPU beside the provider makes onnxruntime refuse the setting.
    assert "CPUExecutionProvider" not in session.providers


def test_a_provider_that_cannot_start_tells_its_reason(install: Install, host: hetero.Host) -> None:
    ort = install("WebGpuExecutionProvider")
    ort.refuses = RuntimeError(
        "/src/onnxruntime/core/providers/webgpu/webgpu_context.cc:65 onnxruntime::webgpu::Initialize(const Config&)::"
        "<lambda()> status == Success was false. Failed to get a WebGPU adapter: No supported adapters"
    )
    with pytest.raises(Unsupported) as got:
        load(host)
    assert got.value.problem == (
        "WebGpuExecutionProvider does not start: Failed to get a WebGPU adapter: No supported adapters"
    )


def test_options_reach_the_provider_they_are_for(install: Install, host: hetero.Host) -> None:
    ort = install("VitisAIExecutionProvider", "DmlExecutionProvider")
    given = {"vitisai": {"config_file": "v.json"}, "dml": {"device_id": 1}}
    backend = OrtProvidersBackend(host)
    for device in backend.probe():
        backend.load(PROGRAM, device, {"provider_options": given})
    assert [session.providers for session in ort.sessions] == [
        [("VitisAIExecutionProvider", {"config_file": "v.json"})],
        [("DmlExecutionProvider", {"device_id": "1"})],
    ]


def test_options_without_a_providers_name_are_refused_with_the_right_form(install: Install, host: hetero.Host) -> None:
    install("OpenVINOExecutionProvider")
    with pytest.raises(OptionError, match="'device_type': 'NPU'") as got:
        load(host, provider_options={"device_type": "NPU"})
    assert got.value.fix == "write {'openvino': {'device_type': 'NPU'}}"


@pytest.mark.parametrize("end", ["inputs", "outputs"])
def test_strings_never_reach_a_provider_that_might_crash_on_them(install: Install, host: hetero.Host, end: str) -> None:
    ort = install("OpenVINOExecutionProvider")
    backend = OrtProvidersBackend(host)
    program = replace(PROGRAM, **{end: (TensorSpec("s", np.dtype(object), (4,)),)})  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="strings are for the CPU alone"):
        backend.load(program, backend.probe()[0], {})
    assert ort.sessions == []


def test_directml_gets_a_session_without_memory_patterns(install: Install, host: hetero.Host) -> None:
    ort = install("DmlExecutionProvider", "QNNExecutionProvider")
    backend = OrtProvidersBackend(host)
    for device in backend.probe():
        backend.load(PROGRAM, device, {})
    assert [session.options.enable_mem_pattern for session in ort.sessions] == [False, True]


def test_a_plugins_hardware_decides_kind_name_and_devices(install: Install, host: hetero.Host) -> None:
    name = "OpenVINOExecutionProvider"
    devices = tuple(EpDevice(name, hardware) for hardware in ("CPU", "GPU", "NPU", "GPU"))
    # Once registered, a plugin's providers are listed among the others, too.
    ort = install(name, f"{name}.AUTO", devices=(*devices, EpDevice(f"{name}.AUTO", "CPU")))
    backend = OrtProvidersBackend(host)
    found = {device.name: device for device in backend.probe()}
    assert {name: device.kind for name, device in found.items()} == {
        "ort:openvino-cpu": "cpu",
        "ort:openvino": "gpu",
        "ort:openvino-npu": "npu",
    }
    options = {"openvino": {"cache_dir": "c", "hint": "a"}, "openvino-npu": {"hint": "b"}}
    backend.load(PROGRAM, found["ort:openvino-npu"], {"provider_options": options})
    backend.load(PROGRAM, found["ort:openvino"], {"provider_options": options})
    assert [session.options.devices for session in ort.sessions] == [[devices[2]], [devices[1], devices[3]]]
    assert [session.options.device_options["hint"] for session in ort.sessions] == ["b", "a"]


def test_devices_of_built_in_providers_are_not_listed_twice(install: Install, host: hetero.Host) -> None:
    install("DmlExecutionProvider", devices=(EpDevice("DmlExecutionProvider", "GPU", plugin=False),))
    assert [device.name for device in OrtProvidersBackend(host).probe()] == ["ort:dml"]


def site_with_plugin(root: Path, name: str, code: str) -> Path:
    package = root / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    (package / "libonnxruntime_providers_acme.so").touch()
    return root


@pytest.fixture
def imported_plugins() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("onnxruntime_"):
            del sys.modules[name]


@pytest.mark.usefixtures("imported_plugins")
def test_plugin_packages_are_registered_once_and_a_broken_one_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: hetero.Host
) -> None:
    ort = FakeOrt()
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    good = "get_ep_name = lambda: 'AcmeExecutionProvider'\nget_library_path = lambda: '/acme.so'\n"
    site = site_with_plugin(tmp_path / "site", "onnxruntime_ep_acme", good)
    site_with_plugin(site, "onnxruntime_ep_broken", "raise OSError('no driver')\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    for _ in range(2):
        assert "ort:acme-gpu" in [device.name for device in OrtProvidersBackend(host).probe()]
    assert ort.registered["AcmeExecutionProvider"] == "/acme.so"
    assert [device.ep_name for device in ort.devices].count("AcmeExecutionProvider") == 1


def plain(folder: Path) -> Installed:
    (folder / "capi").mkdir(parents=True)
    (folder / "capi" / "libonnxruntime_providers_shared.so").touch()
    return Installed("onnxruntime", "1.31.1", folder)


def test_the_plain_distribution_is_not_imported_to_find_no_provider(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "empty")])
    assert not may_have_providers(plain(tmp_path / "onnxruntime"))


@pytest.mark.parametrize("sign", ["distribution", "library", "plugin", "imported", "macos"])
def test_any_sign_of_another_provider_is_followed_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sign: str
) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin" if sign == "macos" else "linux")
    site = tmp_path / "site"
    found = plain(site / "onnxruntime")
    if sign == "distribution":
        found = Installed("onnxruntime-directml", "1.24.4", found.folder)
    elif sign == "library":
        (site / "onnxruntime/capi/onnxruntime_providers_vitisai.dll").touch()
    elif sign == "plugin":
        site_with_plugin(site, "onnxruntime_qnn", "")
    elif sign == "imported":
        monkeypatch.setitem(sys.modules, "onnxruntime", FakeOrt())
    monkeypatch.setattr(sys, "path", [str(site)])
    assert may_have_providers(found)


def test_a_real_onnxruntime_gives_the_same_answer_on_each_of_its_providers(host: hetero.Host, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = models.matmul(tmp_path / "m.onnx", 8)
    a, b = np.random.default_rng(0).random((2, 8, 8), np.float32)
    refusals = []
    with hetero.Runtime(backends=[CpuBackend, OrtProvidersBackend], plugins=False, host=host) as rt:
        for device in rt.devices:
            try:
                session = rt.load(path, device=device.name, standby=False)
            except AllDevicesFailed as error:
                refusals.append(str(error))
                continue
            # Accelerators may compute in bfloat16.
            np.testing.assert_allclose(session(a, b), a @ b, rtol=2e-2)
            assert session.device == device.name
        assert len(refusals) < len(rt.devices)
    # A built-in provider is listed without its hardware; then it has to say so.
    assert all("start" in refusal or "takes none" in refusal for refusal in refusals)
