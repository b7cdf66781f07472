"""What every test starts from: MindSpore on the CPU, quiet, with a fixed seed."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def cpu():
    """Sets the device once; tests that compute with MindSpore ask for it (or `seeded`)."""
    from ascend.device import choose_device

    return choose_device("CPU")


@pytest.fixture
def seeded(cpu):
    """MindSpore on the CPU with its initialisers seeded; gives a NumPy generator."""
    import mindspore

    mindspore.set_seed(7)
    return np.random.default_rng(7)
