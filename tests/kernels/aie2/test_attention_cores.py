"""The attention kernels' C++, compiled for this machine, against their references: equal in every bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hetero.errors import OptionError
from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.aie2 import catalogue, checks
from hetero_kernels.aie2.host import HostKernel, build
from hetero_kernels.aie2.packing import pack
from hetero_kernels.attention_i8_exact.aie2.design import KEYS, QUERIES, STATE, design
from tests.kernels.aie2.blocks import blocked, unblocked

T = 256
SPREADS = [0.6, 4, 20, 60, 200]
HEAT = [0, 1, 2**12, 2**20, 2**23, 2**27, 2**31 - 1, -7]


def drawn(rng: np.random.Generator, spread: float, *shape: int) -> Array:
    return np.clip(np.rint(rng.normal(0, spread, shape)), -128, 127).astype(np.int8)


@pytest.fixture(scope="module")
def online(libraries: Path, compiler_name: str) -> dict[str, HostKernel]:
    return {f.name.rsplit("_", 1)[1]: build(f, compiler_name, libraries) for f in design(T).functions}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("heat", HEAT)
def test_a_tile_is_the_references(libraries: Path, compiler_name: str, spread: float, heat: int) -> None:
    rng = np.random.default_rng([int(spread * 10), heat % 2**32])
    q, k, v = drawn(rng, spread, 3, 64, 64)
    packet = np.concatenate([*(part.reshape(-1) for part in (q, k, v)), np.array([heat], np.int32).view(np.int8)])
    out = np.empty(4096, np.int8)
    build(catalogue.design("attention_i8_64x64_v2").function, compiler_name, libraries)(packet, out)
    expected = get("attention_i8_64x64_v2")(q[None], k[None], v[None], np.array([[heat]], np.int32))["o"][0]
    np.testing.assert_array_equal(unblocked(out, 64, 64), expected)


def attended(
    online: dict[str, HostKernel], q: Array, k: Array, v: Array, heat: Array, keys: int, tile_at: int
) -> Array:
    """One packet of 64 queries against all blocks of keys, as a core does it."""
    made = design(T, columns=1, rows=1)
    parts = {"q": q, "k": k, "v": v, "temperature": heat, "keys": np.array([keys], np.int32)}
    queries, pairs, _ = pack(made, {name: part[np.newaxis] for name, part in parts.items()})
    packet = blocked(queries.view(np.int8).reshape(made.packets, QUERIES // 64, 64)[tile_at])
    state = np.full(STATE, 0x55555555, np.int32)
    online["begin"](state)
    for pair in pairs.view(np.int8).reshape(made.packets, KEYS // 64, 64):
        online["block"](packet, blocked(pair), state)
    out = np.empty(4096, np.int16)
    online["end"](state, out)
    return out.reshape(64, 64)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("keys", [0, 1, 31, 32, 33, 63, 64, 65, 96, 200, T])
def test_attention_to_all_keys_is_the_references(online: dict[str, HostKernel], spread: float, keys: int) -> None:
    rng = np.random.default_rng([int(spread * 10), keys])
    q, k, v = drawn(rng, spread, 3, T, 64)
    # From far too cold to far too hot for the scores' spread.
    heat = (2.0 ** rng.uniform(8, 31, T)).astype(np.int32)
    expected = get(f"attention_i8_exact_{T}")(q[None], k[None], v[None], heat[None], np.array([[keys]], np.int32))["o"][
        0
    ]
    for tile_at in (0, 3):
        got = attended(online, q, k, v, heat, keys, tile_at)
        np.testing.assert_array_equal(got, expected[64 * tile_at : 64 * tile_at + 64])


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize("heat", HEAT)
def test_a_maximum_that_rises_with_every_block_is_the_references(
    online: dict[str, HostKernel], rising: bool, heat: int
) -> None:
    ramp = np.linspace(-128, 127, T)[:: 1 if rising else -1]
    k = np.repeat(np.rint(ramp).astype(np.int8)[:, np.newaxis], 64, axis=1)
    rng = np.random.default_rng(heat % 2**32)
    q, v = np.full((T, 64), 127, np.int8), drawn(rng, 60, T, 64)
    q[::3] = -128
    heats = np.full(T, heat, np.int32)
    expected = get(f"attention_i8_exact_{T}")(q[None], k[None], v[None], heats[None], np.array([[T]], np.int32))["o"][0]
    np.testing.assert_array_equal(attended(online, q, k, v, heats, T, 1), expected[64:128])


@pytest.mark.parametrize(("columns", "rows", "rounds"), [(1, 1, 1), (2, 4, 1), (4, 2, 2), (3, 4, 1)])
def test_the_design_fits_and_attends_with_every_head(libraries: Path, columns: int, rows: int, rounds: int) -> None:
    made = design(T, columns=columns, rows=rows, rounds=rounds)
    checks.fits(made)
    assert checks.design_runs(made, cache=libraries, seed=columns).calls > made.blocks * (made.packets + 1)


def test_rows_that_cannot_share_the_packets_are_refused() -> None:
    with pytest.raises(OptionError, match="4 rows cannot share 6 packets") as caught:
        design(384, rows=4)
    assert caught.value.fix == "take 3 rows"
    assert (design(1536).rows, design(384).rows, design(64).rows) == (4, 3, 1)
