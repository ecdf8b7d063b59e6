"""What the toolkit says when something goes wrong reaches people, and its noise does not."""

from __future__ import annotations

import pytest

from hetero_rknn.toolkit.layers import worst_layers
from hetero_rknn.toolkit.words import error_lines, left_to_custom_ops, reason
from tests.rknn.toolkit.stand_in.rknn.api import TABLE

# As rknn-toolkit2 2.5.0 raised and printed them.
RAISED = """ValueError: Traceback (most recent call last):
  File "rknn/api/rknn_log.py", line 344, in rknn.api.rknn_log.error_catch_decorator.error_catch_wrapper
  File "rknn/api/rknn_base.py", line 1655, in rknn.api.rknn_base.RKNNBase.load_onnx
  File "rknn/api/rknn_log.py", line 95, in rknn.api.rknn_log.RKNNLog.e
ValueError: The input shape ['batch', 'n'] of 'x' is not support!
                              Please set the 'inputs' / 'input_size_list' parameters of 'rknn.load_onnx'!
"""
PRINTED = (
    "\x1b[1;33mW\x1b[0m \x1b[1;33mload_onnx: The config.mean_values is None, zeros will be set for input 0!\x1b[0m\n"
    "E RKNN: [07:52:57.507] Unkown op target: 0\n"
    "\x1b[1;31mE\x1b[0m \x1b[1;31minference: Unsupport inputs[0].dtype: float64\x1b[0m\n"
    "I ===================== WARN(0) =====================\n"
)


def test_a_traceback_in_a_message_is_reduced_to_what_its_last_line_says() -> None:
    assert reason(RAISED, "") == (
        "The input shape ['batch', 'n'] of 'x' is not support! "
        "Please set the 'inputs' / 'input_size_list' parameters of 'rknn.load_onnx'!"
    )


def test_another_exception_in_a_traceback_keeps_its_type() -> None:
    assert reason(RAISED.replace("ValueError: The input", "IndexError: The input"), "").startswith("IndexError: The")


def test_a_plain_exception_is_told_with_its_type() -> None:
    told = reason("RuntimeError: Unable to handle object of type float32", PRINTED)
    assert told == "RuntimeError: Unable to handle object of type float32"


def test_a_bare_return_code_is_explained_by_the_last_error_that_was_printed() -> None:
    assert reason("inference gave nothing", PRINTED) == (
        "inference: Unsupport inputs[0].dtype: float64 (inference gave nothing)"
    )


def test_a_bare_return_code_without_a_word_says_so() -> None:
    assert reason("build gave -1", "I rknn building ...\n") == "build gave -1, and it did not say why"


def test_what_is_printed_of_every_good_build_is_no_error() -> None:
    assert error_lines("E RKNN: [07:52:57.507] Unkown op target: 0\nI fine\nEverything\n") == []


def test_a_very_long_message_is_cut() -> None:
    assert len(reason("ValueError: " + "x" * 5000, "")) == 600


def test_operators_that_are_left_to_the_user_are_found_once_each() -> None:
    line = "No lowering found for: y, node type = Det, use CustomOperatorLower instead.\n"
    assert left_to_custom_ops(line * 2 + "other\n") == [("y", "Det")]


def test_layers_are_ordered_by_what_each_loses_itself() -> None:
    worst = worst_layers(TABLE)
    assert [loss.layer for loss in worst] == ["[Conv] h_mm", "[Add] y-rs", "[exDataConvert] x_int8"]
    assert (worst[0].own, worst[0].so_far) == (0.91075, 0.90075)


@pytest.mark.parametrize("table", ["", "something else altogether\n"])
def test_a_table_that_cannot_be_read_names_no_layer(table: str) -> None:
    assert worst_layers(table) == ()


def test_a_layer_that_overflowed_is_the_worst() -> None:
    worst = worst_layers("[Mul] big    nan | inf   nan | inf\n[Add] y    0.5 | 1.0   0.5 | 1.0\n")
    assert [loss.layer for loss in worst] == ["[Mul] big", "[Add] y"]
