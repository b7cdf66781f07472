"""The server, put together: routes, and what stands behind them."""

import asyncio
import time
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from taichu.runtime import Runtime
from taichu.server.chat import ChatCompletions
from taichu.server.embeddings import Embeddings
from taichu.server.engine import Engine
from taichu.server.errors import RequestError
from taichu.server.gate import Gate, refusal
from taichu.server.limits import Limits
from taichu.server.media_process import MediaProcesses
from taichu.server.metrics import Metrics
from taichu.server.schema import ChatRequest, EmbeddingRequest
from taichu.server.web_page import add_page
from taichu.vocabulary import TEXT


def create_app(
    model: Runtime,
    name: str,
    limits: Limits | None = None,
    api_key: str | None = None,
    hosts: frozenset[str] = frozenset(),
    readers: int = 2,
) -> FastAPI:
    """An ASGI application; whoever runs it must run its lifespan, which ends what it has started.

    Args:
        model: what is served.
        name: that requests call it by.
        limits: what is allowed.
        api_key: that requests to ``/v1/`` must bring; None: none is needed.
        hosts: from which files are fetched that requests name by URL.
        readers: processes that read and write media.
    """
    limits, metrics, created = limits or Limits(), Metrics(), int(time.time())
    engine = Engine(model, limits, metrics)
    settings = {n: limits.adapter_settings(a.settings()) for n, a in model.adapters.items()}
    media = MediaProcesses(settings, readers, limits.read_seconds, limits.read_bytes)
    chat = ChatCompletions(model, engine, media, limits, metrics, hosts)
    embeddings = Embeddings(model, media, limits, hosts)

    @asynccontextmanager
    async def lifespan(_):
        yield
        engine.close()
        media.close()

    # its own pages of documentation load scripts from elsewhere
    app = FastAPI(title="taichu", docs_url=None, redoc_url=None, lifespan=lifespan)
    answer_errors(app)

    def check_name(asked: str):
        if asked != name:
            what = f"no model {asked!r}; this server has {name!r}"
            raise RequestError(what, 404, "model", "model_not_found")

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request):
        check_name(body.model)
        completion = await chat.begin(body)
        if body.stream:
            headers = {"Cache-Control": "no-store"}
            return StreamingResponse(
                completion.stream(), media_type="text/event-stream", headers=headers
            )
        return JSONResponse(await unless_left(request, completion.whole()))

    @app.post("/v1/embeddings")
    async def embed(body: EmbeddingRequest, request: Request):
        check_name(body.model)
        return JSONResponse(await unless_left(request, embeddings.answer(body)))

    card = {"id": name, "object": "model", "created": created, "owned_by": "taichu"}
    card["modalities"] = [TEXT, *model.adapters]
    card["suffixes"] = {n: list(adapter.suffixes) for n, adapter in model.adapters.items()}

    @app.get("/v1/models")
    async def models():
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{asked}")
    async def one_model(asked: str):
        check_name(asked)
        return card

    @app.get("/health")
    async def health():
        alive = engine.thread.is_alive()
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    @app.get("/metrics")
    async def read_metrics():
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    add_page(app)
    paths = frozenset(route.path for route in app.routes)
    app.add_middleware(Gate, limits=limits, api_key=api_key, metrics=metrics, paths=paths)
    return app


async def unless_left(request: Request, work):
    """What a coroutine gives, unless the one who waits for it leaves before."""
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(has_left(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestError("nobody waits for the answer", 499)
        return task.result()
    finally:
        task.cancel()
        left.cancel()


async def has_left(request: Request):
    """Wait until the other side has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def answer_errors(app: FastAPI):
    """Whatever goes wrong is answered in OpenAI's form."""

    @app.exception_handler(RequestError)
    async def refuse(_, error: RequestError):
        return refusal(error)

    @app.exception_handler(RequestValidationError)
    async def refuse_invalid(_, error: RequestValidationError):
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return refusal(RequestError(f"the body is no JSON: {first['ctx']['error']}"))
        names = [str(step) for step in first["loc"][1:]]
        param = ".".join(names) or None
        return refusal(RequestError(f"{param or 'body'}: {first['msg']}", param=param))

    @app.exception_handler(HTTPException)
    async def refuse_route(_, error: HTTPException):
        return refusal(RequestError(str(error.detail), error.status_code))

    @app.exception_handler(Exception)
    async def fail(_, error: Exception):
        return refusal(RequestError(f"{type(error).__name__} in the server", 500))
