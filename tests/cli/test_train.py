"""Train, train again, evaluate and sample one tiny trial; stop one and go on."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from pixeltune.data.load import forget_loaded
from pixeltune.results.store import SearchStore
from pixeltune.search import trial
from pixeltune.search.messages import TrialTask
from pixeltune.training import evaluation as evaluation
from pixeltune.training import workers
from pixeltune.training.weights import load_with_config, save_weights
from tests.support.commands import command, done, refused, write_tiny

WEIGHTS = Path("tiny/checkpoints/00000/weights.safetensors")
SECONDS = re.compile("seconds|_at$|per_second|memory|attempt|trial$|search$|search_id$")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """The configuration's file, the storage, and what `train` printed."""
    folder = tmp_path_factory.mktemp("trained")
    config, storage = write_tiny(folder / "tiny.toml"), str(folder / "results")
    return config, storage, done("train", "--config", config, "--storage", storage)


def test_a_training_prints_a_line_a_report_and_where_to_go_from_there(trained: tuple[str, str, str]) -> None:
    lines = trained[2].splitlines()
    assert re.fullmatch(r"tiny: order-0 baseline \d\.\d{4} bits/dim on validation", lines[0])
    assert lines[1].startswith("tiny: digits (")
    assert lines[1].endswith("), 1×8×8, 17 levels, 10 classes; 343 train, 64 validation, 360 test")
    assert lines[2].split()[:2] == ["images", "epoch"]
    assert [line.split()[0] for line in lines[3:5]] == ["128", "256"]
    best = re.match(
        r"Best (\d\.\d{4}) bits/dim \((\d+\.\d{3}) nats\) after 256 images; pixeltune evaluate tiny", lines[5]
    )
    assert best
    assert best[1] == lines[4].split()[3]


def test_a_training_leaves_one_finished_row_its_curve_and_its_weights(trained: tuple[str, str, str]) -> None:
    _, storage, out = trained
    store = SearchStore(storage, "tiny")
    (row,) = store.trials()
    assert (row["status"], row["trial"], row["attempt"], row["images_seen"]) == ("finished", "00000", 1, 256)
    assert f"{row['valid_bits_per_dim']:.4f}" in out
    assert [point["images_seen"] for point in store.curve("00000")] == [128, 256]
    assert [path.name for path in Path(store.checkpoint("00000")).iterdir()] == ["weights.safetensors"]
    assert store.manifest().baseline_bits_per_dim == row["baseline_bits_per_dim"]


