"""Content parts: what a message holds, from and to the JSON of OpenAI's API."""

import asyncio
import base64
import binascii
import http.client
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass

from modality_adapters import ADAPTERS
from modality_adapters.errors import MediaError
from taichu.server.errors import RequestError
from taichu.server.limits import Limits
from taichu.server.media_process import MediaProcesses
from taichu.vocabulary import TEXT

# part -> its modality; each holds an object of its own name with a url
URL_PARTS = {f"{name}_url": name for name in ADAPTERS if name != TEXT}
SOUND = "input_audio"  # OpenAI's own form: {"data": base64, "format": "wav"}
MIME = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".tiff": "image/tiff",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".avi": "video/x-msvideo",
    ".webm": "video/webm",
    ".gif": "image/gif",
    ".obj": "model/obj",
    ".stl": "model/stl",
    ".ply": "model/ply",
    ".glb": "model/gltf-binary",
    ".off": "model/off",
}
SUFFIX = {kind: suffix for suffix, kind in MIME.items()}
SUFFIX |= {"image/jpg": ".jpg", "audio/x-wav": ".wav", "audio/wave": ".wav", "audio/mp3": ".mp3"}
SUFFIX |= {"audio/x-flac": ".flac", "application/ogg": ".ogg", "video/avi": ".avi"}
LONGEST_PIECE = 64  # characters; a text with more of them for each token of a row cannot fit
DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+=-]+)*?;base64,", re.ASCII)


@dataclass(frozen=True)
class Part:
    """A piece of a condition as it came.

    Attributes:
        modality: of it.
        value: a string (text), or where the file is: a URL, or base64.
        suffix: of the file, where the URL does not tell.
        param: where it stands in the request.
    """

    modality: str
    value: str
    suffix: str | None
    param: str


