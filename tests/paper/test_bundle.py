"""A paper of a real final, and its bundle checked by someone who has nothing but the images; no Ray."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import pixeltune.packages
from pixeltune.config import TrialConfig
from pixeltune.packages import install_command
from pixeltune.paper.bundle import MANIFEST_NAME, Manifest, changed_files, read_manifest
from pixeltune.paper.bundle_check import verify_bundle
from pixeltune.paper.works import parse_bibtex
from pixeltune.results.parquet_io import decode, encode
from pixeltune.results.schema import IMAGE_SCHEMA
from pixeltune.results.store import SearchStore
from pixeltune.search.searcher import FixedTrials
from pixeltune.search.trial import run_trial
from pixeltune.training.loop import fit
from pixeltune.training.weights import load_with_config, save_weights
from tests.support.commands import command, done, refused
from tests.support.toy_final import asked, final_state, searched
from tests.support.toy_search import toy_config


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search `toy` on images of one's own, and its final of one configuration with two seeds."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    pixels_NCHW = rng.integers(0, 4, (360, 1, 8, 8), dtype=np.uint8)
    np.savez(folder / "set.npz", train=pixels_NCHW[:320], test=pixels_NCHW[320:], levels=4)
    base = toy_config(eval_batch_size=16).override(
        {"data.name": "array", "data.path": str(folder / "set.npz"), "data.num_valid": 100}
    )
    searched(folder / "results", [(1.5, 100)], base=base)
    state, space = final_state(asked(folder / "results", top=1, settings={"data.path": str(folder / "set.npz")}))
    plans = FixedTrials(space, state)
    for _ in range(2):
        plan = plans.next_plan()
        assert plan is not None
        state.start(plan, state.space.resources)
        for message in run_trial(plan.to_task(state.space, state.store, state.space.resources)):
            state.receive(plan.trial, message)
        assert state.finish(plan.trial)["status"] == "finished"
    state.store.write_launch({"budget": {"trials": 2}})
    return folder


@pytest.fixture(scope="module")
def written(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its paper, as a user makes it."""
    out = tmp_path_factory.mktemp("papers") / "paper"
    said = done("paper", "toy-final", "--storage", str(storage / "results"), "--out", str(out), "--samples", "4")
    (out / "said.txt").write_text(said, encoding="utf-8")
    return out


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bundle(written: Path, own_folder: Path) -> Path:
    """A copy of the bundle, alone."""
    return Path(shutil.copytree(written / "bundle", own_folder / "bundle"))


def resealed(bundle: Path, change: Callable[[Manifest], Manifest] = lambda manifest: manifest) -> None:
    """Write a manifest that fits the files as they are now: someone who changed more than a bit did so too."""
    import hashlib

    tree = json.loads((bundle / MANIFEST_NAME).read_bytes())
    for name, about in tree["files"].items():
        content = (bundle / name).read_bytes()
        about |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = dataclasses.replace(read_manifest(str(bundle)), files=tree["files"])
    (bundle / MANIFEST_NAME).write_bytes(change(manifest).to_bytes())


def test_the_paper_holds_what_a_publication_needs(written: Path, storage: Path) -> None:
    said = (written / "said.txt").read_text(encoding="utf-8")
    names = {path.name for path in written.iterdir()}
    kinds = ("pdf", "svg") if pixeltune.packages.has_package("matplotlib") else ()
    figures = {f"{name}.{kind}" for name in ("curves", "samples") for kind in kinds}
    texts = {"table.tex", "table.md", "references.bib", "tables.parquet", "tables.json", "config.toml", "README.md"}
    assert names == texts | figures | {"bundle", "said.txt"}
    rows = SearchStore(str(storage / "results"), "toy-final").trials()
    (line,) = pq.read_table(written / "tables.parquet", use_threads=False).to_pylist()
    assert line["bits_per_dim"] == pytest.approx(np.mean([row["test_bits_per_dim"] for row in rows]), rel=1e-12)
    assert line["seeds"] == 2
    assert line["num_parameters"] == rows[0]["num_parameters"]
    manifest = read_manifest(str(written / "bundle"))
    printed = manifest.stated.printed
    assert f"toy/00000: {printed['bits_per_dim']} ± {printed['bits_per_dim_error']} bits/dim" in said
    assert f"${printed['bits_per_dim']} \\pm {printed['bits_per_dim_error']}$" in (written / "table.tex").read_text(
        "utf-8"
    )
    assert f"Bundle {manifest.digest}" in said
    assert parse_bibtex((written / "references.bib").read_text("utf-8")) == {}


