"""What Prometheus reads at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counts of one server.

    Attributes:
        requests: by path and status. seconds: that requests took, by path.
        first_token: seconds from a request's queueing to its first token.
        tokens: by whether they were given or made.
        rows: that are being decoded. waiting: requests in the queue.
    """

    def __init__(self):
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self.requests = Counter("taichu_requests", "Requests", ("path", "status"), **own)
        self.seconds = Histogram(
            "taichu_request_seconds", "Time of a request", ("path",), buckets=SECONDS, **own
        )
        self.first_token = Histogram(
            "taichu_first_token_seconds", "Time to the first token", buckets=SECONDS, **own
        )
        self.tokens = Counter("taichu_tokens", "Tokens given and made", ("kind",), **own)
        self.rows = Gauge("taichu_rows", "Rows that are being decoded", **own)
        self.waiting = Gauge("taichu_waiting", "Requests that wait for rows", **own)

    def text(self) -> bytes:
        """In Prometheus' form."""
        return generate_latest(self.registry)
