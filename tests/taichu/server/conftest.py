"""The tiny model served on a port of this machine, and real media files to send."""

import base64

import pytest
import requests


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
