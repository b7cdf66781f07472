"""What a server allows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a server allows; whatever is beyond is refused with a status that says so.

    Attributes:
        rows: most rows decoded at a time.
        room: most tokens of a row, those given and those made.
        queue: most requests that wait for rows.
        seconds: of a request, waiting included.
        body_bytes: of a request. held_bytes: of all requests that are inside.
        media: files of a request.
        media_bytes: of one file.
        media_seconds: how long a sound or a video lasts.
        pixels: of a picture, or of a video's frame.
        vertices: of a 3D shape.
        read_seconds: of reading one file, or of writing one.
        read_bytes: memory that reading one file may take.
        inputs: of one request for embeddings.
    """

    rows: int = 32
    room: int = 1024
    queue: int = 128
    seconds: float = 120.0
    body_bytes: int = 64_000_000
    held_bytes: int = 1_000_000_000
    media: int = 16
    media_bytes: int = 32_000_000
    media_seconds: float = 120.0
    pixels: int = 25_000_000
    vertices: int = 1_000_000
    read_seconds: float = 20.0
    read_bytes: int = 4_000_000_000
    inputs: int = 256

    def adapter_settings(self, settings: dict) -> dict:
        """An adapter's settings with these limits in place of its own where they are lower."""
        ours = {
            "max_seconds": self.media_seconds,
            "max_pixels": self.pixels,
            "max_vertices": self.vertices,
            "max_bytes": self.media_bytes,
        }
        return {name: min(value, ours.get(name, value)) for name, value in settings.items()}
