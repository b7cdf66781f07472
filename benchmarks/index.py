"""An index of a million vectors against exact search: recall, queries a second, changes, memory.

    python benchmarks/index.py

Vectors of 128 numbers, drawn as embeddings lie: around 20,000 directions of unequal weight, which
two modalities share, each of them shifted by a direction of its own; a million of one modality,
20,000 of the other. Queries are of the first modality, or of the other, which lie further from all
that they look for. Exact search is faiss' flat index, turns are interleaved. Needs
`pip install "taichu[index]"`, no MindSpore.
"""

import subprocess
import sys
import tempfile
import time

import numpy as np
import psutil
from harness import THREADS, interleaved, machine, options, use_threads, write_ratios

SIZE, DIRECTIONS, OTHERS = 128, 20_000, 20_000
PART = 50_000  # vectors that are added at a time
ASKED, TOP, BATCH = 1000, 10, 64
CHANGED = 10_000
OPEN = """
import pathlib, sys, time, numpy, psutil
from taichu.index import Index
resident = lambda: psutil.Process().memory_info().rss / 1e6
before, start = resident(), time.perf_counter()
index = Index.open(sys.argv[1])
opened = time.perf_counter()
index.search(numpy.eye(1, index.size), 10)
asked = time.perf_counter()
size = sum(path.stat().st_size for path in pathlib.Path(sys.argv[1]).iterdir())
print(f"opened in {opened - start:.1f} s, first query {asked - opened:.1f} s")
print(f"{size / 1e6:,.0f} MB on the disk, {resident() - before:,.0f} MB in memory", flush=True)
"""


class Collection:
    """Draws unit vectors of two modalities."""

    def __init__(self):
        random = np.random.default_rng(0)
        self.directions = unit(random.standard_normal((DIRECTIONS, SIZE), np.float32))
        self.shifts = unit(random.standard_normal((2, SIZE), np.float32)) * np.float32(0.5)
        weights = np.arange(1, DIRECTIONS + 1) ** -0.5
        self.weights = weights / weights.sum()

    def draw(self, count: int, modality: int, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        made = np.empty((count, SIZE), np.float32)
        for start in range(0, count, PART):
            part = made[start : start + PART]
            of = random.choice(DIRECTIONS, len(part), p=self.weights)
            noise = random.standard_normal(part.shape, np.float32) * np.float32(0.7 / SIZE**0.5)
            part[:] = unit(self.directions[of] + self.shifts[modality] + noise)
        return made


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main():
    parser = options(__doc__, runs=7)
    parser.add_argument("--count", type=int, default=1_000_000, help="vectors (default a million)")
    chosen = parser.parse_args()
    use_threads()
    import faiss

    faiss.omp_set_num_threads(THREADS)
    print(f"{machine()}; {THREADS} threads; {chosen.count:,} vectors of {SIZE} numbers", flush=True)
    collection = Collection()
    images = collection.draw(chosen.count, 0, seed=1)
    index = build(images, collection.draw(OTHERS, 1, seed=2))
    keep(index)
    exact = faiss.IndexFlatIP(SIZE)
    exact.add(images)
    del images
    ratios = {}
    for number, name in enumerate(("same", "other")):
        queries = collection.draw(ASKED, number, seed=3 + number)
        ratios |= compare(index, exact, queries, name, chosen.runs)
    change(index, collection.draw(CHANGED, 0, seed=5))
    write_ratios(chosen.json, ratios, chosen.runs)


def build(images: np.ndarray, texts: np.ndarray):
    """An index of both, added part by part."""
    from taichu.index import Index

    index, before, start = Index(SIZE), resident(), time.perf_counter()
    index.add("text", [(f"{n}", f"text {n}") for n in range(len(texts))], texts)
    for first in range(0, len(images), PART):
        part = images[first : first + PART]
        entries = [(f"{n}", f"/data/image/{n}.png") for n in range(first, first + len(part))]
        index.add("image", entries, part)
    seconds = time.perf_counter() - start
    print(f"made in {seconds:.0f} s, {len(images) / seconds:,.0f} vectors a second")
    print(f"{resident() - before:,.0f} MB while it is changed", flush=True)
    return index


def keep(index):
    """Save it, and open and ask it in another process."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"saved in {timed(lambda: index.save(folder)):.1f} s", flush=True)
        subprocess.run([sys.executable, "-c", OPEN, folder], check=True)


def compare(index, exact, queries: np.ndarray, name: str, runs: int) -> dict[str, float]:
    """Recall, and seconds a query, alone and in batches."""
    numbers = exact.search(queries, TOP)[1]
    found = index.search(queries, TOP, "image")
    same = [
        len({f.id for f in row} & set(map(str, expected))) for row, expected in zip(found, numbers)
    ]
    print(f"queries of the {name} modality: R@10 {np.mean(same) / TOP:.3f} of exact search")
    few = queries[:4]  # exact search takes its time
    ways = {
        "one": lambda: [index.search(q[None], TOP, "image") for q in queries[:BATCH]],
        "exact one": lambda: [exact.search(q[None], TOP) for q in few],
        "batch": lambda: index.search(queries[:BATCH], TOP, "image"),
        "exact batch": lambda: exact.search(queries[:BATCH], TOP),
    }
    seconds = interleaved(ways, runs)
    seconds = {w: s / (len(few) if w == "exact one" else BATCH) for w, s in seconds.items()}
    ratios = {}
    for way, title in (("one", "one at a time"), ("batch", f"in batches of {BATCH}")):
        ratio = seconds[way] / seconds[f"exact {way}"]
        rates = f"{1 / seconds[way]:,.0f} a second, exact {1 / seconds[f'exact {way}']:,.0f}"
        print(f"  {title}: {rates}; {ratio:.4f} of its time", flush=True)
        ratios[f"index.{name}.{way}"] = ratio
    return ratios


def change(index, vectors: np.ndarray):
    """Rates of adding and deleting, in one call and one by one."""
    entries = [(f"new {n}", f"/data/new/{n}.png") for n in range(len(vectors))]
    timed(lambda: index.add("image", entries[:1], vectors[:1]))  # the ids are looked up
    rest, few = len(vectors) - 1, 100
    print(
        f"added: {rest / timed(lambda: index.add('image', entries[1:], vectors[1:])):,.0f} a second"
    )
    names = [name for name, _ in entries]
    one_by_one = timed(lambda: [index.delete([name]) for name in names[:few]])
    at_once = timed(lambda: index.delete(names[few:]))
    print(f"deleted: {(len(names) - few) / at_once:,.0f} a second, alone {few / one_by_one:,.0f}")


def timed(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def resident() -> float:
    """MB of this process."""
    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    main()
