"""From a tower's width to the blocks'."""

from mindspore import nn

from taichu.config import TowerConfig
from taichu.model.block import Linear
from taichu.model.towers.activation import Gelu


class Projector(nn.Cell):
    """A linear map (LLaVA, 2304.08485, eq. 1), or two with a GELU between (LLaVA-1.5, 2310.03744,
    section 3.2); (N, W) -> (N, D)."""

    def __init__(self, config: TowerConfig, width: int):
        super().__init__()
        self.first = Linear(config.width, width, bias=True)
        self.second = Linear(width, width, bias=True) if config.projector == "mlp" else None
        self.gelu = Gelu()

    def construct(self, x_NW):
        x_ND = self.first(x_NW)
        return x_ND if self.second is None else self.second(self.gelu(x_ND))
