"""A bad configuration is refused in one line that names the key, the rule and what was got."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pixeltune.config import FAMILIES, LIKELIHOODS, ImageSpec, TrialConfig
from pixeltune.errors import ConfigError
from tests.support.config_strategies import PAIRS, bounds_of, field_of, refusal, smallest

every_pair = pytest.mark.parametrize(("family", "likelihood"), PAIRS)
CONFIG = smallest()
TREE: dict[str, Any] = {"data": {"name": "digits"}, "model": {"family": "gated"}, "likelihood": {"name": "categorical"}}


@every_pair
@pytest.mark.parametrize("value", [True, 3, 2.5, "3", None, [3], {"a": 3}], ids=repr)
def test_types_are_strict_for_every_key(family: str, likelihood: str, value: Any) -> None:
    """What is taken is stored as it was given; only a whole number may become a float."""
    config = smallest(family, likelihood)
    for key in config.flat():
        try:
            stored = config.override({key: value}).flat()[key]
        except ConfigError:
            words = refusal(lambda key=key: config.override({key: value}))
            assert f"`{key}`" in words or key == "train.batch_size"
            assert "but got" in words
        else:
            if value is None and stored == "none":
                continue  # a choice of the key's own, as of data.binarise
            assert stored == value
            assert type(stored) is type(value) or (type(value) is int and type(stored) is float), key


@every_pair
def test_bounds_hold_for_every_key(family: str, likelihood: str) -> None:
    config = smallest(family, likelihood)
    tried = 0
    for key in config.flat():
        for bound, limit in bounds_of(field_of(config, key)).items():
            outside = {"ge": limit - 1, "gt": limit, "le": limit + 1, "lt": limit}[bound]
            words = refusal(lambda key=key, outside=outside: config.override({key: outside}))
            assert f"`{key}`" in words
            assert f"{limit:.15g}" in words or str(limit) in words
            assert f"but got {outside}" in words
            tried += 1
    assert tried > 20


@every_pair
def test_not_a_number_is_none(family: str, likelihood: str) -> None:
    config = smallest(family, likelihood)
    for key, value in config.flat().items():
        if isinstance(value, float):
            for bad in (float("nan"), float("inf"), -float("inf")):
                assert f"`{key}` must be" in refusal(lambda key=key, bad=bad: config.override({key: bad}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optim.lr": "3"}, "`optim.lr` must be a number, but got '3'"),
        ({"model.layers": True}, "`model.layers` must be a whole number, but got True"),
        ({"model.layers": 3.0}, "`model.layers` must be a whole number, but got 3.0"),
        ({"data.grey": 1}, "`data.grey` must be true or false, but got 1"),
        ({"data.name": 3}, "`data.name` must be text, but got 3"),
        ({"model.kernel_size": 4}, "`model.kernel_size` must be odd, but got 4"),
        (
            {"optim.schedule": "cosin"},
            "`optim.schedule` must be 'constant', 'cosine' or 'exponential', but got 'cosin'",
        ),
        ({"train.images": 33}, "but got 33 and 32; the nearest are 32 and 64"),
        ({"train.images": 3}, "but got 3 and 32; the smallest is 32"),
        ({"train.report_every": 33}, "`train.report_every` must be a multiple of train.batch_size"),
        ({"seed": -1}, "`seed` must be greater than or equal to 0, but got -1"),
        ({"model.family": "gatde"}, "`model.family` must be one of pixelcnn, gated"),
        ({"model.family": ["gated"]}, "but got ['gated']"),
        ({"model.family": None}, "but got None"),
        ({"likelihood.name": "softmax"}, "`likelihood.name` must be one of bernoulli, categorical, logistic_mixture"),
        ({"model.family": "pixelcnn", "model.batch_norm": True}, '`model.batch_norm` needs model.variant = "simple"'),
        (
            {"model.family": "pixelcnnpp", "model.variant": "plain"},
            '`model.variant` = "plain" needs model.stages = 1, but got 3',
        ),
        (
            {"model.family": "pixelcnnpp", "model.variant": "nin", "model.stages": 1, "model.layers": 1},
            '`model.variant` = "nin" needs model.layers of at least 2, because the 1×1 blocks follow every second one, '
            "but got 1",
        ),
        ({"model.label_dropout": 0.5}, "`model.label_dropout` needs a model.conditioning of bias or map, but got 0.5"),
        (
            {"model.split_coupling": "mixture", "likelihood.name": "logistic_mixture"},
            'but family gated orders them by masks; set `model.colour_order = "likelihood"`',
        ),
        (
            {"model.family": "pixelcnnpp", "model.split_coupling": "mixture", "likelihood.name": "categorical"},
            '`model.split_coupling` = "mixture" needs likelihood logistic_mixture, but got categorical',
        ),
        (
            {"model.family": "pixelcnn", "model.first_kernel_size": 4},
            "`model.first_kernel_size` must be odd, but got 4",
        ),
    ],
)
def test_each_rule_says_what_holds_and_what_was_got(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: CONFIG.override(changes))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("model.layrs", "model.layers"),
        ("modell.layers", "model.layers"),
        ("optim.learning_rate", None),
        ("sed", "seed"),
        ("model.layers.deep", "model.layers"),
        ("model", None),
        ("model.", "model.split"),
        (".", None),
        ("", None),
    ],
)
def test_an_unknown_key_lists_the_known_ones_and_the_nearest(key: str, nearest: str | None) -> None:
    words = refusal(lambda: CONFIG.override({key: 3}))
    assert words.startswith(f"unknown key `{key}`")
    section = key.partition(".")[0]
    known = [name for name in CONFIG.flat() if name.startswith(f"{section}.")] if "." in key else []
    for name in known or CONFIG.flat():
        assert name in words
    if nearest:
        assert f"did you mean `{nearest}`?" in words


def test_a_key_of_another_class_is_unknown() -> None:
    assert "unknown key `model.first_kernel_size`" in refusal(lambda: CONFIG.override({"model.first_kernel_size": 3}))
    without = CONFIG.override({"likelihood.name": "categorical"})
    assert "unknown key `likelihood.mixtures`" in refusal(lambda: without.override({"likelihood.mixtures": 3}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modle": {}}, "unknown key `modle`; did you mean `model`?"),
        ({"data": {"name": "digits", "nmae": 3}}, "unknown key `data.nmae`; did you mean `data.name`?"),
        ({"model": {"family": "gated", "layrs": 3}}, "unknown key `model.layrs`; did you mean `model.layers`?"),
        ({"optim": {"momentum": 0.9}}, "unknown key `optim.momentum`"),
        ({"data": {}}, "`data.name` must be given"),
        ({"data": "digits"}, "`data` must be a table, but got 'digits'"),
        ({"train": [1]}, "`train` must be a table, but got [1]"),
        ({"model": {}}, "`model.family` must be one of"),
        ({"model": "gated"}, "`model` must be a table with `family`, but got 'gated'"),
        ({"model": {"family": ["gated"]}}, "but got ['gated']"),
        ({"likelihood": {"name": {}}}, "`likelihood.name` must be one of"),
        ({"seed": "3"}, "`seed` must be a whole number, but got '3'"),
        ({"model": {"family": "gated", "layers": "many"}}, "`model.layers` must be a whole number, but got 'many'"),
    ],
)
def test_a_bad_tree_is_refused(change: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: TrialConfig.build(TREE | change))


@pytest.mark.parametrize("section", ["data", "model", "likelihood"])
def test_a_missing_section_is_named(section: str) -> None:
    tree = {name: table for name, table in TREE.items() if name != section}
    assert f"`{section}` must be given" in refusal(lambda: TrialConfig.build(tree))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is none at"),
        (b"[data\nname = 3", "must be TOML"),
        (b"data = {", "must be TOML"),
        (b"seed = 1\nseed = 2", "must be TOML"),
        (b"\xff\xfe", "must be UTF-8, but"),
        ("seed = 1".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"\xfe\xff" + "seed = 1".encode("utf-16-be"), "is UTF-16; save it as UTF-8"),
        ("seed = 1".encode("utf-16-le"), "must be TOML"),
        ("# caf\xe9".encode("latin-1"), "must be UTF-8, but"),
        (b"\xef\xbb\xbf# caf\xe9", "is not: byte 8 is 0xe9; save it as UTF-8"),
        (b"\xef\xbb\xbf" * 2 + b"seed = 1", "must be TOML"),
        (b"", "`data` must be given"),
        (b"seed = " + b"9" * 5000, "must be TOML"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "trial.toml"
    if content is not None:
        path.write_bytes(content)
    got = refusal(lambda: TrialConfig.from_toml(path))
    assert words in got
    assert str(path) in got or "`data`" in got


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    """As editors on Windows write it."""
    path = tmp_path / "trial.toml"
    path.write_bytes(b"\xef\xbb\xbf" + CONFIG.to_toml().encode())
    assert TrialConfig.from_toml(path) == CONFIG


@pytest.mark.parametrize("path", ["", "  ", "a\0b"])
def test_a_path_is_not_empty(path: str) -> None:
    assert "`data.path` must be a folder or a file, but got" in refusal(lambda: CONFIG.override({"data.path": path}))


def test_a_path_object_is_taken(tmp_path: Path) -> None:
    config = CONFIG.override({"data.path": tmp_path / "images"})
    assert config.data.path == str(tmp_path / "images")
    assert TrialConfig.build(TREE | {"data": {"name": "array", "path": tmp_path}}).data.path == str(tmp_path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "must be readable" in refusal(lambda: TrialConfig.from_toml(tmp_path))


@every_pair
def test_a_likelihood_and_a_family_are_checked_against_the_form(family: str, likelihood: str) -> None:
    config = smallest(family, likelihood)
    size = 4 * config.model.divisor
    form = ImageSpec(3, size, size, levels=2)
    config.model.require_form(form)
    config.likelihood.require_form(form)
    if config.model.divisor > 1:
        odd = ImageSpec(3, size, size + 1, levels=2)
        assert f"must divide by {config.model.divisor}" in refusal(lambda: config.model.require_form(odd))


@pytest.mark.parametrize("family", FAMILIES)
def test_height_and_width_divide_by_tiles_and_divisor(family: str) -> None:
    model = smallest(family).override({"model.split": 3}).model
    multiple = 3 * model.divisor
    model.require_form(ImageSpec(3, 2 * multiple, multiple, levels=256))
    form = ImageSpec(3, multiple, 2 * multiple + model.divisor, levels=256)
    words = refusal(lambda: model.require_form(form))
    assert f"must divide by {multiple} for family {family} split 3 times, but got {form.height}×{form.width}" in words


@pytest.mark.parametrize("family", FAMILIES)
def test_conditioning_needs_labels(family: str) -> None:
    model = smallest(family).override({"model.conditioning": "bias"}).model
    model.require_form(ImageSpec(3, 32, 32, levels=256, num_classes=10))
    assert "needs labelled data" in refusal(lambda: model.require_form(ImageSpec(3, 32, 32, levels=256)))


def test_bernoulli_needs_two_levels() -> None:
    form = ImageSpec(1, 8, 8, levels=17)
    assert "2 levels" in refusal(lambda: LIKELIHOODS["bernoulli"]().require_form(form))


@pytest.mark.parametrize("family", [name for name, kind in FAMILIES.items() if "colour_order" in kind.model_fields])
def test_masks_need_a_channel_a_colour(family: str) -> None:
    form = ImageSpec(3, 8, 8, levels=256)
    narrow = smallest(family).override({"model.channels": 2})
    assert "`model.channels` must be at least the 3 colours" in refusal(lambda: narrow.model.require_form(form))
    head = smallest(family).override({"model.head_channels": 2})
    assert "`model.head_channels` must be 0 or at least" in refusal(lambda: head.model.require_form(form))
    narrow.override({"model.colour_order": "likelihood"}).model.require_form(form)
