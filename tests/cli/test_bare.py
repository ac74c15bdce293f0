"""Training, evaluation and sampling where only torch, torchvision, numpy, pydantic, pandas and pyarrow are installed.

One process stands for such a machine: what is missing there is not found, by any module and at any depth.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pixeltune
from pixeltune.config import TrialConfig
from pixeltune.data import resolve
from pixeltune.models import build_model
from pixeltune.paper.bundle import make_bundle
from pixeltune.paper.rows import FinishedFinal
from pixeltune.results.final_selection import Chosen, Selection
from pixeltune.results.final_statistics import final_leaderboard, write_images
from pixeltune.results.parquet_io import decode, encode
from pixeltune.results.schema import IMAGE_SCHEMA, SCHEMA_VERSION, TRIAL_SCHEMA
from pixeltune.training.evaluation import evaluate
from pixeltune.training.weights import save_weights
from tests.support.commands import TINY

BARE_MACHINE = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

MISSING = ("ray", "optuna", "rich", "sklearn", "constriction", "plotly", "scipy", "psutil")


class BareFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in MISSING else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = BareFinder
sys.modules["pandas"] = None
import pixeltune as pt
config = pt.TrialConfig.from_toml("tiny.toml").override({"train.images": 32, "train.report_every": 32})
said = [[0, repr([report.valid_bits_per_dim for report in pt.fit(config, device="cpu")]), ""]]
del sys.modules["pandas"]
from pixeltune.cli import main, train

say = train.say_progress


def stop_after_the_first_report(line):
    say(line)
    if line.split()[0] == "128":
        raise KeyboardInterrupt


def run(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    said.append([code, out.getvalue(), err.getvalue()])


train.say_progress = stop_after_the_first_report
run("train", "--config", "tiny.toml")
train.say_progress = say
for words in json.loads(sys.argv[1]):
    run(*words)
frame = __import__("pixeltune").read_results("results")
said.append([0, ", ".join(frame["status"]), ""])
assert not set(MISSING) & {name.partition(".")[0] for name in sys.modules}
print(json.dumps(said))
"""

COMMANDS = {
    "resume": ("train", "--config", "tiny.toml"),
    "evaluate": ("evaluate", "tiny"),
    "audit": ("audit", "--config", "tiny.toml"),
    "sample": ("sample", "tiny", "-n", "2"),
    "complete": ("complete", "tiny", "-n", "1", "--draws", "1"),
    "verify": ("verify-bits", "tiny", "--split", "valid"),
    "digits": ("train", "--config", "tiny.toml", "--name", "other", "--set", "data.name=digits"),
    "list": ("search", "--list"),
    "search": ("search", "--search", "digits_quick"),
    "config": ("config",),
    "bundle": ("verify", "bundle", "--data", "set.npz"),
}
NEEDS = {
    "verify": "coding needs constriction, but constriction is not installed; ",
    "digits": 'data.name = "digits" needs sklearn, but sklearn is not installed; ',
    "search": "a search needs optuna, rich and ray, but optuna, rich and ray are not installed; ",
    "config": "a table needs rich, but rich is not installed; ",
}


