"""What every training begins with: a device, a number type, the ranks, a seed."""

import mindspore as ms

from ascend.device import choose_device
from ascend.device_matrix import DeviceMatrix, ParallelConfig, choose_device_matrix
from ascend.operators import describe_forms
from ascend.precision import choose_precision


def start_training(
    device: str, precision: str, seed: int, parallel: ParallelConfig | None = None
) -> DeviceMatrix:
    """Choose where and in what type the following is computed, and say why; meet the other ranks.

    Args:
        device: see `ascend.device.choose_device`.
        precision: see `ascend.precision.choose_precision`.
        seed: of new parameters.
        parallel: how the ranks are laid out; by default they share out the data.

    Raises:
        HardwareError: what was asked for cannot be had.
    """
    print(choose_device(device).reason, choose_precision(precision), sep="\n")
    print(describe_forms(), flush=True)
    matrix = choose_device_matrix(parallel or ParallelConfig())
    ms.set_seed(seed)
    return matrix
