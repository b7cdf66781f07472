"""A rank of two that compute together is killed: the job ends, starts again, and goes on."""

import os
import re
import signal

# each step is an AllReduce, counted in a file a rank; it goes on from the first rank's count
REDUCING = """
import os, sys, time
import mindspore as ms
import numpy as np
from mindspore import ops
from ascend.ranks import join

ms.set_device("CPU")
home, number = sys.argv[1], os.environ["RANK_ID"]
counts = f"{home}/steps_0"
start = int(open(counts).read()) if os.path.exists(counts) else 0
ranks = join()
print("joined", ranks, "cores", sorted(os.sched_getaffinity(0)), "from step", start)
def mismatched(x):
    return ops.matmul(x, x)
try:
    ms.jit(mismatched)(ms.Tensor(np.ones((2, 3), np.float32)))
except RuntimeError:
    pass  # MindSpore has written a report, by default into the folder where it runs
reduce = ops.AllReduce()
for step in range(start, 40):
    total = reduce(ms.Tensor(np.array([ranks.rank + 1.0], np.float32))).asnumpy()
    assert total == 3.0
    with open(f"{home}/steps_{number}", "w") as file:
        file.write(str(step + 1))
    print("step", step + 1)
    if step > 10 and start == 0:
        time.sleep(0.3)  # time to be killed in
"""


def test_a_killed_rank_ends_the_job_which_goes_on_when_restarted(start_launch, tmp_path):
    job = start_launch(REDUCING, 2, restarts=1, bind_cores=True)
    job.wait_for("1/rank_1.log", "step 12")
    pids = [job.pid(name) for name in ("0", "1", "scheduler")]
    os.kill(job.pid("1"), signal.SIGKILL)
    code, out, error = job.finish()
    assert code == 0, error
    job.wait_until_gone(*pids)

    assert (
        f"launch: rank 1 ended with signal 9 (SIGKILL); the end of {job.logs}/1/rank_1.log:"
        in error
    )
    assert re.search(r"\n    step \d+\n", error) and "restart 1 of 1" in error
    started_from = re.findall(r"joined Ranks\(rank=0, size=2\) cores \[.*\] from step (\d+)", out)
    assert started_from[0] == "0" and int(started_from[1]) >= 12
    steps = [int(step) for step in re.findall(r"^step (\d+)$", out, re.MULTILINE)]
    first = steps.index(int(started_from[1]) + 1, 12)
    assert steps[first:] == list(range(int(started_from[1]) + 1, 41))
    assert all((tmp_path / f"steps_{rank}").read_text() == "40" for rank in (0, 1))

    if os.cpu_count() > 1:
        cores = [
            re.search(r"cores (\[.*\])", (job.logs / f"2/rank_{r}.log").read_text()) for r in (0, 1)
        ]
        assert not set(eval(cores[0][1])) & set(eval(cores[1][1]))
    assert not list(job.work.iterdir())
    assert (job.logs / "1/rank_0/om/analyze_fail.ir").is_file()
