"""Preferences: every form of rows as two conversations with one prompt, and what is refused."""

import pytest

from taichu.data.check import check_conversations
from taichu.data.conversations.prepared import (
    ConversationFile,
    PreferenceFile,
    prepare_conversations,
    prepare_preferences,
)
from taichu.data.conversations.reading import (
    PREFERENCE,
    detect_format,
    read_conversations,
    read_preferences,
)
from taichu.errors import ConversationError
from tests.taichu.data.conversations.test_reading import answer, said, spoken, user, write

ASK = {"role": "user", "content": "<image>What?"}
SEVEN, ONE = ({"role": "assistant", "content": f"A {digit}."} for digit in ("seven", "one"))
SEEN = {"images": ["a.png"]}
PROMPT = [user("a.png", "What?")]
EARLIER = [user("Hi"), ("assistant", ["Hello."], False), user("a.png", "What?")]
HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
PARTS = [{"type": "image"}, {"type": "text", "text": "What?"}]
CASES = {
    "TRL": ({"prompt": [ASK], "chosen": [SEVEN], "rejected": [ONE], **SEEN}, PROMPT),
    "TRL, earlier turns": (
        {"prompt": [HI, HELLO, ASK], "chosen": [SEVEN], "rejected": [ONE], **SEEN},
        EARLIER,
    ),
    "TRL, parts": (
        {
            "prompt": [{"role": "user", "content": PARTS}],
            "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A seven."}]}],
            "rejected": [ONE],
            **SEEN,
        },
        PROMPT,
    ),
    "TRL, strings": (
        {"prompt": "<image>What?", "chosen": "A seven.", "rejected": "A one.", **SEEN},
        PROMPT,
    ),
    "TRL, whole": (
        {"chosen": [HI, HELLO, ASK, SEVEN], "rejected": [HI, HELLO, ASK, ONE], **SEEN},
        EARLIER,
    ),
    "TRL, whole and a string": (
        {"prompt": "What?", "chosen": [ASK, SEVEN], "rejected": [ASK, ONE], **SEEN},
        PROMPT,
    ),
    "LLaMA-Factory": (
        {
            **said("Hi", "Hello.", "<image>What?"),
            "chosen": {"from": "gpt", "value": "A seven."},
            "rejected": {"from": "gpt", "value": "A one."},
            **SEEN,
        },
        EARLIER,
    ),
    "LLaMA-Factory, system and roles": (
        {"system": "Brief.", **said("<image>What?"), "chosen": SEVEN, "rejected": ONE, **SEEN},
        [("system", ["Brief."], False), *PROMPT],
    ),
    "LLaMA-Factory, Alpaca": (
        {"instruction": "<image>What?", "chosen": "A seven.", "rejected": "A one.", **SEEN},
        PROMPT,
    ),
    "ms-swift": (
        {"messages": [HI, HELLO, ASK, SEVEN], "rejected_response": "A one.", **SEEN},
        EARLIER,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_row_gives_two_conversations_with_one_prompt(tmp_path, name):
    row, prompt = CASES[name]
    path = write(tmp_path / "x.jsonl", [row, row])
    found, line = detect_format(path)
    assert found == PREFERENCE and line.startswith(f"{path}: preference: 1 has ")
    read = read_preferences(path)
    expected = [[*prompt, answer(text)] for text in ("A seven.", "A one.")]
    assert [spoken(c) for c in read] == 2 * expected
    assert [c.place for c in read] == [f"{path}:{line}" for line in (1, 1, 2, 2)]
    assert all(c.media == [("image", tmp_path / "a.png")] for c in read)


PLAIN = {"prompt": "a", "chosen": "b", "rejected": "c"}
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
BAD = [
    (PLAIN | {"rejected": " b\n"}, "the chosen and the rejected answer are equal"),
    ({"chosen": TALK, "rejected": TALK}, "the chosen and the rejected answer are equal"),
    (
        {"chosen": TALK, "rejected": [{"role": "user", "content": "z"}, TALK[1]]},
        "the prompts of 'chosen' and 'rejected' differ",
    ),
    (
        {"chosen": TALK, "rejected": [*TALK, *TALK]},
        "the prompts of 'chosen' and 'rejected' differ",
    ),
    ({"chosen": "b", "rejected": "c"}, "'prompt' is missing"),
    (PLAIN | {"prompt": 3}, "'prompt' must be a list"),
    (PLAIN | {"prompt": []}, "the prompt must end with what is to be answered"),
    (PLAIN | {"prompt": TALK}, "the prompt must end with what is to be answered"),
    (PLAIN | {"prompt": TALK[:1], "tools": ["x"]}, "'tools' are not read"),
    (PLAIN | {"chosen": 3}, "'chosen' must be a string, a message or a list of messages"),
    (PLAIN | {"rejected": []}, "'rejected' must be a string, a message or a list of messages"),
    (PLAIN | {"chosen": {"role": "assistant"}}, "chosen.content must be a string"),
    (PLAIN | {"chosen": ["x"]}, "chosen[0] must be an object with 'role' and 'content'"),
    (PLAIN | {"rejected": " "}, "turn 2: the answer is empty"),
    (PLAIN | {"images": ["a.png"]}, "0 <image> in the text, 1 in 'images'"),
    (PLAIN | {"prompt": "<image>"}, "1 <image> in the text, 0 in 'images'; a \\<image>"),
    (
        PLAIN | {"rejected": "<image>", "images": ["a.png"]},
        "0 <image> in the text, 1 in 'images'",
    ),
    ({"messages": TALK, "rejected_response": None}, "'rejected_response' must be a string"),
    ({"messages": TALK[:1], "rejected_response": "c"}, "'messages' must end with the chosen"),
    ({"rejected_response": "c"}, "'messages' must be a list"),
    ({"prompt": "a", "chosen": "b"}, "'rejected' must be a string, a message or a list"),
    ({"messages": TALK}, "'chosen' must be a string, a message or a list"),
]


@pytest.mark.parametrize("row, reason", BAD)
def test_a_bad_row_is_named_and_costs_no_other(tmp_path, row, reason):
    path = write(tmp_path / "x.jsonl", [PLAIN, row])
    with pytest.raises(ConversationError) as caught:
        read_preferences(path)
    assert str(caught.value).startswith(f"{path}:2: {reason}")
    rows, problems = check_conversations(path, {}, PREFERENCE, workers=1, progress=False)
    assert rows == 1 and len(problems) == 1 and problems[0].startswith(f"{path}:2: {reason}")


IMAGE = {"image": {"shape": [1, 16, 16, 3], "patch": [1, 8, 8]}}


def test_check_lists_a_medium_once_and_both_are_left_out(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    bad = {"prompt": "<image>", "chosen": "b", "rejected": "c", **SEEN}
    path = write(tmp_path / "x.jsonl", [PLAIN, bad])
    rows, problems = check_conversations(path, IMAGE, workers=1, progress=False)
    assert rows == 1 and len(problems) == 1 and problems[0].startswith(f"{path}:2: image: ")
    data = prepare_preferences((PreferenceFile(str(path)),), IMAGE, tmp_path / "cache", 1)
    assert [spoken(c) for c in data.conversations] == [[user("a"), answer(x)] for x in "bc"]
    assert len(data.skipped) == 1 and data.skipped[0].startswith(f"{path}:2: ")
    write(path, [bad])
    with pytest.raises(ConversationError, match="x.jsonl: no usable row; .*x.jsonl:1: "):
        prepare_preferences((PreferenceFile(str(path)),), IMAGE, tmp_path / "cache", 1)


def test_preferences_are_no_conversations_and_conversations_no_preferences(tmp_path):
    path = write(tmp_path / "x.jsonl", [PLAIN])
    reason = r"x\.jsonl: holds preferences, .*; `taichu train tune_preference` learns from them$"
    for format in (None, PREFERENCE):
        with pytest.raises(ConversationError, match=reason):
            read_conversations(path, format=format)
        with pytest.raises(ConversationError, match=reason):
            prepare_conversations((ConversationFile(str(path), format),), {}, tmp_path / "cache")
    other = write(tmp_path / "y.jsonl", [{"messages": TALK}])
    reason = r"y\.jsonl: holds no preferences: their rows have 'chosen' and 'rejected', or "
    with pytest.raises(ConversationError, match=reason):
        read_preferences(other)
    mixed = write(tmp_path / "z.jsonl", [PLAIN, {"messages": TALK}])
    with pytest.raises(ConversationError, match="looks like preference .*; messages "):
        detect_format(mixed)
