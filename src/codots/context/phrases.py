"""Words and patterns by which a passage of a context reads as an instruction, in lower case and Latin letters."""

from __future__ import annotations

import re

from codots.context.lookalikes import plain


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _any(text: str) -> str:
    return f"(?:{'|'.join(text.split())})"


OBJECT = _any("instruct\\w* rules? notes? prompts? guidelines? polic(?:y|ies) constraints? directions? directives?")
WHICH = _any("all any every the your these those previous prior earlier above former old of that this system safety")
IGNORE = _any("ignore disregard forget override overrule bypass discard neglect")
ROLE = _any("system assistant developer instructions? admin\\w*")
SAY = _any(
    "send forward e-?mail upload leak reveal disclose exfiltrate print output share give include append write tell "
    "show copy paste repeat dump put add attach post"
)
SECRET = (
    r"(?:passwords?|passphrases?|secrets?|api[ _-]?keys?|(?:access )?tokens?|credentials?|(?:private|ssh) keys?|\.env|"
    r"environment variables?|system prompt|card numbers?|credit cards?|cookies?|seed phrase|"
    r"(?:customer|user|personal) data)"
)
ENDING = _any("com net org io ai dev app co info biz xyz ru cn tk top site online example onion")
FOREIGN = "|".join(
    map(
        plain,
        (
            *("ignorez", "ignorieren sie", "ignoriere", "ignora", "olvida", "oubliez"),
            "\u0438\u0433\u043d\u043e\u0440\u0438\u0440\u0443\u0439",  # Russian
            *("\u5ffd\u7565", "\u65e0\u89c6", "\u7121\u8996"),  # Chinese
        ),
    )
)
"""`ignore` in other languages."""
PATTERNS = {
    "a role marker": re.compile(
        rf"(?m)^[\s>*\[(-]*{ROLE}(?: (?:message|prompt|note))?[\])*]*: (?=(?:\S+ ){{2}})|"
        rf"</?\s*(?:{ROLE}|user|human|important|tool|tool_\w+|function\w*|invoke|notes?|prompt|context|override)\b[^>\n]*>|"
        rf"^[#\s]+{ROLE}(?: (?:message|prompt))?[ :]*$|\{{\{{|\{{%"
    ),
    "an order to disregard what holds": re.compile(
        rf"\b{IGNORE}\b(?:\s+{WHICH})*\s+{OBJECT}\b|\b{IGNORE}(?:{WHICH})*{OBJECT}|"
        rf"\b{IGNORE}\b[^.;\n]{{0,40}}\b(?:said|told|above|previous\w*|before)\b|"
        r"\byou are now\b|\bpretend (?:to be|that|you)\b|\byou (?:must|will) act as\b|"
        r"(?m:^|[.:;,!?] )act as (?:an?|the|if|root|admin)\b|"
        rf"\b(?:new|updated|real|hidden|secret) {OBJECT} (?:are|is|from|follow|below)\b|"
        rf"\bsystem (?:prompt|override)\b|\b(?:developer|god) mode\b|\bjailbr\w+|\b(?:{FOREIGN})"
    ),
    "an order to give away a secret": re.compile(rf"\b{SAY}\b[^.;\n]{{0,60}}?\b{SECRET}\b"),
    "an address": re.compile(
        r"\b[a-z][a-z0-9+.-]{1,20}://\S+|\b(?:javascript|data|mailto|tel):\S+|\bwww\.\S+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+|"
        rf"\b(?:[a-z0-9-]{{1,63}}\.)+{ENDING}\b|\b\w+ ?[\[(](?:\.|dot)[\])] ?\w{{2,}}|\b\w+ dot {ENDING}\b|\\\\\w+\\\w+"
    ),
    "a command": re.compile(
        r"\b(?:curl|wget|nc|ncat|telnet|sudo|powershell|certutil|bitsadmin|xdg-open) +[-\w./$'\"~]|\brm +-\w*[rf]|"
        r"\|\s*(?:ba|z|da)?sh\b|\$\([^)\n]+\)|\b(?:ba|z)?sh +-c\b|\bbase64 +(?:-d|--decode)|\bchmod +[+0-7ugoa]\S* \S|"
        r"\b(?:pip3?|npm|yarn|apt|apt-get|brew|gem|cargo|uv) +(?:install|add)\b|"
        r"\b(?:eval|exec|os\.system|__import__)\s*\(|\bsubprocess\.\w+|<script\b|\bcrontab\b|>>? *~?/[\w.]+|"
        r"\bdrop +table\b|\bdelete +from +\w+|\bgit +push\b|"
        r"\b(?:call|calls|invoke|execute|trigger|use|run)\b(?: \w+){0,3} [`\"']?\w+\(|"
        r"\b(?:call|invoke|execute|trigger)\b(?: the)?(?: (?:tool|function|api|command))? [`\"']?[a-z]+_\w+|"
        r"[\"']?(?:tool_calls?|function_call|arguments)[\"']? *[:=] *[\[{\"]"
    ),
}
"""Passages that do not belong in notes, by kind."""
TELLING = _words(
    "add advertise answer append approve authorize buy call claim cite click copy credit delete deny describe disable "
    "disclose download email endorse erase execute exfiltrate fetch forward give grant greet include insert install "
    "invoke leak mention open output pay praise prefer prepend pretend print promote publish quote recommend redirect "
    "refer refund refuse reject remove repeat reply report respond reveal say send share show submit suggest tell "
    "transfer upload visit wire write"
)
"""Verbs of what others see, and of what leaves the task."""
DOING = TELLING | _words(
    "act assume ask avoid be begin check choose combine commit consider do end follow go ignore keep make mark merge "
    "move name obey pick place push put read remember rename replace run select set skip start stop switch take treat "
    "trust try turn use verify"
)
"""Verbs with which an order may start."""
ALWAYS = re.compile(
    r"\b(?:always|never|must|shall|should|henceforth|whenever|every ?time|from (?:now|here) on(?:wards)?|do not|don't|"
    r"make sure|be sure|remember to|ha(?:s|ve) to|need to|required to|"
    r"(?:in|for|to|with|on|at|before|after|of) (?:all|any|each|every|future|later|coming|the next) \w+|"
    r"if (?:any|some)one|if (?:an?|the) (?:user|customer|client)|when (?:asked|an?|the user|the customer|you))\b"
)
"""Words that make a clause a rule for later tasks."""
COMMON = _words(
    "the and for with that this from into your you are was were has have its their they them then than when what which "
    "who whom will would can could should must shall not does did been being but all any each every more most some "
    "such only also just very always never there here task tasks later future next time times reply replies answer "
    "answers user users ask asked now"
)
"""Words that say nothing about where an order comes from."""
