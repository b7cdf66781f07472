"""Ten minutes of a full queue, one request in ten malformed: what goes wrong, and the memory.

    python benchmarks/load.py [FOLDER]

FOLDER is an exported folder; by default nano, drawn and not trained. As many clients as there are
rows and places in the queue send all kinds of requests: every modality into every modality, as
streams and whole, and embeddings; some leave before the end. Malformed ones must get 4xx, the
others 200. A line a minute. Needs `pip install "taichu[train,serve]"`.
"""

import base64
import json
import random
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import requests
from harness import machine, options, use_threads
from server import draw_model, served

ROWS, QUEUE, MALFORMED = 32, 64, 0.1
KINDS = {
    "image": ("png", "image/png"),
    "audio": ("wav", "audio/wav"),
    "video": ("gif", "image/gif"),
}
KINDS |= {"shape3d": ("glb", "model/gltf-binary")}


def main():
    parser = options(__doc__, runs=1)
    parser.add_argument("folder", nargs="?", type=Path, help="an exported folder")
    parser.add_argument("--minutes", type=int, default=10, help="default 10")
    chosen = parser.parse_args()
    use_threads()
    with tempfile.TemporaryDirectory() as place:
        folder = chosen.folder or draw_model("nano", Path(place))
        words = "--rows", str(ROWS), "--queue", str(QUEUE)
        with served(folder, *words) as address:
            load = Load(address, folder)
            print(f"{machine()}; {ROWS + QUEUE} clients, {MALFORMED:.0%} of requests malformed")
            print("minute  well-formed: sent   wrong  malformed: sent   wrong  left  waiting  MB")
            sizes = load.run(chosen.minutes)
    half = len(sizes) // 2
    growth = np.mean(sizes[half:]) / np.mean(sizes[:half] or sizes) - 1
    print(f"memory of the second half over the first's: {growth:+.1%}")
    print(f"wrong: {dict(load.wrong) or 'nothing'}")
    raise SystemExit(1 if load.wrong else 0)


