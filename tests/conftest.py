"""What every test starts from: MindSpore on the CPU, quiet, with a fixed seed."""

import gc
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest


@pytest.fixture(autouse=True, scope="module")
def young_heap():
    """Leaves what earlier modules have left out of later collections. MindSpore asks for many, and
    keeps so much of all that it has compiled that each would take seconds in the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def cpu():
    """Sets the device once; tests that compute with MindSpore ask for it (or `seeded`)."""
    from ascend.device import choose_device

    return choose_device("CPU")


@pytest.fixture
def seeded(cpu):
    """MindSpore on the CPU with its initialisers seeded; gives a NumPy generator."""
    import mindspore

    mindspore.set_seed(7)
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The manifest of a small build of the digits, shared by all tests; nobody changes it."""
    from taichu.data.digits.build import Counts, build_digits

    train = Counts(image=60, video=40, shape3d=40, human=60, names=10)
    test = Counts(image=20, video=10, shape3d=10, human=10, names=10)
    out = tmp_path_factory.mktemp("data") / "digits"
    return build_digits(out, 0, train, test, processes=1, progress=False)


@pytest.fixture(scope="session")
def media_cache(tmp_path_factory):
    """Where the small digits are kept once they are read."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def model_folder(cpu, digits, media_cache, tmp_path_factory):
    """A model folder with parameters as they were drawn."""
    import mindspore

    from taichu import Taichu
    from taichu.config import load_size
    from taichu.data.prepared import prepare
    from taichu.tokenizer import train_tokenizer

    mindspore.set_seed(7)
    size = load_size("nano", depth=1)
    data = prepare(digits, "train", size.modalities, media_cache)
    folder = tmp_path_factory.mktemp("model")
    texts = [text for sample in data.samples for _, text in sample.texts]
    Taichu(size, train_tokenizer(texts, 500, folder / "tokenizer")).save_pretrained(folder)
    return folder


@contextmanager
def run_server(model, name="tiny", **settings):
    import uvicorn

    from taichu.server.app import create_app

    app = create_app(model, name, **settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def serving():
    """``with serving(model, limits=...) as address``: a server in a thread of this process."""
    return run_server
