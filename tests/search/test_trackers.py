"""What each library has of a search, read back from its offline or local mode with its own reader."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pixeltune.config import ImageSpec
from pixeltune.errors import ConfigError, MissingPackageError
from pixeltune.search import trackers
from pixeltune.search.state import SearchState
from pixeltune.search.trackers import TRACKERS, make_trackers, require_trackers
from pixeltune.search.tracking import REPORT, Tracking, TrialSnapshot
from pixeltune.space import Resources
from tests.support.toy_search import BEGUN, FINISHED, ended, play, reported, toy_space, toy_state

FORM = ImageSpec(1, 8, 8, 17)


def _png() -> bytes:
    content = io.BytesIO()
    Image.new("L", (6, 4), 128).save(content, "PNG")
    return content.getvalue()


def launch(folder: Path, name: str) -> tuple[SearchState, Tracking, list[str]]:
    state = toy_state(folder, toy_space(scheduler=None, galleries=(0.1,)))
    lines: list[str] = []
    tracking = Tracking(make_trackers([name, name], state.store), state.store, lines.append)
    tracking.begin(state, Resources(workers=2), 2, FORM)
    return state, tracking, lines


def receive(state: SearchState, tracking: Tracking, *messages: Any) -> None:
    for message in messages:
        state.receive("00000", message)
        tracking.change()


def track_two_launches(folder: Path, name: str) -> SearchState:
    """Trial 0: 100 and 200 images, interrupted, resumed from 100, then to its end. Trial 1 diverges."""
    state, tracking, lines = launch(folder, name)
    samples = Path(state.store.samples_folder)
    samples.mkdir(parents=True)
    state.start(state.plan({"model.layers": 3, "optim.lr": 0.02}), Resources(workers=2))
    receive(state, tracking, BEGUN, reported(100, 2.5))
    (samples / "00000-100-images.png").write_bytes(_png())
    receive(state, tracking, reported(200, 2.375))
    state.finish("00000")
    tracking.end()
    tracking.close()
    assert lines == []
    state, tracking, lines = launch(folder, name)
    state.start(state.plans_to_resume()[0], Resources(workers=2))
    again = {"resumed": [reported(100, 2.5)["report"]]}
    receive(state, tracking, BEGUN | again, reported(200, 2.375), reported(400, 2.25), FINISHED)
    state.finish("00000")
    tracking.change()
    play(state, state.plan({"model.layers": 4}), BEGUN, reported(100, 9.0), ended("diverged", "the norm is inf"))
    tracking.end()
    (samples / "00000.png").write_bytes(_png())
    tracking.close()
    assert lines == []
    return state


@pytest.mark.needs("tensorboard")
def test_tensorboard_has_event_files_by_trial(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    state = track_two_launches(tmp_path, "tensorboard")
    folder = Path(state.store.folder, "tensorboard")
    assert sorted(path.name for path in folder.iterdir()) == ["00000", "00001"]
    found = EventAccumulator(str(folder / "00000"), size_guidance={"tensors": 0, "scalars": 0, "images": 0}).Reload()
    points = found.Scalars("valid_bits_per_dim")
    assert [(point.step, point.value) for point in points] == [(100, 2.5), (200, 2.375), (400, 2.25)]
    assert [point.step for point in found.Images("samples")] == [100]
    assert [point.step for point in found.Images("samples_at_end")] == [400]
    assert [point.value for point in found.Scalars("record/valid_bits_per_dim")][-1] == 2.25
    statuses = [event.tensor_proto.string_val[0].decode() for event in found.Tensors("status/text_summary")]
    assert statuses == ["interrupted: stopped before its end", "finished"]
    (config,) = [event.tensor_proto.string_val[0].decode() for event in found.Tensors("config/text_summary")]
    assert "| model.layers | 3 |" in config
    other = EventAccumulator(str(folder / "00001")).Reload()
    assert other.Tensors("status/text_summary")[0].tensor_proto.string_val == [b"diverged: the norm is inf"]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """W&B on this machine alone, with a command line that has a secret."""
    import wandb

    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setattr("sys.argv", ["launch.py", "--notify", "slack://SECRET"])
    yield tmp_path / "wandb"
    wandb.teardown()


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a run's file: a LevelDB log of protocol buffers, which only W&B's Go program reads."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        _checksum, length, kind = struct.unpack_from("<IHB", content, at)
        if kind == 0:  # the rest of a block of 32 KiB
            at += 32768 - at % 32768
            continue
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768


@pytest.mark.needs("wandb")
def test_wandb_offline_has_one_run_a_trial(offline: Path, tmp_path: Path) -> None:
    import wandb

    state = track_two_launches(tmp_path / "results", "wandb")
    wandb.teardown()  # as at the end of the process; until then files are written in the background
    files = sorted(offline.glob("offline-run-*/run-*.wandb"))
    records = [record for path in files for record in wandb_records(path)]
    ids = {record.run.run_id for record in records if record.HasField("run")}
    assert ids == {f"{state.store.search_id}-0000{number}" for number in (0, 1)}
    rows: list[dict[str, Any]] = [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for path in files
        if path.name.endswith("-00000.wandb")
        for record in wandb_records(path)
        if record.HasField("history")
    ]
    reports = [(row["images_seen"], row["valid_bits_per_dim"]) for row in rows if "valid_bits_per_dim" in row]
    assert reports == [(100, 2.5), (200, 2.375), (400, 2.25)]
    kinds = {kind for row in rows for kind in row if kind.startswith("samples")}
    assert {kind.partition(".")[0] for kind in kinds} == {"samples", "samples_at_end"}
    assert len(list(offline.glob("offline-run-*/files/media/images/samples*.png"))) == 2
    text = b"".join(path.read_bytes() for path in offline.rglob("*") if path.is_file())
    assert b"SECRET" not in text
    assert b"diverged" in text
    assert b"the norm is inf" in text


@pytest.mark.needs("wandb")
def test_wandb_without_an_account_is_refused_before_it_could_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="no one is logged in; run `wandb login`"):
        require_trackers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    require_trackers(["wandb"])


@pytest.mark.needs("mlflow")
def test_mlflow_has_one_run_a_trial_in_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr("pixeltune.search.tracking._END_SECONDS", 300.0)  # the tables are made first
    track_two_launches(tmp_path / "results", "mlflow")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("toy").experiment_id])
    by_trial = {run.data.tags["pixeltune.trial"]: run for run in runs}
    assert len(runs) == 2
    first, second = by_trial["00000"], by_trial["00001"]
    history = client.get_metric_history(first.info.run_id, "valid_bits_per_dim")
    assert [(metric.step, metric.value) for metric in history] == [(100, 2.5), (200, 2.375), (400, 2.25)]
    assert first.data.params["model.layers"] == "3"
    assert first.data.params["optim.lr"] == "0.02"
    assert (first.info.status, first.data.tags["pixeltune.status"]) == ("FINISHED", "finished")
    assert first.data.metrics["record/valid_bits_per_dim"] == 2.25
    pictures = sorted(Path(artifact.path).name for artifact in client.list_artifacts(first.info.run_id, "samples"))
    assert pictures == ["samples-100.png", "samples_at_end-400.png"]
    assert second.info.status == "FAILED"
    assert second.data.tags["pixeltune.reason"] == "the norm is inf"


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_a_tracker_that_is_not_installed_is_refused_with_the_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixeltune.packages.has_package", lambda _name: False)
    with pytest.raises(MissingPackageError) as refusal:
        require_trackers([name])
    message = str(refusal.value)
    assert message.startswith(f"--track {name} needs {name}, but {name} is not installed")
    assert f"--extra {name}" in message or f"[{name}]" in message


def test_the_option_names_each_tracker() -> None:
    from pixeltune.cli.track import _TRACKERS

    assert set(_TRACKERS) == set(trackers.TRACKERS)


@pytest.mark.needs("tensorboard", "moto", "boto3")
def test_tensorboard_on_object_storage_is_continued_there(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from pixeltune import files
    from pixeltune.results.store import SearchStore
    from pixeltune.search.attempt import now
    from tests.support.object_storage import in_environment, s3_server

    with s3_server() as server, in_environment(server):
        store = SearchStore(f"s3://{server.bucket}/results", "toy")
        for images in (100, 200):  # two launches
            log = TRACKERS["tensorboard"](store).open(TrialSnapshot("00000", {"seed": 1}, ()))
            assert log.has(REPORT, 100) == (images == 200)
            log.log(images, now(), {"valid_bits_per_dim": images / 100})
            log.flush()
            log.drop()
        folder = files.join(store.folder, "tensorboard", "00000")
        for name in files.list_names(folder):
            (tmp_path / name).write_bytes(files.read_whole(files.join(folder, name)))
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(point.step, point.value) for point in found.Scalars("valid_bits_per_dim")] == [(100, 1.0), (200, 2.0)]
