"""Compile a recipe's training step for one Ascend of several; run over stand-ins of CANN.

python compile_on_ranks.py RECIPE [key=value ...]
"""

import os
import sys

from mindspore import communication

from ascend import device_matrix
from ascend.device import set_device
from ascend.precision import choose_precision
from ascend.ranks import Ranks
from taichu.command_line.dry_compile import compile_step
from taichu.command_line.train import load_recipe
from taichu.config import load_size
from taichu.training.blueprint import Blueprint

_, config = load_recipe(sys.argv[1], sys.argv[2:])
set_device("Ascend")
choose_precision(config.precision)
ranks = Ranks(int(os.environ["RANK_ID"]), int(os.environ["RANK_SIZE"]))
if ranks.size > 1:
    communication.init()
    device_matrix.join = lambda: ranks  # no others are there to be met
device_matrix.choose_device_matrix(config.parallel)
compile_step(config, Blueprint(load_size(config.model), config.mixture))
