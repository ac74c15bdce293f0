"""A search whose results and checkpoints lie on object storage, killed and gone on with."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from pixeltune import files
from pixeltune.results.dataframes import read_curves, read_results
from pixeltune.results.store import SearchStore
from tests.support.launching import launches, write_search
from tests.support.object_storage import KEY, SECRET, S3Server, in_environment, object_names, objects, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.mark.parametrize("endpoint", ["environment", "location"])
def test_killed_and_gone_on_with_from_what_lies_there(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it lies on this machine; the keys, which it has from the environment, stand nowhere."""
    search = write_search(tmp_path, images=3000, every=500, trials=3)
    with s3_server() as server, in_environment(server):
        storage = server.storage
        if endpoint == "location":
            monkeypatch.delenv("AWS_ENDPOINT_URL")
            storage = server.storage_with_endpoint
        store = SearchStore(storage, "tiny")
        with launches(storage) as launch:
            first = launch(search)
            first.wait_until(lambda: _states(server) and len(store.curves()) > 1)
            first.signal_group(signal.SIGKILL)
            first.wait()
            assert first.left_behind() == []
            before = {(row["trial"], row["images_seen"]): row for row in store.curves()}
            files.remove(files.join(store.folder, ".lock"))  # as two minutes would
            second = launch(search)
            assert second.wait(400) == 0, second.err
            assert second.err == ""
            said = first.out + first.err + second.out + second.err
        rows = store.trials()
        assert [(row["number"], row["status"], row["images_seen"]) for row in rows] == [
            (number, "finished", 3000) for number in range(3)
        ]
        resumed = [row for row in store.attempts() if row["status"] == "interrupted"]
        assert resumed
        kept = [row for row in store.curves() if (row["trial"], row["images_seen"]) in before and row["attempt"] == 1]
        assert kept, "it went on from its checkpoint"
        assert len(read_results(storage)) == 3
        assert len(read_curves(storage)) == 3 * 6
        stored = objects(server)
        assert sum(name.endswith("weights.safetensors") for name in stored) == 2, "keep=2"
        for text in (said.encode(), *stored.values()):
            assert SECRET.encode() not in text
            assert KEY.encode() not in text
        assert not [path for path in tmp_path.rglob("*") if path.suffix in (".parquet", ".safetensors", ".pt")]


def _states(server: S3Server) -> list[str]:
    return [name for name in object_names(server) if name.endswith("state.pt")]
