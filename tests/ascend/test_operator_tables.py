"""The tables of ascend/README.md are what benchmarks/operator_accuracy.py prints."""

import re
import sys
from pathlib import Path

import pytest

from ascend.kernel_check.cuda import PLUGIN, find_plugin
from ascend.kernel_check.standins import missing_tool
from ascend.operators.form import LIBRARY
from ascend.precision import choose_precision

ROOT = Path(__file__).parents[2]
README = (ROOT / "ascend/README.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no C++ compiler at installation")


@pytest.fixture(scope="module")
def tables(cpu):
    """The program as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        choose_precision("float32")
        import operator_accuracy

        yield operator_accuracy
        for name in ("operator_accuracy", "operator_cases"):
            sys.modules.pop(name)


def table_in_readme(first: str) -> list[str]:
    """The lines of the table whose head begins so."""
    (block,) = re.findall(rf"^{re.escape(first)}.*\n(?:\|.*\n)+", README, re.MULTILINE)
    return block.splitlines()


@pytest.mark.skipif(
    missing_tool() is not None or find_plugin() is None,
    reason=f"{missing_tool() or PLUGIN} is not there: no stand-ins can be built",
)
def test_forms_and_kernels(tables):
    made = tables.table_of_kernels()
    assert table_in_readme(made[0][:20]) == made


def test_errors_are_of_the_order_that_is_told(tables):
    made = tables.table_of_errors()
    told = table_in_readme(made[0][:20])
    assert len(told) == len(made) and told[:2] == made[:2]
    for ours, theirs in zip(made[2:], told[2:]):
        for now, then in zip(ours.split("|"), theirs.split("|"), strict=True):
            powers = [re.fullmatch(r" 1e(-\d+) ", cell) for cell in (now, then)]
            if all(powers):
                now, then = (int(power[1]) for power in powers)
                assert abs(now - then) <= 1, ours
            else:
                assert now == then, ours


def test_reference_gradients_are_those_of_finite_differences(tables):
    """The complex step is only as right as the references are analytic."""
    import numpy as np

    for name, case in tables.CASES.items():
        expected = tables.several(case.reference(*case.inputs, *case.constants))
        weights = [tables.draw(*x.shape) for x in expected]
        slopes = tables.complex_steps(case, weights)
        changes = [tables.draw(*x.shape) * 1e-6 for x in case.inputs]
        sums = []
        for sign in (1, -1):
            moved = [x + sign * change for x, change in zip(case.inputs, changes)]
            outputs = tables.several(case.reference(*moved, *case.constants))
            sums.append(sum((y * w).sum() for y, w in zip(outputs, weights)))
        predicted = 2 * sum((slope * change).sum() for slope, change in zip(slopes, changes))
        assert np.isclose(sums[0] - sums[1], predicted, rtol=1e-4, atol=1e-10), name
