"""`--storage s3://…` from the command line, against a server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import command, done, refused, write_tiny
from tests.support.object_storage import KEY, SECRET, S3Server, in_environment, objects, requests_at_once, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running, in_environment(running):
        yield running


def test_a_trial_trains_is_kept_and_evaluated_there(server: S3Server) -> None:
    """Its row, curve, checkpoint and weights; nothing of them lies here."""
    config = write_tiny()
    said = done("train", "--config", config, "--storage", server.storage)
    stored = objects(server)
    for name in ("trials/00000-1.parquet", "curves/00000-1.parquet", "checkpoints/00000/weights.safetensors"):
        assert f"results/tiny/{name}" in stored
    assert "1 finished" in done("status", "tiny", "--storage", server.storage)
    assert "bits/dim" in done("evaluate", "tiny", "--storage", server.storage)
    assert done("list", "--storage", server.storage).splitlines()[1].split()[:4] == ["tiny", "training", "ended", "1"]
    assert done("leaderboard", "tiny", "--storage", server.storage).startswith("Trials of tiny: 1 finished.")
    assert done("compact", "tiny", "--storage", server.storage).startswith("tiny: 2 files merged into 2;")
    assert "1 finished" in done("status", "tiny", "--storage", server.storage)
    for text in (said.encode(), *objects(server).values()):
        assert SECRET.encode() not in text
        assert KEY.encode() not in text
    assert [path.name for path in Path.cwd().rglob("*") if path.suffix in (".parquet", ".safetensors")] == []


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--config", "tiny.toml"),
        ("status", "tiny"),
        ("list",),
        ("leaderboard", "tiny"),
        ("compact", "tiny"),
        ("doctor",),
        ("--search", "digits_quick"),
    ],
)
def test_keys_in_a_location_are_refused_and_not_shown(words: tuple[str, ...]) -> None:
    write_tiny(Path("tiny.toml"))
    location = f"s3://{KEY}:{SECRET}@bucket/results"
    answer = command(*words, "--storage", location)
    assert answer.code == 2
    assert "must be named without secrets" in answer.err
    assert len(answer.err.splitlines()) == 1
    for secret in (KEY, SECRET):
        assert secret not in answer.out + answer.err


def test_a_server_that_is_not_there_is_one_line(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("pixeltune.files._FIRST_WAIT_SECONDS", 0.01)
    with requests_at_once():
        for words in (("status", "tiny"), ("leaderboard", "tiny"), ("list",)):
            assert "must be readable, but s3://" in refused(*words, "--storage", server.storage)
