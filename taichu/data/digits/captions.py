"""What is said about a digit: attributes, captions in English and Chinese, and their inverse.

A caption names the digit and, of one medium, every attribute: colour and place of an image, colour
and direction of a video, thickness and pose of a shape. `caption` writes one from a template,
`parse` reads any template back, so a generated caption can be judged "equal up to template".
"""

import re

DIGITS = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "zh": ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九"),
}

# English value -> Chinese word. The labels of the manifest hold the English values.
COLOURS = {
    "red": "红",
    "green": "绿",
    "blue": "蓝",
    "yellow": "黄",
    "purple": "紫",
    "cyan": "青",
    "white": "白",
}
PLACES = {
    "top left": "左上角",
    "top right": "右上角",
    "bottom left": "左下角",
    "bottom right": "右下角",
    "centre": "中间",
}
DIRECTIONS = {"left": "向左", "right": "向右", "up": "向上", "down": "向下"}
THICKNESSES = {"thick": "厚", "thin": "薄"}
POSES = {"upright": "直立", "leaning": "倾斜"}
VALUES = {
    "colour": COLOURS,
    "place": PLACES,
    "direction": DIRECTIONS,
    "thickness": THICKNESSES,
    "pose": POSES,
}

# What a caption of each medium names beside the digit; "digit" is a caption of the digit alone.
ATTRIBUTES = {
    "digit": (),
    "image": ("colour", "place"),
    "video": ("colour", "direction"),
    "shape3d": ("thickness", "pose"),
}

# {figure} is the Arabic figure. Held-out templates use no word that the training ones lack.
TRAIN_TEMPLATES = {
    "en": {
        "digit": (
            "{digit}",
            "{figure}",
            "the digit {digit}",
            "the number {digit}",
            "digit {figure}",
            "this is {digit}",
            "this is the digit {digit}",
        ),
        "image": (
            "a {colour} {digit} at the {place}",
            "{digit} in {colour} at the {place}",
            "the digit {digit} in {colour}, {place}",
            "the {colour} number {digit} at the {place}",
            "at the {place}, a {colour} {digit}",
            "this is a {colour} {digit}, {place}",
        ),
        "video": (
            "a {colour} {digit} moving {direction}",
            "{digit} in {colour} moving {direction}",
            "the digit {digit} in {colour} goes {direction}",
            "the {colour} number {digit} moving {direction}",
            "moving {direction}, a {colour} {digit}",
            "this is a {colour} {digit}, it goes {direction}",
        ),
        "shape3d": (
            "a {thickness} {pose} {digit}",
            "{digit}, {thickness} and {pose}",
            "the digit {digit}, solid, {thickness} and {pose}",
            "the {thickness} solid number {digit}, {pose}",
            "{thickness} and {pose}, a solid {digit}",
            "this is a {thickness} {digit}, {pose}",
        ),
    },
    "zh": {
        "digit": (
            "{digit}",
            "{figure}",
            "数字{digit}",
            "这是{digit}",
            "这是数字{digit}",
            "数字{figure}",
        ),
        "image": (
            "{place}的{colour}色{digit}",
            "{digit}，{colour}色，在{place}",
            "{colour}色的{digit}在{place}",
            "{place}有一个{colour}色的{digit}",
            "数字{digit}，{colour}色，{place}",
            "这是{place}的{colour}色数字{digit}",
        ),
        "video": (
            "{direction}移动的{colour}色{digit}",
            "{digit}，{colour}色，{direction}移动",
            "{colour}色的{digit}{direction}走",
            "有一个{colour}色的{digit}{direction}移动",
            "数字{digit}，{colour}色，{direction}走",
            "这是{direction}移动的{colour}色数字{digit}",
        ),
        "shape3d": (
            "{thickness}的{pose}的{digit}",
            "{digit}，{thickness}的，{pose}",
            "{pose}的{digit}，{thickness}的",
            "有一个{thickness}的立体{digit}，{pose}",
            "数字{digit}，立体，{thickness}的，{pose}的",
            "这是{thickness}的{pose}的数字{digit}",
        ),
    },
}

