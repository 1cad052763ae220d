"""Foreign models: a chat has the ids of the tokenizer's own chat template, and what cannot work is refused with why."""

import json
from datetime import datetime

import pytest
from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from codots.core.transcript import StopReason
from codots.model.load import load_model, load_render
from codots.model.renderer import Render, without_thought
from codots.model.template import DATE
from codots.sampler.local import LocalSampler
from tests.model.foreign import ALPACA, CHATML, FAMILIES, GEMMA, KINDS, SP, make, tokenizer_of
from tests.random_model import make_random_model

SYSTEM_TEXTS = ("You are in a maze.", "  One action: \u00e9\u6f22\U0001f642\n\n", "\n\nNotes:\n- <b>none</b>\n")
USER_TEXTS = ("What is it?", " two  spaces ", "\nnewline first", "42", "user\n### Response:\n", "\t[x]")
REPLIES = ("Left.", "<action>left</action>", "\u00e9\u6f22 4  2\n\nthe end")
NO_SYSTEM = {"Gemma", "Mistral v0.1", "Mistral v0.3", "Phi-3"}
"""Templates that reject, move or drop a system message."""
OPENS_THOUGHT = "DeepSeek R1"
NO_THOUGHT = {"Qwen3": ("<|im_start|>assistant\n", "<think>\n\n</think>\n\n")}
"""Where the template leaves the empty thought of its generation prompt out of earlier turns."""
WORKING = [family for family in FAMILIES if family != OPENS_THOUGHT]
every_kind = pytest.mark.parametrize("kind", KINDS)


def template_text(tokenizer, messages, thinking=False):
    switches = {"enable_thinking": thinking, "thinking": thinking, "date_string": "26 Jul 2024"}
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **switches)


def template_ids(family, tokenizer, messages, thinking=False):
    """Return the ids of the whole chat, with the empty thoughts that the template leaves out."""
    text = template_text(tokenizer, messages, thinking)
    if family in NO_THOUGHT and not thinking:
        role, thought = NO_THOUGHT[family]
        text = text.replace(role + thought, role).replace(role, role + thought)
    return tokenizer.encode(text, add_special_tokens=False)


def opening_messages(family, system, user):
    if family in NO_SYSTEM:
        return [{"role": "user", "content": f"{system}\n\n{user}"}]
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


@every_kind
@pytest.mark.parametrize("family", WORKING)
def test_a_chat_rendered_turn_by_turn_has_the_ids_of_the_whole_chat(family, kind):
    tokenizer = tokenizer_of(family, kind)
    render = Render(tokenizer)
    for system, user, answer, reply in zip(SYSTEM_TEXTS * 2, USER_TEXTS, USER_TEXTS[::-1], REPLIES * 2, strict=True):
        messages, ids = opening_messages(family, system, user), render.opening(system, user)
        assert ids == template_ids(family, tokenizer, messages)
        for _ in range(2):
            sampled = render.reply(reply)
            ids += [*sampled, *render.turn(answer, StopReason.STOP)]
            messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": answer}]
            assert ids == template_ids(family, tokenizer, messages)
            assert render.text(sampled).strip() == reply


@every_kind
def test_added_words_and_spaces_are_found_inside_messages(kind):
    template, markers = FAMILIES["ChatML"]
    tokenizer = make(kind, template, **markers | {"plain": ("user", "maze", "\n\n", "  ")})
    system, user = "A maze  of a user.", "\nA user\n\n"
    assert Render(tokenizer).opening(system, user) == template_ids(
        "ChatML", tokenizer, opening_messages("ChatML", system, user)
    )


@every_kind
@pytest.mark.parametrize("family", ["Qwen3", "DeepSeek R1", "DeepSeek V3.1", "GLM"])
def test_with_thinking_only_thoughts_of_earlier_turns_differ_from_the_template(family, kind):
    tokenizer = tokenizer_of(family, kind)
    render = Render(tokenizer, thinking=True)
    messages, opening = opening_messages(family, "Be brief.", "Where?"), render.opening("Be brief.", "Where?")
    assert opening == template_ids(family, tokenizer, messages, thinking=True)
    for thought in ("", "<think>\nLet me think: <action>up</action>\n</think>\n"):
        messages += [{"role": "assistant", "content": f"{thought}Left."}, {"role": "user", "content": "And now?"}]
        turn = render.turn("And now?", StopReason.LENGTH)
        assert template_ids(family, tokenizer, messages, thinking=True)[-len(turn) :] == turn
        assert render.turn("And now?", StopReason.STOP) == turn[1:]


