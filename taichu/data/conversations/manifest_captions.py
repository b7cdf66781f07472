"""The manifest itself (`taichu.data.manifest`): what each medium of a row is asked by its caption.

A row gives a conversation for each of its media and each language of its text; one without text or
without media gives none.
"""

from taichu.data.conversations.captions import ask
from taichu.data.conversations.conversation import MEDIA, Source, Turn
from taichu.data.manifest import parse_row
from taichu.vocabulary import TEXT


def recognise(row: dict) -> str | None:
    """Why a row may be of this format, where no other recognises it."""
    key = next((key for key in (TEXT, *MEDIA) if key in row), None)
    return f"has 'id' and {key!r}" if "id" in row and key else None


def read(row: dict, source: Source) -> list[tuple[Turn, ...]]:
    """A row's conversations.

    Raises:
        ConversationError, ManifestError: it is malformed.
    """
    sample = parse_row(row, 0, source.folder, source.modalities)
    if sample.split != source.split:
        return []
    return [
        ask(modality, row[modality], language, caption, source)
        for modality in sample.media
        for language, caption in sample.captions(0)
    ]
