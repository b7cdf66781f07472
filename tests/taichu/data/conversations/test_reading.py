"""Every format of conversations: good rows as turns, bad rows named, formats told apart."""

import json

import pytest

from taichu.data.conversations.conversation import split_placeholders
from taichu.data.conversations.reading import FORMATS, detect_format, read_conversations
from taichu.errors import ConversationError

HUMAN, GPT = "human", "gpt"


def write(path, content):
    lines = path.suffix == ".jsonl"
    text = "".join(json.dumps(r) + "\n" for r in content) if lines else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def spoken(conversation) -> list:
    """(role, parts with file names, learned) of each turn."""
    return [
        (turn.role, [getattr(v, "name", v) for _, v in turn.parts], turn.learned)
        for turn in conversation.turns
    ]


def user(*parts):
    return "user", list(parts), False


def answer(text):
    return "assistant", [text], True


def said(*turns, key="conversations"):
    """A row of ShareGPT's, from the human and the model in turn."""
    return {key: [{"from": (HUMAN, GPT)[i % 2], "value": t} for i, t in enumerate(turns)]}


MESSAGES = [
    {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "<image>and<image>: \\<image>?<audio>"},
            {"role": "assistant", "content": "No.", "loss": False},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "Yes."},
        ],
        "images": ["a.png", {"path": "b/c.png"}],
        "audios": "a.wav",
    },
    {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look <image>: "},
                    {"type": "image_url", "image_url": {"url": "a.png"}},
                    {"type": "video"},
                    {"type": "shape3d", "path": "a.stl"},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
        ],
        "video": "a.mp4",
    },
]
IN_MESSAGES = [
    [
        ("system", ["Be brief."], False),
        user("a.png", "and", "c.png", ": <image>?", "a.wav"),
        ("assistant", ["No."], False),
        user("Sure?"),
        answer("Yes."),
    ],
    [user("Look <image>: ", "a.png", "a.mp4", "a.stl"), answer("Yes.")],
]
LLAVA = [
    {"id": "1", "image": "a.png", **said("<image>\nWhat?", "A seven.", "Sure?", "Yes.")},
    {"id": "2", **said("Hello", "Hi")},
]
IN_LLAVA = [
    [user("a.png", "\nWhat?"), answer("A seven."), user("Sure?"), answer("Yes.")],
    [user("Hello"), answer("Hi")],
]
SHAREGPT = [
    {"system": "Be brief.", "videos": ["a.mp4"], **said("<video>What?", "A seven.")},
    {"conversations": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]},
]
IN_SHAREGPT = [
    [("system", ["Be brief."], False), user("a.mp4", "What?"), answer("A seven.")],
    [user("a"), answer("b")],
]
ALPACA = [
    {"instruction": "Say it.", "input": "七", "output": "seven", "history": [["a", "b"]]},
    {"instruction": "<image>What?", "input": "", "output": "seven", "images": ["a.png"]},
]
IN_ALPACA = [
    [user("a"), answer("b"), user("Say it.\n七"), answer("seven")],
    [user("a.png", "What?"), answer("seven")],
]
COCO = {
    "images": [{"id": 7, "file_name": "a.png"}],
    "annotations": [{"image_id": 7, "caption": "one "}, {"image_id": 7, "caption": "two"}],
}
IN_COCO = [[user("a.png", "\nQ?"), answer(text)] for text in ("one", "two")]
ASKED = [
    {"image": "a.png", "question": "Which?", "answer": "7"},
    {"audios": ["a.wav"], "question": "Which?", "answers": [{"answer": a} for a in "878"]},
    {"question": "<image> in HTML?", "answer": "yes"},
]
IN_ASKED = [
    [user("a.png", "\nWhich?"), answer("7")],
    [user("a.wav", "\nWhich?"), answer("8")],
    [user("<image> in HTML?"), answer("yes")],
]
MANIFEST = [
    {"id": "1", "image": "a.png", "audio": "a.wav", "text": {"en": ["one", "1"], "zh": "一"}},
    {"id": "2", "image": "b.png", "text": "two", "split": "test"},
    {"id": "3", "text": "three"},
    {"id": "4", "image": "c.png", "text": "four"},
]
IN_MANIFEST = [
    [user("a.wav", "\nWhat is heard?"), answer("one")],
    [user("a.wav", "\n听到了什么？"), answer("一")],
    [user("a.png", "\nQ?"), answer("one")],
    [user("a.png", "\n问?"), answer("一")],
    [user("c.png", "\nQ?"), answer("four")],
]
CASES = {
    "messages": (MESSAGES, IN_MESSAGES),
    "llava": (LLAVA, IN_LLAVA),
    "sharegpt": (SHAREGPT, IN_SHAREGPT),
    "alpaca": (ALPACA, IN_ALPACA),
    "coco": (COCO, IN_COCO),
    "question_answer": (ASKED, IN_ASKED),
    "manifest": (MANIFEST, IN_MANIFEST),
}
QUESTIONS = {"image": {"en": "Q?", "zh": "问?"}}


