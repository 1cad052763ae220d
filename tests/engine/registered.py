"""A domain that registers itself when its module is imported, as a user's own would."""

from codots.domains.registry import register
from tests.toy import Talk


class RegisteredTalk(Talk):
    """Talk under a name of its own."""

    id = "registered-talk-v0"


register(RegisteredTalk())
