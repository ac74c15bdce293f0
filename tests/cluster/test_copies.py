"""What `ray up` takes to the nodes: the whole package, and not the user's results."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster_files import filled_in

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.needs("rsync")


@pytest.mark.parametrize("name", ["gpu", "gcp", "onprem"])
def test_nodes_get_all_modules_and_no_results(name: str, tmp_path: Path) -> None:
    package = Path("pixeltune")
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
    shutil.copytree(ROOT / package, tmp_path / "from" / package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("results/a", "data", ".git", ".venv/bin"):
        (tmp_path / "from" / folder).mkdir(parents=True)
        (tmp_path / "from" / folder / "large").touch()
    excluded = [f"--exclude={pattern}" for pattern in filled_in(name)["rsync_exclude"]]
    subprocess.run(["rsync", "-a", *excluded, f"{tmp_path}/from/", f"{tmp_path}/to/"], check=True)
    got = {str(path.relative_to(tmp_path / "to")) for path in (tmp_path / "to").rglob("*") if path.is_file()}
    assert modules <= got
    assert not [path for path in got if path.endswith("large")]
