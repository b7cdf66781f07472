"""What an operator sees: counts, requests side by side, and an end that loses nothing."""

import asyncio
import json
import signal
import subprocess
import sys
import time

import psutil
import pytest
import requests

from modality_adapters.errors import MediaError
from taichu.server.limits import Limits
from taichu.server.media_process import MediaProcesses


def metric(address: str, name: str) -> float:
    lines = requests.get(f"{address}/metrics", timeout=60).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_counts(runtime, post, parts, serving):
    with serving(runtime) as address:
        made = post(parts["text"], address=address, max_tokens=4).json()["usage"]
        post(parts["text"], address=address, temperature=-1)
        requests.get(f"{address}/secret/{'a' * 99}", timeout=60)
        assert metric(address, 'taichu_tokens_total{kind="made"}') == made["completion_tokens"]
        assert metric(address, 'taichu_tokens_total{kind="given"}') == made["prompt_tokens"]
        chat = 'taichu_requests_total{path="/v1/chat/completions",status='
        assert metric(address, f'{chat}"200"') == metric(address, f'{chat}"400"') == 1
        assert metric(address, 'taichu_requests_total{path="other",status="404"') == 1
        assert metric(address, "taichu_first_token_seconds_count") == 1
        assert metric(address, "taichu_rows") == metric(address, "taichu_waiting") == 0
        assert requests.get(f"{address}/health", timeout=60).json() == {"status": "ok"}


def ask_for_long(address: str, stream: bool, leave_after: float | None = None):
    """A request for 30 answers of 3,000 pieces; gives the response, whose body is still to come."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "stream": stream}
    body |= {"temperature": 2, "max_tokens": 3000, "n": 30, "stop": "\ufffe"}
    url = f"{address}/v1/chat/completions"
    return requests.post(url, json=body, stream=True, timeout=(60, leave_after))


def wait_for_rows(address: str, wanted: bool):
    """Until rows are decoded, or none is."""
    deadline = time.monotonic() + 60
    while (metric(address, "taichu_rows") > 0) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_short_request_does_not_wait_for_a_long_one(runtime, post, serving):
    """It joins the rows that are being decoded, and leaves before them."""
    with serving(runtime, limits=Limits(room=4096)) as address:
        with ask_for_long(address, stream=True):
            wait_for_rows(address, wanted=True)
            short = post({"type": "text", "text": "a"}, address=address, max_tokens=1)
            assert short.json()["usage"]["completion_tokens"] == 1
            assert metric(address, "taichu_rows") > 0  # the long one's
        wait_for_rows(address, wanted=False)


def test_who_leaves_gives_up_the_rows(runtime, serving):
    with serving(runtime, limits=Limits(room=4096)) as address:
        for stream in (True, False):
            try:
                ask_for_long(address, stream, leave_after=0.3).close()
            except requests.exceptions.ReadTimeout:
                assert not stream
            wait_for_rows(address, wanted=False)
        assert metric(address, 'taichu_tokens_total{kind="made"}') == 0  # none was finished


@pytest.fixture
def reader(runtime):
    settings = {name: adapter.settings() for name, adapter in runtime.adapters.items()}
    media = MediaProcesses(settings, 1, seconds=3, memory=2_000_000_000)
    yield media
    media.close()


def test_a_reader_that_hangs_or_dies_is_replaced(reader, media, runtime):
    data, kind = media["image"]
    suffix = f".{kind}"

    async def read():
        return await reader.read("image", data, suffix)

    first = asyncio.run(read())
    (process, _), *_ = reader.processes
    psutil.Process(process.pid).suspend()
    with pytest.raises(MediaError, match="takes more than 3 s"):
        asyncio.run(read())
    assert not process.is_alive()
    (process, _), *_ = reader.processes
    assert (asyncio.run(read()) == first).all()
    process.kill()
    with pytest.raises(MediaError, match="ended the process"):
        asyncio.run(read())
    assert (asyncio.run(read()) == first).all()


def test_a_reader_has_so_much_memory(runtime):
    import cv2
    import numpy as np

    _, png = cv2.imencode(".png", np.zeros((5000, 5000, 3), np.uint8))
    settings = {"image": runtime.adapters["image"].settings()}
    for memory, fits in ((30_000_000, False), (2_000_000_000, True)):
        media = MediaProcesses(settings, 1, seconds=60, memory=memory)
        try:
            asyncio.run(media.read("image", png.tobytes(), ".png"))
            assert fits
        except MediaError:
            assert not fits
        finally:
            media.close()


def test_an_answer_nobody_waits_for_is_not_taken_for_anothers(reader, media):
    image, audio = media["image"], media["audio"]

    async def ask():
        task = asyncio.create_task(reader.read("image", image[0], f".{image[1]}"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        return await reader.read("audio", audio[0], f".{audio[1]}")

    assert asyncio.run(ask()).shape == tuple(reader.settings["audio"]["shape"])


@pytest.fixture
def command(request, exported, tiny_folder):
    """`taichu serve` of an exported folder, or of a model folder where a test asks for it, as a
    process of its own, and where it listens."""
    folder = tiny_folder if getattr(request, "param", None) == "model folder" else exported
    words = ["-m", "taichu.command_line", "serve", str(folder), "--port", "0", "--name", "tiny"]
    words += ["--device", "cpu", "--room", "4096"]
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "is served at" in line:
            break
    assert lines and "tiny is served at http://127.0.0.1:" in lines[-1], lines
    yield process, lines[-1].split()[-1]
    process.kill()
    process.wait()


def test_sigterm_finishes_what_is_running(command):
    process, address = command
    children = psutil.Process(process.pid).children(recursive=True)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "stream": True}
    body |= {"temperature": 2, "seed": 1, "modalities": ["text", "video", "audio", "image"]}
    body |= {"max_tokens": 400, "n": 16}
    answer = requests.post(f"{address}/v1/chat/completions", json=body, stream=True, timeout=60)
    lines = answer.iter_lines(decode_unicode=True)
    next(lines)
    process.send_signal(signal.SIGTERM)
    rest = [line[6:] for line in lines if line]
    assert rest[-1] == "[DONE]"
    bodies = [json.loads(line) for line in rest[:-1]]
    ended = [c["index"] for body in bodies for c in body["choices"] if c["finish_reason"]]
    assert ended == list(range(16))
    assert process.wait(30) == 0
    _, alive = psutil.wait_procs(children, 10)
    assert children and not alive
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{address}/health", timeout=5)


@pytest.mark.parametrize("command", ["model folder"], indirect=True)
def test_ctrl_c_ends_it_as_it_ends_other_commands(command):
    process, address = command
    assert requests.get(f"{address}/v1/models", timeout=60).ok
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
