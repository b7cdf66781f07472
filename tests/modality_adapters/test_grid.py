import numpy as np
import pytest

from modality_adapters import GridGeometry
from modality_adapters.errors import MediaError
from modality_adapters.grid import widen

GEOMETRIES = [
    GridGeometry((1, 32, 32, 3), (1, 8, 8)),
    GridGeometry((64, 1, 32, 1), (8, 1, 16)),
    GridGeometry((8, 32, 32, 3), (2, 16, 16)),
    GridGeometry((4, 6, 10, 2), (2, 3, 5)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_patches_equal_a_loop_and_come_back(geometry, random):
    grids = random.uniform(-1, 1, (2, 3, *geometry.shape)).astype(np.float16)
    patches = geometry.patchify(grids)
    assert patches.shape == (2, 3, geometry.tokens, geometry.patch_size)
    assert patches.dtype == np.float32
    pt, py, px = geometry.patch
    token = 0
    for t in range(0, geometry.shape[0], pt):
        for y in range(0, geometry.shape[1], py):
            for x in range(0, geometry.shape[2], px):
                block = grids[:, :, t : t + pt, y : y + py, x : x + px]
                assert np.array_equal(patches[:, :, token], block.reshape(2, 3, -1))
                place = [t // pt, y // py, x // px]
                assert geometry.coordinates()[token].tolist() == place
                token += 1
    assert token == geometry.tokens
    assert np.array_equal(geometry.unpatchify(patches), grids)
    assert np.array_equal(geometry.unpatchify(patches[0, 0]), grids[0, 0])


def test_geometry_of_the_nano_image():
    geometry = GEOMETRIES[0]
    assert (geometry.tokens, geometry.patch_size) == (16, 192)
    assert geometry.coordinates().dtype == np.int32
    assert geometry.coordinates()[5].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((1, 32, 32, 3), (1, 5, 8)), ((1, 32, 32), (1, 8, 8)), ((1, 0, 32, 3), (1, 8, 8)),
     ((1, 32, 32, 3), (1, 8.0, 8)), ((1, 32, 32, 3), (1, -8, 8))],
)  # fmt: skip
def test_geometry_that_does_not_fit_is_refused(shape, patch):
    with pytest.raises(ValueError, match="patch|shape"):
        GridGeometry(shape, patch)


def test_arrays_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="do not end in"):
        GEOMETRIES[0].patchify(np.zeros((1, 32, 31, 3)))
    with pytest.raises(ValueError, match="do not end in"):
        GEOMETRIES[0].unpatchify(np.zeros((16, 191)))


def test_media_error_is_one_line():
    error = MediaError("a.png", "is\n  bad")
    assert (error.path, error.reason, str(error)) == ("a.png", "is bad", "a.png: is bad")


def test_widen_gives_every_half_exactly():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    for grid in (halves, halves[::3, ::-2], halves[:0]):
        wide = widen(grid)
        assert wide.dtype == np.float32
        np.testing.assert_array_equal(wide, grid.astype(np.float32))
    same = np.ones((2, 3), np.float32)
    assert widen(same) is same
