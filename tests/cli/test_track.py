"""`--track` of trainings and searches: what is refused before anything starts, and that a training is shown once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixeltune.search.trackers import TRACKERS
from tests.support.commands import done, refused, write_tiny


@pytest.mark.parametrize("name", sorted(TRACKERS))
@pytest.mark.parametrize("verb", ["train", "search"])
def test_a_tracker_that_is_not_installed_is_one_line(
    name: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixeltune.packages.has_package", lambda package: package != name)
    storage = tmp_path / "results"
    words = ["train", write_tiny(tmp_path / "tiny.toml")] if verb == "train" else ["--search", "digits_quick"]
    line = refused(*words, "--storage", str(storage), "--track", name)
    assert f"--track {name} needs {name}, but {name} is not installed" in line
    assert not storage.exists()


def test_an_unknown_tracker_is_refused_with_the_nearest(tmp_path: Path) -> None:
    line = refused("train", write_tiny(tmp_path / "tiny.toml"), "--track", "wandbs")
    assert "did you mean wandb" in line


@pytest.mark.needs("tensorboard")
def test_a_training_and_the_same_command_again_are_shown_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["train", write_tiny(tmp_path / "tiny.toml"), "--storage", str(tmp_path), "--track", "tensorboard"]
    words += ["--galleries", "0.5"]
    done(*words)
    done(*words)
    found = EventAccumulator(str(tmp_path / "tiny" / "tensorboard" / "00000")).Reload()
    assert [point.step for point in found.Scalars("valid_bits_per_dim")] == [128, 256]
    assert [point.step for point in found.Images("samples")] == [128]
    assert found.Tensors("status/text_summary")[0].tensor_proto.string_val == [b"finished"]
