"""Whatever the user can put right is one line on stderr and exit code 2; no cluster and no training here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pixeltune.config import FAMILIES, LIKELIHOODS
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.store import SearchStore
from pixeltune.search.attempt import TrialPlan
from pixeltune.search.state import SearchState
from pixeltune.space import load_search
from tests.support.commands import refused, write_tiny

VERBS = (
    "search",
    "train",
    "final",
    "paper",
    "verify",
    "evaluate",
    "sample",
    "complete",
    "audit",
    "compress",
    "decompress",
    "verify-bits",
    "compare",
    "show",
    "export",
    "rerun",
    "config",
)


def begin(name: str = "digits_quick", storage: str = "results") -> SearchStore:
    """A search whose first trial has begun."""
    store, space = SearchStore(storage, name), load_search("digits_quick")
    store.open(SearchManifest.of(space, name, baseline_bits_per_dim=2.4))
    SearchState(space, store).start(TrialPlan(0, 1, space.base_suggestion(), space.base), space.resources)
    return store


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--search digits_quik", "did you mean digits_quick?"),
        ("--search no/such.py", "there is none at no/such.py"),
        ("", "--search must name a search"),
        ("--search digits_quick --set model.layrs=3", "unknown key `model.layrs`; did you mean `model.layers`?"),
        ("--search digits_quick --set model.layers=many", "`model.layers` must be a whole number, but got 'many'"),
        ("--search digits_quick --set model.layers=3.0", "but got 3.0"),
        ("--search digits_quick --set model.layers", "must have the form key=value"),
        ("--search digits_quick --set budget.trials=none", "`budget.trials` must be a number"),
        ("--search digits_quick --set resources.workers=0", "workers >= 1"),
        ("--search digits_quick --set budget.target=-2.9", "budget.target must be above 0, as every objective is"),
        ("--search digits_quick --set budget.target=inf", "budget.target must be finite"),
        ("--search digits_quick --set budget.patience=0", "budget.patience must be above 0"),
        ("--search digits_quick --set budget.patience=2.5", "budget.patience` must be a whole number"),
        ("--search digits_quick --set budget.min_delta=0.1", "budget.min_delta needs budget.patience"),
        ("--search digits_quick --set budget.dollars=0", "budget.dollars must be above 0"),
        ("--search digits_quick --set budget.dollars=5", "budget.dollars needs the price of a trial"),
        ("--search digits_quick --set resources.dollars_per_hour=-1", "resources.dollars_per_hour must be a finite"),
        ("--search digits_quick --trials 0", "must be a whole number above 0, but got '0'"),
        ("--search digits_quick --trials -3", "but got '-3'"),
        ("--search digits_quick --trials many", "but got 'many'"),
        ("--search digits_quick --trials 2.5", "but got '2.5'"),
        ("--search digits_quick --trials", "expected one argument"),
        ("--search digits_quick --hours -1", "budget.hours must be above 0, but got -1"),
        ("--search digits_quick --hours nan", "budget.hours must be above 0, but got nan"),
        ("--search digits_quick --name ../elsewhere", "a search name must be letters"),
        ("--search digits_quick --address 127.0.0.1:1", "must answer at 127.0.0.1:1, but none does"),
        ("--search digits_quick --address nowhere", "HOST:PORT"),
        ("--search digits_quick --sampler sobol", "invalid choice: 'sobol'"),
        ("--search digits_quick --sampler grid", "or --grid model.dropout=VALUE,VALUE"),
        ("--search digits_quick --sampler grid --grid optim.lr=1", "grid['optim.lr'] must have values among 5e-4…1e-2"),
        ("--search digits_quick --grid optim.lr=1e-3", "grid must be of a search with sampler='grid'"),
        ("--search digits_quick --grid optim.lr", "must have the form key=…, but got 'optim.lr'"),
        ("--search digits_quick --first model.layrs=3", "did you mean `model.layers`?"),
        ("--search digits_quick --first model.layers=3,model.layers=4", "must set each key once"),
        ("--search digits_quick --first model.layers=4", "it is the same as the base; leave it out"),
        ("--search digits_quick --first model.layers=5 --set model.layers=6", "first[0] must agree with what is set"),
        ("--search digits_quick --prior optim.lr=1e-3", "a prior must be written as LogNormal(MEDIAN, FACTOR)"),
        ("--search digits_quick --prior optim.lr=LogNormal(1,2)", "must have its median in 5e-4…1e-2 (log), but got 1"),
        ("--search digits_quick --sampler gp --prior optim.lr=LogNormal(1e-3,2)", "must have the sampler tpe, but got"),
        ("--search digits_pareto --sampler cmaes", "the sampler cmaes must have one objective"),
        ("--search digits_quick --scheduler hyperband", "invalid choice: 'hyperband'"),
        ("--search digits_quick --scheduler pareto", "a search with Pareto needs `scheduler.margin` first"),
        ("--search digits_quick --set constraints.accuracy=1", "constraints must be of valid_bits_per_dim"),
        ("--search digits_quick --warm-start nowhere", "there is nothing at nowhere"),
        ("--search digits_quick --frobnicate", "unrecognized arguments: --frobnicate"),
    ],
)
@pytest.mark.parametrize("entry", ["launch.py", "pixeltune search"])
def test_a_search_that_cannot_start(entry: str, words: str, says: str) -> None:
    if entry == "launch.py" and not words:
        words = "--storage results"
    assert says in refused(*(["search"] if entry == "pixeltune search" else []), *words.split())


def test_an_unknown_verb_suggests_the_nearest_or_lists_all() -> None:
    assert refused("serach").endswith("invalid choice: 'serach'; did you mean search; see pixeltune --help\n")
    message = refused("qqq")
    for verb in VERBS:
        assert verb in message
    assert "VERB" in refused()


def test_an_unknown_option_suggests_the_nearest_of_its_verb() -> None:
    assert "unrecognized arguments: --jsn; did you mean --json; see pixeltune status" in refused("status", "x", "--jsn")
    assert "did you mean --search; see launch.py --help" in refused("--seach", "digits_quick")
    assert "did you mean" not in refused("status", "x", "--qqq")
    assert "did you mean naive;" in refused("sample", "x", "--method", "naiv")


@pytest.mark.parametrize("verb", ["train", "audit", "config"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is none at mine.toml"),
        ("[model\nfamily", "must be TOML"),
        ("[data]\nname = 'digits'\n", "`model` must be given"),
        ("[data]\nname = 'digits'\n[model]\nfamily = 'gated'\nlayrs = 3\n", "did you mean `model.layers`?"),
        ("[data]\nname = 'digits'\n[model]\nfamily = ['gated']\n", "but got ['gated']"),
        ("[data]\nname = 'digits'\n[model]\nfamily = 'gated'\nlayers = true\n", "but got True"),
    ],
    ids=["missing", "no TOML", "no model", "unknown key", "list", "type"],
)
def test_a_bad_configuration_file(verb: str, content: str | None, says: str) -> None:
    if content is not None:
        Path("mine.toml").write_text(content, encoding="utf-8")
    assert says in refused(verb, "--config", "mine.toml")
    assert not Path("results").exists()


@pytest.mark.parametrize("verb", ["train", "audit", "config"])
@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("model.layrs=3", "did you mean `model.layers`?"),
        ("optim.lr=fast", "`optim.lr` must be a number, but got 'fast'"),
        ("train.images=33", "the nearest are 32 and 64"),
        ("=3", "must have the form key=value"),
    ],
)
def test_a_bad_setting(verb: str, setting: str, says: str) -> None:
    assert says in refused(verb, "--config", write_tiny(), "--set", setting)


@pytest.mark.parametrize("verb", ["train", "audit"])
@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("data.name=cifr10", "did you mean cifar10"),
        ("data.name=mnist", "data.download"),
        ("likelihood.name=bernoulli", "2 levels"),
    ],
)
def test_a_configuration_that_does_not_fit_its_data(verb: str, setting: str, says: str) -> None:
    assert says in refused(verb, "--config", write_tiny(), "--set", setting)


def test_no_more_than_the_data_has_in_a_batch() -> None:
    settings = [f"train.{key}=1024" for key in ("batch_size", "images", "report_every")]
    said = refused("train", "--config", write_tiny(), *[word for setting in settings for word in ("--set", setting)])
    assert "`train.batch_size` must be at most the 343 training images of digits, but got 1024" in said


@pytest.mark.parametrize("verb", ["sample", "complete", "evaluate"])
@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("nothing", "results/nothing/search.json does not exist"),
        ("nothing/00000", "results/nothing/search.json does not exist"),
        ("digits_quick/3", "must have a trial with kept weights"),
        ("digits_quick", "must have a trial with kept weights"),
        ("", "a search name must be letters"),
        ("../x/0", "a search name must be letters"),
        ("none.safetensors", "there are none at none.safetensors"),
        ("short.safetensors", "must be a whole safetensors file"),
        ("empty.safetensors", "must be a whole safetensors file"),
        ("folder.safetensors", "weights must be readable, but folder.safetensors is not"),
    ],
)
def test_a_trial_without_weights(verb: str, reference: str, says: str) -> None:
    begin()
    Path("short.safetensors").write_bytes((1000).to_bytes(8, "little") + b'{"weight":')
    Path("empty.safetensors").write_bytes(b"")
    Path("folder.safetensors").mkdir()
    assert says in refused(verb, reference)


def test_results_that_are_not_there() -> None:
    Path("empty").mkdir()
    assert "empty holds no search" in refused("compare", "--storage", "empty")
    assert "there is nothing at nowhere" in refused("compare", "--storage", "nowhere")
    assert "there is nothing at empty/mine" in refused("compare", "mine", "--storage", "empty")
    begin()
    assert "holds none" in refused("compare", "digits_quick")
    assert "but got '0'" in refused("compare", "--top", "0")


def test_a_storage_that_is_a_file() -> None:
    Path("file").write_text("mine", encoding="utf-8")
    assert "file" in refused("--search", "digits_quick", "--storage", "file")
    assert "file" in refused("train", "--config", write_tiny(), "--storage", "file")
    assert "file" in refused("sample", "digits_quick", "--storage", "file")
    assert Path("file").read_text(encoding="utf-8") == "mine"


def test_comparing_a_storage_that_is_a_file() -> None:
    Path("file").touch()
    assert "file" in refused("compare", "--storage", "file")


def test_a_second_launch_waits_for_nobody() -> None:
    with begin().lock():
        said = refused("--search", "digits_quick")
    assert re.search(r"process \d+ on .* holds results/digits_quick", said)


def test_a_second_training_waits_for_nobody() -> None:
    with SearchStore("results", "tiny").lock():
        assert "one launch must work on a search at a time" in refused("train", "--config", write_tiny())


def test_a_second_training_leaves_the_first_ones_manifest_alone() -> None:
    """No trial has begun, so the search could begin anew with other settings; but somebody is at work on it."""
    store, space = SearchStore("results", "tiny"), load_search("digits_quick")
    with store.lock():
        store.open(SearchManifest.of(space, "tiny", baseline_bits_per_dim=2.4))
        refused("train", "--config", write_tiny())
    assert store.manifest().vary


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("optim.clip=1.0", "optim.clip: 1.0 here, 100.0 in the results"),
        ("model.layers=3", "vary model.layers: fixed here"),
        ("scheduler.reduction=3", "by 3 here, ASHA at"),
        ("seed=1", "seed: 1 here, 0 in the results"),
    ],
)
def test_other_settings_than_the_search_began_with(setting: str, says: str) -> None:
    begin()
    said = refused("--search", "digits_quick", "--set", setting)
    assert says in said
    assert "under another name or --storage" in said


@pytest.mark.parametrize("setting", ["budget.trials=3", "resources.cpus=2", "data.download=true"])
def test_budget_resources_and_whereabouts_may_change(setting: str) -> None:
    begin()
    said = refused("--search", "digits_quick", "--set", setting, "--address", "127.0.0.1:1")
    assert "a Ray cluster must answer" in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": 999}, "must have a schema version up to"),
        ({"schema_version": None}, "has no schema_version"),
        ({"vary": 3}, "must hold a whole manifest"),
    ],
    ids=["newer", "none", "broken"],
)
def test_results_of_another_version(change: dict[str, object], says: str) -> None:
    store = begin()
    path = Path(store.folder) / "search.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    del tree["sha256"]
    path.write_text(json.dumps(tree | change), encoding="utf-8")
    for words in (["--search", "digits_quick"], ["sample", "digits_quick"], ["evaluate", "digits_quick/0"]):
        said = refused(*words)
        assert says in said
        assert "results/digits_quick" in said


def test_a_manifest_that_was_cut_short() -> None:
    path = Path(begin().folder) / "search.json"
    path.write_bytes(path.read_bytes()[:100])
    assert "search.json must be whole" in refused("--search", "digits_quick")


@pytest.mark.parametrize(
    "words",
    [
        "sample x -n 0",
        "sample x -n many",
        "sample x --seed many",
        "sample x --seed -1",
        "sample x --seed 9223372036854775808",
        "sample x --seed 99999999999999999999999",
        f"sample x --seed {'9' * 5000}",
        "sample x --label -1",
        "sample x --temperature 0",
        "sample x --temperature nan",
        "sample x --temperature warm",
        "sample x --method nave",
        "sample x --gallery -n 4",
        "complete x --draws 0",
        "complete x --rows 3 --columns 4",
        "train --config x --galleries 0",
        "train --config x --galleries 1,often",
        "evaluate x --split train",
        "evaluate x --batch-size 0",
        "evaluate x --importance 0",
        "evaluate x --importance many",
        "train",
        "audit",
    ],
)
def test_a_bad_option_says_where_help_is(words: str) -> None:
    assert refused(*words.split()).rstrip().endswith(f"see pixeltune {words.split()[0]} --help")


def test_an_unknown_family_or_likelihood_lists_the_known_ones() -> None:
    for option, known, name in (("--family", FAMILIES, "resnet"), ("--likelihood", LIKELIHOODS, "normal")):
        words = f"must be one of {', '.join(known)} or package.module:ConfigClass, but got {name!r}"
        assert words in refused("config", option, name)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("final nowhere", "nowhere/search.json does not exist"),
        ("final digits_quick --top 0", "must be a whole number above 0, but got '0'"),
        ("final digits_quick --seeds 0", "must be a whole number above 0, but got '0'"),
        ("final digits_quick --images 0", "must be a whole number above 0, but got '0'"),
        ("final digits_quick --workers 0", "must be a whole number above 0, but got '0'"),
        ("final digits_quick --top 1 --trial 0", "not allowed with argument"),
        ("final digits_quick --name ../elsewhere", "a search name must be letters"),
        ("final digits_quick", "digits_quick has none (1 running); let the search go on first"),
        ("final digits_quick --trial 0", "digits_quick has none (1 running)"),
        ("final", "the following arguments are required: SEARCH"),
    ],
)
def test_a_final_that_cannot_start(words: str, says: str) -> None:
    begin()
    assert says in refused(*words.split())
    assert not Path("results/nowhere-final").exists()


def test_a_final_waits_for_its_search() -> None:
    with begin().lock():
        assert "one launch must work on a search at a time" in refused("final", "digits_quick")


def test_a_final_of_impossible_settings() -> None:
    store = begin()
    (row,) = store.trials()
    config = load_search("digits_quick").base
    told = {"status": "finished", "valid_bits_per_dim": 2.0, "best_images_seen": 16_000, "images_seen": 16_000}
    store.write_trial(row | told | {"config_key": config.key(), "data_checksum": "abc"})
    for options, says in (
        ("--set model.layers=3", "a final retrains configurations as they are"),
        ("--set resources.workers=0", "workers >= 1"),
        ("--images 33", "`train.images` must be a multiple of train.batch_size, but got 33 and 32"),
        ("--hours -1", "budget.hours must be above 0, but got -1"),
        ("--workers 5", "`train.batch_size` must divide by the 5 workers, but got 32"),
        ("--set data.path=elsewhere", "on the images of its search (checksum abc), but got "),
    ):
        assert says in refused("final", "digits_quick", *options.split())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("search", "--search", "digits_quik"), "no search is called 'digits_quik'; did you mean digits_quick?"),
        (("search",), "--search must name a search"),
        (("doctor", "--search", "mine.py"), "a search file must exist, but there is none at mine.py"),
        (("final", "nothing"), "a search must have been begun to be read"),
        (("report", "nothing"), "a search must have been begun to be read"),
        (("paper", "nothing"), "a search must have been begun to be read"),
        (("verify", "nothing"), "a bundle must have its manifest.json, but there is no nothing/manifest.json"),
        (("cluster", "prepare", "none.yaml"), "a cluster file must be readable YAML"),
        (("compress", "nothing", "--split", "test", "--out", "file/x"), "a file must be writable, but file/x is not"),
        (("decompress", "a.ptc", "--trial", "nothing", "--out", "file/x.npy"), "but file/x.npy is not"),
        (("sample", "nothing", "--out", "file/x.png"), "a file must be writable, but file/x.png is not"),
        (("complete", "nothing", "--rows", "1", "--out", "folder.png"), "folder.png is a folder; name a file in it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_costs_nothing_is_checked_before_what_may_be_missing(
    words: tuple[str, ...], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any optional package, the line names the user's slip; installing would only lead to it."""
    monkeypatch.setattr("pixeltune.packages.has_package", lambda _name: False)
    Path("file").write_text("", encoding="utf-8")
    Path("folder.png").mkdir()
    assert line in refused(*words)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["file", "folder.png"]