@every_kind
@pytest.mark.parametrize("family", WORKING)
def test_a_marker_inside_a_message_is_plain_text(family, kind):
    tokenizer = tokenizer_of(family, kind)
    render, (_, markers) = Render(tokenizer), FAMILIES[family]
    marks = [*markers["special"], *(text for text in markers.get("plain", ()) if "think" not in text)]
    text = "".join(marks)
    ids = set(tokenizer.convert_tokens_to_ids(marks))

    def marks_of(found):
        return [id for id in found if id in ids]

    assert marks_of(render.opening(text, text)) == marks_of(render.opening("a", "b"))
    assert marks_of(render.turn(text, StopReason.STOP)) == marks_of(render.turn("a", StopReason.STOP))
    assert not marks_of(render.encode(text))


@pytest.mark.parametrize("kind", ["metaspace first", "metaspace always", "prepend"])
def test_no_message_gains_a_space(kind):
    tokenizer = tokenizer_of("Zephyr", kind)
    said = tokenizer.decode(Render(tokenizer).opening("Be brief.", "Where?"))
    assert "<|user|>\nWhere?</s>" in said
    assert "<|system|>\nBe brief.</s>" in said


def test_a_thought_that_the_template_opens_is_kept_but_not_acted_on():
    tokenizer = tokenizer_of(OPENS_THOUGHT, "byte level")
    render = Render(tokenizer, thinking=True)
    assert tokenizer.decode(render.opening("a", "b")).endswith("<think>\n")
    end = tokenizer.eos_token_id
    sampled = [*tokenizer.encode("maybe <action>up</action>\n</think>\nLeft."), end]
    assert render.text(sampled) == "<think>\nmaybe <action>up</action>\n</think>\nLeft."
    assert render.reply(render.text(sampled)) == sampled
    assert without_thought(render.text(sampled)) == "\nLeft."
    assert without_thought(render.text(sampled[:5])) == ""
    assert render.text([]) == ""


def test_a_thought_without_an_end_is_not_acted_on():
    assert without_thought("<think>maybe <action>1</action>") == ""
    assert without_thought("a <think> in an answer") == "a <think> in an answer"


