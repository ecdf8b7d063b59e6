"""What is read from a `.rknn` file: real ones of the vendor's toolkit, and everything that only looks like one."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hetero.errors import ProgramInvalid, ProgramNotFound, Unsupported
from hetero.tensors import Dim, TensorSpec
from hetero_rknn.model_file import ModelFile, ModelTensor, check_model, check_signature, read_model_file
from hetero_rknn.platforms import PLATFORMS, Platform, platform_named

DATA = Path(__file__).parent.parent / "data" / "rknn"
REAL = sorted(DATA.glob("*.rknn"))
FLOAT = np.dtype(np.float32)


def board(name: str) -> Platform:
    found = platform_named(name)
    assert found is not None
    return found


def spec(name: str, shape: tuple[Dim, ...] | None, dtype: Any = np.float32) -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), shape)


def tensor(name: str, *shape: int, **more: Any) -> ModelTensor:
    return ModelTensor(name, FLOAT, shape, **more)


def model(
    inputs: tuple[ModelTensor, ...] = (tensor("x", 1, 4),),
    outputs: tuple[ModelTensor, ...] = (tensor("y", 1, 2),),
    **more: Any,
) -> ModelFile:
    values = {"platform": "rk3588", "version": "2.3.2", "format_version": 6, "path": Path("/models/m.rknn"), **more}
    return ModelFile(inputs=inputs, outputs=outputs, **values)


def description(**changes: Any) -> dict[str, Any]:
    """What toolkit 2.5.0 writes, as far as it is read."""
    return {
        "graph": [
            {"left": "input", "left_tensor_id": 0, "right": "norm_tensor", "right_tensor_id": 0},
            {"left": "output", "left_tensor_id": 0, "right": "norm_tensor", "right_tensor_id": 1},
        ],
        "norm_tensor": [
            {"dim_num": 2, "size": [1, 4], "tensor_id": 0, "url": "x"},
            {"dim_num": 2, "size": [1, 2], "tensor_id": 1, "url": "y"},
        ],
        "target_platform": ["rk3588"],
        "version": "2.3.2",
        **changes,
    }


def content(described: Any, body: bytes = b"weights", version: int = 6) -> bytes:
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    header = b"RKNN\0\0\0\0" + struct.pack("<QQ", version, len(body))
    return header.ljust(64 if version > 1 else 24, b"\0") + body + struct.pack("<Q", len(text)) + text


def body_of(slots: Mapping[int, bytes], count: int | None = None) -> bytes:
    """A flatbuffer whose root table has the given texts, and a list of graphs of the given length without any."""
    size = 4 + 2 * 14
    table = 8 + size
    fields = bytearray(2 * 14)
    offsets, texts = b"", b""
    end = table + 4 + 4 * (len(slots) + (count is not None))
    for number, (slot, text) in enumerate(slots.items()):
        at = table + 4 + 4 * number
        struct.pack_into("<H", fields, 2 * slot, at - table)
        offsets += struct.pack("<I", end + len(texts) - at)
        texts += struct.pack("<I", len(text)) + text
    if count is not None:
        at = table + 4 + 4 * len(slots)
        struct.pack_into("<H", fields, 2 * 2, at - table)
        offsets += struct.pack("<I", end + len(texts) - at)
        texts += struct.pack("<I", count)
    entries = struct.pack("<HH", size, 4) + fields
    return struct.pack("<I", table) + b"RKNN" + entries + struct.pack("<i", size) + offsets + texts


def written(folder: Path, data: bytes) -> Path:
    path = folder / "m.rknn"
    path.write_bytes(data)
    return path


def refusal(path: Path) -> ProgramInvalid:
    with pytest.raises(ProgramInvalid) as caught:
        read_model_file(path)
    assert str(path) in caught.value.problem
    return caught.value


# --- real files ------------------------------------------------------------------------------------------------------


def test_an_image_model_is_read() -> None:
    found = read_model_file(DATA / "image.rk3588.rknn")
    assert (found.platform, found.platforms, found.version, found.format_version) == ("rk3588", ("rk3588",), "2.5.0", 6)
    assert not found.custom_ops
    assert found.inputs == (tensor("image", 1, 3, 16, 24, layout="nchw", native_dtype="float16", native_layout="NHWC"),)
    assert found.outputs == (
        tensor("features", 1, 4, 16, 24, layout="nchw", native_dtype="float16", native_layout="NCHW"),
    )


def test_the_order_of_several_tensors_is_the_models() -> None:
    found = read_model_file(DATA / "pair.rk3576.rknn")
    assert [(each.name, each.shape) for each in found.inputs] == [("x", (2, 32)), ("mask", (2, 64))]
    assert [(each.name, each.shape) for each in found.outputs] == [("y", (2, 16)), ("second", (2, 64))]


def test_a_quantised_model_still_takes_what_the_graph_took() -> None:
    for each in read_model_file(DATA / "pair.rk3576.rknn").inputs:
        assert (each.dtype, each.dtype_known, each.native_dtype) == (FLOAT, True, "int8")


def test_the_dtypes_are_the_graphs_though_the_json_has_none() -> None:
    found = read_model_file(DATA / "tokens.rk3566.rknn")
    assert (found.inputs[0].dtype, found.outputs[0].dtype) == (np.dtype(np.int64), FLOAT)


def test_all_shapes_of_a_model_with_several_are_read() -> None:
    found = read_model_file(DATA / "sizes.rk3562.rknn")
    assert found.inputs[0].shapes == ((1, 3, 16, 24), (1, 3, 8, 12))
    assert found.outputs[0].shapes == ((1, 4, 16, 24), (1, 4, 8, 12))


def test_a_transformation_that_was_compiled_in_is_seen() -> None:
    found = read_model_file(DATA / "normalised.rk3562.rknn")
    assert found.inputs[0].transforms == "mean [127, 127, 127], std [128, 128, 128]"
    assert read_model_file(DATA / "image.rk3588.rknn").inputs[0].transforms == ""


def test_custom_operators_are_seen() -> None:
    assert [path.name for path in REAL if read_model_file(path).custom_ops] == ["custom.rk3562.rknn"]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_files_run_on_the_board_in_their_name_and_on_no_other(path: Path) -> None:
    found = read_model_file(path)
    target = path.name.split(".")[1]
    for platform in PLATFORMS:
        if target in platform.targets:
            check_model(found, platform, "2.5.0")
        else:
            with pytest.raises(Unsupported, match=f"compiled for {target.upper()}, this is an {platform.title}"):
                check_model(found, platform, "2.5.0")


def test_a_large_files_weights_are_not_read(tmp_path: Path) -> None:
    """A sparse file of a gigabyte: reading it all would take its time and memory."""
    path = tmp_path / "large.rknn"
    length = 1 << 30
    text = json.dumps(description()).encode()
    with path.open("wb") as file:
        file.write(b"RKNN\0\0\0\0" + struct.pack("<QQ", 6, length))
        file.seek(64 + length)
        file.write(struct.pack("<Q", len(text)) + text)
    assert read_model_file(path).inputs == (ModelTensor("x", FLOAT, (1, 4), dtype_known=False),)


# --- other files -----------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ProgramNotFound, match=r"m\.rknn is not there"):
        read_model_file(tmp_path / "m.rknn")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path).problem


FOREIGN = [
    (b"", "is empty"),
    (b"<!DOCTYPE html><html><body>404", "a web page"),
    (b"\n  <?xml version='1.0'?>", "a web page or XML"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a Git LFS pointer"),
    (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x9a", "an ONNX model"),
    (b"PK\x03\x04" + bytes(60), "a zip archive"),
    (b"\x1c\0\0\0TFL3" + bytes(60), "a TensorFlow Lite model"),
    (b"CYPTRKNN" + bytes(60), "is an encrypted RKNN model"),
    (b"RKNX" + bytes(60), "something that begins b'RKNX"),
    (b"RKN", "is truncated"),
    (b"RKNN\0\0\0\0\6", "is truncated"),
]


@pytest.mark.parametrize(("data", "said"), FOREIGN, ids=[said for _, said in FOREIGN])
def test_what_it_is_instead_is_said(tmp_path: Path, data: bytes, said: str) -> None:
    error = refusal(written(tmp_path, data))
    assert said in error.problem
    assert error.fix


def test_an_onnx_file_by_a_wrong_name_is_told_to_be_compiled(tmp_path: Path) -> None:
    assert "hetero compile MODEL.onnx" in refusal(written(tmp_path, b"\x08\x07\x12\x04test")).fix


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, path: Path) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data, 16)
    for size in [*range(100), *range(100, len(data), 997), *range(64 + length, 64 + length + 12), len(data) - 1]:
        refusal(written(tmp_path, data[:size]))


@pytest.mark.parametrize("length", [0, 1 << 24, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize("field", ["body", "description"])
def test_lengths_that_lie_are_refused(tmp_path: Path, field: str, length: int) -> None:
    data = bytearray(content(description()))
    at = 16 if field == "body" else 64 + len(b"weights")
    if (field, length) == ("body", 0):
        length = 1
    struct.pack_into("<Q", data, at, length)
    refusal(written(tmp_path, bytes(data)))


DAMAGED: list[tuple[Any, str]] = [
    (b"{}}", "no JSON"),
    (b"[" * 100_000, "no JSON"),
    (b"\xff\xfe{}", "no JSON"),
    (b"[]", "no JSON object"),
    (b"{}", "names no SoC"),
    (description(target_platform=[]), "names no SoC"),
    (description(target_platform=[3588]), "names no SoC"),
    (description(target_platform={"rk3588": 1}), "names no SoC"),
    (description(norm_tensor=None), "no list 'norm_tensor'"),
    (description(norm_tensor=["x"]), "a tensor is no JSON object"),
    (description(norm_tensor=[{"tensor_id": [0], "url": "x", "size": [1]}]), "tensor_id is [0]"),
    (description(norm_tensor=[{"tensor_id": 0, "url": "", "size": [1]}]), "without a name"),
    (description(norm_tensor=[{"tensor_id": 0, "url": "x", "size": [-1]}]), "without a name or a shape"),
    (description(norm_tensor=[{"tensor_id": 0, "url": "x", "size": [1] * 17}]), "without a name or a shape"),
    (description(norm_tensor=[{"tensor_id": 0, "url": "x", "size": [1.0]}]), "without a name or a shape"),
    (description(graph={}), "no list 'graph'"),
    (description(graph=[]), "has no outputs"),
    (description(graph=[{"left": ["input"]}, 3, "x"]), "has no outputs"),
    (
        description(graph=[{"left": "output", "left_tensor_id": 0, "right": "norm_tensor", "right_tensor_id": 7}]),
        "names a tensor that it does not have",
    ),
    (description(graph=description()["graph"][1:] * 2), "two tensors have one name: y, y"),
]


@pytest.mark.parametrize(("described", "said"), DAMAGED, ids=[said for _, said in DAMAGED])
def test_a_description_that_contradicts_itself_is_refused(tmp_path: Path, described: Any, said: str) -> None:
    assert said in refusal(written(tmp_path, content(described))).problem


def test_older_files_with_one_platform_as_text_and_no_details_are_read(tmp_path: Path) -> None:
    found = read_model_file(
        written(tmp_path, content(description(target_platform="RK3566", version="1.6.2-source_code"), version=1))
    )
    assert (found.platform, found.version, found.format_version) == ("rk3566", "1.6.2", 1)
    assert [each.dtype_known for each in (*found.inputs, *found.outputs)] == [False, False]


@pytest.mark.parametrize("version", [None, 3, "", "newest"])
def test_a_version_that_is_none_is_unknown(tmp_path: Path, version: Any) -> None:
    assert read_model_file(written(tmp_path, content(description(version=version)))).version is None


@pytest.mark.parametrize("body", [b"", b"RKNN", bytes(4) + b"VPMN" + bytes(50)])
def test_a_body_of_another_kind_is_left_alone(tmp_path: Path, body: bytes) -> None:
    assert read_model_file(written(tmp_path, content(description(), body))).inputs[0].name == "x"


@pytest.mark.parametrize("root", [8, 1 << 20, (1 << 32) - 1])
def test_a_body_whose_offsets_lead_out_of_it_is_damaged(tmp_path: Path, root: int) -> None:
    body = struct.pack("<I", root) + b"RKNN" + b"\xff" * 8
    assert "is damaged: " in refusal(written(tmp_path, content(description(), body))).problem


def test_an_offset_that_leads_before_the_body_is_damage(tmp_path: Path) -> None:
    body = struct.pack("<I", 8) + b"RKNN" + struct.pack("<i", 1000) + bytes(2000)
    assert "leads out of the file" in refusal(written(tmp_path, content(description(), body))).problem


def test_a_text_that_leads_out_of_the_body_is_damage(tmp_path: Path) -> None:
    body = body_of({3: b"{}"})[:-1]
    assert "a text of 2 bytes" in refusal(written(tmp_path, content(description(), body))).problem


def test_an_absurd_list_is_damage_at_once(tmp_path: Path) -> None:
    body = body_of({}, count=1 << 20) + bytes(4 << 20)
    assert "a list of 1048576 items" in refusal(written(tmp_path, content(description(), body))).problem


def test_an_absurd_description_is_not_read(tmp_path: Path) -> None:
    assert "is said to have 17825792 bytes" in refusal(written(tmp_path, content(b" " * (17 << 20)))).problem


LITERALS = [
    (b"{'attrs': {'x': {'dtype': 'int64'}}, 'quant_tab': {'y': {'min': [-inf], 'max': [nan]}}}", "int64"),
    (b"{'attrs': {'x': {'dtype': 'int64', 'mean': [nan]}}}", None),
    (b"{'attrs': {'x': {'dtype': 'object'}}}", None),
    (b"{'attrs': {'x': {'dtype': 3}}}", None),
    (b"{'attrs': {'x': 'int64'}}", None),
    (b"{'attrs': 3}", None),
    (b"{'attrs': __import__('os').abort()}", None),
    (b"{'attrs': " + b"(" * 5000 + b"}", None),
    (b"[1, 2]", None),
    (b"{**{}}", None),
    (b"not Python", None),
    (b"\xff\xfe", None),
]


@pytest.mark.parametrize(("literal", "dtype"), LITERALS)
def test_attributes_are_taken_where_they_are_understood_and_never_run(
    tmp_path: Path, literal: bytes, dtype: str | None
) -> None:
    found = read_model_file(written(tmp_path, content(description(), body_of({3: literal})))).inputs[0]
    assert (found.dtype, found.dtype_known) == (np.dtype(dtype or np.float32), dtype is not None)


def test_inputs_come_in_the_models_order_whatever_the_order_of_the_description(tmp_path: Path) -> None:
    names = ["a", "b", "c", "y"]
    graph = [
        {"left": "input", "left_tensor_id": place, "right": "norm_tensor", "right_tensor_id": place}
        for place in (2, 0, 1)
    ]
    graph.append({"left": "output", "left_tensor_id": 0, "right": "norm_tensor", "right_tensor_id": 3})
    tensors = [{"url": name, "size": [1], "tensor_id": number} for number, name in enumerate(names)]
    found = read_model_file(written(tmp_path, content(description(graph=graph, norm_tensor=tensors))))
    assert [each.name for each in found.inputs] == ["a", "b", "c"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)
@given(
    path=st.sampled_from([path for path in REAL if path.stat().st_size < 30_000]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
    part=st.sampled_from(["header", "body", "description"]),
)
def test_a_file_with_flipped_bytes_is_read_or_refused_but_never_more(
    tmp_path: Path, path: Path, changes: list[tuple[float, int]], part: str
) -> None:
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", data, 16)
    # The parts of the body that are read lie at its beginning.
    start, stop = {"header": (0, 64), "body": (64, 4000), "description": (64 + length, len(data))}[part]
    for where, byte in changes:
        data[start + int(where * (stop - start))] = byte
    try:
        found = read_model_file(written(tmp_path, bytes(data)))
    except ProgramInvalid:
        return
    assert found.outputs
    assert all(isinstance(size, int) and size > 0 for each in found.inputs for size in each.shape)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(key=st.sampled_from(sorted(description())), value=json_values)
@example(key="graph", value=[{"left": "input", "right": "norm_tensor", "left_tensor_id": {}, "right_tensor_id": []}])
def test_any_json_is_read_or_refused(tmp_path: Path, key: str, value: Any) -> None:
    path = written(tmp_path, content(description(**{key: value})))
    try:
        assert read_model_file(path).outputs
    except ProgramInvalid:
        return


# --- the board -------------------------------------------------------------------------------------------------------


def test_another_socs_model_is_refused_with_the_command_to_run() -> None:
    with pytest.raises(Unsupported) as caught:
        check_model(model(), board("rk3576"), "2.3.2")
    assert caught.value.problem == "m.rknn was compiled for RK3588, this is an RK3576"
    assert caught.value.fix == "compile it for this board: hetero compile MODEL.onnx --target rk3576"


@pytest.mark.parametrize(
    ("compiled_for", "name"), [("rk3566", "rk3568"), ("rk3568", "rk3566"), ("rk3588", "rk3588s"), ("rk3588", "rk3588")]
)
def test_socs_that_share_their_models_share_them(compiled_for: str, name: str) -> None:
    assert check_model(model(platform=compiled_for), board(name), "2.3.2") == ()


def test_one_of_several_platforms_is_enough() -> None:
    both = model(platforms=("rk3562", "rk3576"))
    assert check_model(both, board("rk3576"), None) == ()
    with pytest.raises(Unsupported, match="compiled for RK3562, RK3576, this is an RK3588"):
        check_model(both, board("rk3588"), None)


@pytest.mark.parametrize(
    ("runtime", "newest"), [("1.3.0", 1), ("1.4.0", 1), ("1.5.0", 4)], ids=["1.3.0", "1.4.0", "1.5.0"]
)
def test_the_combinations_that_were_reported_to_fail_are_refused(runtime: str, newest: int) -> None:
    """`6, 1` and `6, 4`, then `Invalid RKNN model version 6`."""
    with pytest.raises(Unsupported) as caught:
        check_model(model(version="2.3.0"), board("rk3588"), runtime)
    assert caught.value.problem == (
        f"m.rknn has format 6 (rknn-toolkit2 2.3.0); librknnrt {runtime} reads formats up to {newest}"
    )
    assert "put librknnrt 2.3.0 from" in caught.value.fix
    assert f"compile the model with rknn-toolkit2 {runtime}" in caught.value.fix
    assert check_model(model(format_version=newest, version=runtime), board("rk3588"), runtime) == ()


@pytest.mark.parametrize("runtime", ["1.5.2", "1.6.0", "2.0.0b0", "2.3.2", "3.0.0"])
def test_runtimes_that_read_the_format_are_let_through(runtime: str) -> None:
    check_model(model(version="2.3.2"), board("rk3588"), runtime)


def test_a_newer_toolkit_is_remarked_since_most_such_models_run() -> None:
    (note,) = check_model(model(version="2.3.0"), board("rk3588"), "2.0.0b0")
    assert note == (
        "m.rknn was compiled with rknn-toolkit2 2.3.0, librknnrt is 2.0.0b0: if it says "
        '"Unsupport CPU op", install librknnrt 2.3.0'
    )


@pytest.mark.parametrize("version", ["2.3.2", "2.0.0", "1.6.0", None])
def test_an_older_toolkit_is_not(version: str | None) -> None:
    assert check_model(model(version=version), board("rk3588"), "2.3.2") == ()


@pytest.mark.parametrize("library", [None, "", "unknown"])
def test_an_unknown_runtime_is_not_judged(library: str | None) -> None:
    assert check_model(model(), board("rk3588"), library) == ()


@pytest.mark.parametrize("library", [None, "2.3.2"])
def test_custom_operators_are_remarked(library: str | None) -> None:
    (note,) = check_model(model(custom_ops=True), board("rk3588"), library)
    assert "custom operators" in note


# --- the program -----------------------------------------------------------------------------------------------------


def compare(
    inputs: Mapping[str, tuple[Dim, ...] | None] | list[TensorSpec], *tensors: ModelTensor, **more: Any
) -> frozenset[str]:
    specs = inputs if isinstance(inputs, list) else [spec(name, shape) for name, shape in inputs.items()]
    return check_signature(model(tensors, **more), specs, [spec("y", (1, 2))])


def different(*args: Any, **more: Any) -> Unsupported:
    with pytest.raises(Unsupported) as caught:
        compare(*args, **more)
    assert caught.value.problem.startswith("m.rknn")
    return caught.value


def test_real_files_fit_the_programs_they_were_compiled_from() -> None:
    check_signature(
        read_model_file(DATA / "pair.rk3576.rknn"),
        [spec("mask", (2, 64)), spec("x", ("batch", 32))],
        [spec("second", (2, None)), spec("y", (2, 16))],
    )
    check_signature(
        read_model_file(DATA / "tokens.rk3566.rknn"), [spec("ids", (1, 8), np.int64)], [spec("hidden", (1, 8, 16))]
    )
    check_signature(
        read_model_file(DATA / "sizes.rk3562.rknn"),
        [spec("image", (1, 3, 8, 12))],
        [spec("features", (1, 4, "h", "w"))],
    )


def test_the_order_does_not_matter_but_the_names_do() -> None:
    tensors = (tensor("a", 1), tensor("b", 2))
    assert compare({"b": (2,), "a": (1,)}, *tensors) == frozenset()
    assert "has the inputs a, b, the program a, c" in different({"a": (1,), "c": (2,)}, *tensors).problem
    assert "the program a" in different({"a": (1,)}, *tensors).problem
    assert "the program a, b, c" in different({"a": (1,), "b": (2,), "c": (3,)}, *tensors).problem


def test_a_missing_output_is_refused_and_a_surplus_one_is_not() -> None:
    one, two = spec("y", (1, 2)), spec("z", (1, 3))
    inputs = [spec("x", (1, 4))]
    assert check_signature(model(outputs=(tensor("z", 1, 3), tensor("y", 1, 2))), inputs, [one]) == frozenset()
    with pytest.raises(Unsupported, match="has the outputs y, the program y, z"):
        check_signature(model(), inputs, [one, two])


@pytest.mark.parametrize("shape", [(1, 4), (None, 4), ("batch", "width"), None])
def test_free_dimensions_fit(shape: tuple[Dim, ...] | None) -> None:
    assert compare({"x": shape}, tensor("x", 1, 4)) == frozenset()


@pytest.mark.parametrize("shape", [(2, 4), (4,), (1, 1, 4), (), (4, 1)])
def test_other_shapes_do_not(shape: tuple[Dim, ...]) -> None:
    error = different({"x": shape}, tensor("x", 1, 4))
    assert "input 'x' has shape [1, 4], the program's is [" in error.problem
    assert error.fix


def test_a_symbolic_dimension_has_one_size() -> None:
    error = different({"a": ("n", 2), "b": ("n", 3)}, tensor("a", 1, 2), tensor("b", 5, 3))
    assert "input 'b' has n = 5, 'a' has n = 1" in error.problem


def test_channels_last_against_channels_first_is_refused_by_name() -> None:
    error = different({"x": (1, 3, 224, 224)}, tensor("x", 1, 224, 224, 3))
    assert "channels last (NHWC), the program channels first" in error.fix


def test_a_layout_that_only_the_toolkit_knows_of_is_refused_too() -> None:
    """With three channels of 3 by 3 pixels the shape would not tell."""
    error = different({"x": (1, 3, 3, 3)}, tensor("x", 1, 3, 3, 3, layout="nhwc"))
    assert "is channels last (NHWC)" in error.problem
    assert compare({"x": (1, 3, 3)}, tensor("x", 1, 3, 3, layout="nhwc")) == frozenset()


def test_a_file_that_normalises_by_itself_is_refused() -> None:
    found = dataclasses.replace(read_model_file(DATA / "normalised.rk3562.rknn"), path=None)
    with pytest.raises(Unsupported) as caught:
        check_signature(found, [spec("image", (1, 3, 16, 24))], [spec("features", (1, 4, 16, 24))])
    assert "transformed inside the file (mean [127, 127, 127], std [128, 128, 128])" in caught.value.problem
    assert "without mean_values" in caught.value.fix


def test_any_shape_that_the_file_was_compiled_for_fits() -> None:
    several = tensor("x", 1, 8, shapes=((1, 8), (1, 4)))
    assert compare({"x": (1, 4)}, several) == frozenset()
    assert "[1, 8], the program's is [1, 5]" in different({"x": (1, 5)}, several).problem


def test_a_symbolic_dimension_of_a_file_with_several_shapes_is_left_to_the_call() -> None:
    several = tensor("a", 1, 2, shapes=((1, 2), (5, 2)))
    assert compare({"a": ("n", 2), "b": ("n", 3)}, several, tensor("b", 5, 3)) == frozenset()


def test_another_dtype_is_refused() -> None:
    error = different([spec("x", (1, 4), np.int64)], tensor("x", 1, 4))
    assert "input 'x' is float32, the program's is int64" in error.problem


def test_a_dtype_that_the_file_does_not_tell_is_not_judged() -> None:
    assert compare([spec("x", (1, 4), np.int64)], tensor("x", 1, 4, dtype_known=False)) == frozenset()


def test_float16_programs_are_to_be_converted_since_the_toolkit_made_float32_of_them() -> None:
    assert compare([spec("x", (1, 4), np.float16)], tensor("x", 1, 4)) == {"x"}


def test_equality_does_not_depend_on_the_place(tmp_path: Path) -> None:
    copy = shutil.copy(DATA / "image.rk3588.rknn", tmp_path / "other.rknn")
    assert read_model_file(Path(copy)) == read_model_file(DATA / "image.rk3588.rknn")
