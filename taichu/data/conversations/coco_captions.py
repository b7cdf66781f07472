"""COCO's captions: one object of ``images`` and ``annotations``.

    {"images": [{"id": 1, "file_name": "7.png"}],
     "annotations": [{"id": 5, "image_id": 1, "caption": "A seven."}]}

Each annotation is a conversation. A file name is relative to the folder of the images.
"""

from collections.abc import Iterator

from taichu.data.conversations.captions import ask
from taichu.data.conversations.conversation import Source, Turn
from taichu.errors import ConversationError


def recognise(row: dict) -> str | None:
    """Why a row may be of this format."""
    held = all(isinstance(row.get(key), list) for key in ("images", "annotations"))
    return "has 'images' and 'annotations'" if held else None


def expand(content: dict) -> Iterator[tuple[str, object]]:
    """(place, row) of each annotation; in a row the image's id has become its file name."""
    images = content["images"]
    files = {
        image["id"]: image.get("file_name")
        for image in images
        if isinstance(image, dict) and isinstance(image.get("id"), (int, str))
    }
    for number, annotation in enumerate(content["annotations"], start=1):
        row = annotation
        if isinstance(annotation, dict):
            id = annotation.get("image_id")
            known = isinstance(id, (int, str)) and id in files
            row = annotation | ({"file_name": files[id]} if known else {})
        yield f"annotation {number}", row


def read(row: dict, source: Source) -> list[tuple[Turn, ...]]:
    """A row's turns.

    Raises:
        ConversationError, ManifestError: it is malformed.
    """
    if "file_name" not in row:
        raise ConversationError(f"no image has the id {row.get('image_id')!r}")
    if not isinstance(row.get("caption"), str):
        raise ConversationError("'caption' must be a string")
    return [ask("image", row["file_name"], "en", row["caption"].strip(), source)]
