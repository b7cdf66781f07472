"""Two nodes: network namespaces joined by a cable, a launch in each, as on two machines."""

import os
import subprocess

import pytest

# fails the first time, on both nodes: they have to find each other again
PROGRAM = """
import os, sys
if os.path.basename(os.environ["MS_OM_PATH"]) == "1":
    sys.exit(5)
import mindspore as ms
import numpy as np
from mindspore import ops
from ascend.ranks import join

ms.set_device("CPU")
ranks = join()
total = ops.AllReduce()(ms.Tensor(np.array([ranks.rank + 1.0], np.float32))).asnumpy()
print(ranks, "total", total)
"""


def ip(*words: str):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def nodes():
    """Names of two namespaces; their addresses are 10.99.0.1 and 10.99.0.2."""
    names = [f"taichu{os.getpid()}-{node}" for node in (0, 1)]
    try:
        ip("netns", "add", names[0])
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        pytest.skip(f"no network namespaces can be made here: {str(reason).strip()}")
    try:
        ip("netns", "add", names[1])
        cable = ["link", "add", "cable0", "netns", names[0], "type", "veth"]
        ip(*cable, "peer", "name", "cable1", "netns", names[1])
        for node, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.99.0.{node + 1}/24", "dev", f"cable{node}")
            for device in ("lo", f"cable{node}"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def test_two_nodes_meet_and_meet_again(start_launch, nodes):
    jobs = [
        start_launch(
            PROGRAM,
            *(1, 2, node, "10.99.0.1", 8200),
            place=f"machine{node}",
            prefix=("ip", "netns", "exec", nodes[node]),
            restarts=1,
        )
        for node in (0, 1)
    ]
    for node, job in enumerate(jobs):
        code, out, error = job.finish()
        assert code == 0, error
        assert f"Ranks(rank={node}, size=2) total [3.]\n" in out
        assert f"rank {node} ended with exit code 5" in error and "restart 1 of 1" in error
        logs = {path.name for path in (job.logs / f"node_{node}" / "2").glob("*.log")}
        assert logs == {"msrun.log", f"rank_{node}.log"} | (
            {"scheduler.log"} if node == 0 else set()
        )
