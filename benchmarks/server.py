"""Requests and tokens a second of `taichu serve`, and how long the first piece takes.

    python benchmarks/server.py

A model of 25 million parameters, drawn and not trained, so that texts are as long as they may be,
is served twice: as it is, and one answer at a time (--rows 1). 1, 8 and 32 clients send streamed
chat requests, each its next when it has the last piece of the one before; turns of the two servers
are interleaved. Clients and server share the cores. Needs `pip install "taichu[train,serve]"`.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests
from harness import THREADS, interleaved, machine, options, use_threads, write_ratios

CLIENTS, REQUESTS, PIECES = (1, 8, 32), 32, 48
TEXTS = ("a red seven", "左上角的红色七", "a blue three moves slowly from the left to the right")
PIECE = re.compile(rb'"content": "[^"]')
OURS, ALONE = "as it is", "one at a time"


def main():
    chosen = options(__doc__, runs=3).parse_args()
    use_threads()
    ratios = {}
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = draw_model("25m", Path(place))
        servers = {
            name: stack.enter_context(served(folder, "--rows", rows))
            for name, rows in ((OURS, "32"), (ALONE, "1"))
        }
        print(f"{machine()}; {THREADS} threads; {REQUESTS} requests of {PIECES} pieces")
        print(f"{'clients':>7}  {'server':<14}requests/s  tokens/s  first piece, ms: p50    p95")
        for clients in CLIENTS:
            ratios |= compare(servers, clients, chosen.runs)
    write_ratios(chosen.json, ratios, chosen.runs)


def compare(servers: dict[str, str], clients: int, runs: int) -> dict[str, float]:
    """Print a line for each server; ratios of time and of the median wait for the first piece."""
    waits = {name: [] for name in servers}
    ways = {
        name: lambda name=name: waits[name].extend(ask(servers[name], clients)) for name in servers
    }
    seconds = interleaved(ways, runs)
    middle = {}
    for name, taken in seconds.items():
        *_, last = percentiles = statistics.quantiles(waits[name][REQUESTS:], n=20)
        middle[name] = percentiles[9]
        rates = f"{REQUESTS / taken:>10.2f}{REQUESTS * PIECES / taken:>10.0f}"
        print(f"{clients:>7}  {name:<14}{rates}{1000 * middle[name]:>21.0f}{1000 * last:>7.0f}")
    return {
        f"server.{clients}.seconds": seconds[OURS] / seconds[ALONE],
        f"server.{clients}.first_piece": middle[OURS] / middle[ALONE],
    }


def ask(address: str, clients: int) -> list[float]:
    """Send all requests by so many clients; seconds to each one's first piece."""
    numbers, waits, lock = iter(range(REQUESTS)), [], threading.Lock()

    def client():
        session = requests.Session()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            waits.append(ask_once(session, address, TEXTS[number % len(TEXTS)]))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(waits) != REQUESTS:
        raise SystemExit("a client failed")
    return waits


def ask_once(session: requests.Session, address: str, text: str) -> float:
    """Read one answer to its end; seconds to its first piece."""
    body = {"model": "model", "messages": [{"role": "user", "content": text}]}
    body |= {"stream": True, "max_tokens": PIECES, "stream_options": {"include_usage": True}}
    begin, first, read = time.perf_counter(), None, []
    with session.post(f"{address}/v1/chat/completions", json=body, stream=True) as answer:
        for part in answer.iter_content(None):  # looked at later: clients have no core of their own
            read.append(part)
            if first is None and PIECE.search(part):
                first = time.perf_counter() - begin
    if b'"completion_tokens": %d,' % PIECES not in b"".join(read):
        raise SystemExit(f"not {PIECES} pieces: {read[-3:]}")
    return first


def draw_model(size: str, place: Path) -> Path:
    """A model of a size, nothing learned, exported."""
    from workload import network_of

    from taichu import Taichu
    from taichu.export.onnx_folder import export_onnx

    config, vocabulary, _ = network_of(size)
    Taichu(config, vocabulary.tokenizer).save_pretrained(place / "model")
    return export_onnx(place / "model", place / "exported")


@contextmanager
def served(folder: Path, *words: str):
    """The address of a server in a process of its own, which ends with the block."""
    command = [sys.executable, "-m", "taichu.command_line", "serve", str(folder), "--port", "0"]
    command += ["--name", "model", "--device", "cpu", "--threads", str(THREADS), *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = next((line for line in process.stderr if "is served at" in line), None)
        if line is None:
            raise SystemExit("the server did not start")
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main()
