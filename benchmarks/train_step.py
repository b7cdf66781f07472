"""Times a training step against the same network in plain PyTorch, eager and compiled.

    python benchmarks/train_step.py --json step.json

float32, two threads, the same packed batches and weights; that the losses agree is checked first.
The two frameworks stand in processes of their own and take turns, so that both meet the same load
of the machine. Needs `pip install "taichu[benchmark]"`.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np

THREADS = 2
RATE = 1e-4
BATCHES = 3  # different ones, in turn
WAYS = ("ours", "eager", "compiled")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["nano", "25m"], choices=["nano", "25m"])
    parser.add_argument("--runs", type=int, default=8, help="turns each way takes (default 8)")
    parser.add_argument("--steps", type=int, default=5, help="steps timed a turn (default 5)")
    parser.add_argument("--json", type=Path, help="write the ratios to this file")
    options = parser.parse_args()
    use_threads(THREADS)
    print(f"{machine()}; {THREADS} threads; {options.runs} turns of {options.steps} steps a way")
    ratios = {}
    for size in options.sizes:
        seconds = measure(size, options.runs, options.steps)
        median = {way: statistics.median(seconds[way]) for way in WAYS}
        for way in WAYS:
            spread = f"{min(seconds[way]) * 1e3:.1f} to {max(seconds[way]) * 1e3:.1f}"
            print(f"{size:>5} {way:<9} median {median[way] * 1e3:8.1f} ms a step ({spread})")
        for way in WAYS[1:]:
            ratios[f"{size}.{way}"] = round(median["ours"] / median[way], 3)
            print(f"{size:>5} ours / {way}: {ratios[f'{size}.{way}']:.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(ratios, indent=2) + "\n")


def measure(size: str, runs: int, steps: int) -> dict[str, list[float]]:
    """Seconds of every timed step, by way."""
    context = multiprocessing.get_context("spawn")
    workers, processes = {}, []
    for framework, serve in (("mindspore", serve_mindspore), ("torch", serve_torch)):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, size), daemon=True)
        process.start()
        workers[framework] = ours
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
        for ours, theirs, what in zip(first["ours"], first[way], ("loss", "gradient norm")):
            error = abs(theirs - ours) / abs(ours)
            if not error < 1e-4:
                raise SystemExit(f"{size} {way}: {what} {theirs} is not ours, {ours}")
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
    from ascend.device import choose_device

    choose_device("CPU")
    import mindspore

    from ascend.operators import AdamW
    from taichu.model import Backbone
    from taichu.objectives import Objective
    from taichu.training_step import TrainingStep

    mindspore.set_seed(1)
    config, vocabulary, grids = network_of(size)
    objective = Objective(Backbone(config, vocabulary.size, grids), vocabulary)
    names = {p.name.removeprefix("backbone."): p for p in objective.get_parameters()}
    connection.send({name: parameter.asnumpy() for name, parameter in names.items()})
    step = TrainingStep(objective, AdamW(objective.trainable_params(), RATE))

    def run(arrays):
        loss, _, norm = step(*(mindspore.Tensor(array) for array in arrays))
        return float(loss.asnumpy()), float(norm.asnumpy()[0])

    answer(connection, {"ours": run}, batches_of(size))


def serve_torch(connection, size: str):
    """The same with PyTorch; takes the weights first."""
    import torch
    from plain_torch import Network, TorchStep

    from taichu.model import rotary_frequencies

    torch.set_num_threads(THREADS)
    config, vocabulary, grids = network_of(size)
    weights = {name: torch.from_numpy(w) for name, w in connection.recv().items()}
    ways = {}
    for way in ("eager", "compiled"):
        network = Network(config, vocabulary.size, grids, rotary_frequencies(config))
        network.load_state_dict(weights)
        ways[way] = TorchStep(network, way == "compiled", RATE)
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


def network_of(size: str):
    """The model's config, its vocabulary, and tokens and patch size of its grids.

    Both sizes see nano's modalities, so that only the network differs.
    """
    from taichu.config import load_size

    config = load_size("nano")
    if size == "25m":
        modalities = config.modalities
        config = dataclasses.replace(load_size("tiny"), modalities=modalities, depth=13)
    grids = [(g.tokens, g.patch_size) for g in geometries_of(config).values()]
    return config, vocabulary_of(config), grids


def geometries_of(config) -> dict:
    from modality_adapters import GridGeometry

    return {
        n: GridGeometry(tuple(s["shape"]), tuple(s["patch"])) for n, s in config.modalities.items()
    }


def vocabulary_of(config):
    """Codes of the config's modalities beside a few hundred pieces."""
    import tempfile

    from taichu.vocabulary import Vocabulary, train_tokenizer

    random = np.random.default_rng(0)
    words = ["".join(map(chr, random.integers(97, 123, 4))) for _ in range(100)]
    lines = [" ".join(random.choice(words, 6)) for _ in range(200)]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(lines, 400, Path(folder))
    return Vocabulary(tokenizer, {name: codec.codes for name, codec in config.codecs.items()})


