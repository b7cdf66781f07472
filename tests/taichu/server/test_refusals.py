"""Every bad request gets OpenAI's error body and a right status, and none ends the server."""

import base64
import http.server
import json
import socket
import struct
import threading
import zlib

import pytest
import requests

from taichu.server.limits import Limits


def part(kind: str, url: str) -> dict:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


TEXT = {"type": "text", "text": "a"}


def chunk(name: bytes, data: bytes) -> bytes:
    """Of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


SIZE = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
ROWS = zlib.compress(bytes(1000))
HUGE = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", SIZE) + chunk(b"IDAT", ROWS) + chunk(b"IEND", b"")

# parts, further fields, status, what the message says, param
BAD = {
    "another model": ([TEXT], {"model": "gpt-4"}, 404, "no model 'gpt-4'", "model"),
    "no messages": ([], {"messages": []}, 400, "messages: ", "messages"),
    "a field that nobody knows": ([TEXT], {"tempratur": 1}, 400, "tempratur", "tempratur"),
    "what is not done": ([TEXT], {"logprobs": True}, 400, "logprobs", "logprobs"),
    "a role": ([], {"messages": [{"role": "me", "content": "a"}]}, 400, "role", "messages.0.role"),
    "temperature": ([TEXT], {"temperature": -1}, 400, "temperature", "temperature"),
    "not a number": ([TEXT], {"top_p": "high"}, 400, "top_p", "top_p"),
    "an endless seed": ([TEXT], {"seed": 2**70}, 400, "seed", "seed"),
    "candidates": ([TEXT], {"candidates": 2}, 400, "need a temperature", "candidates"),
    "a stream of candidates": (
        [TEXT],
        {"candidates": 2, "temperature": 1, "stream": True},
        400,
        "one candidate",
        "candidates",
    ),
    "a modality": ([TEXT], {"modalities": ["smell"]}, 400, "makes text, image", "modalities"),
    "one twice": ([TEXT], {"modalities": ["text", "text"]}, 400, "once", "modalities"),
    "a format": (
        [TEXT],
        {"modalities": ["audio"], "audio": {"format": "aac"}},
        400,
        "must be one of wav",
        "formats",
    ),
    "too many rows": ([TEXT], {"n": 64, "temperature": 1}, 400, "64 rows", None),
    "too long": ([TEXT], {"max_tokens": 5000}, 400, "5000 to be made", None),
    "a long text": (
        [{"type": "text", "text": "a" * 100_000}],
        {},
        400,
        "too long",
        "messages[0].content[0]",
    ),
    "a part": ([7], {}, 400, "type must be one of text", "messages[0].content[0]"),
    "its type": ([TEXT, {"type": "smell"}], {}, 400, "type must be", "messages[0].content[1]"),
    "no url": ([{"type": "image_url"}], {}, 400, "url must be a string", "messages[0].content[0]"),
    "a path": ([part("image", "/etc/passwd")], {}, 400, "must be data:", "messages[0].content[0]"),
    "a file": ([part("image", "file:///etc/passwd")], {}, 400, "must be data:", None),
    "a host": ([part("image", "http://10.0.0.1/a.png")], {}, 400, "not fetched from 10.0", None),
    "no base64": ([part("image", "data:image/png;base64,&&")], {}, 400, "no base64", None),
    "a kind": ([part("image", data_url("image/heic", b"a"))], {}, 400, "not image/heic", None),
    "no kind": ([part("image", data_url("", b"a"))], {}, 400, "must be one of image/png", None),
    "another kind": ([part("image", data_url("audio/wav", b"a"))], {}, 400, "must be one", None),
    "nothing in it": ([part("image", data_url("image/png", b""))], {}, 400, "is empty", None),
    "no picture": ([part("image", data_url("image/png", b"abc"))], {}, 400, "not an image", None),
    "a bomb": ([part("image", data_url("image/png", HUGE))], {}, 400, "pixels", None),
    "no sound": (
        [{"type": "input_audio", "input_audio": {"data": "YWJj", "format": "wav"}}],
        {},
        400,
        "the audio",
        None,
    ),
    "its format": (
        [{"type": "input_audio", "input_audio": {"data": "YWJj", "format": "aac"}}],
        {},
        400,
        "format (wav, flac, ogg, mp3)",
        None,
    ),
    "no solid": ([part("shape3d", data_url("model/obj", b"v 1 nan 2"))], {}, 400, "shape3d", None),
    "too many files": (
        [part("image", data_url("image/png", b"a"))] * 17,
        {},
        413,
        "more than 16 files",
        None,
    ),
}


def check(answer: requests.Response, status: int, said: str, param: str | None = None):
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert said in body["error"]["message"] and "\n" not in body["error"]["message"]
    assert body["error"]["type"] == (
        "authentication_error"
        if status == 401
        else "invalid_request_error"
        if status < 500
        else "server_error"
    )
    if param:
        assert body["error"]["param"] == param


@pytest.mark.parametrize("name", BAD)
def test_bad_requests(post, name):
    parts, fields, status, said, param = BAD[name]
    check(post(*parts, **fields), status, said, param)


@pytest.mark.parametrize("name", [name for name in BAD if BAD[name][0] and not BAD[name][1]])
def test_bad_inputs_of_embeddings(served, name):
    parts, _, status, said, _ = BAD[name]
    body = {"model": "tiny", "input": [parts]}
    answer = requests.post(f"{served}/v1/embeddings", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"input": []}, "1 to 256 items"),
        ({"input": ["a"] * 257}, "1 to 256 items"),
        ({"input": [""]}, "input[0] is empty"),
        ({"input": [["a"]]}, "input[0][0].type"),
        ({"input": [[1, 2]]}, "input[0][0].type"),
        ({"input": "a", "dimensions": 3}, "the model has 16"),
        ({"input": "a b " * 600}, "more than the 1024"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_bad_requests_for_embeddings(served, fields, said):
    answer = requests.post(f"{served}/v1/embeddings", json={"model": "tiny"} | fields, timeout=60)
    check(answer, 400, said)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"model": 1e999}', b"\xff\xfe", b"[" * 99_999]
)
def test_bodies_that_are_no_json_objects(served, data):
    headers = {"content-type": "application/json"}
    url = f"{served}/v1/chat/completions"
    check(requests.post(url, data=data, headers=headers, timeout=60), 400, "")


def test_ways_that_there_are_not(served):
    check(requests.get(f"{served}/v1/nothing", timeout=60), 404, "Not Found")
    check(requests.get(f"{served}/v1/chat/completions", timeout=60), 405, "Not Allowed")


def test_the_key_is_asked_for(runtime, serving):
    with serving(runtime, api_key="secret") as address:
        for value in (None, "Bearer", "Bearer wrong", "Basic secret", "secret"):
            headers = {"authorization": value} if value else {}
            check(requests.get(f"{address}/v1/models", headers=headers), 401, "API key")
        headers = {"authorization": "Bearer secret"}
        assert requests.get(f"{address}/v1/models", headers=headers).ok
        assert requests.get(f"{address}/health").ok


def test_sizes(runtime, post, parts, serving):
    limits = Limits(body_bytes=20_000, media_bytes=3_000)
    with serving(runtime, limits=limits) as address:
        long = {"type": "text", "text": "a" * 20_000}
        check(post(long, address=address), 413, "more than 20,000 bytes")
        chunks = (b"a" * 999 for _ in range(30))  # no length is said before
        url = f"{address}/v1/chat/completions"
        check(requests.post(url, data=chunks), 413, "more than 20,000 bytes")
        large = part("image", data_url("image/png", bytes(3_003)))
        check(post(large, address=address), 413, "the image has more than 3,000 bytes")
        assert post(parts["image"], address=address).ok
    with serving(runtime, limits=Limits(media_seconds=0.1)) as address:
        check(post(parts["video"], address=address), 400, "more than the limit of 0 s")
        check(post(parts["audio"], address=address), 400, "more than the limit of 0 s")


def test_the_queue_is_full(runtime, post, serving):
    """One row, one that waits: the third is refused, and may be sent again."""
    limits = Limits(rows=1, queue=1, room=4096)
    with serving(runtime, limits=limits) as address:
        answers = {}

        def ask(number: int, **fields):
            answers[number] = post(TEXT, address=address, temperature=2, **fields)

        threads = [
            threading.Thread(target=ask, args=(n,), kwargs={"modalities": ["video"], "n": 1})
            for n in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = [answer.status_code for answer in answers.values()]
        assert set(statuses) == {200, 503} and statuses.count(200) >= 2
        refused = next(answer for answer in answers.values() if answer.status_code == 503)
        check(refused, 503, "try again later")
        assert refused.headers["retry-after"] == "1"
        assert post(TEXT, address=address).ok


def test_what_takes_too_long(runtime, post, serving):
    with serving(runtime, limits=Limits(seconds=0.005, room=4096)) as address:
        answer = post(TEXT, address=address, temperature=2, max_tokens=3000)
        check(answer, 504, "not done within 0.005 s")
        body = post(TEXT, address=address, temperature=2, max_tokens=3000, stream=True).text
        *_, error, end = [line[6:] for line in body.split("\n") if line]
        assert json.loads(error)["error"]["code"] == "timeout" and end == "[DONE]"


def test_a_body_that_does_not_arrive(runtime, serving):
    with serving(runtime, limits=Limits(seconds=0.2)) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{"
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 408")


class Files(http.server.BaseHTTPRequestHandler):
    """Gives a picture, or leads elsewhere."""

    png = b""

    def do_GET(self):
        if self.path == "/away":
            self.send_response(302)
            self.send_header("location", "http://127.0.0.1/secret")
            self.end_headers()
            return
        data = self.png if self.path == "/a.png" else bytes(4_000)
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_urls_of_hosts_that_are_allowed(runtime, media, post, parts, serving):
    Files.png = media["image"][0]
    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=files.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{files.server_port}"
    limits = Limits(media_bytes=3_000)
    with serving(runtime, limits=limits, hosts=frozenset({"127.0.0.1"})) as address:
        fetched = post(part("image", f"{url}/a.png"), address=address)
        sent = post(parts["image"], address=address)
        assert fetched.ok and fetched.json()["choices"] == sent.json()["choices"]
        check(post(part("image", f"{url}/away"), address=address), 400, "302")
        check(post(part("image", f"{url}/large"), address=address), 413, "3,000 bytes")
        check(post(part("image", "http://localhost/a.png"), address=address), 400, "localhost")
    files.shutdown()
    files.server_close()
