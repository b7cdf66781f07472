"""Vectors by number, searched by inner product: an inverted file of faiss.

Vectors stand in lists, each vector in the list of the centroid nearest to it, and a query looks
through the lists nearest to it alone: first at codes of four bits for two numbers (fast scan), then
at the vectors of the best. Of few vectors there is one list, and their search is exact.

A graph (HNSW) was measured beside it (`benchmarks/README.md`): up to a recall of 0.99 it answers
single queries about twice as fast, above no faster; it takes four times as long to make, and faiss
deletes nothing from it, which decides.

Names of dimensions: n vectors, L lists, C numbers of a vector, Q queries.
"""

import math
from dataclasses import dataclass
from threading import Lock

import faiss
import numpy as np

EXACT = 20_000  # fewer vectors are in one list
RECALL = 0.96  # of the NEIGHBOURS, at which a query looks through no more lists
NEIGHBOURS = 10
TRIED = 512  # queries of a kind that this is tried with
APART = 0.7  # length of the noise between such a query and a vector
CANDIDATES = 200  # by their codes, of which the vectors are looked at; more for longer answers
POINTS = 40  # of a centroid, that it is learned from
CODED = 16_384  # vectors that codes are learned from
BLOCK = 64  # queries whose candidates are in memory at a time


@dataclass(frozen=True)
class Lists:
    """All that an inverted file holds, list by list.

    Attributes:
        vectors: (n, C) float32. numbers: (n,) int64, theirs.
        sizes: (L,) int64, how many vectors each list has. centroids: (L, C) float32.
        probes: lists that a query looks through.
    """

    vectors: np.ndarray
    numbers: np.ndarray
    sizes: np.ndarray
    centroids: np.ndarray
    probes: int


def lists_for(count: int) -> int:
    """How many lists so many vectors are to stand in: a power of two near four roots of them."""
    return 1 if count < EXACT else 2 ** round(math.log2(4 * math.sqrt(count)))


