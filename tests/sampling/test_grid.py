"""The grid shows the images it was given, level for level."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from pixeltune.sampling import save_grid
from pixeltune.sampling.grid import writable


def shown(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "L")])
def test_grid_is_written_whole_and_returned(channels: int, mode: str, tmp_path: Path) -> None:
    images = torch.randint(17, (6, channels, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "new" / "grid.png"
    content = save_grid(images, path, 17, 3)
    assert path.read_bytes() == content
    picture = Image.open(io.BytesIO(path.read_bytes()))
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


def test_a_caption_stands_below_and_in_the_file(tmp_path: Path) -> None:
    images = torch.randint(17, (4, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    words = "not a conditional sample: given, 6 completions, the original"
    plain = shown(save_grid(images, tmp_path / "plain.png", 17))
    captioned = save_grid(images, tmp_path / "captioned.png", 17, caption=words)
    picture = shown(captioned)
    assert np.array_equal(picture[: len(plain)], plain)
    assert (picture[len(plain) :] < 100).any()
    assert Image.open(io.BytesIO(captioned)).text["Description"] == words


@pytest.mark.parametrize(
    ("caption", "written"),
    [
        ("tiles of 2×2, 6–9 …", "tiles of 2x2, 6"),
        ("búsqueda", "b"),
        ("−1 ≤ x ≥ 2 ± 3", None),
        ("搜索/00003", "??/00003"),
        ("plain words, 12 times: a/b", "plain words, 12 times: a/b"),
    ],
)
def test_a_caption_has_no_letter_that_its_font_lacks(caption: str, written: str | None) -> None:
    font = ImageFont.load_default(13)
    text = writable(caption, font)
    lacking = bytes(font.getmask("\uffff"))
    assert not [letter for letter in text if not letter.isspace() and bytes(font.getmask(letter)) == lacking]
    assert written is None or text.startswith(written)


def test_a_letter_that_the_font_lacks_is_drawn_as_a_simpler_one(tmp_path: Path) -> None:
    images = torch.zeros(16, 1, 8, 8, dtype=torch.uint8)
    drawn = [save_grid(images, tmp_path / "a.png", 17, caption=caption) for caption in ("of 2×2", "of 2x2")]
    assert np.array_equal(shown(drawn[0]), shown(drawn[1]))
    assert Image.open(io.BytesIO(drawn[0])).text["Description"] == "of 2×2"


def test_hidden_pixels_are_grey(tmp_path: Path) -> None:
    images, hidden = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[1, 2:] = True
    picture = shown(save_grid(images, tmp_path / "grid.png", 17, 2, 1, hidden_NHW=hidden))
    assert (picture[1:5, 1:5] == 0).all()
    assert (picture[1:3, 6:10] == 0).all()
    assert (picture[3:5, 6:10] == 128).all()


def test_a_white_gap_parts_rows_and_hides_nothing(tmp_path: Path) -> None:
    images = torch.zeros(4, 1, 3, 3, dtype=torch.uint8)
    plain = shown(save_grid(images, tmp_path / "plain.png", 17, 2))
    parted = shown(save_grid(images, tmp_path / "parted.png", 17, 2, gap_after=1))
    gap = np.flatnonzero((parted == 255).all(axis=1))
    assert gap.tolist() == list(range(5, 5 + len(gap)))
    assert np.array_equal(parted[:5], plain[:5])
    assert np.array_equal(parted[5 + len(gap) :], plain[4:]), "its first line is the last one above"
