"""Families and likelihoods by import path: what is refused, and how they go into the tree, keys and text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pixeltune import own_code
from pixeltune.config import KINDS, GatedConfig, TrialConfig, stored
from pixeltune.config.own_classes import StoredFamily
from pixeltune.errors import ConfigError
from tests.support.own_code import FAMILY, LIKELIHOOD, SHALLOW, WARM, forget, own_config, write_modules

MARK = "raise RuntimeError('imported')"


def refusal(tree: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        TrialConfig.build({"data": {"name": "digits"}, "model": {"family": "gated"}} | tree)
    words = str(caught.value)
    assert "\n" not in words
    return words


def of_family(name: str, **keys: Any) -> str:
    return refusal({"model": {"family": name} | keys, "likelihood": {"name": "categorical"}})


NO_NETWORK = FAMILY.replace("def network_class", "def other_class")
NO_NARROW = """
from pixeltune.config import FamilyConfig
class Bare(FamilyConfig):
    def network_class(self):
        return None
"""
NAMED = """
from typing import Literal
from pixeltune.config import GatedConfig
class Named(GatedConfig):
    def network_class(self):
        return None
"""


@pytest.mark.parametrize(
    ("name", "texts", "words"),
    [
        ("nowhere_at_all:X", {}, "there is no module nowhere_at_all; install it, put its folder on PYTHONPATH"),
        ("own_shallow.deeper:X", {}, "there is no module own_shallow.deeper"),
        (
            "own_needs:X",
            {"own_needs": "import nowhere_at_all"},
            "no module nowhere_at_all, which own_needs imports (own_needs.py:1)",
        ),
        ("own_shallow:Shalow", {}, "own_shallow has no Shalow; check the name"),
        ("own_shallow:Shallow", {}, "it is no subclass of pixeltune.config.families.FamilyConfig"),
        ("own_shallow:MASK", {}, "it is no subclass of"),
        ("own_warm:WarmConfig", {}, "it is no subclass of pixeltune.config.families.FamilyConfig"),
        (
            "own_bad:X",
            {"own_bad": "1 / 0"},
            "importing it raises ZeroDivisionError: division by zero (own_bad.py:1); fix the module",
        ),
        ("own_bad:X", {"own_bad": "\nx = (1"}, "importing it raises SyntaxError: '(' was never closed (own_bad.py:2)"),
        (
            "own_bad:X",
            {"own_bad": "import own_shallow\nown_shallow.nothing"},
            "has no attribute 'nothing' (own_bad.py:2)",
        ),
        (":X", {}, "it is not of the form package.module:Name"),
        ("own_shallow:", {}, "it is not of the form package.module:Name"),
        ("own_shallow:Shallow.x", {}, "it is not of the form package.module:Name"),
        ("__main__:X", {}, "trials cannot import what a notebook or a script defines; put it into a module"),
        ("os:../x", {}, "it is not of the form package.module:Name"),
        ("own_bad:ShallowConfig", {"own_bad": NO_NETWORK}, "it does not define network_class; see docs/extending.md"),
        ("own_bad:Bare", {"own_bad": NO_NARROW}, "it does not define causality, narrow"),
        (
            "own_bad:Named",
            {"own_bad": NAMED},
            "it declares `family` as Literal['gated'], where its import",
        ),
        (
            "own_bad:ShallowConfig",
            {"own_bad": FAMILY.replace("wings: int =", "wings: list[int] =")},
            "its key `wings` is list[int]; a key is a bool, int, float or str",
        ),
        (
            "own_bad:ShallowConfig",
            {"own_bad": FAMILY.replace('colour: str = "red"', "stages: float = 0.5")},
            "its key `stages` is float, which in pixeltune is int; rename it",
        ),
    ],
)
def test_what_is_no_family_is_refused_in_a_line(
    code_folder: Path, name: str, texts: dict[str, str], words: str
) -> None:
    write_modules(code_folder, **texts)
    said = of_family(name)
    assert said.startswith("`model.family` must be one of pixelcnn, gated, pixelcnnpp, pixelvae, or the import path of")
    assert f"but got {name!r}: " in said
    assert words in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_warm:Warm", "it is no subclass of pixeltune.config.likelihoods.LikelihoodConfig"),
        (SHALLOW, "it is no subclass of pixeltune.config.likelihoods.LikelihoodConfig"),
        ("nowhere_at_all:X", "there is no module nowhere_at_all"),
    ],
)
def test_what_is_no_likelihood_is_refused_in_a_line(code_folder: Path, name: str, words: str) -> None:
    said = refusal({"likelihood": {"name": name}})
    assert said.startswith("`likelihood.name` must be one of bernoulli, categorical, logistic_mixture, or the import")
    assert words in said


def test_a_likelihood_must_name_its_class(code_folder: Path) -> None:
    write_modules(code_folder, own_warm=LIKELIHOOD.replace("def likelihood_class", "def other_class"))
    assert "it does not define likelihood_class" in refusal({"likelihood": {"name": WARM}})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"wingz": 3}, "unknown key `model.wingz`; did you mean `model.wings`?"),
        ({"wings": "three"}, "`model.wings` must be a whole number, but got 'three'"),
        ({"wings": 10}, "`model.wings` must be less than or equal to 9"),
        ({"kernel_size": 4}, "`model.kernel_size` must be odd, but got 4"),
    ],
)
def test_keys_of_ones_own_are_checked_as_others(code_folder: Path, keys: dict[str, Any], words: str) -> None:
    assert words in of_family(SHALLOW, **keys)


def test_a_key_that_must_be_given(code_folder: Path) -> None:
    write_modules(code_folder, own_shallow=FAMILY.replace("wings: int = Field(default=2, ", "wings: int = Field("))
    assert "`model.wings` must be given" in of_family(SHALLOW)
    gated = TrialConfig.build(
        {
            "data": {"name": "digits"},
            "model": {"family": "gated", "layers": 2},
            "likelihood": {"name": "categorical"},
        }
    )
    assert gated.override({"model.family": SHALLOW, "model.wings": 4}).flat()["model.wings"] == 4
    with pytest.raises(ConfigError, match=r"`model\.wings` must be given"):
        gated.override({"model.family": SHALLOW})


def test_it_comes_back_from_toml_json_flat_and_overrides(code_folder: Path, tmp_path: Path) -> None:
    config = own_config(model__wings=7, likelihood__name=WARM, likelihood__temperature=0.25)
    (tmp_path / "a.toml").write_text(config.to_toml())
    for again in (
        TrialConfig.from_toml(tmp_path / "a.toml"),
        TrialConfig.from_flat(config.flat()),
        TrialConfig.build(config.model_dump()),
        TrialConfig.build(dict(config)),
        config.imported(),
    ):
        assert again == config
        assert type(again.model) is type(config.model)
        assert again.key() == config.key()
    gated = config.override({"model.family": "gated"})
    assert isinstance(gated.model, GatedConfig)
    assert gated.model.channels == 8
    back = gated.override({"model.family": SHALLOW, "model.wings": 7})
    assert back.flat()["model.wings"] == 7


def test_the_key_has_the_import_path_and_all_keys(code_folder: Path) -> None:
    config = own_config()
    assert config.changed()["model.family"] == SHALLOW
    assert config.changed()["model.wings"] == 2
    assert config.key() != own_config(model__wings=3).key()
    assert config.own_keys().keys() == {f"model.{name}" for name in type(config.model).model_fields}


def test_results_are_read_without_an_import(code_folder: Path) -> None:
    """The same keys, key and text, from a class that nobody has."""
    config = own_config(model__wings=7, likelihood__name=WARM)
    flat, key, text = config.flat(), config.key(), config.to_toml()
    write_modules(code_folder, own_shallow=MARK, own_warm=MARK)
    with stored():
        read = TrialConfig.from_flat(flat)
    assert isinstance(read.model, StoredFamily)
    assert (read.flat(), read.key(), read.to_toml()) == (flat, key, text)
    assert read.override({"seed": 5}).flat() == flat | {"seed": 5}
    with pytest.raises(ConfigError, match="importing it raises RuntimeError: imported"):
        read.imported()
    with pytest.raises(ConfigError, match="importing it raises RuntimeError: imported"):
        TrialConfig.from_flat(flat)
    assert not KINDS["model"].loaded


def test_the_fingerprint_is_that_of_the_code_and_what_it_imports(code_folder: Path) -> None:
    helped = "import own_helper\n" + FAMILY
    texts = {"own_shallow": helped, "own_helper": "SIZE = 3\n", "own_unused": "x = 1\n"}

    def code(**changes: str) -> str | None:
        write_modules(code_folder, **(texts | changes))
        return own_config().own_code()

    first = code()
    assert first is not None
    assert len(first) == 16
    assert code(own_unused="x = 2\n") == first
    assert code(own_shallow="# a remark\n\n" + helped) == first
    assert code(own_helper="SIZE = 4\n") != first
    assert code(own_shallow=helped.replace("slope: float = 0.5", "slope: float = 0.75")) != first
    gated = own_config().override({"model.family": "gated"})
    assert gated.own_code() is None


def test_the_fingerprint_is_that_of_any_folder(code_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = own_config().own_code()
    write_modules(tmp_path / "other")
    sys.path[0] = str(tmp_path / "other")
    assert own_config().own_code() == first


def test_pixeltune_itself_is_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    """Also where the module is in a checkout of pixeltune; its commit is a column of its own."""
    files = own_code.code_files("tests.support.tiny_models:tiny", __import__("tests.support.tiny_models"))
    assert files
    assert not [file for file in files if "pixeltune" in file.relative_to(Path.cwd()).parts[:1]]


def test_folders_that_trials_import_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the working directory as every node has it; of others here, or where nodes get their copy."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    forget()
    for name in ("here/searches", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for folder in (Path("searches"), Path(), tmp_path / "elsewhere", tmp_path / "missing"):
        own_code.search_in(folder)
    assert own_code.folders_outside() == [tmp_path / "elsewhere"]
    staged = own_code.staged_name(0)
    assert own_code.folders_for_workers() == ("searches", ".", str(tmp_path / "elsewhere"), staged)
    forget()


def test_reading_a_configuration_of_no_class_of_ones_own_imports_no_torch() -> None:
    """The contract is written in types of torch, which a launch that only looks needs not."""
    code = "import sys, pixeltune.config; assert 'torch' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, timeout=60
    )