def test_the_configuration_is_the_one_that_was_trained(written: Path, storage: Path) -> None:
    rows = {row["trial"]: row for row in SearchStore(str(storage / "results"), "toy-final").trials()}
    config = TrialConfig.from_toml(written / "config.toml")
    assert config.key() == rows["00000"]["config_key"]
    for run in read_manifest(str(written / "bundle")).runs:
        own = TrialConfig.from_toml(written / "bundle" / run.config)
        assert own.key() == run.config_key == rows[run.trial]["config_key"]
        assert own.seed == run.seed
    readme = (written / "README.md").read_text("utf-8")
    assert "$ pixeltune final toy --top 1 --seeds 2\n" in readme
    assert f"`{rows['00000']['config_key']}` with seed 6; the runs (seeds 6, 7)" in readme


def test_it_trains_again_to_the_same_number(written: Path, storage: Path, own_folder: Path) -> None:
    """As README.md says: in Python exactly, and with a validation set by `train`."""
    shutil.copy(storage / "set.npz", "set.npz")
    shutil.copy(written / "config.toml", "config.toml")
    training = fit(TrialConfig.from_toml("config.toml"))
    assert [report.images_seen for report in training] == [100]
    row = SearchStore(str(storage / "results"), "toy-final").trials()[0]
    assert training.evaluate(training.model_of_record, "test").nats == row["test_nats"]
    assert "Best " in done("train", "--config", "config.toml", "--set", "data.train_on_valid=false")


def test_nothing_names_the_authors_machine(written: Path, storage: Path) -> None:
    """Reviews are anonymous; of the path of the images the last part stays, by which a set may be recognised."""
    (row, *_) = SearchStore(str(storage / "results"), "toy-final").trials()
    for path in written.rglob("*"):
        if path.is_file() and path.name != "said.txt":
            content = path.read_bytes()
            assert str(storage).encode() not in content, path
            assert row["hostname"].encode() not in content, path
    assert TrialConfig.from_toml(written / "config.toml").data.path == "set.npz"
    assert load_with_config(str(written / "bundle/weights-00000.safetensors")).config.data.path == "set.npz"


@pytest.mark.needs("matplotlib")
def test_curves_are_vectors_of_each_run_and_its_origin_and_samples_are_pixels(written: Path) -> None:
    curves = (written / "curves.svg").read_text("utf-8")
    for words in ("00000, training loss of each seed", "00000, validation in the search", "training images seen"):
        assert words in curves
    assert "<image" not in curves
    assert "<image" in (written / "samples.svg").read_text("utf-8")
    assert "seed 0" in (written / "samples.svg").read_text("utf-8")
    for name in ("curves", "samples"):
        assert (written / f"{name}.pdf").read_bytes().startswith(b"%PDF-")


def test_anyone_with_the_images_gets_the_same_numbers(bundle: Path, storage: Path) -> None:
    loaded = set(sys.modules)
    said = done("verify", ".", "--data", str(storage / "set.npz"))
    lines = said.splitlines()
    assert [line.split()[0] for line in lines] == ["passed"] * 6 + ["Verified."]
    assert "largest difference 0 (allowed" in said
    assert said.count("40 equal") == 2
    assert "recomputed as printed" in said
    assert not {name for name in set(sys.modules) - loaded if name.partition(".")[0] in ("ray", "optuna")}


def test_a_part_of_the_images_says_that_it_is_one(bundle: Path, storage: Path) -> None:
    said = done("verify", "bundle", "--data", str(storage / "set.npz"), "--images", "5")
    assert "PARTIAL: 5 of 40 images were recomputed, the mean" in said
    assert said.endswith("Verified, on the first 5 images only.\n")
    assert "must be at most the 40 test images, but got 41" in refused(
        "verify", "bundle", "--data", str(storage / "set.npz"), "--images", "41"
    )