def test_the_same_command_again_does_not_train(trained: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    config, storage, out = trained

    def never(_task: TrialTask, _taken: Any) -> Iterator[Any]:
        raise AssertionError("it must not train again")

    monkeypatch.setattr(trial, "run_trial", never)
    again = done("train", "--config", config, "--storage", storage).splitlines()
    assert again == [out.splitlines()[0], out.splitlines()[-1]]


def test_other_settings_need_another_name(trained: tuple[str, str, str]) -> None:
    config, storage, _ = trained
    said = refused("train", "--config", config, "--storage", storage, "--set", "optim.lr=0.1")
    assert "optim.lr: 0.1 here, 0.003 in the results" in said


def test_evaluation_gives_the_row_its_number_back(trained: tuple[str, str, str]) -> None:
    _, storage, _ = trained
    (row,) = SearchStore(storage, "tiny").trials()
    said = done("evaluate", "tiny", "--storage", storage)
    match = re.match(r"valid: (\d\.\d{5}) bits/dim ± \d\.\d{5}, (\d+\.\d{4}) nats per image, 64 images of digits", said)
    assert match
    assert float(match[1]) == pytest.approx(row["valid_bits_per_dim"], abs=2e-5)
    assert row["data_checksum"] in said
    other_batch = done("evaluate", "tiny/0", "--storage", storage, "--batch-size", "7")
    assert other_batch.split()[1] == match[1]
    assert "chosen" not in said
    test, caution = done("evaluate", "tiny/00000", "--storage", storage, "--split", "test").splitlines()
    assert test.startswith("test: ")
    assert caution == "Quote this number only for a model that was not chosen by it."
    by_path = str(Path(storage) / WEIGHTS)
    assert done("evaluate", by_path) == said


def test_weights_that_look_ahead_have_no_number(trained: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_with_config(str(Path(trained[1]) / WEIGHTS))
    found.model.network.register_forward_hook(lambda _, inputs, theta: theta + 0.1 * inputs[0].roll(-1, dims=3)[:, :1])
    monkeypatch.setattr("pixeltune.cli.trial_ref.load_on_best_device", lambda _weights: found)
    for split in ("valid", "test"):
        said = refused("evaluate", "tiny", "--storage", trained[1], "--split", split)
        assert "must not depend on" in said
        assert "bits/dim" not in said


@pytest.mark.parametrize(
    "setting", ["data.split_seed=1", "data.num_valid=340", "data.levels=4", "model.layers=9", "data.pth=x", "seed=1"]
)
def test_evaluation_refuses_what_would_change_its_images_or_nothing(
    trained: tuple[str, str, str], setting: str
) -> None:
    said = refused("evaluate", "tiny", "--storage", trained[1], "--set", "data.path=here", "--set", setting)
    assert "may only be data.path, data.download, data.follow_links, train.eval_batch_size" in said
    assert f"but got {setting.partition('=')[0]};" in said


def test_evaluation_takes_other_whereabouts_and_another_batch(
    trained: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def measure(*args: Any, batch_size: int, **rest: Any) -> Any:
        sizes.append(batch_size)
        return whole(*args, batch_size=batch_size, **rest)

    whole = evaluation.evaluate
    monkeypatch.setattr(evaluation, "evaluate", measure)
    settings = ("data.download=true", "train.eval_batch_size=9")
    done("evaluate", "tiny", "--storage", trained[1], *[word for setting in settings for word in ("--set", setting)])
    assert sizes == [9]


def test_evaluation_says_which_bound_it_gives() -> None:
    settings = ("--set", "model.family=pixelvae", "--set", "model.latent_dim=2", "--set", "train.images=128")
    done("train", "--config", write_tiny(), *settings)
    elbo, five, one = (done("evaluate", "tiny", *words) for words in ([], ["--importance", "5"], ["--importance", "1"]))
    assert " nats per image (a bound, the ELBO), 64 images of digits" in elbo
    assert " nats per image (a bound, importance-weighted with 5 draws), 64 images of digits" in five
    assert len({said.split()[1] for said in (elbo, five, one)}) == 3
    assert done("evaluate", "tiny", "--importance", "5", "--batch-size", "9").split()[1] == five.split()[1]


def test_evaluation_of_an_exact_model_takes_no_draws(trained: tuple[str, str, str]) -> None:
    said = refused("evaluate", "tiny", "--storage", trained[1], "--importance", "5")
    assert "needs a model with a latent, but family gated has none: its likelihood is exact" in said


def test_evaluation_refuses_images_that_changed() -> None:
    def write(path: str, *shape: int, seed: int) -> None:
        pixels = np.random.default_rng(seed).integers(0, 17, shape, dtype=np.uint8)
        np.savez(path, train=pixels, levels=17)

    write("images.npz", 400, 4, 4, seed=0)
    settings = ("--set", "data.name=array", "--set", "data.path=images.npz")
    done("train", "--config", write_tiny(), *settings)
    Path("images.npz").rename("moved.npz")
    assert "64 images of array" in done("evaluate", "tiny", "--set", "data.path=moved.npz")
    write("other.npz", 400, 4, 4, seed=1)
    said = refused("evaluate", "tiny", "--set", "data.path=other.npz")
    assert "the data must be the images that the model was trained on (checksum " in said
    write("larger.npz", 400, 5, 5, seed=1)
    said = refused("evaluate", "tiny", "--set", "data.path=larger.npz")
    assert "height=4" in said
    assert "height=5" in said


def test_samples_are_a_picture_and_the_same_again(trained: tuple[str, str, str]) -> None:
    storage = trained[1]
    said = done("sample", "tiny", "--storage", storage, "-n", "4", "--out", "pictures/grid.png")
    assert "4 images, 64 network calls, about " in said
    assert "Wrote pictures/grid.png" in said
    with Image.open("pictures/grid.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (2 * 64 + 3, 2 * 64 + 3)
    first = Path("pictures/grid.png").read_bytes()
    for seed, same in ((0, True), (1, False)):
        done("sample", "tiny", "--storage", storage, "-n", "4", "--seed", str(seed), "--out", "again.png")
        assert (Path("again.png").read_bytes() == first) is same


def test_a_gallery_is_twelve_by_twelve(trained: tuple[str, str, str]) -> None:
    said = done("sample", "tiny", "--storage", trained[1], "--gallery", "--temperature", "0.5")
    assert "144 images, 128 network calls, about " in said
    assert "tiny, test images, seed 0: 72 samples at temperature 0.5, not of the model's own distribution" in said
    with Image.open("samples.png") as picture:
        assert picture.width == 12 * 65 + 1
        assert picture.height > 14 * 65 + 1  # and the caption
        assert "12 images, a column each: the original, the upper half" in picture.text["Description"]


def test_completions_stand_beside_what_was_given_and_the_original(trained: tuple[str, str, str]) -> None:
    words = ("complete", "tiny", "--storage", trained[1], "-n", "2", "--draws", "3")
    assert "the original, what is given, 3 completions" in done(*words, "--rows", "5")
    with Image.open("completions.png") as picture:
        shown = np.asarray(picture)
    assert shown.shape[1] == 5 * 65 + 1
    cells = [shown[1:65, 1 + 65 * column : 65 * (column + 1)] for column in range(5)]
    original, given = cells[:2]
    for cell in cells:
        assert np.array_equal(cell[:40], given[:40])
    assert (given[40:] == 128).all()
    assert any(not np.array_equal(cell, original) for cell in cells[2:])


def test_what_a_gallery_or_a_grid_does_not_take_is_refused(trained: tuple[str, str, str]) -> None:
    words = ("sample", "tiny", "--storage", trained[1])
    assert "--label draws one class" in refused(*words, "--gallery", "--label", "1")
    assert "--set says where the images of a --gallery are" in refused(*words, "--set", "data.path=x")


def test_no_time_is_told_of_fixed_points(trained: tuple[str, str, str]) -> None:
    said = done("sample", "tiny", "--storage", trained[1], "-n", "2", "--method", "fixed_point")
    assert said == "Wrote samples.png\n"


def test_left_halves_need_clamp_and_are_named_for_it(trained: tuple[str, str, str]) -> None:
    words = ("complete", "tiny", "--storage", trained[1], "-n", "1", "--draws", "2", "--columns", "4")
    said = refused(*words)
    assert "with clamp (--clamp) the given part is put over what is drawn, which is not a conditional sample" in said
    assert "not a conditional sample: tiny, test images, seed 0: the original, what is given, 2 completions" in done(
        *words, "--clamp"
    )
    with Image.open("completions.png") as picture:
        assert picture.text["Description"].startswith("not a conditional sample")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--rows 8", "--rows must leave something to draw of 8, but got 8"),
        ("--columns 9 --clamp", "--columns must leave something to draw of 8, but got 9"),
        ("--split test -n 100000", "--images must be at most the "),
        ("--out grid.jpg", "--out must be a .png file, but got 'grid.jpg'"),
        ("--set model.layers=3", "--set may only be data.path"),
    ],
)
def test_completions_that_cannot_be(trained: tuple[str, str, str], words: str, says: str) -> None:
    assert says in refused("complete", "tiny", "--storage", trained[1], *words.split())


def test_galleries_are_kept_at_the_reports_nearest_to_their_epochs() -> None:
    """343 training images, reports at 128 and 256."""
    said = done("train", "--config", write_tiny(), "--galleries", "0.1,0.4,0.7,9")
    folder = Path("results/tiny/samples")
    assert sorted(path.name for path in folder.iterdir()) == ["00000-128-images.png", "00000-256-images.png"]
    with Image.open(folder / "00000-128-images.png") as picture:
        assert picture.text["Description"].startswith("trial 00000 after 128 images (epoch 0.37), seed 0: 72 samples")
    plain = done("train", "--config", "tiny.toml", "--storage", "plain")
    with_galleries, without = (SearchStore(storage, "tiny").trials()[0] for storage in ("results", "plain"))
    assert with_galleries["valid_nats"] == without["valid_nats"]
    assert _best(plain) == _best(said)


def test_a_gallery_that_was_interrupted_is_drawn_when_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trial, "_draw_gallery", interrupted)
        assert command("train", "--config", write_tiny(), "--galleries", "0.4").code == 130
    done("train", "--config", "tiny.toml", "--galleries", "0.4")
    assert Path("results/tiny/samples/00000-128-images.png").exists()


@pytest.mark.parametrize("reference", ["tiny/1", "tiny/9", "tiny/00001", "tiny/x"])
def test_an_unknown_trial_lists_those_whose_weights_are_kept(trained: tuple[str, str, str], reference: str) -> None:
    said = refused("sample", reference, "--storage", trained[1])
    assert repr(reference) in said
    assert "weights are kept of 00000" in said


def test_weights_that_were_cut_short(trained: tuple[str, str, str]) -> None:
    whole = (Path(trained[1]) / WEIGHTS).read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 100, 8, 3):
        Path("cut.safetensors").write_bytes(whole[:length])
        for verb in ("evaluate", "sample"):
            said = refused(verb, "cut.safetensors")
            assert "weights must be" in said
            assert "cut.safetensors is " in said


