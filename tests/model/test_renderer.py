"""Rendering: any string round-trips, no text encodes to a marker, and turns add up to the template's own chat."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codots.core.transcript import StopReason
from codots.model import tiny
from codots.model.renderer import Render

MARKERS = st.sampled_from(
    [*tiny.SPECIAL, "<0x41>", "<context>", "</context>", "{{ x }}", "{% endif %}", " 3", "_a1 Gb2"]
)
LETTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""Any characters except lone surrogates, which are not valid text."""
UNMARKED = LETTERS.filter(lambda text: not any(marker in text for marker in tiny.SPECIAL))
"""Text without markers, which hypothesis also draws from the code under test."""
TEXT = st.lists(LETTERS | MARKERS, max_size=6).map("".join)
CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def renderer(template):
    tokenizer = tiny.make_tokenizer()
    tokenizer.chat_template = template
    return Render(tokenizer)


chatml = renderer(CHATML)
both_templates = pytest.mark.parametrize("render", [renderer(tiny.TEMPLATE), chatml], ids=["tiny", "chatml"])


@given(TEXT)
def test_any_string_round_trips(text):
    assert chatml.text(list(chatml.encode(text))) == text


@given(TEXT)
def test_no_text_encodes_to_a_role_marker(text):
    assert not set(chatml.encode(text)) & set(chatml.tokenizer.all_special_ids)


@both_templates
@given(system=TEXT, user=TEXT)
def test_an_opening_has_only_the_templates_markers(render, system, user):
    special = set(render.tokenizer.all_special_ids)
    markers = [id for id in render.opening(system, user) if id in special]
    assert markers == [id for id in render.opening("", "") if id in special]


def whole_chat(render, messages):
    """Encode a chat in the standard way: render the whole chat, then encode it."""
    text = render.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return render.tokenizer.encode(text, add_special_tokens=False)


@both_templates
@given(
    system=UNMARKED, user=UNMARKED, exchanges=st.lists(st.tuples(UNMARKED, UNMARKED), max_size=3), stop=st.booleans()
)
def test_encoding_turn_by_turn_equals_encoding_the_whole_chat(render, system, user, exchanges, stop):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    ids = render.opening(system, user)
    assert ids == whole_chat(render, messages)
    for reply, answer in exchanges:
        # A truncated reply lacks its end, which the turn must add.
        ids += render.reply(reply) if stop else render.encode(reply)
        ids += render.turn(answer, StopReason.STOP if stop else StopReason.LENGTH)
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": answer}]
        assert ids == whole_chat(render, messages)


@both_templates
@pytest.mark.parametrize("stop", [StopReason.LENGTH, StopReason.FULL])
def test_the_end_of_a_reply_is_added_only_if_not_sampled(render, stop):
    end = render.tokenizer.eos_token_id
    assert render.turn("more", stop) == [end, *render.turn("more", StopReason.STOP)]


@both_templates
def test_the_end_of_a_turn_and_the_eos_token_are_stop_ids(render):
    assert render.tokenizer.eos_token_id in render.stop_ids
    assert render.reply("hello")[-1] in render.stop_ids


@both_templates
@given(text=TEXT)
def test_a_reply_is_decoded_without_its_stop_id(render, text):
    assert render.text(render.reply(text)) == text
    assert render.text(list(render.encode(text))) == text


def test_a_marker_sampled_inside_a_reply_stays_visible(render):
    user = render.tokenizer.convert_tokens_to_ids("<|user|>")
    end = render.tokenizer.eos_token_id
    assert render.text([*render.encode("a"), user, end, *render.encode("b"), end]) == "a<|user|><|end|>b"
    assert render.text([]) == ""


@given(st.lists(st.integers(0, len(chatml.tokenizer) - 1), max_size=20))
def test_any_sampled_ids_can_be_decoded(ids):
    assert isinstance(chatml.text(ids), str)


def test_prompts_are_new_lists(render):
    first = render.opening("a", "b")
    first.append(0)
    assert render.opening("a", "b") == first[:-1]


FOR, END = "{% for m in messages %}", "{% endfor %}"
REFUSED = {
    "thoughts of earlier turns dropped": (
        FOR + "<|{{ m.role }}|>{% if m.role != 'assistant' or loop.last %}{{ m.content }}{% endif %}" + END,
        "rewrites earlier turns",
    ),
    "a count of the turns": ("{{ messages | length }}" + tiny.TEMPLATE, "rewrites earlier turns"),
    "the newest turn first": (
        FOR.replace("messages", "messages | reverse") + "{{ m.content }}" + END,
        "rewrites earlier",
    ),
    "no end of a reply": (FOR + "{{ m.content }}" + END, "does not mark the end of a reply"),
    "no room for a user": (
        tiny.TEMPLATE.replace("<|user|>{{ m.content }}", ""),
        "does not write every message exactly once",
    ),
    "the rules twice": ("{{ messages[0].content }}" + tiny.TEMPLATE, "does not write every message exactly once"),
    "no system role": (
        "{{ raise_exception('no system role') if messages[0].role == 'system' }}",
        "does not write every message exactly once",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_template_that_cannot_grow_is_a_one_line_error(what):
    template, line = REFUSED[what]
    with pytest.raises(ValueError, match=f"the tokenizer's chat template .*{line}") as error:
        renderer(template)
    assert "\n" not in str(error.value)
