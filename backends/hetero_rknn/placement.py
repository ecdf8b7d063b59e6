"""Which contexts of a model are opened on which NPU cores.

There are two ways to use several cores, and they exclude each other:

- **Data parallel** (`schedule`): every core has contexts of its own, and each job runs on one core.
- **One model over several cores** (`core_mask` or `tp_mode`): every context has a mask of several cores, and Rockchip's
  runtime splits each job.

Data parallel over all cores is the default, because published numbers favour it: three cores on one model bring 1.26
times the throughput of one, two one-core contexts already 1.78 times; and a mask of three cores was seen to load them
95, 15 and 15 %. A job alone may be faster with `core_mask="all"`: measure it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hetero.errors import OptionError
from hetero_rknn.platforms import Platform

Order = Literal["dynamic", "static"]

_ORDERS = ("dynamic", "static")
_MOST_THREADS = 32

# Numbers that can only be the vendor's masks: there is no core 3, 4 or 7. 0, 1 and 2 can be masks or cores.
_VENDOR_MASKS = {3: "0_1", 4: "2", 7: "0_1_2", 0xFFFF: "all"}


@dataclass(frozen=True)
class Slot:
    """One context and the thread that works with it.

    Attributes:
        core: What it runs on, for people and traces: `core0`, `core0+1`, or `auto` where the runtime chooses.
        mask: The vendor's core mask to open it with.
    """

    core: str
    mask: int


@dataclass(frozen=True)
class Placement:
    """The contexts of a model.

    Attributes:
        slots: One per thread. Neighbours are on different cores where there are several.
        weights: One per slot: the share of jobs it is meant for, relative to the others'.
        static_order: Indices into `slots`; job i goes to `static_order[i % len(static_order)]`, be it busy or not.
            None: each job goes to a slot that is free, and where several are, to the one furthest behind its share.
        text: All of this in one sentence, for `explain()`.
    """

    slots: tuple[Slot, ...]
    weights: tuple[int, ...]
    static_order: tuple[int, ...] | None
    text: str


def place(
    platform: Platform,
    *,
    core_mask: str | int | None = None,
    schedule: int | str | Sequence[int | str] | None = None,
    tp_mode: str | int | None = None,
    threads_per_core: int = 1,
    order: str = "dynamic",
) -> Placement:
    """Decide where a model's contexts go.

    Args:
        platform: The SoC.
        core_mask: `auto` (the runtime chooses), `0`, `1`, `2`, `0_1`, `0_1_2` (also written `0,1`) or `all`.
        schedule: Cores for data parallel work: `0`, `"0,1,2"`, or a list in which repeats are weights: with `[0, 0, 1]`
            core 0 is meant to do two thirds of the jobs.
        tp_mode: `core_mask` by the name that EZ RKNN Async gives it.
        threads_per_core: How many contexts a core (or a group of cores) has. A second one hides the time in which the
            CPU copies inputs and outputs; each may cost a copy of the weights.
        order: `dynamic` gives a job to a core that is free; `static` goes round the schedule.

    Raises:
        OptionError: A core that this SoC does not have, or options that contradict each other.
    """
    threads = _threads(threads_per_core)
    if order not in _ORDERS:
        raise OptionError(f"option rknn.order is {order!r}, expected dynamic or static")
    if schedule is not None:
        _check_alone(core_mask, tp_mode, platform)
        return _data_parallel(platform, _cores(schedule, platform), threads, order, "")
    mask, option = _one_mask(core_mask, tp_mode, platform)
    if mask is None:
        why = ", the default" if platform.cores > 1 else ""
        return _data_parallel(platform, tuple(range(platform.cores)), threads, order, why)
    return _one_model(platform, mask, threads, order, option)


def parse_core_mask(value: str | int, platform: Platform, option: str = "core_mask") -> int:
    """The vendor's core mask for a word of the vocabulary of `place`.

    Args:
        value: `auto`, `0`, `1`, `2`, `0_1`, `0_1_2`, `all`, with `,` in place of `_` if you like. A number where it can
            only be one of the vendor's masks: 3, 4, 7 and 0xffff; whether 0, 1 and 2 are masks or cores nobody can say.
        platform: The SoC.
        option: The option's name, for the error.

    Returns:
        0 for AUTO, else bits 1, 2 and 4 for cores 0, 1 and 2; `all` gives the bits of the cores that are there. Always
        0 on a SoC with one core, where no mask may be set.

    Raises:
        OptionError: No such word, a core that this SoC does not have, or a group that the runtime does not take.
    """
    masks = platform.masks
    choices = ", ".join(masks)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise OptionError(f"option rknn.{option} is {value!r}, expected one of {choices}")
    word = _word_of_number(value, platform, option) if isinstance(value, int) else _normal(value)
    if word in masks:
        return masks[word]
    numbers = word.split("_")
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise OptionError(f"option rknn.{option} is {value!r}, expected one of {choices}")
    cores = [int(number) for number in numbers]
    missing = [core for core in cores if core >= platform.cores]
    if missing:
        raise _no_such_core(option, value, missing[0], platform)
    raise OptionError(
        f"option rknn.{option} is {value!r}: Rockchip's runtime has no mask for this group of cores",
        fix=f"use one of {choices}; schedule={cores[0]} and the like choose single cores",
    )


def core_label(mask: int) -> str:
    """A vendor's mask for people: `core0`, `core0+1`, `auto` for 0."""
    cores = [str(core) for core in range(3) if mask >> core & 1]
    return "core" + "+".join(cores) if cores else "auto"


