"""The textbook topologies in PyTorch, their weights named as torchvision's; it is not installed."""

from typing import Any


def resnet(outputs: int, width: int, stages: tuple[int, ...], strided: int) -> Any:
    """A ResNet of bottlenecks, ``[b, 3, h, w] -> [b, outputs]``, with the stride in the convolution ``strided``."""
    import torch
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, before: int, inner: int, stride: int, project: bool):
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
                skip = nn.Conv2d(before, 4 * inner, 1, stride, bias=False)
                self.downsample = nn.Sequential(skip, nn.BatchNorm2d(4 * inner))

        def forward(self, x: Any) -> Any:
            h = self.relu(self.bn1(self.conv1(x)))
            h = self.relu(self.bn2(self.conv2(h)))
            h = self.bn3(self.conv3(h))
            return self.relu(h + (x if self.downsample is None else self.downsample(x)))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU()
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            before = width
            for stage, count in enumerate(stages):
                inner, blocks = width * 2**stage, []
                for i in range(count):
                    blocks.append(Bottleneck(before, inner, 2 if stage and i == 0 else 1, i == 0))
                    before = 4 * inner
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(before, outputs)

        def forward(self, x: Any) -> Any:
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            for stage in range(len(stages)):
                x = getattr(self, f"layer{stage + 1}")(x)
            return self.fc(torch.flatten(self.avgpool(x), 1))

    return ResNet().eval()


def vgg16(outputs: int, *, share: int, dense: int) -> Any:
    """VGG-16 with a share of its channels, ``[b, 3, h, w] -> [b, outputs]``."""
    import torch
    from torch import nn

    class VGG(nn.Module):
        def __init__(self):
            super().__init__()
            layers: list[nn.Module] = []
            before = 3
            for widths in ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3):
                for width in widths:
                    layers += [nn.Conv2d(before, width // share, 3, padding=1), nn.ReLU()]
                    before = width // share
                layers.append(nn.MaxPool2d(2, 2))
            self.features = nn.Sequential(*layers)
            self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
            self.classifier = nn.Sequential(
                nn.Linear(before * 49, dense), nn.ReLU(), nn.Dropout(0.5),
                nn.Linear(dense, dense), nn.ReLU(), nn.Dropout(0.5), nn.Linear(dense, outputs),
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    return VGG().eval()
