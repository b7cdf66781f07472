"""Ranks tune as one does on the batches of all."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from recipes import tune_chat
from taichu.command_line.train import load_recipe

ROOT = Path(__file__).parents[2]


def test_two_ranks_tune_as_one_that_gathers_two_batches(common, base, questions, tmp_path):
    words = [f"start={base}", f"data=[{{path: {questions}}}]", "validation=[]", "device=CPU"]
    words += [f"cache={common['cache']}", "conversations.rows=2", "conversations.length=128"]
    words += ["train.rate=1e-2", "train.steps=3"]
    launched = [*words, f"out={tmp_path / 'two'}", "--devices", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "taichu.command_line", "launch", "tune_chat", *launched],
        env={**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "4"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    alone = [*words, f"out={tmp_path / 'one'}", "train.accumulate=2"]
    tune_chat.main(load_recipe("tune_chat", alone)[1])
    one, two = (
        load_file(tmp_path / n / "adapter/adapter_model.safetensors") for n in ("one", "two")
    )
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        np.testing.assert_allclose(two[name], tensor, atol=1e-5, err_msg=name)
