"""What a request is answered with when it cannot be served, in OpenAI's form."""

from taichu.errors import TaichuError

TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "invalid_request_error"}
TYPES |= {405: "invalid_request_error", 413: "invalid_request_error", 415: "invalid_request_error"}


class RequestError(TaichuError):
    """A request is refused or fails.

    Args:
        message: one line.
        status: of HTTP.
        param: the part of the request that it is about, as ``messages[0].content[1]``.
        code: a word for programs.
    """

    def __init__(
        self, message: str, status: int = 400, param: str | None = None, code: str | None = None
    ):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    @property
    def body(self) -> dict:
        """What is sent."""
        kind = TYPES.get(self.status, "server_error")
        message = " ".join(str(self).split())
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}


def overloaded(message: str) -> RequestError:
    """Of a request that may be sent again later."""
    return RequestError(message, 503, code="overloaded")


def too_late(seconds: float) -> RequestError:
    """Of a request that took too long."""
    return RequestError(f"not done within {seconds:g} s", 504, code="timeout")
