"""Commands that only show something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pixeltune.config import FAMILIES, LIKELIHOODS, TrialConfig
from pixeltune.space import list_searches, load_search
from pixeltune.space.keys import value_text
from tests.support.commands import command, done, refused, write_tiny


@pytest.mark.parametrize("entry", [[], ["search"]], ids=["launch.py", "pixeltune search"])
def test_list_names_every_search_with_its_title(entry: list[str]) -> None:
    lines = done(*entry, "--list").partition("\n\n")[0].splitlines()
    assert len(lines) == len(list_searches())
    for line, name in zip(lines, list_searches(), strict=True):
        assert line.split() == [name, *load_search(name).title.split()]


def test_a_dry_run_shows_the_plan_and_writes_nothing() -> None:
    said = done("--search", "digits_quick", "--dry-run", "--trials", "3")
    search = load_search("digits_quick")
    assert said.startswith(f"digits_quick: {search.title}")
    for key in search.vary:
        assert key in said
    assert f"Corners: {len(list(search.corners()))}, all of them can be built" in said
    assert f"Budget: 3 trials of at most {search.base.train.images:,} images" in said
    assert search.scheduler is not None
    rungs = ", ".join(f"{rung:,}" for rung in search.scheduler.rungs)
    assert f"ASHA keeps the best 1/{search.scheduler.reduction} at {rungs} images" in said
    assert "1,077 train, 360 validation, 360 test" in said
    assert re.search(r"Cost: .* images/s here", said)
    assert not Path("results").exists()


def test_a_dry_run_follows_the_settings() -> None:
    said = done(
        "--search", "digits_quick", "--dry-run", "--set", "likelihood.name=categorical", "--set", "scheduler=none"
    )
    assert "likelihood.mixtures" not in said
    assert "every trial runs to its end" in said


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_config_shows_every_key_with_its_default_and_meaning(family: str, likelihood: str) -> None:
    if likelihood not in FAMILIES[family].likelihoods:
        pytest.skip("refused pair")
    said = done("config", "--family", family, "--likelihood", likelihood)
    shown = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.strip()}
    config = TrialConfig.build(
        {"data": {"name": "digits"}, "model": {"family": family}, "likelihood": {"name": likelihood}}
    )
    for key, value in config.flat().items():
        assert shown[key][0] == value_text(value)
        assert len(shown[key]) > 1, f"{key} must have a meaning"


def test_config_shows_a_file_as_it_is_understood() -> None:
    said = done("config", "--config", write_tiny(), "--set", "model.layers=7", "--set", "data.grey=True")
    shown = {line.split()[0]: line.split()[1] for line in said.splitlines() if len(line.split()) > 1}
    assert shown["model.layers"] == "7"
    assert shown["data.grey"] == "true"
    assert shown["data.fraction"] == "0.25"
    assert shown["train.images"] == "256"


def test_config_shows_the_keys_of_a_search_too() -> None:
    shown = {line.split()[0]: line for line in done("config").splitlines() if line.strip()}
    assert re.search(r"budget\.trials +16 +whole number, ≥ 1 +trials in all", shown["budget.trials"])
    assert re.search(r"scheduler\.rungs +required +list of whole numbers", shown["scheduler.rungs"])
    assert re.search(r"model\.channels +384 +whole number, 1…4096 +width", shown["model.channels"])
    assert re.search(r"train\.precision +auto +auto \| float32 \| bfloat16 +of the network", shown["train.precision"])


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ("resources", [f"resources.{name}" for name in ("workers", "cpus", "gpus", "dollars_per_hour")]),
        ("likelihood", ["likelihood.name", "likelihood.mixtures"]),
        ("optim.lr", ["optim.lr"]),
        ("seed", ["seed"]),
    ],
)
def test_config_shows_one_section_or_key(wanted: str, keys: list[str]) -> None:
    lines = [line.split()[0] for line in done("config", wanted).splitlines() if line.strip()]
    assert [word for word in lines if word not in ("key", "Of")] == keys


def test_config_names_the_nearest_key() -> None:
    assert "did you mean `optim.lr`?" in refused("config", "optim.Lr")
    assert "did you mean `budget`? sections are data, model," in refused("config", "budgets")
    assert "show a file with --config model.toml" in refused("config", "model.toml")
    assert "leave one out" in refused("config", "--template", "gated", "--family", "gated")
    assert "must be one of pixelcnn, gated" in refused("config", "--template", "gatd")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_is_read_back_as_the_defaults(family: str) -> None:
    text = done("config", "--template", family)
    Path("model.toml").write_text(text, encoding="utf-8")
    read = TrialConfig.from_toml("model.toml")
    tree = {"data": {"name": "digits"}, "model": {"family": family}, "likelihood": {"name": "logistic_mixture"}}
    assert read == TrialConfig.build(tree)
    assert all(len(line) <= 100 or line.startswith("# A configuration") for line in text.splitlines())
    for key in read.flat():
        assert re.search(rf"(?m)^(# )?{key.rpartition('.')[2]} = ", text)


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_without_a_value_in_a_template_can_be_given_one(family: str) -> None:
    text = done("config", "--template", family)
    given = re.sub(r"(?m)^# (levels|resize) = …    # none$", r"\1 = 16", text)
    Path("model.toml").write_text(given, encoding="utf-8")
    data = TrialConfig.from_toml("model.toml").data
    assert (data.levels, data.resize) == (16, 16)


def test_train_takes_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a word or as --config, and one of them."""
    settings = ["train.images=64", "train.batch_size=32", "model.layers=1", "model.channels=4", "data.fraction=0.1"]
    words = [word for setting in settings for word in ("--set", setting)]
    Path("model.toml").write_text(done("config", "--template", "gated", *words), encoding="utf-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "Best " in done("train", "model.toml")
    assert done("train", "--config", "model.toml") == done("train", "model.toml")
    assert "not allowed with argument" in refused("train", "model.toml", "--config", "model.toml")
    assert "is required" in refused("train")


def test_audit_says_what_it_found() -> None:
    said = done("audit", "--config", write_tiny())
    assert re.match(r"Passed in \d+\.\d\d s: causal by position and colour", said)
    assert "receptive field 4 rows × 5 columns with 0 past pixels unseen inside" in said
    blind = done("audit", "--config", "tiny.toml", "--set", "model.family=pixelcnn")
    assert "with 0 past pixels unseen" not in blind


@pytest.mark.parametrize("words", [["--help"], ["search", "--help"], ["train", "--help"], ["sample", "--help"]])
def test_help_is_help(words: list[str]) -> None:
    said = command(*words) if words != ["--help"] else command("search", *words)
    assert said.code == 0
    assert "usage" in said.out
    assert said.err == ""
