"""The grid shows the images it was given, level for level."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixeltune.sampling import save_grid


def shown(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "L")])
def test_grid_is_written_whole_and_returned(channels: int, mode: str, tmp_path: Path) -> None:
    images = torch.randint(17, (6, channels, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "new" / "grid.png"
    content = save_grid(images, path, 17, 3)
    assert path.read_bytes() == content
    picture = Image.open(path)
    assert picture.mode == mode
    assert picture.size == (3 * (5 + 1) + 1, 2 * (4 + 1) + 1)


def test_zoom_repeats_each_pixel(tmp_path: Path) -> None:
    images = torch.randint(17, (2, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = shown(save_grid(images[:1], tmp_path / "plain.png", 17))
    zoomed = shown(save_grid(images[:1], tmp_path / "zoomed.png", 17, zoom=3))
    assert np.array_equal(zoomed, plain.repeat(3, 0).repeat(3, 1))


def test_levels_spread_over_all_shades(tmp_path: Path) -> None:
    ramp = torch.arange(17, dtype=torch.uint8).reshape(1, 1, 1, 17)
    assert shown(save_grid(ramp, tmp_path / "ramp.png", 17))[0].tolist() == [
        round(level * 255 / 16) for level in range(17)
    ]


def test_256_levels_are_shown_as_they_are(tmp_path: Path) -> None:
    images = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(shown(save_grid(images, tmp_path / "one.png", 256)), images[0].permute(1, 2, 0))