class Load:
    """Clients, and what they have met.

    Attributes:
        sent: requests by kind: "good", "bad", "left".
        wrong: what was answered otherwise than it should be.
    """

    def __init__(self, address: str, folder: Path):
        self.address, self.sent, self.wrong = address, Counter(), Counter()
        self.ending, self.lock = threading.Event(), threading.Lock()
        self.files = make_files(folder)

    def run(self, minutes: int) -> list[float]:
        """Megabytes of the server and its children, minute by minute."""
        threads = [threading.Thread(target=self.client, args=(n,)) for n in range(ROWS + QUEUE)]
        for thread in threads:
            thread.start()
        sizes = []
        for minute in range(1, minutes + 1):
            time.sleep(60)
            sizes.append(self.memory())
            lines = requests.get(f"{self.address}/metrics", timeout=60).text.splitlines()
            waiting = next(float(x.split()[1]) for x in lines if x.startswith("taichu_waiting "))
            bad = sum(n for name, n in self.wrong.items() if name.startswith("malformed"))
            good = sum(self.wrong.values()) - bad
            print(
                f"{minute:>6}{self.sent['good']:>19}{good:>8}{self.sent['bad']:>17}{bad:>8}"
                f"{self.sent['left']:>6}{waiting:>9.0f}{sizes[-1]:>8.0f}",
                flush=True,
            )
        self.ending.set()
        for thread in threads:
            thread.join()
        return sizes

    def memory(self) -> float:
        port = int(self.address.rsplit(":", 1)[1])
        (server,) = {c.pid for c in psutil.net_connections("tcp") if listens(c, port)}
        family = [psutil.Process(server), *psutil.Process(server).children(recursive=True)]
        return sum(process.memory_info().rss for process in family) / 1e6

    def client(self, number: int):
        draws, session = random.Random(number), requests.Session()
        while not self.ending.is_set():
            bad = draws.random() < MALFORMED
            path, data = self.malformed(draws) if bad else self.well_formed(draws)
            leaves = not bad and draws.random() < 0.05
            headers = {"content-type": "application/json"}
            try:
                url = f"{self.address}/v1/{path}"
                with session.post(url, data, headers=headers, stream=True, timeout=300) as answer:
                    status = answer.status_code
                    text = "" if leaves else answer.text
            except requests.RequestException as error:
                status, text = type(error).__name__, ""
            name = self.judge(bad, leaves, status, text)
            with self.lock:
                self.sent["left" if leaves else "bad" if bad else "good"] += 1
                if name:
                    self.wrong[name] += 1

    @staticmethod
    def judge(bad: bool, leaves: bool, status, text: str) -> str | None:
        """What is wrong with an answer."""
        if bad:
            fine = isinstance(status, int) and 400 <= status < 500 and '"error"' in text
            return None if fine else f"malformed: {status}"
        if status != 200 or "server_error" in text:
            return f"well-formed: {status} {text[-200:]}"
        return None

    def well_formed(self, draws: random.Random) -> tuple[str, bytes]:
        """A path and a body."""
        parts = [self.part(draws, name) for name in draws.sample(list(KINDS), draws.randint(0, 2))]
        if not parts or draws.random() < 0.5:
            text = " ".join(draws.choices(["a", "red", "seven", "左上角"], k=draws.randint(1, 12)))
            parts.append({"type": "text", "text": text})
        if draws.random() < 0.2:
            return "embeddings", json.dumps({"model": "model", "input": [parts]}).encode()
        into = draws.sample(["text", *KINDS], draws.choice([1, 1, 1, 2, 3]))
        body = {"model": "model", "messages": [{"role": "user", "content": parts}]}
        body |= {"modalities": into, "max_tokens": draws.randint(1, 48)}
        body |= {"temperature": draws.choice([0, 1]), "guidance": draws.choice([1, 1, 2])}
        body |= {"stream": draws.random() < 0.5}
        return "chat/completions", json.dumps(body).encode()

    def malformed(self, draws: random.Random) -> tuple[str, bytes]:
        """A path and a body in which something is wrong."""
        path, data = self.well_formed(draws)
        body = json.loads(data)
        key = "messages" if "messages" in body else "input"
        name = draws.choice(list(KINDS))
        damaged = self.part(draws, name, damaged=True)
        fault = draws.randrange(7)
        if fault == 0:
            return path, data[: draws.randint(1, len(data) - 1)]
        if fault == 1:
            return path, json.dumps(body | {"model": "another"}).encode()
        if fault == 2:
            del body[key]
        if fault == 3:
            body["unknown"] = draws.random()
        if fault == 4:
            body[key] = draws.choice([7, None, {}, "", []])
        if fault > 4:
            one = [damaged]
            body[key] = [{"role": "user", "content": one}] if key == "messages" else [one]
        return path, json.dumps(body).encode()

    def part(self, draws: random.Random, name: str, damaged: bool = False) -> dict:
        kind, mime = KINDS[name]
        data = draws.choice(self.files[name])
        if damaged:  # cut off in its header, so that no decoder can make anything of it
            data = data[: draws.randint(0, 11)]
        encoded = base64.b64encode(data).decode()
        if name == "audio":
            return {"type": "input_audio", "input_audio": {"data": encoded, "format": kind}}
        url = {"url": f"data:{mime};base64,{encoded}"}
        return {"type": f"{name}_url", f"{name}_url": url}


def listens(connection, port: int) -> bool:
    return connection.status == psutil.CONN_LISTEN and connection.laddr.port == port


def make_files(folder: Path) -> dict[str, list[bytes]]:
    """A few files of each modality, as the model's adapters write them."""
    from taichu.storage.model_folder import create_adapters, read_config

    adapters, random_ = create_adapters(read_config(folder)), np.random.default_rng(0)
    files = {}
    with tempfile.TemporaryDirectory() as place:
        for name, (kind, _) in KINDS.items():
            shape, files[name] = adapters[name].geometry.shape, []
            for _ in range(4):
                grid = random_.uniform(-1, 1, shape)
                if name == "shape3d":  # a ball
                    at = np.indices(shape[:3]) - (np.array(shape[:3]) - 1)[:, None, None, None] / 2
                    radius = random_.uniform(3, shape[0] / 2 - 3)
                    grid = np.clip((np.sqrt((at**2).sum(0)) - radius) / 3, -1, 1)[..., None]
                path = adapters[name].write(grid, Path(place) / f"file.{kind}")
                files[name].append(path.read_bytes())
    return files


if __name__ == "__main__":
    main()
