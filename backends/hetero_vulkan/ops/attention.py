"""Attention without the matrix of scores: softmax(scale * Q K^T + mask) V, for all heads in one dispatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.addresses import can_address, gathers
from hetero_vulkan.ops.tensors import Tensor, rounded

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice
    from hetero_vulkan.physical import Physical

MOST_EACH = 64
"""Elements of a head that a lane has at most."""


@dataclass(frozen=True)
class AttentionTuning:
    """How it is computed.

    Attributes:
        rows: Queries of a workgroup.
        keys: That a lane scores at a time.
        addressed: K and V are read by their addresses, where the device can and they begin at multiples of 8 elements.
    """

    rows: int = 32
    keys: int = 2
    addressed: bool = False


def default_attention(physical: Physical) -> AttentionTuning:
    """What suits a device before anything was measured: what a GPU's lane holds has to fit in its registers."""
    return AttentionTuning(rows=32 if physical.software else 16, addressed=gathers(physical))


def attention(
    device: VulkanDevice,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    tuning: AttentionTuning | None = None,
) -> list[Dispatch]:
    """O = softmax(scale * Q K^T + mask) V.

    Args:
        device: The device.
        q: `[B, H, Q, D]`, f32 or f16, of any strides but the last, which is 1: heads may lie side by side in rows.
        k: `[B, G, K, D]` of the same kind, H a multiple of G (grouped queries).
        v: As `k`.
        o: As `q`.
        scale: None: 1 / sqrt(D).
        mask: f32, added to the scores; `[B, H, Q, K]`, or of 1 instead of any.
        causal: A query sees the keys up to its own place, counted from the last of both.
        tuning: None: the default.

    A query that sees no key at all gives NaN, as numpy's softmax does.

    Raises:
        OptionError: Shapes or kinds that do not fit.
        Unsupported: Strides that the shader does not take, or the device does not shuffle in subgroups.
    """
    tuning = tuning or default_attention(device.physical)
    physical = device.physical
    if not all(len(x.shape) == 4 for x in (q, k, v, o)):
        raise OptionError(f"Q {q.shape} K {k.shape} V {v.shape} O {o.shape}, expected 4 dimensions: [B, H, rows, D]")
    batch, heads, queries, size = q.shape
    groups, keys = k.shape[1], k.shape[2]
    if (
        k.shape != (batch, groups, keys, size)
        or v.shape != k.shape
        or o.shape != q.shape
        or not groups
        or heads % groups
        or not {q.kind} == {k.kind} == {v.kind} == {o.kind} <= {"f32", "f16"}
    ):
        raise OptionError(
            f"Q {q.kind} {q.shape}, K {k.kind} {k.shape}, V {v.kind} {v.shape}, O {o.kind} {o.shape}, expected "
            "[B, H, Q, D], [B, G, K, D] twice and Q's shape again, H a multiple of G, all f32 or all f16"
        )
    if mask is not None and mask.kind != "f32":
        raise OptionError(
            f"a mask of {mask.kind}, expected f32 that is added: 0, and minus infinity for what is hidden"
        )
    if not o.size:
        return []
    if not keys or not size:
        raise Unsupported(f"attention over {keys} keys of {size} elements")
    if physical.subgroup_operations & 16 == 0:
        raise Unsupported(f"{physical.name} does not shuffle in subgroups", fix="use products and softmax")
    lanes = physical.subgroup
    if any(x.steps[3] != 1 for x in (q, k, v, o)) and size > 1:
        raise Unsupported("elements of a head that do not lie in order", fix="copy the tensor first")
    half = q.kind == "f16"
    aligned = size % 4 == 0 and not any(x % 4 for t in (q, k, v, o) for x in (*t.steps[:3], t.offset))
    if half and any(x % 2 for x in (size, o.offset, *o.steps[:3])):
        raise Unsupported("heads of f16 that begin within a word", fix="use f32, or heads of an even size")
    unit = 4 if aligned else 2 if half else 1
    # Where each component is loaded by itself there are half as many of 64 bits.
    wide = (
        physical.software and physical.features["shaderInt64"] and not half and rounded(size, lanes) % (8 * lanes) == 0
    )
    wide = wide and size % 8 == 0 and not any(x % 8 for t in (q, k, v, o) for x in (*t.steps[:3], t.offset))
    unit = 8 if wide else unit
    addressed = wide and tuning.addressed and can_address(physical)
    name = "attention_address" if addressed else "attention_wide" if wide else "attention"
    each = rounded(rounded(size, lanes) // lanes, unit)
    if each > MOST_EACH:
        raise Unsupported(f"heads of {size} elements in subgroups of {lanes}", fix="use products and softmax")
    # What a lane holds of each row grows with EACH; the rest spills.
    rows = max(1, min(tuning.rows, 256 // each, 1 << (queries - 1).bit_length()))
    pipeline = device.pipeline(
        name,
        {
            "local_size_x": lanes,
            "ROWS": rows,
            "KEYS": tuning.keys,
            "EACH": each,
            "VECTOR": unit if unit >= 4 else 1,
            "HALF": half,
            "MASK": mask is not None,
            "CAUSAL": causal,
        },
        subgroup=lanes,
    )
    seen = None if mask is None else mask.broadcast((batch, heads, queries, keys))
    m_steps = (0, 0, 0, 0) if seen is None else seen.steps
    push: dict[str, int | float] = {
        "queries": queries,
        "keys": keys,
        "size": size,
        "heads": heads,
        "sharing": heads // groups,
        "scale": size**-0.5 if scale is None else scale,
        "behind": keys - queries,
        "m_offset": 0 if seen is None else seen.offset,
        "m_batch": m_steps[0],
        "m_head": m_steps[1],
        "m_row": m_steps[2],
        "m_column": m_steps[3],
    }
    for name, tensor in (("q", q), ("k", k), ("v", v), ("o", o)):
        push[f"{name}_offset"] = tensor.offset
        push |= {f"{name}_{axis}": step for axis, step in zip(("batch", "head", "row"), tensor.steps, strict=False)}
    buffers = [q.buffer, k.buffer, v.buffer, (mask or q).buffer, o.buffer]
    return [
        Dispatch(
            pipeline,
            buffers,
            (-(-queries // rows), batch * heads, 1),
            push,
            4.0 * batch * heads * queries * keys * size,
        )
    ]