def _normal(text: str) -> str:
    return text.strip().lower().replace(",", "_").replace(" ", "")


def _word_of_number(value: int, platform: Platform, option: str) -> str:
    if value in _VENDOR_MASKS:
        return _VENDOR_MASKS[value]
    if value == 0 and platform.cores == 1:
        return "0"
    if 0 <= value <= 2:
        meant = "auto" if value == 0 else str(value - 1)
        raise OptionError(
            f"option rknn.{option} is the number {value}, which is core {value} to some and the vendor's mask for "
            f"{'any core' if value == 0 else f'core {meant}'} to others",
            fix=f'write "{value}" for core {value}, or "{meant}" for the mask',
        )
    raise OptionError(f"option rknn.{option} is {value!r}, expected one of {', '.join(platform.masks)}")


def _one_mask(
    core_mask: str | int | None, tp_mode: str | int | None, platform: Platform
) -> tuple[int | None, Literal["core_mask", "tp_mode"]]:
    """The mask that the user asked for, None for no wish, and the option that says so."""
    wanted = None if core_mask is None else parse_core_mask(core_mask, platform)
    if tp_mode is None:
        return wanted, "core_mask"
    split = parse_core_mask(tp_mode, platform, "tp_mode")
    if core_mask is not None and not _is_auto(core_mask) and wanted != split:
        raise OptionError(
            f"options rknn.core_mask={core_mask!r} and rknn.tp_mode={tp_mode!r} name different cores",
            fix="they mean the same thing: give one of them",
        )
    return split, "tp_mode"


def _check_alone(core_mask: str | int | None, tp_mode: str | int | None, platform: Platform) -> None:
    """That nothing but a schedule was asked for. `core_mask="auto"` says nothing: models bring it as a default."""
    for option, value in (("tp_mode", tp_mode), ("core_mask", None if _is_auto(core_mask) else core_mask)):
        if value is None:
            continue
        parse_core_mask(value, platform, option)
        raise OptionError(
            f"options rknn.schedule and rknn.{option} were both given: a schedule runs each job on one core, "
            f"{option} each job on the cores it names",
            fix=f"give one of them: schedule for throughput, {option} for the time of a single job",
        )


def _is_auto(core_mask: str | int | None) -> bool:
    return isinstance(core_mask, str) and _normal(core_mask) == "auto"


def _cores(schedule: Any, platform: Platform) -> tuple[int, ...]:
    """The schedule as core numbers, each checked."""
    parts: Sequence[Any]
    if isinstance(schedule, str):
        parts = schedule.split(",")
    elif isinstance(schedule, Sequence) and not isinstance(schedule, bytes):
        parts = schedule
    else:
        parts = [schedule]
    cores = tuple(_core(part, schedule, platform) for part in parts)
    if not cores:
        raise OptionError("option rknn.schedule is empty", fix=f"name cores; the {platform.title} has {_has(platform)}")
    return cores


