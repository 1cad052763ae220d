"""A domain that registers itself when its module is imported, as a user's own would."""

from codots.domains.registry import register
from tests.toy import Talk


class Babble(Talk):
    """Talk under a name of its own."""

    id = "babble-v0"


register(Babble())
