"""Networks as people write them in PyTorch."""

import torch
from torch import nn
from torch.nn import functional as F


class UNet(nn.Module):
    """Encoder, decoder and skips, in 3-D, with a regression head."""

    def __init__(self, width=4, outputs=2):
        super().__init__()

        def block(before, after):
            return nn.Sequential(
                nn.Conv3d(before, after, 3, padding=1), nn.InstanceNorm3d(after, affine=True), nn.LeakyReLU(0.1),
                nn.Conv3d(after, after, 3, padding=1, bias=False), nn.BatchNorm3d(after), nn.PReLU(after),
            )  # fmt: skip

        self.down1, self.down2, self.bottom = block(1, width), block(width, 2 * width), block(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose3d(4 * width, 2 * width, 2, stride=2)
        self.up1 = nn.Upsample(scale_factor=2, mode="trilinear")
        self.merge2, self.merge1 = block(4 * width, 2 * width), block(3 * width, width)
        self.pool = nn.MaxPool3d(2)
        self.last = nn.Conv3d(width, 3, 1)
        self.head = nn.Linear(3, outputs)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(self.pool(a))
        c = self.bottom(self.pool(b))
        b = self.merge2(torch.cat([b, self.up2(c)], dim=1))
        a = self.merge1(torch.cat([self.up1(b), a], dim=1))
        return self.head(self.last(a).softmax(1).mean((2, 3, 4)))


class DenseNet(nn.Module):
    """Two dense blocks with a transition, in 2-D, and a dense head behind a flattening."""

    def __init__(self, growth=3):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block1 = nn.ModuleList([self.layer(4 + i * growth, growth) for i in range(3)])
        width = 4 + 3 * growth
        self.transition = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, 6, 1), nn.AvgPool2d(2)
        )
        self.block2 = nn.ModuleList([self.layer(6 + i * growth, growth) for i in range(2)])
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Linear((6 + 2 * growth) * 36, 10), nn.GELU(), nn.Linear(10, 2))

    def layer(self, width, growth):
        return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, growth, 3, padding=1))

    def forward(self, x):
        x = self.stem(x)
        for layer in self.block1:
            x = torch.cat([x, layer(x)], 1)
        x = self.transition(x)
        for layer in self.block2:
            x = torch.cat([x, layer(x)], 1)
        return self.head(self.dropout(x.view(x.size(0), -1)))


class Bottleneck(nn.Module):
    def __init__(self, before, inner, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, 4 * inner, 1, bias=False), nn.BatchNorm2d(4 * inner)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or before != 4 * inner:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, 4 * inner, 1, stride, bias=False), nn.BatchNorm2d(4 * inner)
            )  # fmt: skip

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet50(nn.Module):
    """torchvision's, name by name."""

    def __init__(self, width=64, outputs=1000, blocks=(3, 4, 6, 3), channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        before = width
        for stage, count in enumerate(blocks):
            inner, layers = width * 2**stage, []
            for i in range(count):
                layers.append(Bottleneck(before, inner, 2 if stage and not i else 1))
                before = 4 * inner
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.stages = len(blocks)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(before, outputs)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class VGG16(nn.Module):
    """torchvision's, name by name."""

    def __init__(self, outputs=1000, channels=3, widths=(64, 128, 256, 512, 512), dense=4096):
        super().__init__()
        layers, before = [], channels
        for width, count in zip(widths, (2, 2, 3, 3, 3), strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(49 * before, dense), nn.ReLU(True), nn.Dropout(), nn.Linear(dense, dense), nn.ReLU(True),
            nn.Dropout(), nn.Linear(dense, outputs),
        )  # fmt: skip

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class SqueezeExcite(nn.Module):
    """A gate for each channel, and group norms around it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.fc1, self.fc2 = nn.Linear(8, 4), nn.Linear(4, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, x):
        x = F.silu(self.norm(self.conv(x)))
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return self.out((x * gate[:, :, None, None]).amax((2, 3)))


def settled(module, seed=0):
    """Random weights, and statistics of BatchNorms as training would leave them, so that values keep their scale."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.data.uniform_(0.5, 1.2)
            part.bias.data.normal_(0, 0.2)
    return module.eval()
