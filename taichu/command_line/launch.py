"""Run a recipe on several devices: `taichu train` once for each of them, brought together by msrun.

RECIPE and key=value are those of `taichu train`. Logs are in OUT/logs, a folder for each attempt,
a file for each rank; the first rank's is shown as it comes. When a rank fails or hangs, all are
ended, its last lines are shown, and with --restarts the run goes on from its last checkpoint.
SIGTERM and Ctrl-C let the ranks save first. With several nodes, the same command is given on each,
but for --node-rank; all that is said of devices and restarts is of one node.

examples:
  taichu launch pretrain manifest=my/manifest.jsonl --devices 8
  taichu launch my/recipe.yaml --devices 8 --restarts 3 --bind-cores
  taichu launch my/recipe.yaml --devices 8 --nodes 2 --node-rank 0 --master 10.0.0.1"""

import argparse
import os
import sys
from pathlib import Path

from taichu.command_line.train import load_recipe


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or a shipped one's name")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to its keys")
    parser.add_argument("--devices", type=int, required=True, metavar="N", help="ranks on a node")
    parser.add_argument(
        "--nodes", type=int, default=1, metavar="N", help="machines (default 1); each has as many"
    )
    parser.add_argument("--node-rank", type=int, metavar="N", help="which node this is, from 0")
    parser.add_argument(
        "--master",
        metavar="HOST[:PORT]",
        help="node 0, as all nodes see it (default port 8118; restarts take the next ones)",
    )
    parser.add_argument("--device", metavar="NAME", help="auto, Ascend, GPU or CPU; sets device=")
    parser.add_argument("--log-dir", metavar="DIR", help="for the logs (default OUT/logs)")
    parser.add_argument(
        "--restarts", type=int, default=0, metavar="N", help="at most, after failures (default 0)"
    )
    parser.add_argument(
        "--bind-cores", action="store_true", help="give each rank processor cores of its own"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="MINUTES",
        help="without a word from any rank after which they hang (default 60; 0: never)",
    )
    parser.set_defaults(run=run, error=parser.error)


def run(options: argparse.Namespace) -> int:
    cluster = read_cluster(options)
    if options.restarts < 0 or options.timeout < 0:
        options.error("--restarts and --timeout must be at least 0")
    overrides = [*options.overrides]
    if options.device:
        overrides.append(f"device={options.device}")
    # a mistake is told once, not by each rank
    _, config = load_recipe(options.recipe, overrides, cluster.size)
    from ascend.launch import launch

    os.environ.setdefault("TQDM_MININTERVAL", "1")  # seconds; each one is kept in the log
    command = [sys.executable, "-m", "taichu.command_line", "train", options.recipe, *overrides]
    logs = Path(options.log_dir or Path(config.out) / "logs")
    done = launch(
        command,
        logs,
        cluster,
        options.restarts,
        options.bind_cores,
        silence=60 * options.timeout,
    )
    return 0 if done else 1


def read_cluster(options: argparse.Namespace):
    """What --devices, --nodes, --node-rank and --master say together; wrong usage is told."""
    from ascend.device import DeviceError
    from ascend.msrun import Cluster

    if options.nodes > 1 and (options.master is None or options.node_rank is None):
        options.error("--nodes above 1 needs --master HOST and --node-rank N")
    if options.nodes == 1 and (options.master is not None or options.node_rank is not None):
        options.error("--master and --node-rank are for --nodes above 1")
    place = {}
    if options.nodes > 1:
        host, colon, port = options.master.partition(":")
        if not host or (colon and not port.isdigit()):
            options.error(f"--master must be HOST or HOST:PORT, not {options.master}")
        place = {"node_rank": options.node_rank, "master": host}
        if colon:
            place["port"] = int(port)
    try:
        return Cluster(options.devices, options.nodes, **place)
    except DeviceError as error:
        options.error(f"--{str(error).replace('_', '-')}")
