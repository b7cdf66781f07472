"""Search is held to brute force in float64, through adding, deleting and reopening."""

import json
import struct
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest

from taichu.errors import IndexFolderError
from taichu.index import Index
from taichu.index.index import FILE
from taichu.storage.tensor_file import load_tensors, save_tensors

SIZE = 16


@pytest.fixture(autouse=True)
def one_thread():
    """Beside other processes' tests threads of faiss only wait for each other."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


@pytest.fixture(params=["exact", "coded"])
def kind(request, monkeypatch):
    """Few vectors in one list, or as many stand in lists with codes."""
    if request.param == "coded":
        monkeypatch.setattr("taichu.index.inverted_file.EXACT", 300)
        monkeypatch.setattr("taichu.index.inverted_file.BLOCK", 8)
    return request.param


class Kept:
    """The reference: all entries and vectors in a dict."""

    def __init__(self, seed: int = 0):
        self.random = np.random.default_rng(seed)
        self.held: dict[tuple[str, str, str], np.ndarray] = {}

    def unit(self, count: int) -> np.ndarray:
        """Around twenty directions, as embeddings lie."""
        around = np.random.default_rng(1).standard_normal((20, SIZE))
        drawn = around[self.random.integers(0, 20, count)]
        drawn = drawn + 0.5 * self.random.standard_normal((count, SIZE))
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    def add(self, index: Index, modality: str, names: list[str]):
        entries = [(name, f"{modality} {name}") for name in names]
        vectors = self.unit(len(names))
        assert index.add(modality, entries, vectors) == len(names)
        self.held |= {(modality, *e): v for e, v in zip(entries, vectors)}

    def delete(self, index: Index, names: list[str]):
        gone = [key for key in self.held if key[1] in names]
        assert index.delete(names) == len(gone)
        for key in gone:
            del self.held[key]

    def check(self, index: Index, top: int = 10, modality: str | None = None, recall=0.9):
        """What is found has its true cosine, is in order, and is what brute force finds."""
        queries = self.unit(20)
        keys = [key for key in self.held if modality in (None, key[0])]
        vectors = np.array([self.held[key] for key in keys], np.float64)
        right = 0
        for query, found in zip(queries, index.search(queries, top, modality)):
            cosines = vectors @ query.astype(np.float64)
            true = dict(zip(keys, cosines))
            assert len(found) == min(top, len(keys)) == len({(f.modality, f.id) for f in found})
            made = [f.cosine for f in found]
            assert made == sorted(made, reverse=True)
            expected = [true[f.modality, f.id, f.shown] for f in found]
            np.testing.assert_allclose(made, expected, atol=1e-6)
            least = np.sort(cosines)[-len(found)]
            right += sum(cosine >= least - 1e-6 for cosine in expected)
        assert right >= recall * 20 * min(top, len(keys))


def names(first: int, end: int) -> list[str]:
    return [f"a{n}" for n in range(first, end)]


def test_search_add_delete_and_reopen(kind, tmp_path):
    recall = 1 if kind == "exact" else 0.9
    kept, index = Kept(), Index(SIZE)
    kept.add(index, "text", names(0, 40))
    kept.add(index, "image", names(0, 200))
    kept.check(index, recall=1)
    for first in range(200, 2000, 450):
        kept.add(index, "image", names(first, first + 450))
        kept.check(index, recall=recall)
    assert index._files["image"]._index.nlist == (1 if kind == "exact" else 128)
    kept.delete(index, names(10, 30) + names(700, 1200))
    for again in (index, reopened(index, tmp_path)):
        kept.check(again, recall=recall)
        kept.check(again, 7, "image", recall)
        kept.check(again, 3, "text", 1)
        kept.check(again, 5000, "image", 1)
        assert again.counts == {"text": 20, "image": 1480}
    index = reopened(index, tmp_path)
    kept.add(index, "image", names(700, 800))
    kept.check(index, recall=recall)
    kept.delete(index, names(0, 10) + names(30, 700) + names(800 + 400, 1990))
    assert index.counts == {"image": 110} and index._files["image"]._index.nlist == 1
    kept.check(reopened(index, tmp_path), recall=1)
    kept.delete(index, names(700, 800) + names(1990, 2000))
    assert index.counts == {} == reopened(index, tmp_path).counts
    assert reopened(index, tmp_path).search(kept.unit(2), 5) == [[], []]


def reopened(index: Index, folder) -> Index:
    index.save(folder)
    return Index.open(folder)


def test_threads_search_at_once(saved):
    """The first searches make what the later ones use."""
    index, queries = Index.open(saved), Kept(3).unit(40)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda q: index.search(q[None], 5), queries))
    assert [row for (row,) in found] == index.search(queries, 5)


def test_a_deleted_vector_is_not_in_the_file(tmp_path):
    kept, index = Kept(), Index(SIZE)
    kept.add(index, "image", names(0, 50))
    gone = kept.held["image", "a7", "image a7"]
    index.save(tmp_path)
    assert gone.tobytes() in (tmp_path / FILE).read_bytes()
    kept.delete(index, ["a7"])
    index.save(tmp_path)
    content = (tmp_path / FILE).read_bytes()
    assert gone.tobytes() not in content and b'"a7"' not in content and b'"a8"' in content


def test_what_is_there_is_not_added_again(tmp_path):
    index, (one, two, three) = Index(SIZE), Kept().unit(3)
    entries = [("a", "一"), ("a", "\ud800"), ("b", 'x"\n')]
    assert index.add("text", entries[:2], np.array([one, two])) == 2
    index = reopened(index, tmp_path)
    assert index.add("text", entries, np.array([three, three, three])) == 1
    assert index.add("image", [("a", "一")], one[None]) == 1
    found = index.search(np.array([one, two, three]), 1, "text")
    assert [(f.id, f.shown) for (f,) in found] == entries
    assert index.delete(["a"]) == 3 and index.counts == {"text": 1}


def test_ids_that_are_not_there_are_named_and_nothing_is_deleted():
    kept, index = Kept(), Index(SIZE)
    kept.add(index, "image", names(0, 50))
    with pytest.raises(IndexFolderError, match="not in the index: 'b', 'c'"):
        index.delete(["a1", "b", "a2", "c", "b"])
    kept.check(index, 50)


@pytest.mark.parametrize(
    "vectors, message",
    [
        (np.zeros((1, 5)), r"shape \[1, 5\]; the index wants \[n, 16\]"),
        (np.eye(1, SIZE)[0], r"shape \[16\]"),
        (np.full((1, SIZE), np.nan), "not of unit length"),
        (2 * np.eye(1, SIZE), "not of unit length"),
    ],
)
def test_vectors_that_do_not_fit(vectors, message):
    index = Index(SIZE)
    index.add("image", [("a", "a.png")], np.eye(1, SIZE))
    new = [("b", "b.png")]
    for call in (lambda: index.add("image", new, vectors), lambda: index.search(vectors, 1)):
        with pytest.raises(IndexFolderError, match=message):
            call()
    assert index.counts == {"image": 1}
    with pytest.raises(IndexFolderError, match="nothing of .audio. is .* it holds image"):
        index.search(np.eye(1, SIZE), 1, "audio")


@pytest.mark.parametrize("place", ["taichu.storage.tensor_file.save_file", "os.fsync"])
def test_an_interrupted_save_leaves_what_was_there(tmp_path, monkeypatch, place):
    kept, index = Kept(), Index(SIZE)
    kept.add(index, "image", names(0, 50))
    index.save(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    index.delete(["a1"])

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupt)
    with pytest.raises(KeyboardInterrupt):
        index.save(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    kept.check(Index.open(tmp_path), 50)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Folder of an index in lists."""
    monkeypatch.setattr("taichu.index.inverted_file.EXACT", 300)
    kept, index = Kept(), Index(SIZE)
    kept.add(index, "image", names(0, 400))
    index.save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-100], lambda b: b[:40], lambda b: b"", lambda b: b[:-9] + b"!" + b[-8:]],
    ids=["cut", "header cut", "empty", "a byte"],
)
def test_a_damaged_file(saved, damage):
    path = saved / FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IndexFolderError, match=f"{FILE}: damaged"):
        Index.open(saved)


