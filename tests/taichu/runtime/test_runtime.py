"""What is exported computes what MindSpore does: embeddings, codes, and what is made of them."""

import numpy as np
import pytest

from taichu.generation import generate
from taichu.sampling import Sampling

MODALITIES = ("text", "image", "audio", "video", "shape3d")


@pytest.mark.parametrize("modality", MODALITIES)
def test_embeddings_are_equal(tiny, runtime, contents, modality):
    given = [{modality: contents[modality]}, {modality: contents[modality], "text": "a red"}]
    made, expected = runtime.embed_many(given), tiny.embed_many(given)
    np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES[1:])
def test_codecs_are_equal(tiny, runtime, contents, modality):
    grids = np.stack([contents[modality], contents[modality][::-1]])
    codes = runtime.encode_grids(modality, grids)
    np.testing.assert_array_equal(codes, tiny.encode_grids(modality, grids))
    made, expected = runtime.decode_codes(modality, codes), tiny.decode_codes(modality, codes)
    np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize("into", MODALITIES)
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(guidance=2.0, temperature=1, candidates=3)]
)
def test_the_same_is_made_token_by_token(tiny, runtime, contents, into, sampling):
    """From conditions of several lengths, and from nothing."""
    given = [{m: contents[m]} for m in MODALITIES] + [{}, {"text": "a", "image": contents["image"]}]
    made, expected = (generate(model, into, given, sampling) for model in (runtime, tiny))
    for one, other in zip(made, expected):
        assert one.ids == other.ids
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-3)
