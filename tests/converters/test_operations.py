"""Every rule of ATen's operations against PyTorch, on small arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of its own operations")
from torch import nn
from torch.nn import functional as F

from jaxsal.converters import from_torch
from jaxsal.converters.checking import _forward
from jaxsal.graph.aten import pooling, resizing
from jaxsal.graph.laid import Laid, channel_last_order

PLANE = (2, 7, 6, 4)  # b, *space, c
VOLUME = (2, 5, 6, 4, 2)
LINE = (2, 9, 4)


class Applied(nn.Module):
    """A function between two linear maps, so that there is something to export around it."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x)


def seeded(make):
    torch.manual_seed(0)
    module = make()
    for name, value in module.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2.0)
        elif value.is_floating_point() and value.ndim == 1:
            value.normal_()
    return module.eval()


LAYERS = {
    "conv1d": (LINE, lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1)),
    "conv2d": (PLANE, lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))),
    "conv2d groups": (PLANE, lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False)),
    "conv2d depthwise": (PLANE, lambda: nn.Conv2d(4, 8, 3, groups=4, padding="same")),
    "conv2d same, even": (PLANE, lambda: nn.Conv2d(4, 3, 4, padding="same")),
    "conv2d reflect": (PLANE, lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect")),
    "conv2d circular": (PLANE, lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular")),
    "conv3d": (VOLUME, lambda: nn.Conv3d(2, 3, 3, stride=2, padding=1, dilation=2)),
    "conv transposed 2d": (
        PLANE,
        lambda: nn.ConvTranspose2d(4, 6, (3, 4), stride=(2, 3), padding=1, output_padding=1, dilation=(2, 1)),
    ),
    "conv transposed groups": (PLANE, lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)),
    "conv transposed 3d": (VOLUME, lambda: nn.ConvTranspose3d(2, 3, 2, stride=2)),
    "batch norm 2d": (PLANE, lambda: nn.BatchNorm2d(4, eps=1e-3)),
    "batch norm without weights": (VOLUME, lambda: nn.BatchNorm3d(2, affine=False)),
    "group norm": (PLANE, lambda: nn.GroupNorm(2, 4)),
    "instance norm": (VOLUME, lambda: nn.InstanceNorm3d(2, affine=True)),
    "instance norm, bare": (PLANE, lambda: nn.InstanceNorm2d(4)),
    "instance norm, tracked": (PLANE, lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
    "layer norm over two": (PLANE, lambda: nn.LayerNorm((7, 6))),
    "prelu": (PLANE, lambda: nn.PReLU(4)),
    "prelu, one": (PLANE, lambda: nn.PReLU()),
    "linear on pixels": (PLANE, lambda: nn.Linear(6, 5)),
    "max pool 2d": (PLANE, lambda: nn.MaxPool2d(3, stride=2, padding=1)),
    "max pool ceil": (PLANE, lambda: nn.MaxPool2d((2, 4), stride=(2, 3), ceil_mode=True)),
    "max pool ceil, padded": (PLANE, lambda: nn.MaxPool2d(2, stride=3, padding=1, ceil_mode=True)),
    "max pool dilated 3d": (VOLUME, lambda: nn.MaxPool3d(2, stride=1, dilation=2)),
    "max pool 1d": (LINE, lambda: nn.MaxPool1d(3, 2)),
    "avg pool": (PLANE, lambda: nn.AvgPool2d(3, stride=2, padding=1)),
    "avg pool, image only": (PLANE, lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)),
    "avg pool ceil": (PLANE, lambda: nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True)),
    "avg pool divisor": (VOLUME, lambda: nn.AvgPool3d(2, divisor_override=3)),
    "avg pool 1d": (LINE, lambda: nn.AvgPool1d(2)),
    "adaptive avg to 1": (VOLUME, lambda: nn.AdaptiveAvgPool3d(1)),
    "adaptive avg, even": (PLANE, lambda: nn.AdaptiveAvgPool2d((7, 3))),
    "adaptive avg, uneven": (PLANE, lambda: nn.AdaptiveAvgPool2d((3, 4))),
    "adaptive avg, kept axis": (PLANE, lambda: nn.AdaptiveAvgPool2d((None, 2))),
    "adaptive max": (PLANE, lambda: nn.AdaptiveMaxPool2d((3, 4))),
    "upsample nearest": (PLANE, lambda: nn.Upsample(scale_factor=2)),
    "upsample nearest, size": (PLANE, lambda: nn.Upsample(size=(10, 9))),
    "upsample nearest 3d": (VOLUME, lambda: nn.Upsample(scale_factor=2)),
    "upsample bilinear": (PLANE, lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "upsample bilinear, corners": (PLANE, lambda: nn.Upsample(size=(13, 9), mode="bilinear", align_corners=True)),
    "upsample bilinear, smaller": (PLANE, lambda: nn.Upsample(size=(4, 3), mode="bilinear")),
    "upsample bilinear, factor": (PLANE, lambda: nn.Upsample(scale_factor=1.7, mode="bilinear")),
    "upsample trilinear": (VOLUME, lambda: nn.Upsample(scale_factor=2, mode="trilinear")),
    "upsample linear": (LINE, lambda: nn.Upsample(scale_factor=3, mode="linear")),
    "reflection pad": (PLANE, lambda: nn.ReflectionPad2d((1, 2, 3, 0))),
    "replication pad": (VOLUME, lambda: nn.ReplicationPad3d((1, 2, 0, 1, 2, 2))),
    "constant pad": (PLANE, lambda: nn.ConstantPad2d((1, -1, 2, 0), 0.7)),
    "pixel shuffle": (PLANE, lambda: nn.PixelShuffle(2)),
    "flatten": (VOLUME, lambda: nn.Sequential(nn.Flatten(), nn.Linear(240, 3))),
    "dropout": (PLANE, lambda: nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5), nn.ReLU())),
    "attention": (PLANE, lambda: Applied(lambda x: F.scaled_dot_product_attention(x, 2 * x, x + 1))),
    "attention, causal": (PLANE, lambda: Applied(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True))),
    "attention, shared keys": (
        PLANE,
        lambda: Applied(lambda x: F.scaled_dot_product_attention(x, 2 * x[:, :2], x[:, 1:3], enable_gqa=True)),
    ),
}

ACTIVATIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": lambda x: F.elu(x, 0.7),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.7),
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "log sigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.7),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softplus": lambda x: F.softplus(x, beta=2.0),
    "softplus, threshold": lambda x: F.softplus(x, beta=0.5, threshold=0.3),
    "softsign": F.softsign,
    "softmax": lambda x: F.softmax(x, 1),
    "log softmax": lambda x: F.log_softmax(x, -1),
    "glu": lambda x: F.glu(x, 1),
    "clamp": lambda x: x.clamp(-0.3, 0.4),
    "clamp min": lambda x: x.clamp(min=0.1),
}

FUNCTIONS = {
    "add, alpha": lambda x: torch.add(x, x * x, alpha=0.3) - 2,
    "rsub": lambda x: 1 - x,
    "channel gate": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "bias of channels": lambda x: x + torch.arange(4.0).reshape(4, 1, 1),
    "div": lambda x: x / (1 + x.abs()) + 1 / (x * x + 1),
    "pow": lambda x: x**2 + (x.abs() + 1) ** 0.5 + (x * x + 1) ** -1,
    "sqrt and exp": lambda x: torch.sqrt(x.exp()) + torch.log(x * x + 1) + torch.rsqrt(x * x + 1),
    "maximum": lambda x: torch.maximum(x, -0.5 * x) + torch.minimum(x, x * x),
    "where": lambda x: torch.where(x > 0.2, x, -x) + torch.where(x.mean((2, 3), keepdim=True) > 0, x, 0 * x),
    "masked fill": lambda x: x.masked_fill(x < 0, 0.3),
    "mean": lambda x: x.mean((2, 3)),
    "mean over one, kept": lambda x: x.mean(1, keepdim=True),
    "sum and amax": lambda x: x.sum((-1, -2)) + x.amax((2, 3)) - x.amin((2, 3)),
    "max over an axis": lambda x: x.max(1)[0] + x.min(dim=1).values,
    "var and std": lambda x: x.var((2, 3)) + x.std((2, 3), correction=0),
    "std, a part of one": lambda x: x.std((2, 3), correction=0.5) + x.var((2, 3), unbiased=False),
    "std, biased": lambda x: x.std((2, 3), unbiased=False) + x.std((2, 3), unbiased=True),
    "std, kept": lambda x: x / x.std(1, False, True),
    "std of channels": lambda x: x.std(1) + x.flatten(1).std(-1, keepdim=True)[:, :, None],
    "mean in another dtype": lambda x: x.mean((2, 3), dtype=torch.float64).float(),
    "softmax in another dtype": lambda x: F.softmax(x.half(), 1, dtype=torch.float32),
    "norm": lambda x: F.normalize(x, dim=1),
    "norms": lambda x: sum(torch.linalg.vector_norm(x, p, dim=(2, 3)) for p in (0, 1, 3, float("inf"), -float("inf"))),
    "logsumexp": lambda x: x.logsumexp((2, 3)),
    "cat": lambda x: torch.cat([x, x.relu(), x.permute(0, 1, 2, 3)], 1),
    "stack and unbind": lambda x: torch.stack(x.unbind(1), 2)[:, :, 1],
    "split": lambda x: torch.cat(list(x.split(3, 1))[::-1] + list(x.chunk(2, 1)), 1),
    "view over channels": lambda x: x.reshape(x.shape[0], 2, 2, 7, 6).transpose(1, 2).reshape(-1, 4, 7, 6),
    "view": lambda x: x.view(x.size(0), -1),
    "permute, norm, back": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    "transpose": lambda x: x.transpose(2, 3).relu(),
    "squeeze": lambda x: x.mean(2, keepdim=True).squeeze(2).unsqueeze(-1).unsqueeze(1)[:, 0],
    "expand": lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 7, 6) + x,
    "select and slice": lambda x: x[:, :, 1:6:2, 1:] * x[:, 2:3, 0:1, :-1],
    "index from behind": lambda x: x[:, -1] + x[..., -2:].sum(-1)[:, 0, :, None],
    "flip and roll": lambda x: x.flip(2) + torch.roll(x, (1, -2), (2, 3)),
    "roll over one": lambda x: torch.roll(x, 2, 1),
    "roll in a row": lambda x: x * torch.roll(torch.arange(168.0).reshape(4, 7, 6), 9),
    "pad": lambda x: F.pad(x, (1, 1), value=2.0),
    "matmul": lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    "bmm": lambda x: torch.bmm(x[:, 0], x[:, 1].transpose(1, 2)),
    "constants": lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1) + torch.ones_like(x),
    "cast": lambda x: x.double().float() + (x > 0).float(),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "interpolate to half": lambda x: F.interpolate(x, scale_factor=0.5),
    "interpolate, no whole factor": lambda x: F.interpolate(x, size=(67, 41)),
    "interpolate exact": lambda x: F.interpolate(x, size=(9, 4), mode="nearest-exact"),
}

