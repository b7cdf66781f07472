"""The web page: its files, each at a path of its own, and the 3D viewer; under strict policies."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response

from taichu.server.viewer import viewer_document

FOLDER = Path(__file__).with_name("page")
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:;"
    " media-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# its scripts stand in the document; it may run in a sandbox only, and fetch nothing
VIEWER_HEADERS = HEADERS | {
    "Content-Security-Policy": "sandbox allow-scripts; default-src 'none'; frame-ancestors 'self';"
    " script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:;"
    " connect-src data: blob:"
}


def add_page(app: FastAPI):
    """Answer ``/``, ``/page/<file>`` and ``/page/viewer.html``."""
    for path in sorted(path for path in FOLDER.iterdir() if path.suffix in KINDS):
        address = "/" if path.name == "index.html" else f"/page/{path.name}"
        _add(app, address, path.read_bytes(), KINDS[path.suffix], HEADERS)
    viewer = viewer_document().encode()
    _add(app, "/page/viewer.html", viewer, KINDS[".html"], VIEWER_HEADERS)


def _add(app: FastAPI, address: str, content: bytes, kind: str, headers: dict[str, str]):
    @app.get(address, include_in_schema=False)
    async def answer():
        return Response(content, media_type=kind, headers=headers)
