"""The tiny model exported, and on ONNX Runtime."""

import pytest


@pytest.fixture(scope="session")
def exported(tiny_folder, tmp_path_factory):
    """Folder of the tiny model's export."""
    from taichu.export.onnx_folder import export_onnx

    return export_onnx(tiny_folder, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def runtime(exported):
    from taichu.runtime import Runtime

    return Runtime(exported, "cpu")
