"""Imports point one way, and the daemon's side never pulls in torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TORCH_FREE_MODELS = {
    "atlasd.models",
    "atlasd.models.locate",
    "atlasd.models.tokenizer",
    "atlasd.models.detokenize",
}

# Which packages of atlasd a package may import (itself always). The first part of the rule is
# cli -> daemon -> {server, completion, workspace, store, engine.client}, the second
# engine.worker -> {engine, models, draft, learn} -> kernels.
ALLOWED = {
    "atlasd.errors": set[str](),
    "atlasd.paths": {"atlasd.errors"},
    "atlasd.config": {"atlasd.errors", "atlasd.paths"},
    "atlasd.store": {"atlasd.errors", "atlasd.paths", "atlasd.workspace"},
    "atlasd.workspace": {"atlasd.errors", "atlasd.paths"},
    "atlasd.models": {"atlasd.errors", "atlasd.paths", "atlasd_kernels"},
    "atlasd.draft": {"atlasd.errors", "atlasd.paths", "atlasd.models", "atlasd_kernels"},
    "atlasd.learn": {
        "atlasd.errors",
        "atlasd.paths",
        "atlasd.models",
        "atlasd.draft",
        "atlasd_kernels",
    },
    "atlasd.engine": {
        "atlasd.errors",
        "atlasd.paths",
        "atlasd.models",
        "atlasd.draft",
        "atlasd.learn",
        "atlasd_kernels",
    },
    "atlasd_kernels": set[str](),
    "atlasd_lsp": set[str](),
}
SHARED_PROTOCOLS = {"atlasd.engine.protocol", "atlasd"}


def python_files(package: str) -> list[Path]:
    base = {"atlasd_lsp": ROOT / "lsp", "atlasd_kernels": ROOT / "kernels"}.get(
        package.split(".")[0], ROOT
    )
    place = base / Path(*package.split("."))
    return (
        [place.with_suffix(".py")]
        if place.with_suffix(".py").exists()
        else sorted(place.rglob("*.py"))
    )


def imported(path: Path) -> set[str]:
    """Modules a file imports at run time (what stands under TYPE_CHECKING does not count)."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package: str) -> None:
    wrong = []
    for path in python_files(package):
        for module in imported(path):
            if not module.startswith(("atlasd", "atlasd_")) or module in SHARED_PROTOCOLS:
                continue
            if not any(
                module == one or module.startswith(one + ".")
                for one in {package, *ALLOWED[package]}
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


DAEMON_SIDE = [
    "atlasd.cli",
    "atlasd.run",
    "atlasd.daemon",
    "atlasd.neighbours",
    "atlasd.sweeping",
    "atlasd.supervisor",
    "atlasd.keeper",
    "atlasd.report",
    "atlasd.listeners",
    "atlasd.server",
    "atlasd.completion",
]
DAEMON_MAY = (
    *DAEMON_SIDE,
    "atlasd.errors",
    "atlasd.paths",
    "atlasd.config",
    "atlasd.commands",
    "atlasd.workspace",
    "atlasd.store",
    "atlasd.engine.client",
    "atlasd.engine.protocol",
)


@pytest.mark.parametrize("package", DAEMON_SIDE)
def test_the_daemon_reaches_the_engine_only_through_its_client(package: str) -> None:
    wrong = []
    for path in python_files(package):
        for module in imported(path):
            if not module.startswith("atlasd.") or module in TORCH_FREE_MODELS:
                continue
            if not any(module == one or module.startswith(one + ".") for one in DAEMON_MAY):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


@pytest.mark.parametrize(
    "module", ["atlasd.daemon", "atlasd.cli", "atlasd_lsp.server", "atlasd.engine.worker"]
)
def test_importing_it_brings_no_torch(module: str) -> None:
    code = (
        f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_health_answers_before_what_takes_long_to_import() -> None:
    late = ("numpy", "tokenizers", "sqlite_utils", "watchdog", "jinja2")
    code = (
        "import sys, atlasd.run, atlasd.server.health;"
        f"print([module for module in {late} if module in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_bridge_and_the_kernels_import_nothing_of_atlasd() -> None:
    for package in ("atlasd_lsp", "atlasd_kernels"):
        for path in python_files(package):
            assert not {one for one in imported(path) if one.split(".")[0] == "atlasd"}, path
