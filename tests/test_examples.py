"""The examples run on the small digits, and learn."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ["own_loop", "model_train"])
def test_example(name, digits, tmp_path):
    command = [sys.executable, EXAMPLES / f"{name}.py", digits, "24"]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "GLOG_v": "4"}
    )
    assert result.returncode == 0, result.stderr[-3000:]
    losses = [float(loss) for loss in re.findall(r"loss(?: is)? ([\d.]+)", result.stdout)]
    assert len(losses) == 24
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])
    if name == "model_train":
        assert (tmp_path / "runs/model_train/model/model.safetensors").is_file()