@pytest.mark.parametrize(
    "dtype, notes", [("BF16", "{}"), ("F16", "[" * 100_000), ("F16", "[]"), ("F16", "3")]
)
def test_a_file_that_no_index_is(tmp_path, dtype, notes):
    tensor = {"dtype": dtype, "shape": [2], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": {"notes": notes}, "a": tensor}).encode()
    (tmp_path / FILE).write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(IndexFolderError, match=f"{FILE}: (damaged|not an index)"):
        Index.open(tmp_path)


def test_no_index(tmp_path):
    with pytest.raises(IndexFolderError, match="nowhere: not an index; it holds no index"):
        Index.open(tmp_path / "nowhere")
    save_tensors(tmp_path / FILE, {"weight": np.zeros(3)})
    with pytest.raises(IndexFolderError, match="not an index of format 1"):
        Index.open(tmp_path)


def with_value(array: np.ndarray, place, value) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    "part, change, message",
    [
        ("notes", {"format": 2}, "not an index of format 1"),
        ("notes", {"embedding": True}, "embedding must be a number"),
        ("notes", {"embedding": 8}, "'image.vectors' has another shape"),
        ("notes", {"metric": "L2"}, "metric must be"),
        ("notes", {"probes": [1]}, "probes must be an object"),
        ("notes", {"probes": {"image": 0}}, "probes of 'image' must be from 1 to 64"),
        ("notes", {"probes": {"image": 65}}, "probes of 'image' must be from 1 to 64"),
        ("notes", {"probes": {"video": 1}}, "tensor 'video.sizes' is missing"),
        ("notes", {"model": 3}, "model is malformed"),
        ("notes", {"model": "m", "modalities": {}}, "tensor 'origin' is missing"),
        ("vectors", lambda a: a.astype(np.float16), "'image.vectors' has another shape or type"),
        ("vectors", lambda a: a[:-1], "sizes: must be those of 399 vectors"),
        ("vectors", lambda a: with_value(a, 3, np.nan), "vectors: not of unit length"),
        ("vectors", lambda a: with_value(a, 3, 0), "vectors: not of unit length"),
        ("sizes", lambda a: with_value(a, 0, a[0] + 1), "sizes: must be those of 400 vectors"),
        ("sizes", lambda a: with_value(a, [0, 1], [-1, a[0] + a[1] + 1]), "sizes: must be those"),
        ("sizes", lambda a: a[None], "'image.sizes' has another shape"),
        ("centroids", lambda a: a[:-1], "'image.centroids' has another shape"),
        ("centroids", lambda a: with_value(a, (0, 0), np.inf), "centroids: not finite"),
        ("entries", lambda a: a[:-1], "entries: must be 400 lines"),
        ("entries", lambda a: np.append(a, np.uint8(10)), "entries: must be 400 lines"),
    ],
)
def test_parts_that_do_not_fit_each_other(saved, part, change, message):
    """As somebody else may write them, with a right checksum."""
    tensors, notes = load_tensors(saved / FILE)
    if part == "notes":
        notes |= change
    else:
        tensors[f"image.{part}"] = change(tensors[f"image.{part}"])
    save_tensors(saved / FILE, tensors, notes)
    with pytest.raises(IndexFolderError, match=message):
        Index.open(saved)


@pytest.mark.parametrize("line", ["no JSON", "[1]", '{"id": 3, "image": "x"}', '{"id": "a"}'])
def test_a_malformed_entry(saved, line):
    tensors, notes = load_tensors(saved / FILE)
    text = f"{line}\n" * len(tensors["image.vectors"])
    tensors["image.entries"] = np.frombuffer(text.encode(), np.uint8)
    save_tensors(saved / FILE, tensors, notes)
    index = Index.open(saved)
    for call in (lambda: index.search(Kept().unit(1), 1), lambda: index.delete(["a1"])):
        with pytest.raises(IndexFolderError, match=f"{FILE}: entry .* of 'image' is malformed"):
            call()


def test_other_programs_can_read_it(saved):
    tensors, notes = load_tensors(saved / FILE)
    rows = [json.loads(line) for line in tensors["image.entries"].tobytes().splitlines()]
    assert {row["id"]: row["image"] for row in rows} == {n: f"image {n}" for n in names(0, 400)}
    assert (notes["embedding"], notes["format"]) == (SIZE, 1)
    (found,) = Index.open(saved).search(tensors["image.vectors"][5:6], 1)
    assert found[0].id == rows[5]["id"]