def _core(part: Any, schedule: Any, platform: Platform) -> int:
    text = part.strip() if isinstance(part, str) else part
    if isinstance(text, str) and text.isascii() and text.isdigit():
        text = int(text)
    if isinstance(text, bool) or not isinstance(text, int):
        raise OptionError(
            f'option rknn.schedule is {schedule!r}, expected core numbers: 0, "0,1,2" or [0, 0, 1]',
            fix='to let the runtime choose the core, use core_mask="auto"' if text == "auto" else "",
        )
    if not 0 <= text < platform.cores:
        raise _no_such_core("schedule", schedule, text, platform)
    return text


def _no_such_core(option: str, value: Any, core: int, platform: Platform) -> OptionError:
    return OptionError(
        f"option rknn.{option} is {value!r}, but the {platform.title} has no NPU core {core}; it has {_has(platform)}",
        fix=f"use one of {', '.join(platform.masks)}"
        if option != "schedule"
        else f"name cores of 0-{platform.cores - 1}",
    )


def _has(platform: Platform) -> str:
    return platform.core_text().removeprefix("NPU ")


def _threads(threads_per_core: Any) -> int:
    if isinstance(threads_per_core, bool) or not isinstance(threads_per_core, int):
        raise OptionError(f"option rknn.threads_per_core is {threads_per_core!r}, expected a whole number of 1 or more")
    if not 1 <= threads_per_core <= _MOST_THREADS:
        raise OptionError(
            f"option rknn.threads_per_core is {threads_per_core}, expected 1 to {_MOST_THREADS}",
            fix="a core works on one job at a time: 1, or 2 or 3 to overlap copying with computing",
        )
    return threads_per_core


def _data_parallel(platform: Platform, cores: tuple[int, ...], threads: int, order: str, why: str) -> Placement:
    """Contexts of their own for each core of a schedule."""
    shares = Counter(cores)
    distinct = sorted(shares)
    masks = platform.masks
    slots = tuple(Slot(f"core{core}", masks[str(core)]) for _ in range(threads) for core in distinct)
    weights = tuple(shares[core] for _ in range(threads) for core in distinct)
    static = _round(cores, distinct, threads) if order == "static" else None
    listed = ", ".join(
        f"core{core}" + (f" (weight {shares[core]})" if len(set(shares.values())) > 1 else "") for core in distinct
    )
    kind = "data parallel over" if len(distinct) > 1 else "on"
    text = f"{kind} {listed}{why}; {_contexts(threads)} a core"
    if len(slots) > 1:
        text += f"; {_order_text(static)}"
    return Placement(slots, weights, static, text)


def _round(cores: tuple[int, ...], distinct: list[int], threads: int) -> tuple[int, ...]:
    """The slots in the order of the schedule, the threads of a core in turn, until it begins anew."""
    used: Counter[int] = Counter()
    order = []
    for core in cores * threads:
        order.append(used[core] % threads * len(distinct) + distinct.index(core))
        used[core] += 1
    return tuple(order)


def _one_model(platform: Platform, mask: int, threads: int, order: str, option: str) -> Placement:
    """Contexts that all have one mask."""
    core = core_label(mask) if platform.cores > 1 else "core0"
    static = tuple(range(threads)) if order == "static" else None
    where = "on a core that Rockchip's runtime chooses" if core == "auto" else f"on {core}"
    if "+" in core:
        where += " at once"
    text = f"each job {where} ({option}); {_contexts(threads)}"
    if threads > 1:
        text += f"; {_order_text(static)}"
    return Placement((Slot(core, mask),) * threads, (1,) * threads, static, text)


def _contexts(threads: int) -> str:
    return f"{threads} context{'s' if threads > 1 else ''}"


def _order_text(static: tuple[int, ...] | None) -> str:
    return "jobs take turns" if static is not None else "a job goes to one that is free"