def write_bundle(folder: Path) -> None:
    """Write the bundle of a final of two seeds; its models are not trained, its numbers are theirs."""
    config = TrialConfig.from_toml(folder / "tiny.toml").override({"data.path": str(folder / "set.npz")})
    trained = {"images": 256, "best_images": 256, "workers": 1, "cpus": 1, "gpus": 0.0}
    chosen = Chosen(trial="00000", value=2.0, config=config.flat(), **trained)
    asked = {"objective": "valid_bits_per_dim", "direction": "minimize", "top": 1, "trials": (), "images": None}
    selection = Selection(search="tiny", data_checksum="", chosen=(chosen,), **asked)
    rows, contents = [], {}
    for number, seed in enumerate(selection.seeds(2)):
        trial, own = f"{number:05d}", selection.configs()["00000"].override({"seed": seed})
        data = resolve(own).data
        assert data.test is not None
        found = evaluate(model := build_model(own, data.form), data.test, batch_size=own.train.eval_batch_size)
        checksum = data.identity.checksum
        save_weights(model, own, str(folder / "weights"), data_checksum=checksum)
        names = {"search": "tiny-final", "trial": trial, "attempt": 1}
        write_images(str(folder / "nats"), found.nats_N, data.test.labels_N, is_bound=False, **names)
        contents |= {
            f"weights-{trial}.safetensors": (folder / "weights").read_bytes(),
            f"nats-{trial}.parquet": (folder / "nats").read_bytes(),
        }
        form = {"image_channels": 1, "image_height": 8, "image_width": 8, "levels": 4, "is_bound": False}
        identity = {"data_version": data.identity.version, "data_checksum": checksum, "config_key": own.key()}
        origin = {"from_search": "tiny", "from_trial": "00000", "status": "finished", "evaluated_split": "test"}
        values = {"test_nats": found.nats, "test_bits_per_dim": found.bits_per_dim}
        rows.append(own.flat() | names | form | identity | origin | values | {"schema_version": SCHEMA_VERSION})
    rows = decode(encode(rows, TRIAL_SCHEMA), TRIAL_SCHEMA)
    nats = {row["trial"]: read_nats_of(contents[f"nats-{row['trial']}.parquet"]) for row in rows}
    final = FinishedFinal(search="tiny-final", rows=rows, places=final_leaderboard(rows, nats))
    (place,) = final.places
    printed = {name: f"{place[name]:.4f}" for name in ("bits_per_dim", "nats")}
    (folder / "bundle").mkdir()
    for name, content in make_bundle(final, place, selection, contents, printed).items():
        (folder / "bundle" / name).write_bytes(content)


def read_nats_of(content: bytes) -> np.ndarray:
    return np.array([row["nats"] for row in decode(content, IMAGE_SCHEMA)])


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """[exit code, stdout, stderr] of every command, run one after another."""
    folder = tmp_path_factory.mktemp("bare")
    images = np.random.default_rng(0).integers(0, 4, (360, 1, 8, 8), dtype=np.uint8)
    np.savez(folder / "set.npz", train=images[:300], test=images[300:], levels=4)
    data = 'name = "array"\npath = "set.npz"\nnum_valid = 100\n'
    (folder / "tiny.toml").write_text(TINY.replace('name = "digits"\nfraction = 0.25\nnum_valid = 64\n', data))
    write_bundle(folder)
    environment = os.environ | {
        "PYTHONPATH": str(Path(pixeltune.__file__).parents[1]),
        "PIXELTUNE_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    code = [sys.executable, "-c", BARE_MACHINE, json.dumps(list(COMMANDS.values()))]
    done = subprocess.run(code, capture_output=True, text=True, env=environment, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(zip(("fit", "interrupted", *COMMANDS, "rows"), json.loads(done.stdout), strict=True))


def test_fit_needs_no_pandas(answers: dict[str, Any]) -> None:
    [bits_per_dim] = json.loads(answers["fit"][1])
    assert 0 < bits_per_dim < 10


def test_a_training_stops_and_goes_on(answers: dict[str, Any]) -> None:
    code, out, _ = answers["interrupted"]
    assert code == 130
    assert out.splitlines()[-1] == "Stopped; the same command resumes from the last report."
    code, out, _ = answers["resume"]
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["images", "128", "256"]
    assert answers["rows"][1] == "finished"


def test_a_model_is_evaluated_audited_and_drawn_from(answers: dict[str, Any]) -> None:
    beginnings = {"evaluate": "valid: ", "audit": "Passed in", "sample": "2 images", "complete": "1 image, "}
    for name, beginning in beginnings.items():
        code, out, err = answers[name]
        assert (code, err) == (0, "")
        assert out.startswith(beginning)
    assert answers["sample"][1].splitlines()[-1] == "Wrote samples.png"


def test_a_bundle_is_verified(answers: dict[str, Any]) -> None:
    code, out, err = answers["bundle"]
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["passed"] * 6 + ["Verified."]


def test_the_searches_are_listed(answers: dict[str, Any]) -> None:
    code, out, err = answers["list"]
    assert (code, err) == (0, "")
    assert "digits_quick  " in out


@pytest.mark.parametrize("name", NEEDS)
def test_what_needs_more_says_in_one_line_what_to_install(answers: dict[str, Any], name: str) -> None:
    code, out, error = answers[name]
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"pixeltune: {re.escape(NEEDS[name])}(uv sync|uv pip install|pip install) .+\n", error)