def test_a_picture_that_cannot_be_written(trained: tuple[str, str, str]) -> None:
    Path("file").touch()
    said = refused("sample", "tiny", "--storage", trained[1], "-n", "1", "--out", "file/grid.png")
    assert "a file must be writable, but file/grid.png is not" in said


def test_comparison_says_where_there_is_nothing_to_compare_with(trained: tuple[str, str, str]) -> None:
    assert "No published results for digits." in done("compare", "tiny", "--storage", trained[1])
    assert "0 rows to table.csv" in done("compare", "--storage", trained[1], "--csv", "table.csv")
    assert Path("table.csv").read_text(encoding="utf-8").startswith("search,")
    assert "file/table.csv is not" in _csv_under_a_file(trained[1])


def _best(said: str) -> str:
    """The last line's number and images, without the commands that name a storage."""
    words = said.splitlines()[-1].partition(";")[0]
    assert words.startswith("Best ")
    return words


def _csv_under_a_file(storage: str) -> str:
    Path("file").touch()
    return refused("compare", "--storage", storage, "--csv", "file/table.csv")


# ------------------------------------------------------------------------------------------------ stop and go on


def _stopping(after: int, how: str) -> Any:
    """`run_trial` that is stopped once the report number `after` is in the books."""
    whole = trial.run_trial

    def messages(task: TrialTask, asked: Any) -> Iterator[dict[str, Any]]:
        reports, is_stopped = 0, False
        for message in whole(task, asked=asked):
            yield message
            reports += "report" in message
            if reports == after and not is_stopped:
                is_stopped = True
                if how == "crash":
                    raise RuntimeError("the wire was cut")
                os.kill(os.getpid(), signal.SIGTERM if how == "SIGTERM" else signal.SIGINT)
                if how == "at once":
                    os.kill(os.getpid(), signal.SIGINT)

    return messages


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "at once"])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    trained: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    config, whole_storage, whole_out = trained
    with monkeypatch.context() as patch:
        patch.setattr(trial, "run_trial", _stopping(1, how))
        said = command("train", "--config", config)
    assert said.code == 130
    assert said.err == ""
    where = "the last report" if how == "at once" else "here"
    assert said.out.splitlines()[-1] == f"Stopped; the same command resumes from {where}."
    store = SearchStore("results", "tiny")
    assert [row["status"] for row in store.trials()] == ["interrupted"]
    assert Path(store.checkpoint("00000"), "state.pt").exists()

    again = done("train", "--config", config).splitlines()
    assert [line.split()[0] for line in again if line.lstrip()[0].isdigit()] == ["128", "256"]
    assert _best(again[-1]) == _best(whole_out)

    whole = SearchStore(whole_storage, "tiny")
    assert [row["attempt"] for row in store.attempts()] == [1, 2]
    (row,), (whole_row,) = store.trials(), whole.trials()
    assert {key: value for key, value in row.items() if not SECONDS.search(key)} == {
        key: value for key, value in whole_row.items() if not SECONDS.search(key)
    }
    for point, whole_point in zip(store.curve("00000"), whole.curve("00000"), strict=True):
        assert point["valid_bits_per_dim"] == whole_point["valid_bits_per_dim"]
        assert point["train_bits_per_dim"] == whole_point["train_bits_per_dim"]
    weights, whole_weights = load_file(Path("results") / WEIGHTS), load_file(Path(whole_storage) / WEIGHTS)
    assert weights.keys() == whole_weights.keys()
    assert all(torch.equal(weights[name], whole_weights[name]) for name in weights)
    assert not Path(store.checkpoint("00000"), "state.pt").exists()


