"""The options that say which cores a model runs on: every word on every SoC, and what the contexts then are."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.errors import OptionError
from hetero_rknn.placement import Slot, core_label, parse_core_mask, place
from hetero_rknn.platforms import PLATFORMS, Platform, platform_named

RK3588, RK3576, RK3566 = (platform for platform in PLATFORMS if platform.name in ("rk3588", "rk3576", "rk3566"))
WORDS = {"auto": (), "0": (0,), "1": (1,), "2": (2,), "0_1": (0, 1), "0_1_2": (0, 1, 2)}

platforms = st.sampled_from(PLATFORMS)


def fix_of(**options: Any) -> OptionError:
    platform = options.pop("platform", RK3588)
    with pytest.raises(OptionError) as caught:
        place(platform, **options)
    return caught.value


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spell", [str, str.upper, lambda word: word.replace("_", ","), lambda word: f" {word} "])
@pytest.mark.parametrize(("platform", "word"), list(product(PLATFORMS, WORDS)))
def test_a_word_gives_the_bits_of_its_cores_or_is_refused(platform: Platform, word: str, spell: Any) -> None:
    cores = WORDS[word]
    missing = [core for core in cores if core >= platform.cores]
    if missing:
        with pytest.raises(OptionError, match=f"{platform.title} has no NPU core {missing[0]}; it has core"):
            parse_core_mask(spell(word), platform)
    else:
        expected = sum(1 << core for core in cores) if platform.cores > 1 else 0
        assert parse_core_mask(spell(word), platform) == expected


@pytest.mark.parametrize(("platform", "mask"), [(RK3588, 7), (RK3576, 3), (RK3566, 0)])
def test_all_means_the_cores_that_are_there(platform: Platform, mask: int) -> None:
    assert parse_core_mask("all", platform) == mask
    assert parse_core_mask(0xFFFF, platform) == mask


@pytest.mark.parametrize("word", ["0_2", "1,2", "2_1_0", "0_0", "1_0"])
def test_a_group_that_the_runtime_has_no_mask_for_is_refused(word: str) -> None:
    with pytest.raises(OptionError, match="no mask for this group") as caught:
        parse_core_mask(word, RK3588)
    assert "0_1_2" in caught.value.fix


@pytest.mark.parametrize("value", ["", "npu", "0__1", "_0", "0;1", "-1", "0x7", "1.0", "²", None, 1.5, True, b"0", [0]])
def test_anything_else_is_refused_with_the_words_there_are(value: Any) -> None:
    with pytest.raises(OptionError, match="expected one of auto, 0, 1, 2, 0_1, 0_1_2, all"):
        parse_core_mask(value, RK3588)


@pytest.mark.parametrize(("number", "mask"), [(3, 3), (4, 4), (7, 7)])
def test_numbers_that_can_only_be_masks_are_taken_as_masks(number: int, mask: int) -> None:
    assert parse_core_mask(number, RK3588) == mask


@pytest.mark.parametrize(("number", "other"), [(0, "auto"), (1, "0"), (2, "1")])
def test_a_number_that_may_be_a_core_or_a_mask_is_asked_back(number: int, other: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_core_mask(number, RK3588)
    assert caught.value.fix == f'write "{number}" for core {number}, or "{other}" for the mask'


@pytest.mark.parametrize("number", [-1, 5, 6, 8, 255])
def test_masks_that_the_vendor_refuses_are_refused_first(number: int) -> None:
    with pytest.raises(OptionError, match="expected one of"):
        parse_core_mask(number, RK3588)


@pytest.mark.parametrize(("platform", "number"), [(RK3576, 4), (RK3576, 7), (RK3566, 3)])
def test_a_mask_is_not_bent_to_the_cores_there_are_as_the_vendor_does(platform: Platform, number: int) -> None:
    with pytest.raises(OptionError, match="has no NPU core"):
        parse_core_mask(number, platform)


@pytest.mark.parametrize("platform", [platform for platform in PLATFORMS if platform.cores == 1])
def test_on_one_core_no_word_ever_sets_a_mask(platform: Platform) -> None:
    for word in platform.masks:
        assert parse_core_mask(word, platform) == 0
    assert parse_core_mask(0, platform) == 0


# --- what follows from them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_without_options_every_core_has_one_context(platform: Platform) -> None:
    placement = place(platform)
    assert [slot.core for slot in placement.slots] == [f"core{core}" for core in range(platform.cores)]
    masks = [1 << core for core in range(platform.cores)] if platform.cores > 1 else [0]
    assert [slot.mask for slot in placement.slots] == masks
    assert placement.static_order is None


def test_the_text_says_what_was_decided() -> None:
    assert place(RK3588).text == (
        "data parallel over core0, core1, core2, the default; 1 context a core; a job goes to one that is free"
    )
    assert place(RK3566).text == "on core0; 1 context a core"
    assert place(RK3588, core_mask="auto").text == (
        "each job on a core that Rockchip's runtime chooses (core_mask); 1 context"
    )
    assert place(RK3588, tp_mode="0,1", threads_per_core=2).text == (
        "each job on core0+1 at once (tp_mode); 2 contexts; a job goes to one that is free"
    )
    assert place(RK3588, schedule=[0, 0, 1], order="static").text == (
        "data parallel over core0 (weight 2), core1 (weight 1); 1 context a core; jobs take turns"
    )


@pytest.mark.parametrize("schedule", ["0,1,2", " 0, 1 ,2", [0, 1, 2], (0, 1, 2), ["0", "1", "2"], range(3)])
def test_a_schedule_may_be_written_in_several_ways(schedule: Any) -> None:
    assert place(RK3588, schedule=schedule) == place(RK3588, schedule=(0, 1, 2))


@pytest.mark.parametrize("schedule", [1, "1", [1], [1, 1]])
def test_a_schedule_of_one_core_pins_to_it(schedule: Any) -> None:
    assert place(RK3588, schedule=schedule).slots == (Slot("core1", 2),)


@pytest.mark.parametrize("schedule", [[], (), "", ",", "0,", "x", [0.0], [None], True, [True], {0}, {0: 1}, b"\0", 1.0])
def test_a_schedule_that_is_none_is_refused(schedule: Any) -> None:
    assert "rknn.schedule" in fix_of(schedule=schedule).problem


def test_auto_is_no_schedule_but_is_said_how() -> None:
    assert 'core_mask="auto"' in fix_of(schedule="auto").fix


@pytest.mark.parametrize("schedule", [3, "0,3", [0, 1, -1], -1, [2, 7]])
def test_a_core_that_is_not_there_is_refused_with_those_that_are(schedule: Any) -> None:
    error = fix_of(schedule=schedule)
    if schedule == "0,3" or schedule == 3:
        assert "RK3588 has no NPU core 3; it has cores 0, 1 and 2" in error.problem
    assert "0-2" in error.fix or "-1" in error.problem


def test_one_core_is_named_as_one() -> None:
    assert "the RK3566 has no NPU core 1; it has core 0" in fix_of(platform=RK3566, schedule=[0, 1]).problem
    assert "the RK3576 has no NPU core 2; it has cores 0 and 1" in fix_of(platform=RK3576, core_mask="2").problem


@pytest.mark.parametrize("word", ["auto", "0", "0_1", "all"])
def test_core_mask_and_tp_mode_are_two_names_of_one_thing(word: str) -> None:
    by_mask, by_mode = place(RK3588, core_mask=word), place(RK3588, tp_mode=word)
    assert by_mask.slots == by_mode.slots == place(RK3588, core_mask=word, tp_mode=word).slots


def test_different_cores_by_two_names_contradict() -> None:
    assert "name different cores" in fix_of(core_mask="0", tp_mode="0,1").problem


@pytest.mark.parametrize("others", [{"tp_mode": "auto"}, {"tp_mode": "0,1"}, {"core_mask": "0"}, {"core_mask": "all"}])
def test_a_schedule_stands_alone(others: dict[str, str]) -> None:
    error = fix_of(schedule=[0, 1], **others)
    assert f"rknn.schedule and rknn.{next(iter(others))}" in error.problem
    assert "give one of them" in error.fix


def test_a_model_whose_default_is_auto_can_still_be_given_a_schedule() -> None:
    assert place(RK3588, schedule="0", core_mask="auto").slots == (Slot("core0", 1),)
    assert place(RK3588, tp_mode="0,1", core_mask="auto").slots == (Slot("core0+1", 3),)


def test_a_wrong_mask_beside_a_schedule_is_told_as_such() -> None:
    assert "no NPU core 2" in fix_of(platform=RK3576, schedule=[0], core_mask="2").problem


@pytest.mark.parametrize("threads", [0, -1, 33, 10**9])
def test_threads_have_limits(threads: int) -> None:
    assert "threads_per_core is" in fix_of(threads_per_core=threads).problem


@pytest.mark.parametrize("threads", [1.0, "2", True, None])
def test_threads_are_a_whole_number(threads: Any) -> None:
    assert "whole number" in fix_of(threads_per_core=threads).problem


def test_an_unknown_order_is_refused() -> None:
    assert "dynamic or static" in fix_of(order="random").problem


@pytest.mark.parametrize(("mask", "label"), [(0, "auto"), (1, "core0"), (4, "core2"), (3, "core0+1"), (7, "core0+1+2")])
def test_a_mask_has_a_name(mask: int, label: str) -> None:
    assert core_label(mask) == label


# --- properties ------------------------------------------------------------------------------------------------------


@st.composite
def scheduled(draw: st.DrawFn) -> tuple[Platform, list[int], int]:
    platform = draw(platforms)
    cores = draw(st.lists(st.integers(0, platform.cores - 1), min_size=1, max_size=12))
    return platform, cores, draw(st.integers(1, 4))


@given(scheduled())
def test_a_schedule_opens_the_same_number_of_contexts_on_each_core_it_names(
    case: tuple[Platform, list[int], int],
) -> None:
    platform, cores, threads = case
    placement = place(platform, schedule=cores, threads_per_core=threads)
    assert Counter(slot.core for slot in placement.slots) == {f"core{core}": threads for core in cores}
    assert len(placement.weights) == len(placement.slots)
    for slot, weight in zip(placement.slots, placement.weights, strict=True):
        assert weight == cores.count(int(slot.core.removeprefix("core")))


@given(scheduled())
def test_a_static_order_follows_the_schedule_and_uses_a_cores_threads_in_turn(
    case: tuple[Platform, list[int], int],
) -> None:
    platform, cores, threads = case
    placement = place(platform, schedule=cores, threads_per_core=threads, order="static")
    order = placement.static_order
    assert order is not None
    for job in range(3 * len(order)):
        assert placement.slots[order[job % len(order)]].core == f"core{cores[job % len(cores)]}"
    uses = Counter(order)
    assert set(uses) == set(range(len(placement.slots)))
    for slot, weight in enumerate(placement.weights):
        assert Fraction(uses[slot], len(order)) == Fraction(weight, len(cores) * threads)


@given(scheduled())
def test_neighbouring_slots_are_on_different_cores(case: tuple[Platform, list[int], int]) -> None:
    platform, cores, threads = case
    slots = place(platform, schedule=cores, threads_per_core=threads).slots
    first = slots[: len(set(cores))]
    assert {slot.core for slot in first} == {f"core{core}" for core in cores}


@given(
    platform=platforms,
    core_mask=st.none() | st.sampled_from([*WORDS, "all", "0,2"]) | st.integers(-1, 9),
    schedule=st.none() | st.lists(st.integers(-1, 3), max_size=4) | st.text("012,a", max_size=4),
    tp_mode=st.none() | st.sampled_from([*WORDS, "all"]),
    threads=st.integers(0, 3),
    order=st.sampled_from(["dynamic", "static", "x"]),
)
def test_whatever_is_asked_for_no_mask_leaves_the_platform(
    platform: Platform, core_mask: Any, schedule: Any, tp_mode: Any, threads: int, order: str
) -> None:
    try:
        placement = place(
            platform, core_mask=core_mask, schedule=schedule, tp_mode=tp_mode, threads_per_core=threads, order=order
        )
    except OptionError:
        return
    allowed = {0} if platform.cores == 1 else set(platform.masks.values())
    assert placement.slots
    assert all(slot.mask in allowed for slot in placement.slots)
    assert placement.text
    if placement.static_order is not None:
        assert set(placement.static_order) == set(range(len(placement.slots)))


def test_the_s_variant_is_placed_like_the_whole_chip() -> None:
    small = platform_named("rk3588s")
    assert small is not None
    assert place(small) == place(RK3588)
