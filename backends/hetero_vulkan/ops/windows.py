"""Windows over images and signals: convolution and pooling. A signal is an image of height 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.gemm import ACTIVATIONS
from hetero_vulkan.ops.tensors import CODES, SIZES, Tensor, lanes, spread, whole_words, words

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice


@dataclass(frozen=True)
class Window:
    """How a window moves. In each pair the first is vertical.

    Attributes:
        strides: From one place to the next.
        dilations: From one element of the window to the next.
        pads: Elements around the input: top, left, bottom, right; ONNX's order.
    """

    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def places(self, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what comes out, rounded down."""
        top, left, bottom, right = self.pads
        whole = (size[0] + top + bottom, size[1] + left + right)
        found = [
            (whole[i] - self.dilations[i] * (kernel[i] - 1) - 1) // self.strides[i] + 1 if whole[i] else 0
            for i in range(2)
        ]
        return max(found[0], 0), max(found[1], 0)


def image(signal: Tensor) -> Tensor:
    """`[N, C, W]` seen as `[N, C, 1, W]`."""
    n, channels, width = signal.shape
    return signal.reshaped(n, channels, 1, width)


def conv(
    device: VulkanDevice,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    window: Window | None = None,
    *,
    groups: int = 1,
    bias: Tensor | None = None,
    activation: str = "",
) -> list[Dispatch]:
    """Y = activation(convolution of x with the weight + bias).

    Where channels lie last and there is one group, `gemm` over rows that overlap is faster.

    Args:
        device: The device.
        x: `[N, C, H, W]`, f32 or f16, in order.
        weight: `[M, C / groups, KH, KW]`, f32, f16 or i8, in order.
        y: `[N, M, H', W']`, f32; or f16, if H' * W' is even.
        window: Strides, dilations and pads.
        groups: Of channels; C of them is a depthwise convolution.
        bias: f32 `[M]`.
        activation: As in `gemm`.

    Raises:
        OptionError: Shapes or kinds that do not fit.
        Unsupported: They do not lie in order, or f16 planes share words.
    """
    window = window or Window()
    if any(len(t.shape) != 4 for t in (x, weight, y)) or activation not in ACTIVATIONS:
        raise OptionError(f"{x.shape} * {weight.shape} to {y.shape}, expected 4 dimensions", fix="see `image`")
    n, channels, height, width = x.shape
    out, group_in, kernel_y, kernel_x = weight.shape
    expected = (n, out, *window.places((height, width), (kernel_y, kernel_x)))
    if groups < 1 or channels != group_in * groups or out % groups or y.shape != expected:
        raise OptionError(
            f"{x.shape} * {weight.shape} in {groups} groups to {y.shape}, expected {channels} channels in groups, "
            f"and {expected}"
        )
    if bias is not None and (bias.shape != (out,) or bias.kind != "f32" or not bias.contiguous):
        raise OptionError(f"a bias of {bias.kind} {bias.shape}, expected f32 {(out,)} in order")
    if not y.size:
        return []
    if not x.contiguous or not weight.contiguous:
        raise Unsupported("a convolution of tensors that do not lie in order", fix="copy them first")
    whole_words(y, "a convolution")
    points, each = y.shape[2] * y.shape[3], 4 // SIZES[y.kind]
    if points % each:
        raise Unsupported(f"a convolution to f16 of {y.shape}, whose planes share words", fix="use f32")
    group_out = out // groups
    together = min(4, group_out)
    local = lanes(device)
    pipeline = device.pipeline(
        "conv",
        {
            "local_size_x": local,
            "CHANNELS": together,
            "POINTS": each,
            "FROM": CODES[x.kind],
            "WEIGHTS": CODES[weight.kind],
            "TO": CODES[y.kind],
            "ACTIVATION": ACTIVATIONS[activation],
            "BIAS": bias is not None,
        },
    )
    count = n * groups * -(-group_out // together) * (points // each)
    push = {
        "count": count,
        "in_channels": channels,
        "out_channels": out,
        "group_in": group_in,
        "group_out": group_out,
        "kernel_y": kernel_y,
        "kernel_x": kernel_x,
        **_sizes(x, y, window),
        "x_offset": x.offset,
        "w_offset": weight.offset,
        "bias_offset": bias.offset if bias else 0,
        "y_offset": y.offset,
    }
    buffers = [x.buffer, weight.buffer, (bias or x).buffer, y.buffer]
    cost = 2.0 * y.size * group_in * kernel_y * kernel_x
    return [Dispatch(pipeline, buffers, spread(device, count, local), push, cost)]


def pool(
    device: VulkanDevice,
    how: Literal["max", "mean"],
    x: Tensor,
    y: Tensor,
    kernel: tuple[int, int],
    window: Window | None = None,
    *,
    count_padding: bool = False,
) -> list[Dispatch]:
    """The greatest or the mean of each window.

    Args:
        device: The device.
        how: Which. The greatest leaves padding out; so does the mean, unless `count_padding`.
        x: `[N, C, H, W]`, f32 or f16, in order.
        y: `[N, C, H', W']`, in order; one more place an axis than fits is allowed (ONNX's `ceil_mode`).
        kernel: Height and width.
        window: Strides, dilations and pads.
        count_padding: Padding counts as zeros.

    Raises:
        OptionError: Shapes that do not fit.
        Unsupported: They do not lie in order.
    """
    window = window or Window()
    if len(x.shape) != 4 or len(y.shape) != 4 or how not in ("max", "mean"):
        raise OptionError(f"{how} of {x.shape} to {y.shape}, expected 4 dimensions", fix="see `image`")
    places = window.places(x.shape[2:], kernel)
    fits = all(0 <= mine - theirs <= 1 for mine, theirs in zip(y.shape[2:], places, strict=True))
    if y.shape[:2] != x.shape[:2] or not fits:
        raise OptionError(f"{how} of {x.shape} to {y.shape}, expected {(*x.shape[:2], *places)}")
    if not y.size:
        return []
    if not x.contiguous:
        raise Unsupported("pooling of a tensor that does not lie in order", fix="copy it first")
    whole_words(y, "a pooled tensor")
    local = lanes(device)
    pipeline = device.pipeline(
        "pool",
        {
            "local_size_x": local,
            "MEAN": how == "mean",
            "COUNT_PADDING": count_padding,
            "FROM": CODES[x.kind],
            "TO": CODES[y.kind],
        },
    )
    push = {
        "count": y.size,
        "kernel_y": kernel[0],
        "kernel_x": kernel[1],
        **_sizes(x, y, window),
        "bottom": window.pads[2],
        "right": window.pads[3],
        "x_offset": x.offset,
        "y_offset": y.offset,
    }
    groups = spread(device, words(y.size, y.kind), local)
    return [Dispatch(pipeline, [x.buffer, y.buffer], groups, push, float(y.size) * kernel[0] * kernel[1])]


def _sizes(x: Tensor, y: Tensor, window: Window) -> dict[str, int]:
    return {
        "in_height": x.shape[2],
        "in_width": x.shape[3],
        "out_height": y.shape[2],
        "out_width": y.shape[3],
        "stride_y": window.strides[0],
        "stride_x": window.strides[1],
        "dilation_y": window.dilations[0],
        "dilation_x": window.dilations[1],
        "top": window.pads[0],
        "left": window.pads[1],
    }