def test_a_training_stopped_before_its_first_report_starts_anew(
    trained: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _, whole_out = trained
    with monkeypatch.context() as patch:
        patch.setattr(trial, "run_trial", _stopping(0, "Ctrl-C"))
        assert command("train", "--config", config).code == 130
    assert refused("evaluate", "tiny").startswith("pixeltune: tiny must have a trial with kept weights")
    assert _best(done("train", "--config", config)) == _best(whole_out)


def test_a_state_that_was_cut_short_is_set_aside(
    trained: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _, whole_out = trained
    with monkeypatch.context() as patch:
        patch.setattr(trial, "run_trial", _stopping(1, "Ctrl-C"))
        command("train", "--config", config)
    state = Path("results/tiny/checkpoints/00000/state.pt")
    state.write_bytes(state.read_bytes()[:1000])
    again = done("train", "--config", config)
    assert _best(again) == _best(whole_out)
    assert "00000 starts from scratch, and keeps its old checkpoint as " in again


def test_a_training_does_not_go_on_with_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would begin anew on them, and its row would name the baseline of the first ones."""
    for seed in (0, 1):
        pixels = np.random.default_rng(seed).integers(0, 17, (400, 4, 4), dtype=np.uint8)
        np.savez(f"{seed}.npz", train=pixels, levels=17)
    again = ("train", "--config", write_tiny(), "--set", "data.name=array", "--set")
    with monkeypatch.context() as patch:
        patch.setattr(trial, "run_trial", _stopping(1, "Ctrl-C"))
        assert command(*again, "data.path=0.npz").code == 130
    assert "must go on with the images it began with (checksum " in refused(*again, "data.path=1.npz")
    Path("0.npz").rename("moved.npz")
    assert "Best " in done(*again, "data.path=moved.npz")


def test_a_crash_keeps_its_traceback_in_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_task: TrialTask, asked: Any) -> Iterator[Any]:
        raise RuntimeError("the wire was cut")
        yield

    monkeypatch.setattr(trial, "run_trial", crash)
    with pytest.raises(RuntimeError, match="the wire was cut"):
        command("train", "--config", write_tiny())
    (row,) = SearchStore("results", "tiny").trials()
    assert (row["status"], row["reason"]) == ("failed", "RuntimeError: the wire was cut")
    assert "Traceback" in row["traceback"]
    with SearchStore("results", "tiny").lock():
        pass


def test_the_same_command_goes_on_after_a_crash(trained: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    config, _, whole_out = trained
    monkeypatch.setattr(workers, "best_device", lambda rank=0: torch.device("cuda", rank))
    with monkeypatch.context() as patch:
        patch.setattr(trial, "run_trial", _stopping(1, "crash"))
        with pytest.raises(RuntimeError):
            command("train", "--config", config)
    assert _best(done("train", "--config", config)) == _best(whole_out)
    store = SearchStore("results", "tiny")
    first, second = store.attempts()
    assert (first["status"], second["status"], second["attempt"]) == ("failed", "finished", 2)
    assert [point["attempt"] for point in store.curve("00000")] == [1, 2]
    held = [(row["finished_at"] - row["started_at"]).total_seconds() for row in (first, second)]
    assert second["gpu_seconds"] == pytest.approx(sum(held))


def test_a_training_on_a_gpu_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the books are told is a GPU here; `fit` knows that there is none."""
    monkeypatch.setattr(workers, "best_device", lambda rank=0: torch.device("cuda", rank))
    done("train", "--config", write_tiny())
    (row,) = SearchStore("results", "tiny").trials()
    held = (row["finished_at"] - row["started_at"]).total_seconds()
    assert (row["gpus_per_worker"], row["gpu_seconds"]) == (1.0, pytest.approx(held))


def test_a_training_takes_the_threads_that_torch_would() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        done("train", "--config", write_tiny())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    (row,) = SearchStore("results", "tiny").trials()
    assert row["cpus_per_worker"] == 2


def test_a_training_that_diverges_says_so() -> None:
    bad = ("train", "--config", write_tiny(), "--set", "optim.lr=1.0", "--set", "optim.weight_decay=1e38")
    for _ in range(2):  # the second time from its row
        said = command(*bad)
        assert said.code == 2
        assert said.out.splitlines()[-1].startswith("Ended as diverged: the gradient must be finite")
        assert said.err == ""
    (row,) = SearchStore("results", "tiny").trials()
    assert (row["status"], row["attempt"]) == ("diverged", 1)


def test_a_bound_is_marked_wherever_it_stands() -> None:
    vae = ("--set", "model.family=pixelvae", "--set", "model.latent_dim=2", "--set", "model.encoder_channels=4")
    said = done("train", "--config", write_tiny(), "--name", "vae", *vae)
    (row,) = SearchStore("results", "vae").trials()
    marked = f"≤ {row['valid_bits_per_dim']:.4f} bits/dim"
    assert f"Best {marked}" in said
    assert f"Best: {marked}" in done("status", "vae")
    assert json.loads(done("status", "vae", "--json"))["best"]["is_bound"] is True
    assert "Validation, bits/dim (upper bound) by images seen" in done("show", "vae")
    done("export", "vae")
    head = yaml.safe_load(Path("vae-00000/README.md").read_text(encoding="utf-8").split("---\n")[1])
    metrics = head["model-index"][0]["results"][0]["metrics"]
    assert metrics[0]["value"] == row["valid_bits_per_dim"]
    assert metrics[0]["name"] == "upper bound"


def test_files_that_are_not_read_are_named_before_a_training_and_in_its_row() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    for split, images in (("train", pixels), ("test", pixels[:2])):
        (Path("images") / split).mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(Path("images") / split / f"{index:02}.png")
    Path("images/notes.txt").write_text("no image")
    notes = (
        "2 of the 24 training images are also in the test set, pixel by pixel",
        "1 file not read: notes.txt (in no folder of a split)",
    )
    config = write_tiny(Path("tiny.toml"))
    settings = ("data.name=folder", "data.path=images", "data.fraction=1.0", "data.num_valid=8", "train.batch_size=16")
    said = done("train", "--config", config, *(word for setting in settings for word in ("--set", setting)))
    assert said.splitlines()[:2] == [f"Data note: {note}" for note in notes]
    assert f"data notes: {'; '.join(notes)}" in done("show", "tiny")


def test_a_finished_training_is_not_shown_for_other_images() -> None:
    for name, levels in (("easy", 4), ("hard", 17)):
        pixels = np.random.default_rng(0).integers(0, levels, (400, 4, 4), dtype=np.uint8)
        np.savez(f"{name}.npz", train=pixels, levels=17)
    words = ("train", "--config", write_tiny(), "--set", "data.name=array", "--set")
    best = done(*words, "data.path=easy.npz").splitlines()[-1]
    said = refused(*words, "data.path=hard.npz")
    assert "tiny must go on with the images it began with (checksum " in said
    assert f"at {Path('easy.npz').resolve()}), but got " in said
    assert "at hard.npz; give it the same images with --set data.path=…, or take another name or --storage" in said
    Path("easy.npz").rename("moved.npz")
    assert done(*words, "data.path=moved.npz").splitlines()[-1] == best
    forget_loaded()  # as another process has
    lines = done(*words, "data.path=easy.npz").splitlines()
    assert lines[0].startswith("Not checked: whether tiny was measured on these images, which cannot be read now (")
    assert lines[-1] == best


@pytest.mark.parametrize("name", ["trials", "CON", "_corrupt"])
def test_a_training_takes_no_name_that_means_something_else(name: str) -> None:
    assert "take another one with --name" in refused("train", "--config", write_tiny(f"{name}.toml")) or name[0] == "_"
    assert "name" in refused("train", "--config", write_tiny(), "--name", name)
    assert not Path("results").exists()


def test_weights_that_do_not_name_their_images_are_measured_with_a_word_of_it(trained: tuple[str, str, str]) -> None:
    weights = load_with_config(str(Path(trained[1]) / WEIGHTS))
    save_weights(weights.model, weights.config, "bare.safetensors")
    first, number = done("evaluate", "bare.safetensors").splitlines()
    assert first.startswith("Not checked: whether these images are those of the model")
    assert [number] == done("evaluate", "tiny", "--storage", trained[1]).splitlines()
