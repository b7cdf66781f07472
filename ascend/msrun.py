"""Starting the ranks of this node by MindSpore's msrun; whom to ask how they are, and their end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ascend import rank_process
from ascend.device import DeviceError

PORT = 8118  # of the scheduler, with several nodes; each attempt takes the next
JOIN_SECONDS = 1800  # that ranks wait for each other at the start
MSRUN_CORES = Path("/sys/fs/cgroup/cpuset/cpuset.cpus")  # where msrun looks for them


@dataclass(frozen=True)
class Cluster:
    """The machines of a job, and which of them this is.

    Attributes:
        devices: ranks on each node.
        nodes: machines.
        node_rank: which of them this one is, from 0.
        master: address of node 0, as all nodes see it.
        port: with several nodes: free on node 0, as are the next ones, one a restart.

    Raises:
        DeviceError: a number is out of its range.
    """

    devices: int
    nodes: int = 1
    node_rank: int = 0
    master: str = "127.0.0.1"
    port: int = PORT

    def __post_init__(self):
        for name in ("devices", "nodes"):
            if getattr(self, name) < 1:
                raise DeviceError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.node_rank < self.nodes:
            raise DeviceError(f"node_rank={self.node_rank} must be 0 to {self.nodes - 1}")
        if not 1024 <= self.port <= 65000:
            raise DeviceError(f"port={self.port} must be 1024 to 65000")

    @property
    def size(self) -> int:
        return self.devices * self.nodes

    @property
    def ranks(self) -> range:
        """The ranks of this node."""
        return range(self.node_rank * self.devices, (self.node_rank + 1) * self.devices)


class StartedRanks:
    """The ranks of this node, once started. To be made in the main thread: they end with it.

    Args:
        command: what each rank runs.
        folder: empty; for logs, and for what MindSpore and the Ascend toolkit leave behind.
        cluster: see `Cluster`.
        attempt: how often the job was started before.
        bind_cores: whether each rank is given cores of its own.

    Attributes:
        logs: rank -> its log.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        cluster: Cluster,
        attempt: int,
        bind_cores: bool,
    ):
        self.folder, self.cluster = folder, cluster
        self.logs = {rank: folder / f"rank_{rank}.log" for rank in cluster.ranks}
        environment = {**os.environ, "RANK_ID": "0", "RANK_SIZE": "1"}
        environment.pop("MS_ROLE", None)
        environment.setdefault("PYTHONUNBUFFERED", "1")  # a rank that is killed has said all
        environment.setdefault("MS_OM_PATH", str(folder))
        environment.setdefault("ASCEND_WORK_PATH", str(folder))
        if cluster.devices > 1:  # MindSpore would let msrun's children have one thread
            threads = max(1, len(os.sched_getaffinity(0)) // cluster.devices)
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        # msrun knows which cores are near a device, but without cgroup v1 it finds no cores at all
        msrun_binds = bind_cores and cluster.size > 1 and MSRUN_CORES.is_file()
        shares = cluster.devices if bind_cores and not msrun_binds else 0
        words = ["-IS", rank_process.__file__, folder, shares, sys.executable, *command]
        if cluster.size == 1:  # there is nobody to be brought together with
            words, self.first_log = [sys.executable, *words], self.logs[0]
        else:
            words = [*self._msrun(attempt, msrun_binds), *words]
            self.first_log = folder / "msrun.log"
            folders = Path(sys.executable).parent, environment.get("PATH", os.defpath)
            environment["PATH"] = os.pathsep.join(map(str, folders))  # msrun looks up python3
        with self.first_log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is told to this process alone
                preexec_fn=_shield,
            )

    def _msrun(self, attempt: int, bind_cores: bool) -> list[str]:
        cluster = self.cluster
        # another at each attempt: a rank never meets the scheduler of the one before
        port = cluster.port + attempt if cluster.nodes > 1 else _free_port()
        return [
            *(sys.executable, "-m", "mindspore.parallel.cluster.run"),
            f"--worker_num={cluster.size}",
            f"--local_worker_num={cluster.devices}",
            f"--master_addr={cluster.master}",
            f"--master_port={port}",
            f"--node_rank={cluster.node_rank}",
            f"--log_dir={self.folder}",
            "--worker_log_name=rank",
            f"--tail_worker_log={cluster.devices}",  # there is no such: none
            f"--cluster_time_out={JOIN_SECONDS}",
            f"--bind_core={bind_cores}",
            "--join=True",
            "python3",
        ]

    def ended(self) -> dict[str, int]:
        """Exit codes of "scheduler" and of ranks by their names, in the order they have ended."""
        return {name: int(code) for name, code in self._notes("ended")}

    def lost(self) -> list[str]:
        """Names of ranks whose `ascend.rank_process` is gone; `ended` says how, unless killed."""
        if self.cluster.size == 1:  # a child of ours
            return ["0"] if self.process.poll() is not None else []
        return [name for name, group, _ in self._ranks() if not psutil.pid_exists(int(group))]

    def signal(self, number: int) -> bool:
        """Send a signal to each rank that has not ended; returns whether all had been started."""
        ended, ranks = self.ended(), self._ranks()
        for name, _, process in ranks:
            if name not in ended:
                _kill(os.kill, int(process), number)
        return len(ranks) == len(self.logs)

    def end(self):
        """Kill what is left: ranks, with what they have started, scheduler and msrun."""
        (self.folder / "given_up").touch()
        groups = {int(group) for _, group, _ in self._notes("started")}
        for group in [*groups, self.process.pid]:
            _kill(os.killpg, group, signal.SIGKILL)
        self.process.wait()

    def _ranks(self) -> list[list[str]]:
        return [note for note in self._notes("started") if note[0] != "scheduler"]

    def _notes(self, file: str) -> list[list[str]]:
        path = self.folder / file
        text = path.read_text() if path.exists() else ""
        return [line.split() for line in text.splitlines()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _shield():
    """Before msrun begins: it ends with us, and leaves SIGTERM to us."""
    rank_process.end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _kill(how, identity: int, number: int):
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        how(identity, number)
