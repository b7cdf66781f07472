import numpy as np
import pytest
import trimesh

from modality_adapters import create_adapter

TRUNCATION = 3.0
PLACES = np.stack(np.meshgrid(*[np.arange(18) + 0.5 - 9] * 3, indexing="ij"), -1)  # (z, y, x)


def sphere_distance(radius=7.0):
    return np.linalg.norm(PLACES, axis=-1) - radius


def box_distance(half):
    """Distance to a box of half sizes (z, y, x)."""
    beyond = np.abs(PLACES) - half
    return np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(-1), 0)


def distance_of(grid):
    return grid[..., 0].astype(np.float64) * TRUNCATION


def check(grid, expected, mean, largest):
    error = np.abs(distance_of(grid) - expected.clip(-TRUNCATION, TRUNCATION))
    assert error.mean() < mean and error.max() < largest
    clear = np.abs(expected) > 0.5
    assert np.array_equal((grid[..., 0] < 0)[clear], (expected < 0)[clear])


@pytest.fixture
def sphere():
    return trimesh.creation.icosphere(subdivisions=4)


@pytest.mark.parametrize("suffix", [".obj", ".stl", ".ply", ".glb", ".off"])
def test_a_sphere_of_every_kind_of_file(suffix, sphere, adapters, tmp_path):
    sphere.apply_scale(11).apply_translation([5, -3, 100]).export(tmp_path / f"a{suffix}")
    grid = adapters["shape3d"].read(tmp_path / f"a{suffix}")
    assert grid.shape == (18, 18, 18, 1) and grid.dtype == np.float16
    check(grid, sphere_distance(), 0.15, 0.5)


def test_a_box_keeps_its_aspect_and_axes(adapters, tmp_path):
    trimesh.creation.box((2, 1.5, 1)).export(tmp_path / "a.stl")  # (x, y, z)
    grid = adapters["shape3d"].read(tmp_path / "a.stl")
    check(grid, box_distance([3.5, 5.25, 7.0]), 0.15, 0.5)


@pytest.mark.parametrize("count", [1000, 5000])
def test_a_point_cloud_is_like_its_mesh(count, sphere, adapters, tmp_path):
    trimesh.PointCloud(sphere.sample(count, seed=1)).export(tmp_path / "a.ply")
    check(adapters["shape3d"].read(tmp_path / "a.ply"), sphere_distance(), 0.15, 1.0)


def test_a_mesh_need_not_be_closed_or_turned_one_way(sphere, adapters, random, tmp_path):
    faces = sphere.faces.copy()
    turned = random.random(len(faces)) < 0.5
    faces[turned] = faces[turned, ::-1]
    soup = sphere.vertices[faces].reshape(-1, 3)  # no two triangles share a corner
    mesh = trimesh.Trimesh(soup, np.arange(len(soup)).reshape(-1, 3), process=False)
    mesh.export(tmp_path / "a.ply")
    check(adapters["shape3d"].read(tmp_path / "a.ply"), sphere_distance(), 0.15, 0.5)


def test_what_encloses_nothing_has_an_inside_nonetheless(adapters, tmp_path):
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    sheet.export(tmp_path / "sheet.obj")
    grid = adapters["shape3d"].read(tmp_path / "sheet.obj")
    assert 150 < (grid < 0).sum() < 600 and (grid[[5, 13]] == 1).all()
    again = adapters["shape3d"].read(adapters["shape3d"].write(grid, tmp_path / "again.glb"))
    assert (again < 0).sum() > 100
    trimesh.creation.cylinder(0.02, 2).export(tmp_path / "rod.obj")
    assert (adapters["shape3d"].read(tmp_path / "rod.obj") < 0).any((1, 2, 3)).sum() >= 13


def test_a_scene_is_one_shape(adapters, tmp_path):
    scene = trimesh.Scene()
    for side in (-3, 3):
        scene.add_geometry(
            trimesh.creation.box((2, 2, 2)),
            transform=trimesh.transformations.translation_matrix([side, 0, 0]),
        )
    scene.export(tmp_path / "a.glb")
    inside = distance_of(adapters["shape3d"].read(tmp_path / "a.glb")) < 0
    assert inside[9, 9, 3] and inside[9, 9, 14] and not inside[9, 9, 9]


@pytest.mark.parametrize("suffix", [".obj", ".stl", ".ply", ".glb", ".off"])
def test_there_and_back(suffix, adapters, tmp_path):
    trimesh.creation.box((2, 1.5, 1)).export(tmp_path / "a.stl")
    grid = adapters["shape3d"].read(tmp_path / "a.stl")
    path = adapters["shape3d"].write(grid, tmp_path / f"b{suffix}")
    mesh = trimesh.load(path, force="mesh")
    assert mesh.is_watertight or suffix == ".stl"
    assert mesh.volume == pytest.approx(7 * 10.5 * 14, rel=0.05)  # outwards, in voxels
    again = adapters["shape3d"].read(path)
    assert np.abs(distance_of(again) - distance_of(grid)).mean() < 0.2
    both, either = ((again < 0) & (grid < 0)).sum(), ((again < 0) | (grid < 0)).sum()
    assert both / either > 0.9
    assert path.read_bytes() == adapters["shape3d"].write(grid, path).read_bytes()


def test_reading_twice_gives_the_same(sphere, adapters, tmp_path):
    trimesh.PointCloud(sphere.sample(500, seed=1)).export(tmp_path / "a.ply")
    one, two = (adapters["shape3d"].read(tmp_path / "a.ply") for _ in range(2))
    assert np.array_equal(one, two)


def test_grids_need_not_be_cubes(sphere, tmp_path):
    adapter = create_adapter("shape3d", {"shape": [12, 18, 24, 1], "patch": [6, 6, 6]})
    sphere.export(tmp_path / "a.off")
    inside = adapter.read(tmp_path / "a.off")[..., 0] < 0
    extents = [np.flatnonzero(inside.any(axes)).size for axes in ((1, 2), (0, 2), (0, 1))]
    assert max(extents) - min(extents) <= 1