def parse_parts(content, param: str, modalities) -> list[Part]:
    """A message's content: a string, or a list of parts.

    Args:
        param: where it stands in the request.
        modalities: of the model.

    Raises:
        RequestError: a part is malformed, or of a modality that the model lacks.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [Part(TEXT, content, None, param)] if content else []
    if not isinstance(content, list):
        raise RequestError(f"{param} must be a string or a list of parts", param=param)
    return [
        part
        for number, one in enumerate(content)
        for part in parse_part(one, f"{param}[{number}]", modalities)
    ]


def parse_part(part, param: str, modalities) -> list[Part]:
    """One part; none of an empty text.

    Raises:
        RequestError: see `parse_parts`.
    """
    kinds = ("text", SOUND, *URL_PARTS)
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in kinds:
        raise RequestError(f"{param}.type must be one of {', '.join(kinds)}", param=param)
    body = part.get(kind)
    if body is None and "error" in part:  # of an answer that is sent back
        return []
    if kind == "text":
        if not isinstance(body, str):
            raise RequestError(f"{param}.text must be a string", param=param)
        return [Part(TEXT, body, None, param)] if body else []
    modality = "audio" if kind == SOUND else URL_PARTS[kind]
    if modality not in modalities:
        known = ", ".join((TEXT, *modalities))
        raise RequestError(f"{param}: the model has no {modality}; it has {known}", param=param)
    if kind != SOUND:
        url = body.get("url") if isinstance(body, dict) else None
        if not isinstance(url, str):
            raise RequestError(f"{param}.{kind}.url must be a string", param=param)
        return [Part(modality, url, None, param)]
    data, form = (body.get("data"), body.get("format")) if isinstance(body, dict) else (None, None)
    suffixes = ADAPTERS[modality].suffixes
    if not isinstance(data, str) or f".{form}" not in suffixes:
        forms = ", ".join(suffix[1:] for suffix in suffixes)
        what = f"{param}.{SOUND} must hold data (base64) and format ({forms})"
        raise RequestError(what, param=param)
    return [Part(modality, data, f".{form}", param)]


async def read_parts(
    parts: list[Part], limits: Limits, hosts: frozenset[str], media: MediaProcesses
) -> list[tuple]:
    """(modality, string or grid) of each part, in order.

    Args:
        hosts: from which URLs are fetched.

    Raises:
        RequestError: a file is too large, of an unknown kind, unreadable or not to be had.
    """
    if sum(part.modality != TEXT for part in parts) > limits.media:
        raise RequestError(f"more than {limits.media} files", 413, code="too_many_files")

    async def read(part: Part) -> tuple:
        if part.modality == TEXT:
            if len(part.value) > LONGEST_PIECE * limits.room:
                raise RequestError(f"{part.param}: the text is too long", param=part.param)
            return TEXT, part.value
        data, suffix = await asyncio.to_thread(file_of, part, limits, hosts)
        try:
            return part.modality, await media.read(part.modality, data, suffix)
        except MediaError as error:
            what = f"{part.param}: the {part.modality} {error.reason}"
            raise RequestError(what, param=part.param, code="invalid_media") from None

    return list(await asyncio.gather(*map(read, parts)))


def file_of(part: Part, limits: Limits, hosts: frozenset[str]) -> tuple[bytes, str]:
    """A part's file and its suffix.

    Raises:
        RequestError: see `read_parts`.
    """
    head = None if part.suffix else DATA_URL.match(part.value[:200])
    if part.suffix or head:
        encoded, kind = part.value[head.end() if head else 0 :], head and head[1]
        if len(encoded) * 3 // 4 > limits.media_bytes + 2:
            raise too_large(part, limits)
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(f"{part.param}: no base64", param=part.param) from None
    else:
        data, kind = fetch(part, limits, hosts)
    suffix = part.suffix or SUFFIX.get((kind or "").lower())
    known = ADAPTERS[part.modality].suffixes
    if suffix not in known:
        kinds = ", ".join(dict.fromkeys(MIME[s] for s in known if s in MIME))
        what = f"{part.param}: a {part.modality} must be one of {kinds}, not {kind}"
        raise RequestError(what, param=part.param)
    return data, suffix


def fetch(part: Part, limits: Limits, hosts: frozenset[str]) -> tuple[bytes, str]:
    """The content and the kind of what is at a URL, of the hosts that are allowed only.

    Raises:
        RequestError: see `read_parts`.
    """
    param, url = part.param, part.value
    try:
        asked = urllib.parse.urlsplit(url)
        host = asked.hostname
    except ValueError:
        asked, host = None, None
    if asked is None or asked.scheme not in ("http", "https") or not host:
        raise RequestError(f"{param}: the url must be data:<kind>;base64,...", param=param)
    if host not in hosts:
        raise RequestError(
            f"{param}: files are not fetched from {host}; send a data: url "
            "(the server's --allow-url names the hosts that it fetches from)",
            param=param,
            code="url_not_allowed",
        )
    try:
        with OPENER.open(url, timeout=limits.read_seconds) as answer:
            data = answer.read(limits.media_bytes + 1)
            kind = answer.headers.get_content_type()
    except (OSError, ValueError, http.client.HTTPException) as error:
        said = f"{param}: {host} does not give the file: {error}"
        raise RequestError(said, param=param, code="url_failed") from None
    if len(data) > limits.media_bytes:
        raise too_large(part, limits)
    return data, kind


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A host that is allowed must not send us to one that is not."""

    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def too_large(part: Part, limits: Limits) -> RequestError:
    """Of a file beyond the limit."""
    what = f"{part.param}: the {part.modality} has more than {limits.media_bytes:,} bytes"
    return RequestError(what, 413, part.param, "file_too_large")


def as_part(modality: str, value: str | bytes, suffix: str = "") -> dict:
    """A text, or a file's bytes, as a content part."""
    if modality == TEXT:
        return {"type": "text", "text": value}
    kind = f"{modality}_url"
    url = f"data:{MIME[suffix]};base64,{base64.b64encode(value).decode()}"
    return {"type": kind, kind: {"url": url}}
