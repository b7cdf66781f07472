"""Questions about the digits' media: conversations of several turns, and pairs of captions.

A conversation asks for all that is to be known of a medium, in drawn order, and each answer is one
of the words of the captions (`taichu.data.digits.captions`). A pair is a caption that is true and
one that is false in one point.
"""

import numpy as np

from taichu.data.digits.captions import (
    ATTRIBUTES,
    DIGITS,
    TRAIN_TEMPLATES,
    VALUES,
    fill,
    known,
)

# what is asked -> language -> wordings; of a digit by medium, and of whether it is even
DIGIT = {
    "image": {"en": ("which digit is this?", "what number?"), "zh": ("这是数字几？", "是几？")},
    "video": {"en": ("which digit moves?", "what number?"), "zh": ("移动的是几？", "是几？")},
    "shape3d": {"en": ("which digit is this?", "what number?"), "zh": ("这是数字几？", "是几？")},
    "audio": {"en": ("which digit is said?", "what number?"), "zh": ("说的是几？", "是几？")},
}
QUESTIONS = {
    "colour": {"en": ("which colour?", "what colour is it?"), "zh": ("什么颜色？", "它是什么色？")},
    "place": {"en": ("where is it?", "at which place?"), "zh": ("在哪里？", "它在什么地方？")},
    "direction": {"en": ("where does it go?", "which way?"), "zh": ("往哪里走？", "什么方向？")},
    "thickness": {"en": ("thick or thin?", "how thick is it?"), "zh": ("厚还是薄？", "它有多厚？")},
    "pose": {"en": ("upright or leaning?", "how does it stand?"), "zh": ("直立还是倾斜？",)},
    "parity": {"en": ("even or odd?",), "zh": ("单数还是双数？",)},
}
PARITY = {"en": ("even", "odd"), "zh": ("双", "单")}
CAPTION = {
    "image": {"en": "what does the image show?", "zh": "图片里有什么？"},
    "video": {"en": "what happens in the video?", "zh": "视频里发生了什么？"},
    "shape3d": {"en": "what shape is this?", "zh": "这是什么形状？"},
    "audio": {"en": "what is heard?", "zh": "听到了什么？"},
}


def conversation(labels: dict, medium: str, path: str, random: np.random.Generator) -> dict:
    """A row of ``messages`` about a medium of a manifest's row: two to four questions.

    The first shows the medium; whether the digit is even is asked after the digit alone.
    """
    language = _one_of(tuple(DIGITS), random)
    values = known(labels, medium)
    asked = [str(name) for name in random.permutation(list(values))]
    if len(asked) < 3:
        asked.append("parity")
    messages = []
    for name in asked:
        wordings = (DIGIT[medium] if name == "digit" else QUESTIONS[name])[language]
        question = _one_of(wordings, random)
        shown = f"<{medium}>" if not messages else ""
        messages += [
            {"role": "user", "content": shown + question},
            {"role": "assistant", "content": _answer(name, values, language)},
        ]
    return {"messages": messages, medium: path}


def preference(labels: dict, medium: str, path: str, random: np.random.Generator) -> dict:
    """A row of a prompt about a medium, its true caption (chosen) and a false one (rejected)."""
    language = _one_of(tuple(DIGITS), random)
    values = known(labels, medium)
    wrong = dict(values)
    name = _one_of(tuple(values), random)
    every = range(10) if name == "digit" else VALUES[name]
    wrong[name] = _one_of([value for value in every if value != values[name]], random)
    subject = next(s for s, names in ATTRIBUTES.items() if set(names) == set(values) - {"digit"})
    template = _one_of(TRAIN_TEMPLATES[language][subject], random)
    said = (fill(v, language, template) for v in (values, wrong))
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in said)
    asked = f"<{medium}>{CAPTION[medium][language]}"
    prompt = [{"role": "user", "content": asked}]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, medium: path}


def _answer(name: str, values: dict, language: str) -> str:
    if name == "parity":
        return PARITY[language][values["digit"] % 2]
    if name == "digit":
        return DIGITS[language][values["digit"]]
    return values[name] if language == "en" else VALUES[name][values[name]]


def _one_of(choices, random: np.random.Generator):
    return choices[random.integers(len(choices))]
