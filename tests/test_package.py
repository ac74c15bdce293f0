"""What is built for others: the wheel runs in a fresh environment, and both archives hold what they should."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="needs hatchling, of the dev group")

ROOT = Path(__file__).resolve().parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and the sdist of the tracked files."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    files = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=120)
    return folder


def _only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def test_the_wheel_holds_the_package_and_its_data_alone(built: Path) -> None:
    wheel = _only(built, "*.whl")
    assert wheel.name == f"pixeltune-{VERSION}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"pixeltune", f"pixeltune-{VERSION}.dist-info"}
    for path in (
        "pixeltune/published/published.csv",
        "pixeltune/report/page/page.html",
        "pixeltune/search_spaces/digits_quick.py",
        f"pixeltune-{VERSION}.dist-info/licenses/LICENSE",
    ):
        assert path in names, path
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pixeltune").rglob("*.py")}
    assert modules <= set(names)


def test_the_sdist_holds_what_a_reader_needs(built: Path) -> None:
    with tarfile.open(_only(built, "*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for path in (
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "CHANGELOG.md",
        "launch.py",
        "pyproject.toml",
        "tests/conftest.py",
    ):
        assert path in names, path


def test_the_wheel_runs_in_a_fresh_environment(built: Path, tmp_path: Path) -> None:
    """Its dependencies come from this environment; pixeltune itself must not."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, capture_output=True, timeout=120)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [str(python), "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", str(_only(built, "*.whl"))]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (tmp_path / "empty").mkdir()

    def run(*words: str) -> str:
        command = [str(python.with_name("pixeltune")), *words]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIXELTUNE"))}
        done = subprocess.run(
            command, cwd=tmp_path / "empty", env=clean, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert VERSION in run("--version")
    listed = run("search", "--list")
    for path in (ROOT / "search_spaces").glob("[!_]*.py"):
        assert path.stem in listed
    assert "model.layers" in run("search", "--search", "digits_quick", "--dry-run")
    where = [str(python), "-c", "import pixeltune; print(pixeltune.__file__)"]
    found = subprocess.run(where, cwd=tmp_path / "empty", capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(environment)
