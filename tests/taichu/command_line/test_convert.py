"""`taichu convert`, both ways, and what it says of wrong usage."""

import pytest

from tests.taichu.convert.conftest import publish


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    publish(folder, "qwen2", tokenizer.content, tokenizer.size, "bfloat16")
    return folder


def test_there_and_back(taichu, folder):
    given = ["--modalities", "audio, image", "--size", "tiny"]
    assert taichu("convert", "--from-hf", folder, "converted", *given) == (0, "converted\n", "")
    said = taichu("info", "converted").out
    assert "embeddings of 256" in said and "from the published form of qwen2, BF16" in said
    assert "\nimage " in said and "\naudio " in said and "video" not in said
    assert taichu("convert", "--to-hf", "converted", "back") == (0, "back\n", "")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["a", "b"], "one of the arguments --from-hf --to-hf is required"),
        (["--from-hf", "--to-hf", "a", "b"], "not allowed with argument"),
        (["--from-hf", "a"], "the following arguments are required: OUT"),
    ],
)
def test_wrong_usage(taichu, arguments, said):
    result = taichu("convert", *arguments)
    assert result.code == 2 and said in result.error and result.error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--from-hf", "--modalities", "imaje"], "'imaje' is unknown; did you mean 'image'?"),
        (
            ["--to-hf", "--size", "nano"],
            "taichu: --modalities, --size and --tower are of --from-hf",
        ),
        (["--to-hf"], "preprocessor_config.json: no such file"),
    ],
)
def test_errors_are_one_line(taichu, folder, arguments, said):
    result = taichu("convert", folder, "out", *arguments)
    assert result.code == 1 and said in result.error and result.error.count("\n") == 1
