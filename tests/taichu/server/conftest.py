"""The tiny model served on a port of this machine, and real media files to send."""

import base64
import threading
import time
from contextlib import contextmanager

import pytest
import requests

uvicorn = pytest.importorskip("uvicorn")


@contextmanager
def run_server(model, **settings):
    from taichu.server.app import create_app

    app = create_app(model, "tiny", **settings)
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


@pytest.fixture(scope="session")
def served(runtime, serving):
    """The address of a server with limits as they are."""
    with serving(runtime) as address:
        yield address


@pytest.fixture(scope="session")
def media(tmp_path_factory, contents, runtime) -> dict[str, tuple[bytes, str]]:
    """One file of each grid modality, and its kind."""
    folder, files = tmp_path_factory.mktemp("media"), {}
    kinds = {"image": "png", "audio": "wav", "video": "webm", "shape3d": "glb"}
    for name, kind in kinds.items():
        path = runtime.adapters[name].write(contents[name], folder / f"file.{kind}")
        files[name] = path.read_bytes(), kind
    return files


@pytest.fixture(scope="session")
def parts(media) -> dict[str, dict]:
    """The same as content parts."""
    mime = {"png": "image/png", "webm": "video/webm", "glb": "model/gltf-binary"}
    encoded = {
        name: (base64.b64encode(data).decode(), kind) for name, (data, kind) in media.items()
    }
    made = {"text": {"type": "text", "text": "a red seven"}}
    for name, (data, kind) in encoded.items():
        if name == "audio":
            made[name] = {"type": "input_audio", "input_audio": {"data": data, "format": kind}}
        else:
            url = {"url": f"data:{mime[kind]};base64,{data}"}
            made[name] = {"type": f"{name}_url", f"{name}_url": url}
    return made


@pytest.fixture
def post(served):
    """Sends a chat request of these parts with further fields."""

    def send(*parts, address=served, path="chat/completions", headers=None, **fields):
        body = {"model": "tiny", "messages": [{"role": "user", "content": list(parts)}]}
        return requests.post(
            f"{address}/v1/{path}", json=body | fields, headers=headers, timeout=60
        )

    return send