def test_there_is_a_case_for_each_format():
    assert {*CASES, "preference"} == FORMATS.keys()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_format_is_known_by_its_content_and_read(tmp_path, name, suffix):
    rows, expected = CASES[name]
    if name == "coco" and suffix == ".jsonl":
        rows = [rows]
    path = write(tmp_path / f"x{suffix}", rows)
    found, line = detect_format(path)
    assert found == name and line.startswith(f"{path}: {name}: ") and "\n" not in line
    read = read_conversations(path, questions=QUESTIONS)
    assert [spoken(c) for c in read] == expected
    again = read_conversations(path, format=name, questions=QUESTIONS)
    assert again == read
    for conversation in read:
        assert all(file.parent in (tmp_path, tmp_path / "b") for _, file in conversation.media)


def test_json_lines_may_be_called_json(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("\ufeff" + "\n".join(map(json.dumps, LLAVA)), encoding="utf-8")
    read = read_conversations(path)
    assert [spoken(c) for c in read] == IN_LLAVA
    assert [c.place for c in read] == [f"{path}:1", f"{path}:2"]


def test_a_split_of_a_manifest(tmp_path):
    path = write(tmp_path / "x.jsonl", MANIFEST)
    read = read_conversations(path, questions=QUESTIONS, split="test")
    assert [spoken(c) for c in read] == [[user("b.png", "\nQ?"), answer("two")]]


def test_media_of_another_folder(tmp_path):
    (tmp_path / "rows").mkdir()
    path = write(tmp_path / "rows" / "x.json", LLAVA)
    read = read_conversations(path, folder=tmp_path / "images")
    assert read[0].media == [("image", tmp_path / "images" / "a.png")]


def messages(*turns, **columns):
    return {"messages": [dict(zip(("role", "content", "loss"), t)) for t in turns], **columns}


ASK, SAY = ("user", "a"), ("assistant", "b")
BAD = [
    ("messages", "{", "not a JSON object"),
    ("messages", [1], "not a JSON object"),
    ("messages", {"messages": 3}, "'messages' must be a list"),
    ("messages", messages(ASK, SAY, tools=["x"]), "'tools' are not read"),
    ("messages", messages(("user",), SAY), "messages[0].content must be a string"),
    ("messages", {"messages": ["x"]}, "messages[0] must be an object with 'role' and 'content'"),
    (
        "messages",
        messages(("narrator", "x"), SAY),
        "messages[0]: role 'narrator' is none of system, user, assistant, tool",
    ),
    ("messages", messages(ASK), "holds no answer to learn"),
    ("messages", messages(ASK, ("assistant", "b", 0)), "holds no answer to learn"),
    ("messages", messages(ASK, ("assistant", " \n")), "turn 2: the answer is empty"),
    (
        "messages",
        messages(ASK, ("assistant", "b", 0.5)),
        "messages[1]: 'loss' must be true or false, not 0.5",
    ),
    (
        "messages",
        messages(("user", "a", True), SAY),
        "turn 1: only the assistant's turns can be learned",
    ),
    (
        "messages",
        messages(ASK, ("assistant", "<image>"), images=["a.png"]),
        "turn 2: an answer is learned as text alone, and this holds image",
    ),
    (
        "messages",
        messages(("user", "<image><image>"), SAY, images=["a.png"]),
        "2 <image> in the text, 1 in 'images'; a \\<image> is the word itself",
    ),
    ("messages", messages(ASK, SAY, video="a.mp4"), "0 <video> in the text, 1 in 'video'"),
    (
        "messages",
        messages(ASK, SAY, image="a.png", images=["a.png"]),
        "has both 'images' and 'image'",
    ),
    (
        "messages",
        messages(("user", "<image>"), SAY, images=["../a.png"]),
        "'images': '../a.png' leaves the folder FOLDER",
    ),
    ("messages", messages(("user", "<image>"), SAY, images=[3]), "'images' must be a path"),
    (
        "messages",
        messages(("user", "<image>"), SAY, images=["https://x.org/a.png"]),
        "'images': files are read from the folder, not from 'https://x.org/a.png'",
    ),
    (
        "messages",
        messages(("user", [{"type": "smell"}]), SAY),
        "messages[0].content[0].type must be one of text, ",
    ),
    ("sharegpt", {"conversations": "x"}, "'conversations' must be a list"),
    (
        "sharegpt",
        {"conversations": [{"from": "owl", "value": "x"}]},
        "conversations[0]: 'from' is 'owl', and none of human, user, ",
    ),
    ("sharegpt", {"conversations": [3]}, "conversations[0] must be an object with 'from' and"),
    ("llava", {"image": "a.png", **said("What?", "x")}, "0 <image> in the text, 1 in 'image'"),
    ("alpaca", {"instruction": 3, "output": "x"}, "'instruction' must be a string"),
    ("alpaca", {"instruction": "x", "output": None}, "'output' must be a string"),
    (
        "alpaca",
        {"instruction": "x", "output": "x", "history": [["a"]]},
        "history[0] must be [instruction, answer]",
    ),
    ("question_answer", {"question": "x", "answer": ""}, "'answer' must be a string that is not"),
    (
        "question_answer",
        {"question": "x", "answer": "y", "image": "a.png", "audio": "a.wav"},
        "a question is about one file, and there are 'audio', 'image'",
    ),
    ("manifest", {"id": "x", "imgae": "a.png"}, "unknown key 'imgae'; did you mean 'image'?"),
]


@pytest.mark.parametrize("name, row, reason", BAD)
def test_a_bad_row_is_named_and_costs_no_other(tmp_path, name, row, reason):
    good = CASES[name][0][0]
    path = tmp_path / "x.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row), json.dumps(good)]
    path.write_text("\n".join(lines), encoding="utf-8")
    expected = f"{path}:1: {reason}".replace("FOLDER", str(tmp_path))
    with pytest.raises(ConversationError) as caught:
        read_conversations(path, format=name, questions=QUESTIONS)
    assert str(caught.value).startswith(expected)
    problems = []
    read = read_conversations(path, format=name, questions=QUESTIONS, problems=problems)
    assert {c.place for c in read} == {f"{path}:2"}
    assert len(problems) == 1 and problems[0].startswith(expected)


def test_bad_annotations_are_named(tmp_path):
    bad = [{"image_id": 9, "caption": "x"}, 3, {"image_id": 7, "caption": 3}]
    path = write(tmp_path / "x.json", COCO | {"annotations": [*bad, *COCO["annotations"]]})
    problems = []
    read = read_conversations(path, questions=QUESTIONS, problems=problems)
    assert [spoken(c) for c in read] == IN_COCO
    assert problems == [
        f"{path}: annotation 1: no image has the id 9",
        f"{path}: annotation 2: not a JSON object",
        f"{path}: annotation 3: 'caption' must be a string",
    ]


def test_a_modality_that_the_model_lacks(tmp_path):
    path = write(tmp_path / "x.json", MESSAGES)
    with pytest.raises(ConversationError, match="entry 1: the model has no audio; it has text, im"):
        read_conversations(path, ("image",))


def test_a_line_that_is_too_long_is_left_out(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('"' + "x" * (1 << 20) + '"\n' + json.dumps(LLAVA[1]) + "\n")
    problems = []
    (read,) = read_conversations(path, problems=problems)
    assert read.place == f"{path}:2"
    assert problems == [f"{path}:1: the line is longer than 1048576 characters"]


def test_files_that_are_none(tmp_path):
    for name, text, reason in [
        ("a.json", "[1, ", "not JSON: Expecting value at line 1, column 5"),
        ("b.json", "[" * 100_000, "not JSON: nested too deep"),
        ("c.json", '{"caption": "x"}', "looks like none of the formats messages, llava, "),
        ("d.json", json.dumps(messages(ASK, SAY) | said("a", "b")), "looks like messages (entry 1"),
    ]:
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(ConversationError) as caught:
            read_conversations(path)
        assert str(caught.value).startswith(f"{path}: {reason}"), caught.value
    assert "; sharegpt (entry 1 has 'conversations'); name its format" in str(caught.value)
    assert len(read_conversations(path, format="sharegpt")) == 1
    with pytest.raises(ConversationError, match="'sharegtp' is none of .*mean 'sharegpt'"):
        read_conversations(path, format="sharegtp")
    with pytest.raises(ConversationError, match="no such file"):
        detect_format(tmp_path / "no.json")
    (tmp_path / "latin.jsonl").write_bytes('{"messages": "é"}'.encode("latin-1"))
    with pytest.raises(ConversationError, match="not UTF-8 text"):
        detect_format(tmp_path / "latin.jsonl")


@pytest.mark.parametrize(
    "questions, reason",
    [
        ({"imgae": {"en": "?"}}, "questions.imgae: is none of audio, image, .*mean 'image'"),
        ({"image": "What?"}, "questions.image: must hold a question a language"),
        ({"image": {"en": ""}}, "questions.image: must hold a question a language"),
    ],
)
def test_wrong_questions(tmp_path, questions, reason):
    path = write(tmp_path / "x.jsonl", MANIFEST)
    with pytest.raises(ConversationError, match=reason):
        read_conversations(path, questions=questions)


def test_placeholders():
    parts = split_placeholders("a<image><shape3d>\\<audio> <Image> <b>")
    assert parts == [
        ("text", "a"),
        ("image", None),
        ("text", ""),
        ("shape3d", None),
        ("text", "<audio> <Image> <b>"),
    ]
