"""Networks as torchvision and timm write them, by hand and small: each with two inputs that are not square."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """As in torchvision, with an eighth of the channels."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2), BasicBlock(16, 16))
        self.layer3 = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32))
        self.layer4 = nn.Sequential(BasicBlock(32, 64, 2), BasicBlock(64, 64))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = torch.flatten(self.avgpool(x), 1)
        return self.fc(x)


class VGG11(nn.Module):
    """As in torchvision with BatchNorm, with an eighth of the channels."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in (8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"):
            if width == "M":
                layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            else:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(True)]
                inputs = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((3, 2))
        self.classifier = nn.Sequential(
            nn.Linear(64 * 6, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(x.view(x.size(0), -1))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.fc2 = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean((2, 3), keepdim=True)
        s = F.hardsigmoid(self.fc2(F.relu(self.fc1(s))))
        return x * s


class InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, wide: int, outputs: int, kernel: int, stride: int, squeeze: bool, hard: bool
    ) -> None:
        super().__init__()
        act = nn.Hardswish if hard else nn.ReLU6
        self.use_res_connect = stride == 1 and inputs == outputs
        layers: list[nn.Module] = [nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide, 0.001), act()]
        layers += [nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)]
        layers += [nn.BatchNorm2d(wide), act(), SqueezeExcite(wide, 4) if squeeze else nn.Identity()]
        layers += [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.use_res_connect else self.block(x)


class MobileNet(nn.Module):
    """Blocks of MobileNetV2 and V3, global pooling by mean over the axes."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(
            InvertedResidual(8, 16, 8, 3, 1, squeeze=False, hard=False),
            InvertedResidual(8, 24, 12, 5, 2, squeeze=True, hard=False),
            InvertedResidual(12, 36, 12, 5, 1, squeeze=True, hard=True),
        )
        self.head = nn.Linear(12, 20)
        self.classifier = nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.hardswish(self.stem(x))).mean([2, 3])
        x = F.dropout(F.silu(self.head(x)), 0.2, self.training)
        return F.log_softmax(self.classifier(x), dim=1)


class DoubleConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1, inplace=True)
        )


class UNet(nn.Module):
    """Three levels, each skip by concatenation; enlarged by a transposed convolution or by its partner's size."""

    def __init__(self, learned: bool = True) -> None:
        super().__init__()
        self.down1, self.down2, self.down3 = DoubleConv(3, 6), DoubleConv(6, 8), DoubleConv(8, 10)
        self.bottom = DoubleConv(10, 12)
        self.pool = nn.MaxPool2d(2)
        self.learned = learned
        self.ups = nn.ModuleList(nn.ConvTranspose2d(n, n, 2, 2) for n in (12, 10, 8))
        self.up3, self.up2, self.up1 = DoubleConv(22, 10), DoubleConv(18, 8), DoubleConv(14, 6)
        self.out = nn.Conv2d(6, 2, 1)

    def enlarged(self, x: Tensor, level: int, like: Tensor) -> Tensor:
        if self.learned:
            return self.ups[level](x)
        return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(self.pool(a))
        c = self.down3(self.pool(b))
        d = self.bottom(self.pool(c))
        x = self.up3(torch.cat([c, self.enlarged(d, 0, c)], dim=1))
        x = self.up2(torch.cat([self.enlarged(x, 1, b), b], dim=1))
        x = self.up1(torch.cat((a, self.enlarged(x, 2, a)), 1))
        return torch.sigmoid(self.out(x))


class Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x), inplace=True)
        return torch.cat([F.relu(self.expand1(x)), F.relu(self.expand3(x))], 1)


class SqueezeNet(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(16, 4, 16),
            Fire(32, 4, 16),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(32, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class Inception(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inputs, 4, 1)
        self.three = nn.Sequential(nn.Conv2d(inputs, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding="same"))
        self.row = nn.Conv2d(inputs, 4, (1, 7), padding=(0, 3))
        self.column = nn.Conv2d(4, 4, (7, 1), padding=(3, 0))
        self.pool = nn.Conv2d(inputs, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)
        return torch.cat([self.one(x), self.three(x), self.column(self.row(x)), self.pool(pooled)], 1)


class InceptionNet(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 2, padding=1, padding_mode="reflect")
        self.a, self.b = Inception(8), Inception(20)
        self.fc = nn.Linear(20 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.b(F.elu(self.a(self.stem(x)))))
        x = F.adaptive_max_pool2d(x, 2)
        return F.softmax(self.fc(x.reshape(x.shape[0], -1)), dim=-1)


class DenseNet(nn.Module):
    """Every layer sees all that came before, as in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.norm = nn.GroupNorm(3, 18)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(F.relu(torch.cat(features, 1))))
        return self.norm(torch.cat(features, 1))


class BranchingOnSizes(nn.Module):
    """What torch.fx cannot follow, because its code asks for a size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 2:
            x = F.pad(x, (0, 0, 1, 0))
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        x = F.interpolate(x, scale_factor=2) + F.dropout(
            torch.tanh(F.interpolate(x, scale_factor=2)), 0.1, False
        )
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], tuple[int, int]]] = {
    "resnet18": (ResNet18, (64, 96), (80, 48)),
    "vgg11-bn": (VGG11, (96, 64), (128, 160)),
    "mobilenet": (MobileNet, (33, 47), (40, 24)),
    "unet": (UNet, (24, 40), (32, 16)),
    "unet-bilinear": (lambda: UNet(learned=False), (24, 40), (32, 16)),
    "squeezenet": (SqueezeNet, (31, 47), (35, 63)),
    "inception": (InceptionNet, (30, 41), (25, 38)),
    "densenet": (DenseNet, (9, 14), (12, 7)),
    "branching": (BranchingOnSizes, (13, 17), (15, 12)),
}


def network(name: str) -> nn.Module:
    """A network of the zoo with random weights and statistics, the same ones every time."""
    generator = torch.Generator().manual_seed(list(ZOO).index(name))
    module = ZOO[name][0]()
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                random = torch.randn(tensor.shape, generator=generator)
                spread = 1 / max(1, tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.2
                tensor.copy_(
                    random * spread + (1 if key.endswith(("var", "weight")) and tensor.ndim == 1 else 0)
                )
                if key.endswith("running_var"):
                    tensor.abs_().add_(0.3)
    return module.eval()


def pictures(name: str) -> list[Tensor]:
    """Two batches of different sizes."""
    generator = torch.Generator().manual_seed(7)
    return [
        torch.randn((n, 3, *size), generator=generator) for n, size in zip((2, 1), ZOO[name][1:], strict=True)
    ]
