"""Each layer imports only those before it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["ascend", "modality_adapters", "taichu", "recipes"]
# inside taichu, likewise; packages of one line know nothing of each other
PACKAGES = [
    ["errors"],
    ["config", "tokenizer"],
    ["vocabulary"],
    ["storage"],
    ["data"],
    ["model"],
    ["tuning"],
    ["training", "inference"],
    ["runtime", "export", "convert", "evaluation", "index"],
    ["report", "plan", "server", "sentences"],
    ["command_line"],
]


def modules(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
    return names


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports."""
    return {name.split(".")[0] for name in modules(path)}


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_down(layer):
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    above = set(LAYERS[LAYERS.index(layer) + 1 :]) | {"tests", "benchmarks", "examples"}
    if layer == "modality_adapters":  # media know nothing of the hardware
        above |= {"ascend", "mindspore"}
    for path in files:
        assert not imported(path) & above, path


@pytest.mark.parametrize("number", range(len(PACKAGES)))
def test_packages_import_down(number):
    allowed = {name for line in PACKAGES[:number] for name in line}
    for package in PACKAGES[number]:
        folder = ROOT / "taichu" / package
        files = sorted(folder.rglob("*.py")) or [folder.with_suffix(".py")]
        for path in files:
            names = {name.split(".")[1] for name in modules(path) if name.startswith("taichu.")}
            assert names <= allowed | {package}, path


def test_every_package_has_its_place():
    found = {path.stem for path in (ROOT / "taichu").iterdir() if path.suffix in ("", ".py")}
    found -= {"__init__", "__pycache__", "sizes"}
    assert found == {name for line in PACKAGES for name in line}