def batches_of(size: str) -> list:
    """Arrays of packed batches: text with each modality, both ways, a fifth of them jointly."""
    from taichu.packing import BatchShape, pack

    config, vocabulary, _ = network_of(size)
    geometries = geometries_of(config)
    rows, length = (32, 128) if size == "nano" else (8, 128)
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(BATCHES):
        layouts, free = [], 1.1 * rows * length  # more than fits
        while free > 0:
            modality = list(geometries)[len(layouts) % len(geometries)]
            layouts.append(draw(random, vocabulary, modality, geometries[modality], len(layouts)))
            free -= sum(len(segment) for segment in layouts[-1].segments)
        drawn.append(layouts)
    most = max(len(layouts) for layouts in drawn)
    share = -(-most // len(geometries))
    patches = tuple((n, share * g.tokens, g.patch_size) for n, g in geometries.items())
    shape = BatchShape(rows, length, rows * length, most, patches)
    batches = [pack(layouts, shape, vocabulary)[0] for layouts in drawn]
    targets = max(int((batch.weights > 0).sum()) for batch in batches)
    shape = dataclasses.replace(shape, targets=-(-targets // 64) * 64)
    return [pack(layouts, shape, vocabulary)[0].arrays() for layouts in drawn]


def draw(random, vocabulary, modality: str, geometry, caption: int):
    """One sample's two segments: text then codes, and patches then text."""
    from taichu.layout import GROUPED, JOINT, Segment, Span
    from taichu.packing import Layout

    where, codes = geometry.coordinates(), vocabulary.codes(modality)
    text = Span("text", ids=random.integers(0, vocabulary.pieces, random.integers(3, 12), np.int32))
    patches = random.standard_normal((geometry.tokens, geometry.patch_size), np.float32)
    seen = Span(modality, patches=patches, coordinates=where)
    ids = random.integers(codes.start, codes.stop, geometry.tokens, np.int32)
    made = Span(modality, ids=ids, coordinates=where)
    joint = random.random() < 0.2
    kind = JOINT if joint else GROUPED
    first = Segment((text,), (made,), kind, embedding=1)
    second = Segment((seen,), (text,), kind, embedding=1)
    group = list(vocabulary.media).index(modality)
    return Layout((first, second), group, caption, aligned=not joint)


def describe_batch(size: str) -> str:
    arrays = batches_of(size)[0]
    segment, weights = arrays[3], arrays[8]
    segments = int(segment.max(1).sum())
    return (
        f"{segment.shape[0]} x {segment.shape[1]} tokens, {segments} segments of "
        f"{(segment > 0).sum() / segments:.0f}, {(segment == 0).mean():.1%} padding, "
        f"{int((weights > 0).sum())} targets"
    )


def machine() -> str:
    """Name of the machine and of its processor."""
    names = [platform.node()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        names += [line.split(":")[1].strip() for line in lines if line.startswith("model name")][:1]
    return ", ".join([*names, f"{os.cpu_count()} cores"])


def use_threads(count: int):
    """Keep this process and its children to as many cores, whatever each library would take."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    os.environ["OMP_NUM_THREADS"] = str(count)


if __name__ == "__main__":
    main()
