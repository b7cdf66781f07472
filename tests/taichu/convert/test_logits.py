"""Converted models compute what `transformers` does with the published ones, number by number."""

import dataclasses

import numpy as np
import pytest
import torch

from taichu import Taichu
from taichu.convert.from_hf import convert_from_hf
from taichu.data.packing import BatchShape, empty_batch
from taichu.export.onnx_folder import export_onnx
from taichu.model.continuation import continue_rows
from taichu.runtime import Runtime
from tests.taichu.convert.conftest import MODELS

MADE = 4  # tokens that are read one by one, from the cache


@pytest.fixture(scope="module", params=MODELS)
def pair(request, published, cpu, tmp_path_factory):
    """(the published model, the folder of the converted one)."""
    out = tmp_path_factory.mktemp("converted") / request.param
    modalities = ("image", "audio") if request.param.startswith("qwen3") else ()
    source = published(request.param)
    convert_from_hf(source.folder, out, modalities)
    return source.model, out


def draw_rows(lengths: tuple[int, ...], ids: int):
    """Rows of ids, the shorter ones filled up with zeros; and which places are filled so."""
    random, longest = np.random.default_rng(len(lengths)), max(lengths)
    rows = random.integers(0, ids, (len(lengths), longest)).astype(np.int32)
    padding = np.arange(longest) >= np.array(lengths)[:, None]
    return np.where(padding, 0, rows), padding


def as_batch(rows: np.ndarray, padding: np.ndarray, grids: dict):
    """Rows of plain text, each one segment."""
    patches = tuple((name, tokens, size) for name, (tokens, size) in grids.items())
    batch = empty_batch(BatchShape(*rows.shape, 1, 1, patches))
    places = np.broadcast_to(
        np.arange(rows.shape[1], dtype=np.int32)[:, None], batch.coords[0].shape
    )
    return dataclasses.replace(
        batch, ids=rows, coords=np.stack([places] * len(rows)), segment=1 - padding.astype(np.int32)
    )


def expected_logits(model, rows: np.ndarray, padding: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        mask = torch.tensor(1 - padding.astype(int))
        return model(torch.tensor(rows).long(), attention_mask=mask).logits.numpy()


@pytest.mark.parametrize("lengths", [(1,), (7,), (150,), (50, 7, 23)], ids=str)
def test_logits_of_whole_rows(pair, lengths):
    import mindspore as ms

    model, folder = pair
    converted = Taichu.from_pretrained(folder)
    rows, padding = draw_rows(lengths, model.config.vocab_size)
    batch = as_batch(rows, padding, converted.grids)
    hidden = converted.backbone(*map(ms.Tensor, (*batch.planes, *batch.patches)))
    logits = converted.backbone.decode(hidden).asnumpy().reshape(*rows.shape, -1)
    expected = expected_logits(model, rows, padding)
    assert np.abs(expected).max() > 2  # there is something to be seen
    made = logits[..., : model.config.vocab_size]
    np.testing.assert_allclose(made[~padding], expected[~padding], atol=1e-4)


@pytest.mark.parametrize("on", ["mindspore", "onnx"])
def test_logits_with_the_cache(pair, on, tmp_path):
    model, folder = pair
    # of two rows, each is read up to its last tokens; these follow one by one
    rows, padding = draw_rows((40, 23), model.config.vocab_size)
    lengths = (~padding).sum(1) - MADE
    later = np.arange(rows.shape[1]) >= lengths[:, None]
    longest = int(lengths.max())
    if on == "onnx":
        converted = Runtime(export_onnx(folder, tmp_path / "exported"), "cpu", threads=1)
        start = converted.start_reading
    else:
        converted = Taichu.from_pretrained(folder)
        parts = converted.continuation.read, converted.continuation.step

        def start(batch, rows, tokens):
            return continue_rows(*parts, batch, rows, tokens)

    batch = as_batch(rows[:, :longest], later[:, :longest], converted.grids)
    next_logits, expected = start(batch, len(rows), MADE), expected_logits(model, rows, padding)
    for made in range(MADE):
        place = (lengths + made).astype(np.int32)
        coords = np.repeat(place[:, None], 3, 1)
        logits = next_logits(rows[[0, 1], place], coords, made)[:, : model.config.vocab_size]
        np.testing.assert_allclose(logits, expected[[0, 1], place], atol=1e-4)
