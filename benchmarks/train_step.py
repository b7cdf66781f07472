"""Times a training step against the same network in plain PyTorch, eager and compiled.

    python benchmarks/train_step.py --json step.json

float32, two threads, the same packed batches and weights; that the losses agree is checked first.
The two frameworks stand in processes of their own and take turns, so that both meet the same load
of the machine. Needs `pip install "taichu[benchmark]"`.
"""

import multiprocessing
import statistics
import time

from harness import THREADS, machine, options, use_threads, write_ratios
from workload import WAYS, batches_of, describe_batch, ours, theirs


def main():
    parser = options(__doc__, runs=8)
    parser.add_argument("--sizes", nargs="+", default=["nano", "25m"], choices=["nano", "25m"])
    parser.add_argument("--steps", type=int, default=5, help="steps timed a turn (default 5)")
    chosen = parser.parse_args()
    use_threads()
    print(f"{machine()}; {THREADS} threads; {chosen.runs} turns of {chosen.steps} steps a way")
    ratios = {}
    for size in chosen.sizes:
        seconds = measure(size, chosen.runs, chosen.steps)
        median = {way: statistics.median(seconds[way]) for way in WAYS}
        for way in WAYS:
            spread = f"{min(seconds[way]) * 1e3:.1f} to {max(seconds[way]) * 1e3:.1f}"
            print(f"{size:>5} {way:<9} median {median[way] * 1e3:8.1f} ms a step ({spread})")
        for way in WAYS[1:]:
            ratios[f"train_step.{size}.{way}"] = round(median["ours"] / median[way], 3)
            print(f"{size:>5} ours / {way}: {median['ours'] / median[way]:.2f}", flush=True)
    write_ratios(chosen.json, ratios, chosen.runs * chosen.steps)


def measure(size: str, runs: int, steps: int) -> dict[str, list[float]]:
    """Seconds of every timed step, by way."""
    context = multiprocessing.get_context("spawn")
    workers, processes = {}, []
    for framework, serve in (("mindspore", serve_mindspore), ("torch", serve_torch)):
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, size), daemon=True)
        process.start()
        workers[framework] = here
        processes.append(process)
    weights = workers["mindspore"].recv()
    count = sum(w.size for w in weights.values())
    print(f"{size:>5} {count / 1e6:.1f} million parameters, {describe_batch(size)}", flush=True)
    workers["torch"].send(weights)
    ways = {"ours": "mindspore", "eager": "torch", "compiled": "torch"}
    turn = turns_of({way: workers[place] for way, place in ways.items()})
    first = require_equal(turn, WAYS, size)
    print(f"{size:>5} loss {first[0]:.5f}, the same in all ways", flush=True)
    seconds = take_turns(turn, WAYS, runs, steps)
    for connection in workers.values():
        connection.send(None)
    for process in processes:
        process.join(30)
    return seconds


def turns_of(workers: dict):
    """(way, steps) -> (loss, gradient norm, seconds) of each step, from the process that serves
    the way."""

    def turn(way: str, steps: int) -> list[tuple[float, float, float]]:
        workers[way].send((way, steps))
        return workers[way].recv()

    return turn


def require_equal(turn, ways, what: str, steps: int = 1) -> tuple[float, float]:
    """Loss and gradient norm after so many steps of the first way, which the others must have."""
    last = {way: turn(way, steps)[-1] for way in ways}  # the first compiles too
    first = last[ways[0]][:2]
    for way in ways[1:]:
        for wanted, got, name in zip(first, last[way], ("loss", "gradient norm")):
            if not abs(got - wanted) < 1e-4 * abs(wanted):
                raise SystemExit(f"{what} {way}: {name} {got} is not ours, {wanted}")
    return first


def take_turns(turn, ways, runs: int, steps: int) -> dict[str, list[float]]:
    """Seconds of every timed step, by way."""
    seconds = {way: [] for way in ways}
    for _ in range(runs):
        for way in ways:
            turn(way, 1)  # not timed: caches, and threads that wake up
            seconds[way] += [took for _, _, took in turn(way, steps)]
            time.sleep(0.3)  # threads that spin after their work fall asleep
    return seconds


def serve_mindspore(connection, size: str):
    """Give the weights, then take (way, steps) and give (loss, gradient norm, seconds) a step."""
    weights, run = ours(size)
    connection.send(weights)
    answer(connection, {"ours": run}, batches_of(size))


def serve_torch(connection, size: str):
    """The same with PyTorch; takes the weights first."""
    weights = connection.recv()
    ways = {way: theirs(size, way, weights) for way in ("eager", "compiled")}
    answer(connection, ways, batches_of(size))


def answer(connection, ways: dict, batches: list):
    """Run what is asked for until nothing is; each way goes on with the batches where it was."""
    done = dict.fromkeys(ways, 0)
    while (request := connection.recv()) is not None:
        way, steps = request
        results = []
        for _ in range(steps):
            arrays = batches[done[way] % len(batches)]
            start = time.perf_counter()
            loss, norm = ways[way](arrays)
            results.append((loss, norm, time.perf_counter() - start))
            done[way] += 1
        connection.send(results)


if __name__ == "__main__":
    main()
