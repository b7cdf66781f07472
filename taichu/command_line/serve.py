"""Serve a model over HTTP, in the form of OpenAI's API, with a page at / to try it.

FOLDER is what `taichu export` wrote; a model folder is exported for as long as the server runs.
POST /v1/chat/completions and /v1/embeddings take text, images, sounds, videos and 3D shapes;
GET /v1/models, /health, /metrics. SIGTERM and Ctrl-C finish what is running first.

examples:
  taichu serve exported
  TAICHU_API_KEY=secret taichu serve exported --host 0.0.0.0 --port 80
  taichu serve exported --allow-url example.org --rows 64"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from taichu.errors import ExportError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_options(parser: argparse.ArgumentParser):
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="an exported folder, or a model folder")
    add("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1)")
    add("--port", type=int, default=8000, help="default 8000; 0: any that is free")
    add("--name", help="of the model in requests (default: the folder's name)")
    add(
        "--api-key",
        default=os.environ.get("TAICHU_API_KEY"),
        metavar="KEY",
        help="that requests must bring; by default what TAICHU_API_KEY in the environment says",
    )
    add(
        "--allow-url",
        action="append",
        default=[],
        metavar="HOST",
        help="fetch files from this host; may be repeated (default: from none)",
    )
    add("--device", default="auto", metavar="NAME", help="auto, cuda or cpu (default auto)")
    add("--threads", type=int, default=0, help="of a graph; 0: as many as cores (default 0)")
    add("--readers", type=int, default=2, help="processes that read media (default 2)")
    limits = parser.add_argument_group("limits")
    for option, kind, what in LIMITS:
        limits.add_argument(f"--{option}", type=kind, metavar="N", help=what)
    parser.set_defaults(run=run, error=parser.error)


LIMITS = (
    ("rows", int, "answers decoded at a time (default 32; 1: one after the other)"),
    ("room", int, "tokens of a row, given and made (default 1024)"),
    ("queue", int, "requests that wait (default 128)"),
    ("seconds", float, "that a request may take (default 120)"),
    ("body-bytes", int, "of a request (default 64 million)"),
    ("media", int, "files of a request (default 16)"),
    ("media-bytes", int, "of a file (default 32 million)"),
    ("media-seconds", float, "of a sound or video (default 120)"),
)


def run(options: argparse.Namespace):
    names = [option.replace("-", "_") for option, _, _ in LIMITS]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for name, value in given.items():
        if not value > 0:
            options.error(f"--{name.replace('_', '-')} must be above 0")
    if not 0 <= options.port < 65536:
        options.error("--port must be from 0 to 65535")
    if options.readers < 1 or options.threads < 0:
        options.error("--readers must be at least 1, --threads at least 0")
    if options.api_key == "":
        options.error("--api-key (or TAICHU_API_KEY) is empty")
    import uvicorn

    from taichu.runtime import Runtime
    from taichu.server.app import create_app
    from taichu.server.limits import Limits

    with exported(options.folder) as folder:
        model = Runtime(folder, options.device, options.threads)
        name = options.name or Path(options.folder).resolve().name
        hosts = frozenset(host.lower() for host in options.allow_url)
        app = create_app(
            model, name, Limits(**given), options.api_key, hosts, readers=options.readers
        )
        print(model.provider.reason, file=sys.stderr)
        if options.host not in LOOPBACK and not options.api_key:
            print("anyone who reaches this machine can use it: no --api-key", file=sys.stderr)
        config = uvicorn.Config(
            app, options.host, options.port, log_level="warning", timeout_keep_alive=30
        )
        serve(uvicorn.Server(config), name)


@contextlib.contextmanager
def exported(folder: str):
    """The folder, or what a model folder is exported to in the meantime."""
    from taichu.inference.exported_model import exported_format

    graphs = exported_format(folder)
    if graphs == "mindir":
        raise ExportError(f"{folder}: holds MindSpore's graphs; export it with --format onnx")
    if graphs:
        yield folder
        return
    from taichu.export.onnx_folder import export_onnx

    with tempfile.TemporaryDirectory(prefix="taichu-") as place:
        print(f"exporting {folder} for this run; `taichu export` keeps it", file=sys.stderr)
        yield export_onnx(Path(folder), Path(place) / "exported")


def serve(server, name: str):
    """Run until SIGTERM or SIGINT, and say where once it listens."""
    started = server.startup

    async def startup(sockets=None):
        await started(sockets)
        if server.started:
            host, port = server.servers[0].sockets[0].getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            print(f"{name} is served at http://{host}:{port}", file=sys.stderr, flush=True)

    server.startup = startup
    # it sends itself the signal again when all is done, which must not end the process then
    kept = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server.run()
    finally:
        signal.signal(signal.SIGTERM, kept)
    if not server.started:
        raise SystemExit(1)
