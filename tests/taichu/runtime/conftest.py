"""The tiny model exported, and on ONNX Runtime."""

import pytest


@pytest.fixture(scope="session")
def exported(tiny, tmp_path_factory):
    """Folder of the tiny model's export."""
    from taichu.export.onnx_folder import export_onnx

    folder = tmp_path_factory.mktemp("exported")
    tiny.save_pretrained(folder / "model")
    return export_onnx(folder / "model", folder / "out")


@pytest.fixture(scope="session")
def runtime(exported):
    from taichu.runtime import Runtime

    return Runtime(exported, "cpu")
