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
    place = {"ours": "mindspore", "eager": "torch", "compiled": "torch"}

    def turn(way: str, count: int):
        workers[place[way]].send((way, count))
        return workers[place[way]].recv()

    first = {way: turn(way, 1)[0] for way in WAYS}  # compiles too
    for way in WAYS[1:]:
        for wanted, got, what in zip(first["ours"], first[way], ("loss", "gradient norm")):
            if not abs(got - wanted) < 1e-4 * abs(wanted):
                raise SystemExit(f"{size} {way}: {what} {got} is not ours, {wanted}")
    print(f"{size:>5} loss {first['ours'][0]:.5f}, the same in all ways", flush=True)
    seconds = {way: [] for way in WAYS}
    for _ in range(runs):
        for way in WAYS:
            turn(way, 1)  # not timed: caches, and threads that wake up
            seconds[way] += [took for _, _, took in turn(way, steps)]
            time.sleep(0.3)  # threads that spin after their work fall asleep
    for connection in workers.values():
        connection.send(None)
    for process in processes:
        process.join(30)
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
