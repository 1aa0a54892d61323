from __future__ import annotations

from uniad_ray.perception.text.sentences import sentences


def test_sentences_are_lower_case_without_punctuation() -> None:
    assert sentences("A red box.  Two pins!\nIs it left? 0.5 percent; yes.") == [
        "a red box",
        "two pins",
        "is it left",
        "0.5 percent",
        "yes",
    ]


def test_a_text_without_words_has_no_sentences() -> None:
    assert sentences("") == []
    assert sentences(" ... \n . ") == []
