"""What every request passes before anything else looks at it: key, number, size, time, counts."""

import asyncio
import hmac
import time

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from taichu.server.errors import RequestError, overloaded
from taichu.server.limits import Limits
from taichu.server.metrics import Metrics

GUARDED = "/v1/"


class Gate:
    """Middleware that reads bodies whole, as far as they may be.

    Args:
        app: behind it.
        limits: of the server.
        api_key: that requests to ``/v1/`` must bring; None: none is needed.
        metrics: are kept up to date.
        paths: that are counted under their own names.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        api_key: str | None,
        metrics: Metrics,
        paths: frozenset[str],
    ):
        self.app, self.limits, self.metrics, self.paths = app, limits, metrics, paths
        self.api_key = api_key and api_key.encode()
        self.inside, self.held = 0, 0  # requests, and bytes of their bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self.paths else "other"
        status, began = 500, time.perf_counter()

        async def note(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        body = bytearray()
        self.inside += 1
        try:
            self._admit(scope)
            await asyncio.wait_for(self._read(receive, body), self.limits.seconds)
            await self.app(scope, replay(bytes(body), receive), note)
        except RequestError as error:
            await refusal(error)(scope, receive, note)
        except asyncio.TimeoutError:  # before Python 3.11 it is another than TimeoutError
            await refusal(RequestError("the body did not arrive", 408))(scope, receive, note)
        except ClientLeft:
            status = 499
        finally:
            self.inside -= 1
            self.held -= len(body)
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - began)

    def _admit(self, scope: Scope):
        headers = dict(scope["headers"])
        if scope["path"].startswith(GUARDED):
            if self.api_key and not self._knows_key(headers.get(b"authorization", b"")):
                raise RequestError("no or a wrong API key", 401, code="invalid_api_key")
            # as many again have files that are read or written, and are not in the queue
            if self.inside > 2 * (self.limits.queue + self.limits.rows):
                raise overloaded("too many requests at once; try again later")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self.limits.body_bytes:
            raise self._too_large()

    def _knows_key(self, authorization: bytes) -> bool:
        scheme, _, key = authorization.partition(b" ")
        return hmac.compare_digest(key.strip(), self.api_key) and scheme.lower() == b"bearer"

    async def _read(self, receive: Receive, body: bytearray):
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk = message.get("body", b"")
            body += chunk
            self.held += len(chunk)
            if len(body) > self.limits.body_bytes:
                raise self._too_large()
            if self.held > self.limits.held_bytes:
                raise overloaded("too much is being received at once; try again later")
            more = message.get("more_body", False)

    def _too_large(self) -> RequestError:
        what = f"the request has more than {self.limits.body_bytes:,} bytes"
        return RequestError(what, 413, code="request_too_large")


class ClientLeft(Exception):
    """Nobody is there any more."""


def replay(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read, then what comes after it."""
    sent = False

    async def again():
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def refusal(error: RequestError) -> JSONResponse:
    """An error as a response."""
    headers = {"Retry-After": "1"} if error.status == 503 else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error.body, error.status, headers)
