"""The textbook topologies in PyTorch, their weights named as torchvision's; it is not installed."""

from typing import Any

import torch
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, before: int, inner: int, stride: int, strided: int, project: bool):
        super().__init__()
        step = [stride if number == strided else 1 for number in (1, 2)]
        self.conv1 = nn.Conv2d(before, inner, 1, step[0], bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, step[1], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * inner, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * inner)
        self.relu = nn.ReLU()
        self.downsample: Any = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, 4 * inner, 1, stride, bias=False), nn.BatchNorm2d(4 * inner)
            )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        return self.relu(h + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, outputs: int, width: int, stages: tuple[int, ...], strided: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before = width
        parts: list[nn.Module] = []
        for stage, blocks in enumerate(stages):
            inner = width * 2**stage
            for i in range(blocks):
                parts.append(Bottleneck(before, inner, 2 if stage and i == 0 else 1, strided, i == 0))
                before = 4 * inner
            setattr(self, f"layer{stage + 1}", nn.Sequential(*parts[-blocks:]))
        self.layers = parts
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(before, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for block in self.layers:
            x = block(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class VGG(nn.Module):
    def __init__(self, outputs: int, widths: tuple[tuple[int, ...], ...], dense: int, pooled: int):
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for block in widths:
            for width in block:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((pooled, pooled))
        self.classifier = nn.Sequential(
            nn.Linear(before * pooled**2, dense), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(dense, dense), nn.ReLU(), nn.Dropout(0.5), nn.Linear(dense, outputs),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def vgg16(outputs: int, *, share: int = 1, dense: int = 4096) -> nn.Module:
    """VGG-16 with a share of its channels."""
    blocks = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    return VGG(outputs, tuple(tuple(width // share for width in block) for block in blocks), dense, 7)