TEST_TEMPLATES = {
    "en": {
        "digit": ("number {digit}", "this is the number {digit}"),
        "image": ("the {colour} digit {digit} at the {place}", "a {digit} in {colour}, {place}"),
        "video": (
            "the {colour} digit {digit} moving {direction}",
            "a {digit} in {colour}, moving {direction}",
        ),
        "shape3d": (
            "the {thickness} {pose} digit {digit}",
            "a solid {digit}, {thickness} and {pose}",
        ),
    },
    "zh": {
        "digit": ("这个数字是{digit}", "一个{digit}"),
        "image": ("{colour}色的数字{digit}在{place}", "在{place}有{colour}色的{digit}"),
        "video": ("{colour}色的数字{digit}{direction}移动", "{direction}走的{colour}色的{digit}"),
        "shape3d": ("{thickness}的{pose}的立体数字{digit}", "{pose}的{thickness}的{digit}"),
    },
}

# Spoken captions begin with the digit, so that it falls into the same part of the sound. Speech
# holds out voices, not templates.
SPOKEN_TEMPLATES = {
    "en": {
        "digit": ("{digit}",),
        "image": ("{digit} in {colour} at the {place}",),
        "video": ("{digit} in {colour} moving {direction}",),
        "shape3d": ("{digit}, {thickness} and {pose}",),
    },
    "zh": {
        "digit": ("{digit}",),
        "image": ("{digit}，{colour}色，在{place}",),
        "video": ("{digit}，{colour}色，{direction}移动",),
        "shape3d": ("{digit}，{thickness}的，{pose}",),
    },
}


def attributes(labels: dict, subject: str) -> dict:
    """What a caption about `subject` ("digit" or a medium) must say: flat, e.g.

    {"digit": 7, "colour": "red", "place": "top left"}. Equals `parse` of such a caption.
    """
    return {
        "digit": labels["digit"],
        **{name: labels[subject][name] for name in ATTRIBUTES[subject]},
    }


def known(labels: dict, modality: str) -> dict:
    """What a whole caption of a row's medium says, flat as `attributes`; for "text", what the row's
    caption says; for "audio", what is spoken: the row's caption by espeak, the digit by a human.
    """
    subject = modality
    if modality == "text":
        subject = labels["caption"]
    elif modality == "audio":
        subject = labels["caption"] if labels["audio"]["kind"] == "synthetic" else "digit"
    return attributes(labels, subject)


def caption(labels: dict, subject: str, language: str, template: str) -> str:
    """The sentence that says `attributes(labels, subject)` in a template of the language."""
    return fill(attributes(labels, subject), language, template)


def fill(values: dict, language: str, template: str) -> str:
    """The sentence for flat attributes such as {"digit": 7, "colour": "red", "place": "centre"}."""
    words = {"digit": DIGITS[language][values["digit"]], "figure": str(values["digit"])}
    for name, value in values.items():
        if name != "digit":
            words[name] = value if language == "en" else VALUES[name][value]
    return template.format(**words)


def parse(text: str) -> dict | None:
    """Flat attributes that a caption of any template and language says; None if it is no caption.

    Letter case, surrounding space and a final full stop do not matter.
    """
    text = " ".join(text.lower().split()).rstrip(".。 ")
    for pattern, readings in _PATTERNS:
        match = pattern.fullmatch(text)
        if match:
            values = {name: readings[name][word] for name, word in match.groupdict().items()}
            digit = values.pop("digit", None)
            return {"digit": values.pop("figure", digit), **values}
    return None


def _patterns() -> list[tuple[re.Pattern, dict]]:
    """Every template as a regular expression, with what its words mean."""
    patterns = {}
    for templates in (TRAIN_TEMPLATES, TEST_TEMPLATES, SPOKEN_TEMPLATES):
        for language, subjects in templates.items():
            readings = {
                "digit": {word: digit for digit, word in enumerate(DIGITS[language])},
                "figure": {str(digit): digit for digit in range(10)},
            }
            for name, values in VALUES.items():
                readings[name] = {
                    (value if language == "en" else chinese): value
                    for value, chinese in values.items()
                }
            groups = {
                name: f"(?P<{name}>{'|'.join(map(re.escape, words))})"
                for name, words in readings.items()
            }
            for template in sum(subjects.values(), ()):
                patterns[template.format(**groups)] = readings
    return [(re.compile(pattern), readings) for pattern, readings in patterns.items()]


_PATTERNS = _patterns()