def test_a_changed_bit_of_any_file_is_found_and_named(bundle: Path) -> None:
    rng = random.Random(1)
    names = sorted(path.name for path in bundle.iterdir())
    assert len(names) == 8
    for name in names:
        path = bundle / name
        content = path.read_bytes()
        places = {
            0,
            len(content) - 1,
            *(rng.randrange(len(content)) for _ in range(120 if name == MANIFEST_NAME else 4)),
        }
        for place in places:
            spoilt = bytearray(content)
            spoilt[place] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(spoilt))
            checks = verify_bundle(str(bundle))
            assert [check.passed for check in checks] == [False], (name, place)
            assert checks[0].name == name
            assert name in checks[0].detail
        path.write_bytes(content)
    assert not changed_files(str(bundle), read_manifest(str(bundle)))


def test_a_changed_bundle_ends_with_1_before_any_image_is_read(bundle: Path) -> None:
    (bundle / "nats-00001.parquet").unlink()
    (bundle / "config-00000.toml").write_bytes(b"seed = 1\n")
    (bundle / "more.txt").touch()
    said = command("verify", "bundle")
    assert said.code == 1
    assert said.out == (
        "FAILED  config-00000.toml       bundle/config-00000.toml was changed\n"
        "FAILED  nats-00001.parquet      bundle/nats-00001.parquet is missing\n"
        "FAILED  more.txt                bundle/more.txt is not in the manifest\n"
        "NOT verified: 3 of 3 checks failed.\n"
    )


def test_other_images_are_refused_in_one_line(bundle: Path, storage: Path) -> None:
    assert "name your copy of them with --data PATH" in refused("verify", "bundle")
    arrays = dict(np.load(storage / "set.npz"))
    arrays["test"] = arrays["test"].copy()
    arrays["test"][7, 0, 3, 3] ^= 1
    np.savez("changed.npz", **arrays)
    said = refused("verify", "bundle", "--data", "changed.npz")
    assert "the images must be those of the bundle (array, " in said
    assert read_manifest("bundle").data["checksum"] in said
    assert "there is nothing at nowhere.npz" in refused("verify", "bundle", "--data", "nowhere.npz")


def test_other_weights_fail_though_all_digests_fit(bundle: Path, storage: Path) -> None:
    path = str(bundle / "weights-00001.safetensors")
    trained = load_with_config(path)
    next(trained.model.parameters()).data.add_(0.05)
    save_weights(trained.model, trained.config, path, data_checksum=trained.data_checksum)
    resealed(bundle)
    checks = verify_bundle(str(bundle), data_path=str(storage / "set.npz"))
    assert [check.name for check in checks if not check.passed] == ["run 00001, seed 7", "mean"]
    said = command("verify", "bundle", "--data", str(storage / "set.npz"), "--images", "3")
    assert said.code == 1
    assert said.out.endswith("NOT verified: 1 of 6 checks failed.\n")


def test_weights_of_another_run_are_refused(bundle: Path, storage: Path) -> None:
    shutil.copy(bundle / "weights-00000.safetensors", bundle / "weights-00001.safetensors")
    resealed(bundle)
    said = refused("verify", "bundle", "--data", str(storage / "set.npz"))
    assert "weights must be of their run's configuration and images, but weights-00001.safetensors is of" in said


def _nats_changed(bundle: Path) -> None:
    path = bundle / "nats-00000.parquet"
    rows = decode(path.read_bytes(), IMAGE_SCHEMA)
    path.write_bytes(encode([rows[0] | {"nats": rows[0]["nats"] - 1.0}, *rows[1:]], IMAGE_SCHEMA))
    resealed(bundle)


def _mean_changed(bundle: Path) -> None:
    resealed(
        bundle,
        lambda manifest: dataclasses.replace(
            manifest, stated=dataclasses.replace(manifest.stated, bits_per_dim=manifest.stated.bits_per_dim - 0.01)
        ),
    )


def _print_changed(bundle: Path) -> None:
    stated = read_manifest(str(bundle)).stated
    printed = {**stated.printed, "bits_per_dim": f"{stated.bits_per_dim - 0.01:.4f}"}
    resealed(
        bundle, lambda manifest: dataclasses.replace(manifest, stated=dataclasses.replace(stated, printed=printed))
    )


