"""Prompt banks: what they hold, what they refuse, what they draw.

Authors
 * The esr_lobes contributors
"""

import random
from collections import Counter

import pytest

from esr_lobes.prompts import BANKS, PromptBank, PromptBankError, fill

STYLES = (
    "angry awe bored calm confused desire disgusted enunciated excited fast "
    "fearful frustrated happy laughing neutral projected sad sarcastic sleepy "
    "surprised sympathetic whispered"
).split()

SMALL = """
templates: ["a {} voice", "{} speech"]
styles:
    sad: [sad, unhappy]
    happy: [happy]
"""


@pytest.fixture
def write(tmp_path):
    """A function that writes a bank and gives its path."""

    def write_bank(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_bank


@pytest.mark.parametrize("name", ["train", "held_out"])
def test_shipped_banks_have_all_styles_and_enough_of_each(name):
    bank = PromptBank.load(name)
    assert bank.name == name
    assert bank.styles == STYLES
    assert len(bank.templates) >= (11 if name == "train" else 5)
    for style in STYLES:
        assert len(bank.synonyms[style]) >= 5, style
        assert (style in bank.synonyms[style]) == (name == "train")


def test_the_plain_bank_says_each_style_by_its_name_once():
    bank = PromptBank.load("plain")
    assert bank.styles == STYLES
    assert bank.all_prompts() == [
        fill(bank.templates[0], style) for style in STYLES
    ]


def test_no_phrase_has_two_styles_in_or_across_the_shipped_banks():
    train, held_out = PromptBank.load("train"), PromptBank.load("held_out")
    assert train.overlap(held_out) == []
    phrases = Counter(
        phrase.casefold()
        for bank in (train, held_out)
        for style in bank.styles
        for phrase in bank.synonyms[style]
    )
    assert [p for p, n in phrases.items() if n > 1] == []
    prompts = train.all_prompts() + held_out.all_prompts()
    assert len(prompts) == len({prompt.casefold() for prompt in prompts})


def test_every_template_takes_phrases_before_a_noun():
    # "a person who is {}" would not fit "whispered" or "desire"
    for name in BANKS:
        for template in PromptBank.load(name).templates:
            after = template.split("{}")[1]
            assert after[:1] == " " and after[1:2].isalpha(), template


@pytest.mark.parametrize(
    "template, phrase, prompt",
    [
        ("in a {} tone", "angry", "in an angry tone"),
        ("in an {} tone", "sad", "in a sad tone"),
        ("A {} voice", "eager", "An eager voice"),
        ("An {} voice", "calm", "A calm voice"),
        ("in a {} way", "honest", "in an honest way"),
        ("in a {} way", "hourly", "in an hourly way"),
        ("in an {} way", "happy", "in a happy way"),
        ("in an {} way", "unique", "in a unique way"),
        ("in an {} way", "uniform", "in a uniform way"),
        ("in a {} way", "unimpressed", "in an unimpressed way"),
        ("in a {} way", "unexcited", "in an unexcited way"),
        ("in a {} way", "uninvolved", "in an uninvolved way"),
        ("in a {} way", "upbeat", "in an upbeat way"),
        ("in an {} way", "useful", "in a useful way"),
        ("in an {} way", "usual", "in a usual way"),
        ("in an {} way", "one-note", "in a one-note way"),
        ("in an {} way", "euphoric", "in a euphoric way"),
        ("in a {} way", "urgent", "in an urgent way"),
        # only the article before the slot is touched
        ("a apple in a {} tone", "odd", "a apple in an odd tone"),
        ("gamma {} rays", "old", "gamma old rays"),
        ("{} voice", "angry", "angry voice"),
        ("Find the {} one", "angry", "Find the angry one"),
    ],
)
def test_article_is_that_of_the_sound(template, phrase, prompt):
    assert fill(template, phrase) == prompt


def test_articles_of_all_shipped_phrases():
    # no phrase of the banks begins with a letter that misleads, as "honest"
    for name in BANKS:
        bank = PromptBank.load(name)
        for style in bank.styles:
            for phrase in bank.synonyms[style]:
                article = "an" if phrase[0] in "aeiou" else "a"
                assert fill("a {} voice", phrase).startswith(article + " ")


def test_prompts_are_all_pairs_in_order(write):
    bank = PromptBank.from_file(write(SMALL))
    assert bank.name == "mine"
    assert bank.styles == ["happy", "sad"]
    assert bank.prompts("sad") == [
        "a sad voice",
        "an unhappy voice",
        "sad speech",
        "unhappy speech",
    ]
    assert bank.all_prompts() == [
        "a happy voice",
        "happy speech",
        *bank.prompts("sad"),
    ]
    bank.prompts("sad").clear()  # what is handed out is a copy
    assert len(bank.prompts("sad")) == 4


def test_draw_repeats_with_the_seed_and_reaches_every_prompt(write):
    bank = PromptBank.from_file(write(SMALL))
    draws = [
        [bank.draw("sad", rng) for _ in range(400)]
        for rng in (random.Random(3), random.Random(3), random.Random(4))
    ]
    assert draws[0] == draws[1] != draws[2]
    counts = Counter(draws[0])
    assert set(counts) == set(bank.prompts("sad"))
    assert min(counts.values()) > 70  # 100 each are expected


def test_positives_and_restrict(write):
    bank = PromptBank.from_file(write(SMALL))
    for style in bank.styles:
        assert all(bank.positives(p) == (style,) for p in bank.prompts(style))
    with pytest.raises(PromptBankError, match="none of its prompts"):
        bank.positives("a furious voice")
    only = bank.restrict(["sad"])
    assert only.styles == ["sad"] and only.name == "mine"
    assert only.all_prompts() == bank.prompts("sad")
    with pytest.raises(PromptBankError, match="no style mad.*happy, sad"):
        bank.restrict(["mad"])
    with pytest.raises(PromptBankError, match="no style mad"):
        bank.draw("mad", random.Random(0))


def test_a_phrase_of_two_styles_is_refused_unless_wanted(write):
    path = write(SMALL.replace("[happy]", "[happy, Unhappy]"))
    with pytest.raises(PromptBankError, match="'unhappy'.*happy and sad"):
        PromptBank.from_file(path)
    bank = PromptBank.from_file(path, unique=False)
    assert bank.positives("unhappy speech") == ("happy", "sad")
    assert bank.positives("sad speech") == ("sad",)
    assert len(bank.all_prompts()) == 6  # 8 made, two of them twice
    assert bank.restrict(["sad"]).positives("unhappy speech") == ("sad",)


def test_a_prompt_of_two_styles_is_refused_too(write):
    path = write(
        "templates: ['{} voice', 'very {} voice']\n"
        "styles: {fast: [quick], laughing: [very quick]}\n"
    )
    with pytest.raises(PromptBankError, match="prompt 'very quick voice'"):
        PromptBank.from_file(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "keys templates and styles.*none"),
        ("- a\n- b\n", "keys templates and styles"),
        (
            "templates: ['a {} b']\nstyle: {sad: [sad]}",
            "found: templates, style",
        ),
        (SMALL + "name: x\n", "no other"),
        ("templates: [a {", "no YAML"),
        (SMALL.replace("a {} voice", "a voice"), "'a voice' has 0 slots"),
        (SMALL.replace("a {} voice", "{} {}"), "'{} {}' has 2 slots"),
        (SMALL.replace("[happy]", "[]"), "'happy' must be a list"),
        (SMALL.replace("[happy]", "happy"), "'happy' must be a list"),
        (SMALL.replace("[happy]", "[no]"), "holds False, which is no text"),
        (SMALL.replace("[happy]", "['  ']"), "which is no text"),
        (SMALL.replace("[happy]", "[happy, Happy]"), "twice"),
        (SMALL + "    sad: [blue]\n", "line 6: 'sad' is there twice"),
        ("templates: ['{}']\nstyles: {}", "at least one style"),
        ("templates: ['{}']\nstyles: {1: [one]}", "style 1 is no text"),
        ("templates: []\nstyles: {sad: [sad]}", "templates must be a list"),
        ("templates: !!python/name:os.system\nstyles: {}", "no YAML"),
    ],
)
def test_wrong_files_say_what_is_wrong(write, text, message):
    with pytest.raises(PromptBankError, match=message):
        PromptBank.from_file(write(text))


def test_a_bank_that_is_not_there_names_those_that_are():
    with pytest.raises(FileNotFoundError, match="'nope'.*train, held_out"):
        PromptBank.load("nope")
