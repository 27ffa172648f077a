"""Convolutions."""

from collections.abc import Sequence

import jax
from jax import lax

from jaxsal.graph.laid import Laid, channel_last, from_channel_last, same_dtype


def convolution(
    x: Laid,
    kernel: Laid,
    bias: Laid | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Laid:
    """``[b, c, *space]`` with a kernel that is stored ``[*window, c / groups, c']``, also for transposed ones."""
    rank = x.ndim - 2
    stride, padding, dilation, output_padding = (
        tuple(v) * rank if len(v) == 1 else tuple(v) for v in (stride, padding, dilation, output_padding)
    )
    a, w = same_dtype(channel_last(x), kernel.array)
    pads = [(p, p) for p in padding]
    if transposed:
        reach = [d * (k - 1) for d, k in zip(dilation, w.shape, strict=False)]
        pads = [(r - p, r - p + extra) for r, p, extra in zip(reach, padding, output_padding, strict=True)]
    space = "DHW"[-rank:]
    out = lax.conv_general_dilated(
        a,
        w,
        window_strides=(1,) * rank if transposed else stride,
        padding=pads,
        lhs_dilation=stride if transposed else None,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=groups,
    )
    if bias is not None:
        out = out + bias.array.astype(out.dtype).reshape((1,) * (rank + 1) + (-1,))
    return from_channel_last(out)


def stored_kernel(kernel: jax.Array, transposed: bool, groups: int) -> jax.Array:
    """PyTorch's kernel as :func:`convolution` takes it.

    Args:
        kernel: ``[c', c / groups, *window]``; of a transposed convolution ``[c, c' / groups, *window]``.
        transposed: whether it is one; its kernel is mirrored here, once.
        groups: of channels.

    Returns:
        ``[*window, c / groups, c']``.
    """
    window = tuple(range(2, kernel.ndim))
    if not transposed:
        return kernel.transpose((*window, 1, 0))
    ins, outs, *sizes = kernel.shape
    split = kernel.reshape((groups, ins // groups, outs, *sizes))
    split = split[(slice(None),) * 3 + (slice(None, None, -1),) * len(sizes)]
    axes = (*(axis + 1 for axis in window), 1, 0, 2)
    return split.transpose(axes).reshape((*sizes, ins // groups, groups * outs))
