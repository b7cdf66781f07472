"""Captions as conversations: a medium and a question, and the caption as the answer."""

from taichu.data.conversations.conversation import Draft, Source, Turn, fill
from taichu.errors import ConversationError
from taichu.vocabulary import TEXT

QUESTIONS = {
    "image": {"en": "What does the image show?", "zh": "这张图片里有什么？"},
    "audio": {"en": "What is heard?", "zh": "听到了什么？"},
    "video": {"en": "What happens in the video?", "zh": "视频里发生了什么？"},
    "shape3d": {"en": "What shape is this?", "zh": "这是什么形状？"},
    "depth": {"en": "What does the depth map show?", "zh": "这张深度图里有什么？"},
}


def ask(modality: str, file, language: str, caption: str, source: Source) -> tuple[Turn, ...]:
    """One exchange: the question of the caption's language, else of the first that there is.

    Raises:
        ConversationError: there is no question for the modality. ManifestError: a wrong path.
    """
    questions = source.questions.get(modality)
    if not questions:
        raise ConversationError(f"questions.{modality} is not given")
    question = questions.get(language) or next(iter(questions.values()))
    return exchange(modality, question, caption, {modality: file}, source)


def exchange(
    modality: str | None, question: str, answer: str, row: dict, source: Source
) -> tuple[Turn, ...]:
    """A question, about the row's one medium where there is a modality, and its answer.

    Raises:
        ConversationError, ManifestError: see `taichu.data.conversations.conversation.fill`.
    """
    asked = [(TEXT, question)]
    if modality:
        asked = [(modality, None), (TEXT, f"\n{question}")]
    drafts = [Draft("user", asked, False), Draft("assistant", [(TEXT, answer)], True)]
    return fill(drafts, row, source)
