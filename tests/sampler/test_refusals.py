"""What servers say when they refuse is read: their words, the room that is left, the option that they do not take."""

import json

import pytest

from codots.sampler.refusals import concerns_all, refused_option, room, words


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ('{"error": "text"}', "text"),
        ('{"error": {"message": "text", "code": 3}}', "text"),
        ('{"error": {"message": ""}, "message": "text"}', "text"),
        ('[{"error": {"code": 400, "message": "text"}}]', "text"),
        ('{"detail": "text"}', "text"),
        (
            '{"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}, {"msg": "more"}]}',
            "body.seed: not permitted; more",
        ),
        ('{"message": "text", "object": "error"}', "text"),
        ('{"error": null, "errors": ["one", "two"]}', "one; two"),
        ('{"error": {"message": "Provider error", "metadata": {"raw": "why"}}}', "Provider error: why"),
        ('{"code": 7}', '{"code": 7}'),
        ('"text"', "text"),
        ("plain\n text\x1b[31m", "plain text [31m"),
        ("<!DOCTYPE html><html><head><style>b {}</style><title>502 Bad</title></head><p>a &amp; b", "502 Bad a & b"),
        ("", ""),
        ("{}", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_the_words_of_every_usual_error_body_are_found(body, line):
    assert words(body) == line


MAX = "This model's maximum context length is"
LONG = {  # the refusal of 1000 prompt tokens and 4000 new ones by a window of 4096
    "vLLM": f"{MAX} 4096 tokens. However, you requested 5000 tokens (1000 in the messages, 4000 in the completion). "
    "Please reduce the length of the messages or completion.",
    "vLLM 0.9": "'max_tokens' or 'max_completion_tokens' is too large: 4000. This model's maximum context length is "
    "4096 tokens and your request has 1000 input tokens (4000 > 4096 - 1000). None",
    "vLLM 0.12": "You passed 1000 input tokens and requested 4000 output tokens. However, the model's context length "
    "is only 4096 tokens, resulting in a maximum input length of 96 tokens. Please reduce the length of the input "
    "prompt. (parameter=input_tokens, value=1000)",
    "SGLang": "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total "
    "of 5000 tokens: 1000 tokens from the input messages and 4000 tokens for the completion. Please reduce the number "
    "of tokens in the input messages or the completion to fit within the limit.",
    "TGI": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 1000 `inputs` tokens "
    "and 4000 `max_new_tokens`",
    "Anthropic": "input length and `max_tokens` exceed context limit: 1000 + 4000 > 4096, decrease input length or "
    "`max_tokens` and try again",
    "OpenRouter": "This endpoint's maximum context length is 4,096 tokens. However, you requested about 5,000 tokens "
    "(1,000 of text input, 4,000 in the output). Please reduce the length of either one.",
}


@pytest.mark.parametrize("server", LONG)
def test_a_request_that_is_too_long_for_a_window_may_ask_for_the_rest(server):
    found = room(json.dumps({"error": {"message": LONG[server], "code": 400}}), 4000)
    assert (found.tokens, found.window, found.cap) == (3096, 4096, False)


@pytest.mark.parametrize(
    ("said", "asked", "tokens"),
    [
        (f"{MAX} 20 tokens. However, your request has 30 input tokens. Please reduce the length of the input.", 9, 0),
        (f"{MAX} 128000 tokens. However, your messages resulted in 130000 tokens. Please reduce them.", 9, 0),
        ("The decoder prompt (length 30) is longer than the maximum model length of 20.", 9, 0),
        ("Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.", 9, 0),
        ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 9, 0),
        ("The input token count exceeds the maximum number of tokens allowed 1048576.", 9, 0),
        ("the request exceeds the available context size. try increasing the context size", 9, 0),
        ("request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", 9, 0),
        ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 9, 0),
        ("`inputs` must have less than 1024 tokens. Given: 2000", 9, 0),
        ("prompt is too long: 210000 tokens > 200000 maximum", 9, 0),
        ("Prompt contains 40000 tokens, too large for model with 32768 maximum context length", 9, 0),
        ("Please reduce the length of the messages or completion. context_length_exceeded", 9, 4),
        (f"{MAX} 4096 tokens. However, you requested 5000 tokens.", 1, 0),
        (f"{MAX} 4096 tokens, you passed 100 input tokens and requested 9 output tokens", 9, 4),  # wrong numbers
        ("max_tokens is too large: 9. This model supports at most 5 completion tokens, whereas you provided 9.", 9, 5),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8]", 9, 8),
        ("max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for m", 100000, 8192),
        ("`max_tokens` must be less than or equal to `8`, the maximum value for `max_tokens`", 9, 8),
        ("max_tokens is too large", 9, 4),
        ("Unsupported parameter: 'max_tokens' is not supported with this model.", 9, None),
        ("temperature must be at most 2", 9, None),
        ("no such model", 9, None),
        ("", 9, None),
    ],
)
def test_the_room_that_a_refusal_leaves_is_read(said, asked, tokens):
    found = room(json.dumps({"error": said}), asked)
    assert (None if found is None else found.tokens) == tokens


SENT = {"seed", "top_p", "temperature", "max_tokens"}


@pytest.mark.parametrize(
    ("body", "option"),
    [
        ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", "top_p"),
        ("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.", "max_tokens"),
        (
            {"message": "'temperature' does not support 0", "param": "temperature", "code": "unsupported_value"},
            "temperature",
        ),
        ({"message": "not supported: temperature. Supported: seed, top_p", "param": "temperature"}, "temperature"),
        ("[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}]", "seed"),
        ("Unrecognized request argument supplied: seed", "seed"),
        ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', "seed"),
        ("property 'top_p' is unsupported", "top_p"),
        ("`temperature` is deprecated for this model.", "temperature"),
        ("temperature must be at most 2", None),
        ("Unknown parameter: 'logit_bias'", None),
        ("seeds are not supported", None),
    ],
)
def test_the_option_that_a_server_does_not_take_is_found(body, option):
    assert refused_option(json.dumps({"error": body}), SENT) == option
    assert refused_option(json.dumps({"error": body}), SENT - {option}) != option or option is None


@pytest.mark.parametrize("status", [400, 413, 422])
def test_only_keys_models_and_addresses_concern_all_requests(status):
    assert not concerns_all(status, "System role not supported")
    assert concerns_all(status, "Invalid model: m")
    assert concerns_all(status, "The model `m` does not exist")
    assert all(concerns_all(other, "") for other in (401, 402, 403, 404, 405))
