"""Networks by which nothing in latprune was chosen, small and written here: a U-Net, a GhostNet, a MobileViT."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def _convolved(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the size at stride 1, and its norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


class UNet(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015), two levels deep: concatenated skips and transposed convolutions."""

    def __init__(self, channels: int = 32, classes: int = 2) -> None:
        super().__init__()
        one, two, four = channels, 2 * channels, 4 * channels
        self.down = nn.ModuleList([self._two(3, one), self._two(one, two), self._two(two, four)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(four, two, 2, 2), nn.ConvTranspose2d(two, one, 2, 2)])
        self.join = nn.ModuleList([self._two(four, two), self._two(two, one)])
        self.head = nn.Conv2d(one, classes, 1)

    @staticmethod
    def _two(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(_convolved(inputs, outputs), nn.ReLU(), _convolved(outputs, outputs), nn.ReLU())

    def forward(self, picture: Tensor) -> Tensor:
        """Classify the pixels of pictures, `[N, 3, H, W]`, H and W multiples of 4."""
        first = self.down[0](picture)
        second = self.down[1](functional.max_pool2d(first, 2))
        made = self.down[2](functional.max_pool2d(second, 2))
        for skip, up, join in zip((second, first), self.up, self.join, strict=True):
            made = join(torch.cat([skip, up(made)], 1))
        return self.head(made)


class Ghost(nn.Module):
    """Half of the channels by a 1×1 convolution, the other half from these by a depthwise one."""

    def __init__(self, inputs: int, outputs: int, *, active: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.first = nn.Sequential(_convolved(inputs, half, 1), nn.ReLU() if active else nn.Identity())
        self.cheap = nn.Sequential(_convolved(half, half, groups=half), nn.ReLU() if active else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]`."""
        first = self.first(x)
        return torch.cat([first, self.cheap(first)], 1)


class Gate(nn.Module):
    """Squeeze-and-excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]`."""
        squeezed = functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * functional.hardsigmoid(self.excite(squeezed))


class GhostBlock(nn.Module):
    """Two ghost layers with what stands between them, and a shortcut."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, *, gated: bool) -> None:
        super().__init__()
        middle: list[nn.Module] = [_convolved(inner, inner, 3, stride, inner)] if stride > 1 else []
        self.body = nn.Sequential(
            Ghost(inputs, inner, active=True),
            *middle,
            *([Gate(inner)] if gated else []),
            Ghost(inner, outputs, active=False),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(_convolved(inputs, inputs, 3, stride, inputs), _convolved(inputs, outputs, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]`."""
        return self.body(x) + self.shortcut(x)


class GhostNet(nn.Sequential):
    """GhostNet (Han et al., CVPR 2020), ten of its blocks."""

    def __init__(self, classes: int = 1000) -> None:
        blocks = (
            (16, 16, 16, 1, False),
            (16, 48, 24, 2, False),
            (24, 72, 24, 1, False),
            (24, 72, 40, 2, True),
            (40, 120, 40, 1, True),
            (40, 240, 80, 2, False),
            (80, 200, 80, 1, False),
            (80, 480, 112, 1, True),
            (112, 672, 160, 2, True),
            (160, 960, 160, 1, True),
        )
        super().__init__(
            _convolved(3, 16, 3, 2),
            nn.ReLU(),
            *(GhostBlock(*numbers, gated=gated) for *numbers, gated in blocks),
            _convolved(160, 960, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(960, classes),
        )


class GlobalBlock(nn.Module):
    """MobileViT's block: the pixels of a map as tokens of a small transformer, joined with the map."""

    def __init__(self, channels: int, features: int, depth: int) -> None:
        super().__init__()
        self.local = nn.Sequential(_convolved(channels, channels), nn.SiLU(), nn.Conv2d(channels, features, 1))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                features, 4, 2 * features, 0.0, functional.gelu, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.back = nn.Conv2d(features, channels, 1)
        self.fuse = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]`."""
        made = self.local(x)
        tokens = made.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        made = tokens.transpose(1, 2).reshape(made.shape)
        return self.fuse(torch.cat([x, self.back(made)], 1))


class MobileVit(nn.Sequential):
    """After MobileViT (Mehta and Rastegari, ICLR 2022): convolutions, and two blocks with transformers inside."""

    def __init__(self, classes: int = 100) -> None:
        super().__init__(
            *self._down(3, 24),
            *self._down(24, 48),
            *self._down(48, 64),
            GlobalBlock(64, 96, 2),
            *self._down(64, 96),
            GlobalBlock(96, 128, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, classes),
        )

    @staticmethod
    def _down(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
        return _convolved(inputs, outputs, 3, 2), nn.SiLU()
