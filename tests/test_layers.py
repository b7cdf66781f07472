"""Each layer imports only those before it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["ascend", "modality_adapters", "taichu", "recipes"]


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_down(layer):
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    above = set(LAYERS[LAYERS.index(layer) + 1 :]) | {"tests", "benchmarks", "examples"}
    if layer == "modality_adapters":  # media know nothing of the hardware
        above |= {"ascend", "mindspore"}
    for path in files:
        assert not imported(path) & above, path