def _batch_changed(bundle: Path) -> None:
    evaluation = {**read_manifest(str(bundle)).evaluation, "batch_size": 10**12}
    resealed(bundle, lambda manifest: dataclasses.replace(manifest, evaluation=evaluation))


def _config_changed(bundle: Path) -> None:
    path = bundle / "config-00000.toml"
    path.write_text(path.read_text("utf-8").replace("layers = 2", "layers = 3"), encoding="utf-8")
    resealed(bundle)


def _config_cut(bundle: Path) -> None:
    (bundle / "config-00000.toml").write_text("seed = [", encoding="utf-8")
    resealed(bundle)


@pytest.mark.parametrize(
    "change",
    [_nats_changed, _mean_changed, _print_changed, _batch_changed, _config_changed, _config_cut],
)
def test_numbers_that_do_not_follow_from_each_other_fail_before_any_image_is_read(
    change: Callable[[Path], None], bundle: Path
) -> None:
    change(bundle)
    checks = verify_bundle(str(bundle))
    assert [(check.name, check.passed) for check in checks] == [("digests", True), ("arithmetic", False)]


@pytest.mark.parametrize("name", ["../toy", "/etc/passwd", "a/b", ""])
def test_a_manifest_names_no_file_outside_of_its_folder(name: str, bundle: Path) -> None:
    manifest = read_manifest(str(bundle))
    spoilt = dataclasses.replace(manifest, files={**manifest.files, name: {"sha256": "", "bytes": 0}})
    (bundle / MANIFEST_NAME).write_bytes(spoilt.to_bytes())
    (check,) = verify_bundle(str(bundle))
    assert not check.passed
    assert "must name files of its folder" in check.detail


def test_a_bundle_of_a_later_format_says_so(bundle: Path) -> None:
    (bundle / MANIFEST_NAME).write_bytes(
        dataclasses.replace(read_manifest("bundle"), format="pixeltune-bundle/2").to_bytes()
    )
    assert "must have format pixeltune-bundle/1, but got 'pixeltune-bundle/2'" in command("verify", "bundle").out


@pytest.fixture
def results(storage: Path, own_folder: Path) -> Path:
    """A copy of the results, which a test may spoil."""
    return Path(shutil.copytree(storage / "results", own_folder / "results"))


def test_rows_of_other_finals_by_name_by_folder_and_by_bundle(results: Path, written: Path, own_folder: Path) -> None:
    shutil.copytree(results / "toy-final", results / "again")
    store = SearchStore(str(results), "again")
    for path in (results / "again" / "trials").iterdir():
        path.unlink()
    for row in SearchStore(str(results), "toy-final").trials():
        store.write_trial(row | {"search": "again"})
    others = [
        "--with",
        "again",
        "--with",
        str(results / "again"),
        "--with",
        str(written),
        "--with",
        str(written / "bundle"),
    ]
    done("paper", "toy-final", *others, "--samples", "0", "--out", "all")
    lines = pq.read_table("all/tables.parquet", use_threads=False).to_pylist()
    assert [line["search"] for line in lines] == ["toy-final", "again", "again", "toy-final", "toy-final"]
    assert len({(line["bits_per_dim"], line["bits_per_dim_error"], line["nats"]) for line in lines}) == 1
    assert lines[1]["model"] == "Gated PixelCNN (ours, toy/00000 in again)"


def _unfinish(folder: Path) -> None:
    store = SearchStore(str(folder), "toy-final")
    store.write_trial(store.trials()[1] | {"status": "interrupted"})


def _lose_one(folder: Path) -> None:
    (folder / "toy-final/checkpoints/00001/weights.safetensors").unlink()


def _cut_one(folder: Path) -> None:
    path = folder / "toy-final/checkpoints/00001/weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _no_weights(folder: Path) -> None:
    (folder / "toy-final/checkpoints/00001/weights.safetensors").write_bytes(b"nothing of the kind")


def _swap(folder: Path) -> None:
    one, other = (folder / f"toy-final/checkpoints/0000{run}/weights.safetensors" for run in "01")
    other.write_bytes(one.read_bytes())


def _other_nats(folder: Path) -> None:
    one, other = (folder / f"toy-final/images/0000{run}.parquet" for run in "01")
    other.write_bytes(one.read_bytes())