def test_a_template_that_prints_the_date_prints_the_same_on_every_day(monkeypatch):
    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 2, 3, 4, 5)

    tokenizer = tokenizer_of("Llama 3", "byte level")
    today = Render(tokenizer).opening("a", "b")
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    messages = [{"role": "user", "content": "a"}]
    assert "Today Date: 02 Jan 2031\n" in tokenizer.apply_chat_template(messages, tokenize=False)
    assert Render(tokenizer).opening("a", "b") == today
    assert "Today Date: 26 Jul 2024\n" in tokenizer.decode(today)


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%-d %B %y", "%A, %H:%M"])
def test_every_form_of_a_date_is_that_of_the_fixed_day(form):
    """The template also keeps its own first newline and indented blocks."""
    template = "\n  {% set now = strftime_now('" + form + "') %}\n{{ now }}|{{ now[:2] }}\n" + CHATML
    tokenizer = make("byte level", template, **FAMILIES["ChatML"][1])
    day = DATE.strftime(form)
    fixed = tokenizer.apply_chat_template(
        [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
        chat_template=template.replace(f"strftime_now('{form}')", f"'{day}'"),
        tokenize=False,
        add_generation_prompt=True,
    )
    assert fixed.startswith(f"\n{day}|{day[:2]}\n")
    assert tokenizer.decode(Render(tokenizer).opening("a", "b")) == fixed


GEMMA_WITHOUT_END = GEMMA.replace("<end_of_turn>\n", "<eot>\n")
CHAT_SPECIAL = FAMILIES["ChatML"][1]
REFUSED = {
    "a thought always opened": (
        lambda: tokenizer_of(OPENS_THOUGHT, "byte level"),
        r"always opens a thought before a reply; expected thinking: true in codots\.json$",
    ),
    "turns that end in plain text": (
        lambda: make("prepend", ALPACA.replace("END", "'\n\n'"), **SP),
        r"ends a reply with plain text, '\\n\\n###.*'; expected a single special token",
    ),
    "an end of several tokens": (
        lambda: make("byte level", CHATML, ("<|im_start|>",), eos="<|im_start|>"),
        r"ends a reply with plain text, '<\|im_end\|>\\n'; expected a single special token",
    ),
    "an end in plain text, and no system role": (
        lambda: make("replace", GEMMA_WITHOUT_END, **FAMILIES["Gemma"][1]),
        r"ends a reply with plain text, '<eot>\\n'",
    ),
    "text before the end of a reply": (
        lambda: make("byte level", CHATML.replace("+ '<|im_end|>", "+ ' (end)<|im_end|>"), **CHAT_SPECIAL),
        r"ends a reply with plain text, ' \(end\)'; expected a single special token",
    ),
    "no generation prompt": (
        lambda: make("byte level", CHATML.partition("{% if add_generation_prompt")[0], **CHAT_SPECIAL),
        r"writes '<\|im_start\|>assistant\\n' before an earlier reply, but not in its generation prompt",
    ),
    "a channel that only earlier replies have": (
        lambda: make(
            "byte level",
            CHATML.replace("message['content']", "message['content'].replace('\ue000r', 'final:\ue000r')"),
            **CHAT_SPECIAL,
        ),
        r"writes 'final:' before an earlier reply",
    ),
    "no two user turns": (
        lambda: make("byte level", "{% if messages[2:] %}{{ raise_exception('one\nturn') }}{% endif %}" + CHATML),
        r"cannot render user, assistant, user: one turn",
    ),
    "a system message that must be there": (
        lambda: make(
            "byte level",
            "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages|length }}" + CHATML,
        ),
        r"rewrites earlier turns",
    ),
    "later turns numbered": (
        lambda: make(
            "byte level",
            CHATML.replace("message['role'] +", "message['role'] + loop.index|string +"),
            **CHAT_SPECIAL,
        ),
        r"rewrites earlier turns",
    ),
    "upper case": (
        lambda: make("byte level", CHATML.replace("message['content']", "message['content']|upper"), **CHAT_SPECIAL),
        r"does not write every message exactly once",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_template_that_cannot_work_is_refused_with_the_reason(what):
    make_tokenizer, reason = REFUSED[what]
    with pytest.raises(ValueError, match=f"^the tokenizer's chat template {reason}") as error:
        Render(make_tokenizer())
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_encodes_a_whole_chat_otherwise_is_refused():
    """A special token that is normalized is found in text that already has the space put before it."""
    special = [AddedToken(text, special=True, normalized=True) for text in ("<s>", "</s>")]
    tokenizer = make("prepend", FAMILIES["Zephyr"][0], special=(), bos=special[0], eos=special[1])
    with pytest.raises(ValueError, match=r"^the tokenizer encodes a whole chat to other ids than turn by turn$"):
        Render(tokenizer)


def test_a_tokenizer_that_makes_a_marker_of_plain_text_is_refused():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram([("<unk>", 0), ("<e>", -1), ("<", -2), ("e", -2), (">", -2)], 0)),
        eos_token="<e>",
        chat_template="{% for m in messages %}{{ m.content }}<e>{% endfor %}",
    )
    with pytest.raises(ValueError, match=r"^the tokenizer encodes '<e>' in a message as a marker of its chat templ"):
        Render(tokenizer)


def test_every_eos_id_of_the_folder_ends_a_reply(tmp_path):
    folder = make_random_model(tmp_path / "model")
    (own,) = load_render(folder).stop_ids
    for name, eos in (("generation_config.json", [own, 352, 351]), ("config.json", 350)):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {"eos_token_id": eos}))
    model, render = load_model(folder)
    assert render.stop_ids == load_render(folder).stop_ids == {own, 352, 351, 350}
    assert LocalSampler(model, render.stop_ids).stop_ids == render.stop_ids
    for id in render.stop_ids:
        assert render.text([*render.encode("goal"), id]) == "goal"
