"""Captions: every template and its inverse."""

from itertools import product

import pytest

from taichu.data.digits import captions

TEMPLATES = [
    (language, subject, template)
    for group in (captions.TRAIN_TEMPLATES, captions.TEST_TEMPLATES, captions.SPOKEN_TEMPLATES)
    for language, subjects in group.items()
    for subject, templates in subjects.items()
    for template in templates
]


def combinations(subject: str):
    names = captions.ATTRIBUTES[subject]
    for digit, *values in product(range(10), *(captions.VALUES[name] for name in names)):
        yield {"digit": digit, **dict(zip(names, values, strict=True))}


@pytest.mark.parametrize(("language", "subject", "template"), TEMPLATES)
def test_parse_is_the_inverse_of_every_template(language, subject, template):
    for values in combinations(subject):
        assert captions.parse(captions.fill(values, language, template)) == values


def test_caption_says_what_its_subject_is():
    labels = {
        "digit": 7,
        "image": {"colour": "red", "place": "top left", "source": "mnist:3"},
        "video": {"colour": "blue", "direction": "up"},
    }
    template = captions.TRAIN_TEMPLATES["en"]["image"][0]
    assert captions.caption(labels, "image", "en", template) == "a red seven at the top left"
    template = captions.TRAIN_TEMPLATES["zh"]["image"][0]
    text = captions.caption(labels, "image", "zh", template)
    assert text == "左上角的红色七"
    assert captions.parse(text) == captions.attributes(labels, "image")
    assert captions.attributes(labels, "digit") == {"digit": 7}


def test_what_is_known_of_each_medium():
    labels = {
        "digit": 7,
        "caption": "image",
        "image": {"colour": "red", "place": "centre", "source": "mnist:3"},
        "shape3d": {"thickness": "thin", "pose": "upright"},
        "audio": {"kind": "synthetic", "language": "en"},
    }
    whole = {"digit": 7, "colour": "red", "place": "centre"}
    assert captions.known(labels, "text") == captions.known(labels, "image") == whole
    assert captions.known(labels, "audio") == whole
    labels["audio"]["kind"] = "human"
    assert captions.known(labels, "audio") == {"digit": 7}
    assert captions.known(labels, "shape3d") == {
        "digit": 7,
        "thickness": "thin",
        "pose": "upright",
    }


@pytest.mark.parametrize(
    "text", ["", "a red", "a red ten at the centre", "a red seven at the left", "红色", "七七"]
)
def test_what_is_no_caption_parses_to_none(text):
    assert captions.parse(text) is None


def test_parse_forgives_case_space_and_full_stop():
    assert captions.parse(" A red  Seven at the centre. ")["digit"] == 7


def test_held_out_templates_are_new_and_use_known_words():
    for language, subjects in captions.TEST_TEMPLATES.items():
        known = captions.TRAIN_TEMPLATES[language]
        words = {word for templates in known.values() for t in templates for word in units(t)}
        for subject, templates in subjects.items():
            assert not set(templates) & set(known[subject])
            assert {word for template in templates for word in units(template)} <= words


def units(template: str) -> list[str]:
    return template.replace(",", " ").split() if " " in template else list(template)