CASES = {
    **LAYERS,
    **{name: (PLANE, lambda fn=fn: Applied(fn)) for name, fn in (ACTIVATIONS | FUNCTIONS).items()},
}
# exporting takes a second: many operations at once, each still told from the others
SHAPES = {"planes": PLANE, "volumes": VOLUME, "lines": LINE}


class Together(nn.Module):
    """Modules side by side, what they give flattened and joined."""

    def __init__(self, modules):
        super().__init__()
        self.each = nn.ModuleList(modules)

    def forward(self, x):
        return torch.cat([module(x).flatten(1) for module in self.each], 1)


def in_torch(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()


@pytest.mark.parametrize("kind", SHAPES)
def test_the_same_as_in_torch(kind):
    cases = {name: seeded(make) for name, (shape, make) in CASES.items() if shape == SHAPES[kind]}
    x = np.random.default_rng(1).standard_normal(SHAPES[kind]).astype(np.float32)
    model = from_torch(Together(cases.values()).eval(), x, tolerance=1e-5).model
    # as the check compiled it; and by itself, of one image: another number than it was exported with
    found, one, start = np.asarray(_forward(model, x)), np.asarray(jax.jit(model)(jnp.asarray(x[:1]))), 0
    for name, module in cases.items():
        y = in_torch(module, x)
        y = y.reshape(len(y), -1)
        part = slice(start, start + y.shape[1])
        np.testing.assert_allclose(found[:, part], y, rtol=1e-5, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(one[:, part], y[:1], rtol=1e-5, atol=1e-5, err_msg=name)
        start = part.stop
    assert start == found.shape[1]


def test_images_come_out_with_channels_last():
    shape, make = CASES["conv transposed 2d"]
    module = seeded(make)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    y = np.moveaxis(in_torch(module, x), 1, -1)
    np.testing.assert_allclose(from_torch(module, x).model(jnp.asarray(x)), y, rtol=1e-5, atol=1e-5)


def gradients(module, x):
    image = torch.from_numpy(np.moveaxis(x, -1, 1).copy()).requires_grad_()
    module(image).square().sum().backward()
    return np.moveaxis(image.grad.numpy(), 1, -1)


def test_gradients_too():
    names = [
        "conv transposed 2d",
        "max pool ceil, padded",
        "avg pool ceil",
        "upsample bilinear",
        "glu",
        "conv2d groups",
    ]
    module = Together(seeded(CASES[name][1]) for name in names).eval()
    x = np.random.default_rng(2).standard_normal(PLANE).astype(np.float32)
    model = from_torch(module, x).model
    found = jax.grad(lambda x: jnp.square(model(x)).sum())(jnp.asarray(x))
    np.testing.assert_allclose(found, gradients(module, x), rtol=1e-4, atol=1e-4)


def test_activations_at_extremes():
    """What overflows on the side that is not taken must leave the gradient alone."""
    x = np.array([-100.0, -20.0, 0.0, 20.0, 100.0], np.float32).reshape(1, 5, 1, 1)
    fns = (F.elu, F.selu, F.softplus, F.silu, F.hardswish, F.mish, F.gelu, lambda x: F.celu(x, 0.5))
    module = Together(Applied(fn) for fn in fns).eval()
    model = from_torch(module, x).model
    found = jax.grad(lambda x: jnp.square(model(x)).sum())(jnp.asarray(x))
    np.testing.assert_allclose(found, gradients(module, x), rtol=1e-4, atol=1e-4)


def test_statistics_of_everything():
    """Of all images together: no part of a network that takes any number of them, but an operation."""
    x = np.random.default_rng(3).standard_normal((2, 5, 4, 3)).astype(np.float32)
    fns = (
        lambda x: x / x.std(),
        lambda x: x / x.std(unbiased=False),
        lambda x: x / x.var(False),
        lambda x: x / x.norm(),
    )
    module = Together(Applied(fn) for fn in fns).eval()
    y = in_torch(module, x)
    np.testing.assert_allclose(from_torch(module, x).model(jnp.asarray(x)), y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_positions_are_not_counted_in_16_bits(dtype):
    """Beyond 256, bfloat16 has every other number only."""
    n = 600
    a = np.sin(np.arange(n) / 7).astype(np.float32).reshape(1, n, 1, 1)
    x = Laid(jnp.asarray(a).astype(dtype), channel_last_order(4))
    image = torch.from_numpy(np.moveaxis(np.asarray(x.array, np.float32), -1, 1).copy())
    cases = {
        "linear": (resizing.linear(x, (901, 1), False), F.interpolate(image, size=(901, 1), mode="bilinear")),
        "corners": (resizing.linear(x, (411, 1), True), F.interpolate(image, (411, 1), None, "bilinear", True)),
        "adaptive": (pooling.adaptive_avg_pool(x, (401, 1)), F.adaptive_avg_pool2d(image, (401, 1))),
        "mean": (pooling.adaptive_avg_pool(x, (1, 1)), F.adaptive_avg_pool2d(image, (1, 1))),
        "windows": (pooling.avg_pool(x, (301, 1), (7, 1)), F.avg_pool2d(image, (301, 1), (7, 1))),
        "edges": (pooling.avg_pool(x, (301, 1), (7, 1), (150, 0), False, False),
                  F.avg_pool2d(image, (301, 1), (7, 1), (150, 0), False, False)),
    }  # fmt: skip
    for name, (found, expected) in cases.items():
        assert found.array.dtype == dtype, name
        # one rounding at the end, nothing before it
        off = 1e-6 if dtype == "float32" else float(jnp.finfo(dtype).eps)
        channels_last = np.moveaxis(expected.numpy(), 1, -1)
        np.testing.assert_allclose(
            np.asarray(found.array, np.float32), channels_last, rtol=off, atol=1e-5, err_msg=name
        )


def test_the_nearest_voxel_is_that_of_pytorch():
    """Also where a place is whole but for the last bit."""
    rule = {"nearest": resizing.nearest, "nearest-exact": resizing.nearest_exact}
    for n, m in ((7, 10), (10, 7), (3, 41), (30, 49), (55, 23), (49, 127)):
        image = torch.arange(float(n)).reshape(1, 1, n)
        x = Laid(jnp.arange(float(n)).reshape(1, n, 1), channel_last_order(3))
        for mode, fn in rule.items():
            expected = F.interpolate(image, size=m, mode=mode).numpy()
            np.testing.assert_array_equal(np.asarray(fn(x, (m,)).array).ravel(), expected.ravel(), err_msg=f"{n} {m}")
