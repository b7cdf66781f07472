"""Conversations ready to be packed: rows that can be used, and their media read once."""

from dataclasses import dataclass, field
from pathlib import Path

from modality_adapters import create_adapter
from taichu.data.conversations.conversation import Conversation
from taichu.data.conversations.reading import (
    detect_format,
    read_conversations,
    read_preferences,
)
from taichu.data.prepared import Media, read_media
from taichu.errors import ConversationError


@dataclass(frozen=True)
class ConversationFile:
    """A file of conversations; see `taichu.data.conversations.reading.read_conversations`."""

    path: str
    format: str | None = None  # one of FORMATS; none: by what the file holds
    folder: str | None = None  # that media are relative to; none: the file's own
    questions: dict[str, dict] = field(default_factory=dict)  # modality -> language -> question
    split: str = "train"  # of a manifest


@dataclass(frozen=True)
class PreferenceFile:
    """A file of preferences; see `taichu.data.conversations.reading.read_preferences`."""

    path: str
    folder: str | None = None  # that media are relative to; none: the file's own


@dataclass
class PreparedConversations:
    """What can be learned from.

    Attributes:
        conversations: the usable ones, in the order of the files; of preferences the chosen and the
            rejected one in turn.
        media: their files.
        skipped: one line for each row that was left out, with the reason.
        formats: one line a file: its format, and how that was known.
    """

    conversations: list[Conversation]
    media: Media
    skipped: list[str]
    formats: list[str]


def prepare_conversations(
    files: tuple[ConversationFile, ...],
    modalities: dict[str, dict],
    cache: Path | str,
    workers: int = 2,
) -> PreparedConversations:
    """Read files of conversations and their media, or reuse the cache.

    Args:
        files: one or more, of any formats.
        modalities: name -> adapter settings.
        cache: folder for the media's grids; each state of the files gets a folder of its own.
        workers: processes that read media.

    Raises:
        ConversationError: a file cannot be read, or no row of all of them can be used.
    """
    skipped: list[str] = []
    read, formats = [], []
    for file in files:
        if file.format:
            formats.append(f"{file.path}: {file.format}, as the settings say")
            name = file.format
        else:
            name, reason = detect_format(file.path)
            formats.append(reason)
        read += read_conversations(
            file.path, modalities, name, file.folder, file.questions, file.split, skipped
        )
    return _with_media(files, read, skipped, formats, modalities, cache, workers)


def prepare_preferences(
    files: tuple[PreferenceFile, ...],
    modalities: dict[str, dict],
    cache: Path | str,
    workers: int = 2,
) -> PreparedConversations:
    """The same of preferences.

    Raises:
        ConversationError: a file cannot be read or is of another format, or no row of all of them
            can be used.
    """
    skipped: list[str] = []
    read, formats = [], []
    for file in files:
        formats.append(f"{file.path}: preference")
        read += read_preferences(file.path, modalities, file.folder, skipped)
    return _with_media(files, read, skipped, formats, modalities, cache, workers)


def _with_media(
    files: tuple[ConversationFile | PreferenceFile, ...],
    read: list[Conversation],
    skipped: list[str],
    formats: list[str],
    modalities: dict[str, dict],
    cache: Path | str,
    workers: int,
) -> PreparedConversations:
    """Read the media; rows whose media are at fault are skipped."""
    named: dict[str, list[Path]] = {}
    for conversation in read:
        for modality, path in conversation.media:
            named.setdefault(modality, []).append(path)
    adapters = {name: create_adapter(name, settings) for name, settings in modalities.items()}
    media = read_media(named, adapters, cache, "conversations", workers)
    usable = []
    for conversation in read:
        fault = media.fault(path for _, path in conversation.media)
        if fault:
            line = f"{conversation.place}: {fault}"
            if line not in skipped[-1:]:  # of a pair both have these media
                skipped.append(line)
        else:
            usable.append(conversation)
    if not usable:
        reason = f"; {skipped[0]}" if skipped else ""
        names = ", ".join(file.path for file in files)
        raise ConversationError(f"{names}: no usable row{reason}")
    return PreparedConversations(usable, media, skipped, formats)
