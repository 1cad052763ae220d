"""A domain that registers itself when its module is imported, like a user's own domain."""

from codots.domains.registry import register
from tests.toy import Talk


class RegisteredTalk(Talk):
    """Talk under another id."""

    id = "registered-talk-v0"


register(RegisteredTalk())