class InvertedFile:
    """Unit vectors under numbers of the caller's.

    Args:
        size: C.
    """

    def __init__(self, size: int):
        self.size = size
        self._begin(np.zeros((1, size), np.float32), 1)

    @classmethod
    def of(cls, lists: Lists) -> "InvertedFile":
        """What gave these lists, again; they are taken to fit each other."""
        made = cls(lists.vectors.shape[1])
        made._begin(lists.centroids, lists.probes)
        ends = np.cumsum(lists.sizes)
        for number in np.flatnonzero(lists.sizes):
            part = slice(ends[number] - lists.sizes[number], ends[number])
            made._insert(int(number), lists.numbers[part], lists.vectors[part])
        made._index.ntotal = len(lists.vectors)
        return made

    def __len__(self) -> int:
        return self._index.ntotal

    def add(self, vectors: np.ndarray, numbers: np.ndarray):
        """Add vectors (n, C) float32 of unit length under numbers (n,) int64 that are new."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        self._index.add_with_ids(vectors, numbers)
        if self._codes is not None:
            self._codes.add_with_ids(vectors, numbers)

    def remove(self, numbers: np.ndarray):
        """Take out the vectors of these numbers (n,) int64, for good."""
        if self._codes is None:
            self._index.remove_ids(numbers)
        else:  # then vectors are found by a map, which wants to be told the numbers one by one
            self._codes.remove_ids(numbers)
            self._index.remove_ids(faiss.IDSelectorArray(numbers))

    def search(self, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest vectors of each query (Q, C) float32, best first.

        Returns:
            Numbers (Q, t) int64 and inner products (Q, t) float32; t = ``top``, or as many as there
            are.
        """
        return self._search(queries, min(top, len(self)), self._index.nprobe)

    def _search(self, queries: np.ndarray, top: int, probes: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.empty((len(queries), top), np.int64)
        scores = np.empty((len(queries), top), np.float32)
        if not top:
            return numbers, scores
        if self._index.nlist == 1:
            scores, numbers = self._index.search(queries, top)
            return numbers, scores
        for start in range(0, len(queries), BLOCK):
            part = slice(start, start + BLOCK)
            numbers[part], scores[part] = self._search_codes(queries[part], top, probes)
        lacking = np.flatnonzero(numbers[:, -1] < 0)  # the lists looked through held fewer
        if len(lacking):
            everywhere = faiss.SearchParametersIVF(nprobe=self._index.nlist)
            found = self._index.search(queries[lacking], top, params=everywhere)
            scores[lacking], numbers[lacking] = found
        return numbers, scores

    def _search_codes(self, queries: np.ndarray, top: int, probes: int):
        """Candidates by their codes, of them the best by their vectors; -1 where there are none."""
        with self._making:
            if self._codes is None:
                self._index.set_direct_map_type(faiss.DirectMap.Hashtable)  # vectors by number
                self._codes = self._encode()
        count = min(max(CANDIDATES, 10 * top), len(self))
        some = faiss.SearchParametersIVF(nprobe=probes)
        numbers = self._codes.search(queries, count, params=some)[1]
        there = numbers >= 0
        vectors = self._index.reconstruct_batch(numbers[there])
        scores = np.full(numbers.shape, -np.inf, np.float32)
        scores[there] = np.einsum("nc,nc->n", vectors, queries[np.nonzero(there)[0]])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return np.take_along_axis(numbers, best, 1), np.take_along_axis(scores, best, 1)

    def _encode(self) -> faiss.IndexIVFPQFastScan:
        """The codes of all vectors, in the same lists."""
        width = 4 if self.size % 4 == 0 and self.size > 256 else 2 if self.size % 2 == 0 else 1
        shape = self.size, self._index.nlist, self.size // width, 4
        coded = faiss.IndexIVFPQ(self._centroids, *shape, faiss.METRIC_INNER_PRODUCT)
        coded.by_residual, coded.ntotal = False, len(self)
        # thousands of small pieces of work: threads would wait for each other longer than they
        # work; the number is of this thread alone
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            coded.train(self.sample(CODED))
            for number in np.flatnonzero(self._sizes()).tolist():
                vectors, numbers = self._list(number)
                codes = coded.pq.compute_codes(vectors)
                pointers = faiss.swig_ptr(numbers), faiss.swig_ptr(codes)
                coded.invlists.add_entries(number, len(numbers), *pointers)
        finally:
            faiss.omp_set_num_threads(threads)
        return faiss.IndexIVFPQFastScan(coded)

    @property
    def misfit(self) -> bool:
        """Whether there are too few lists for the vectors, or far too many."""
        lists = self._index.nlist
        return lists < lists_for(len(self)) or lists > lists_for(4 * len(self))

    def arrange(self, groups: list[np.ndarray]):
        """Make new lists, as many as are right, and find how many of them a query looks through.

        Args:
            groups: kinds of queries, (Q, C) float32 each, as vectors of other modalities are; each
                is to find its nearest. So are queries at some distance from the vectors' own.
        """
        held = self.lists()
        vectors, numbers, count = held.vectors, held.numbers, lists_for(len(held.vectors))
        own = self.sample(TRIED)
        self._codes = self._index = None  # room for the new ones
        del held
        if count == 1:
            self._begin(np.zeros((1, self.size), np.float32), 1)
            self.add(vectors, numbers)
            return
        means = faiss.Kmeans(
            self.size, count, niter=10, spherical=True, max_points_per_centroid=POINTS, seed=0
        )
        means.train(vectors)
        self._begin(means.centroids, 1)
        self.add(vectors, numbers)
        noise = np.random.default_rng(0).standard_normal(own.shape, np.float32)
        own += noise * np.float32(APART / math.sqrt(self.size))
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        self._index.nprobe = self._probes_wanted([own, *groups], vectors)

    def _probes_wanted(self, groups: list[np.ndarray], vectors: np.ndarray) -> int:
        """The fewest lists, of a geometric series, that give each group RECALL."""
        probes, most = 1, self._index.nlist
        for queries in groups:
            exact = faiss.knn(queries, vectors, NEIGHBOURS, metric=faiss.METRIC_INNER_PRODUCT)[0]
            while probes < most:
                scores = self._search(queries, NEIGHBOURS, probes)[1]
                # by scores, not by numbers: of equal vectors any is right
                if (scores >= exact[:, -1:] - 1e-6).mean() >= RECALL:
                    break
                probes += math.ceil(probes / 4)
        return min(probes, most)

    def sample(self, count: int) -> np.ndarray:
        """At most so many of the vectors, drawn, (n, C)."""
        sizes = self._sizes()
        random = np.random.default_rng(0)
        drawn = np.sort(random.choice(len(self), min(count, len(self)), replace=False))
        made, ends = np.empty((len(drawn), self.size), np.float32), np.cumsum(sizes)
        owner = np.searchsorted(ends, drawn, side="right")
        for number in np.unique(owner).tolist():
            where = owner == number
            made[where] = self._list(number)[0][drawn[where] - ends[number]]
        return made

    def lists(self) -> Lists:
        """A copy of everything."""
        sizes = self._sizes()
        vectors = np.empty((len(self), self.size), np.float32)
        numbers, start = np.empty(len(self), np.int64), 0
        for number in np.flatnonzero(sizes).tolist():
            part = slice(start, start := start + int(sizes[number]))
            vectors[part], numbers[part] = self._list(number)
        centroids = self._index.quantizer.reconstruct_n(0, self._index.nlist)
        return Lists(vectors, numbers, sizes, centroids, self._index.nprobe)

    def _list(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and numbers of a list that is not empty, in its own memory."""
        inverted, count = self._index.invlists, self._index.get_list_size(number)
        codes = faiss.rev_swig_ptr(inverted.get_codes(number), count * 4 * self.size)
        numbers = faiss.rev_swig_ptr(inverted.get_ids(number), count)
        return codes.view(np.float32).reshape(count, self.size), numbers

    def _begin(self, centroids: np.ndarray, probes: int):
        """No vectors, and lists of these centroids."""
        self._centroids = faiss.IndexFlatIP(self.size)
        self._centroids.add(centroids)
        count, metric = len(centroids), faiss.METRIC_INNER_PRODUCT
        self._index = faiss.IndexIVFFlat(self._centroids, self.size, count, metric)
        self._index.nprobe = probes
        self._codes: faiss.IndexIVFPQFastScan | None = None  # made when they are first searched
        self._making = Lock()

    def _insert(self, number: int, numbers: np.ndarray, vectors: np.ndarray):
        """Put vectors into a list, as they are."""
        numbers = np.ascontiguousarray(numbers, np.int64)
        codes = np.ascontiguousarray(vectors, np.float32).view(np.uint8)
        pointers = faiss.swig_ptr(numbers), faiss.swig_ptr(codes)
        self._index.invlists.add_entries(number, len(numbers), *pointers)

    def _sizes(self) -> np.ndarray:
        lists = self._index.nlist
        return np.array([self._index.get_list_size(i) for i in range(lists)], np.int64)