def _file(folder: Path) -> None:
    (folder.parent / "toy-final-paper").touch()


def _lose_all(folder: Path) -> None:
    shutil.rmtree(folder / "toy-final/checkpoints")


def _fill(folder: Path) -> None:
    (folder.parent / "toy-final-paper").mkdir()
    (folder.parent / "toy-final-paper/mine.tex").touch()


@pytest.mark.parametrize(
    ("words", "spoil", "line"),
    [
        (["toy-final"], _unfinish, "toy-final has 1 of 2 runs; run `pixeltune final toy` again"),
        (["toy-final"], _lose_one, "the weights of each run of toy/00000, but"),
        (["toy-final"], _cut_one, "weights must be as pixeltune wrote them, but"),
        (["toy-final"], _no_weights, "weights must be a whole safetensors file of a model, but got none"),
        (["toy-final"], _swap, "weights must be of configuration"),
        (["toy-final"], _other_nats, "the nats of test images must be those of their row"),
        (["toy-final"], _file, "a file must be writable, but toy-final-paper/table.tex is not"),
        (["toy-final"], _lose_all, "a bundle needs the weights of the runs, but"),
        (["toy-final"], _fill, "--out must be a new or empty folder, but toy-final-paper holds files"),
        (["toy-final", "--out", "results/set.txt/x"], lambda folder: (folder / "set.txt").touch(), "must be writable"),
        (["toy"], None, "a paper needs the test numbers of a final, but toy is a search; run `pixeltune final toy`"),
        (["nothing"], None, "a search must have been begun to be read"),
        (["../toy"], None, "a search name must be letters"),
        (["toy-final", "--with", "toy"], None, "but toy is a search"),
        (["toy-final", "--with", "nothing"], None, "a search must have been begun to be read"),
        (["toy-final", "--with", "./nowhere"], None, "a search must have been begun to be read"),
        (["toy-final", "--own", "none.csv"], None, "your published results must be a CSV file"),
        (["toy-final", "--digits", "many"], None, "must be a whole number from 0 to 12"),
        (["toy-final", "--digits", "13"], None, "must be a whole number from 0 to 12"),
        (["toy-final", "--published", "-1"], None, "must be a whole number above 0"),
        (["toy-final", "--samples", "few"], None, "must be a whole number above 0"),
    ],
)
def test_a_paper_that_cannot_be_written_is_one_line_and_leaves_nothing(
    words: list[str], spoil: Callable[[Path], object] | None, line: str, results: Path
) -> None:
    if spoil is not None:
        spoil(results)
    before = sorted(Path.cwd().rglob("*"))
    assert line in refused("paper", *words)
    assert sorted(Path.cwd().rglob("*")) == before


def test_what_is_no_bundle_is_one_line(own_folder: Path) -> None:
    for name in ("nothing", "."):
        assert "name the folder `bundle` that `pixeltune paper` wrote" in refused("verify", name)


def test_without_matplotlib_all_but_the_figures_is_written(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_package = pixeltune.packages.has_package
    monkeypatch.setattr("pixeltune.packages.has_package", lambda name: name != "matplotlib" and has_package(name))
    said = done("paper", "toy-final")
    assert "needs matplotlib, but matplotlib is not installed; " + install_command(["matplotlib"]) in said
    names = {path.name for path in Path("toy-final-paper").iterdir()}
    assert names == {
        *(
            "table.tex",
            "table.md",
            "references.bib",
            "tables.parquet",
            "tables.json",
            "config.toml",
            "README.md",
            "bundle",
        ),
    }


@pytest.mark.needs("matplotlib")
def test_a_search_that_is_gone_costs_its_curves_alone(results: Path) -> None:
    shutil.rmtree(results / "toy")
    said = done("paper", "toy-final", "--samples", "0", "--digits", "2")
    assert "Left out: no curves of the search toy: its results are not in the storage" in said
    curves = Path("toy-final-paper/curves.svg").read_text("utf-8")
    assert "training loss of each seed" in curves
    assert "validation" not in curves
    (line,) = [line for line in Path("toy-final-paper/table.md").read_text("utf-8").splitlines() if "ours" in line]
    assert re.fullmatch(r" \d\.\d\d ± 0\.\d\d ", line.split("|")[3])
