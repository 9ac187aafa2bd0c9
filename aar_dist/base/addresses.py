"""URLs as they may be shown: no user, no password, no query.

text of a message, a card, a configuration -> the same text with bare URLs
"""

import re
from urllib.parse import SplitResult, urlsplit

HIDDEN = "(hidden)"
URL = re.compile(r"""\b(?!store:)[a-z][a-z0-9+.-]*://[^\s"'<>\\]*[^\s"'<>\\,;:.)\]}]""", re.IGNORECASE)
"""In a text, without the punctuation behind it. A reference to a store, ``store://name@1``, is none."""


def shown(parts: SplitResult) -> str:
    """The URL without what may be secret: user, password, query. (An abfs URL has its container before the ``@``.)"""
    place = parts.netloc if parts.scheme in ("abfs", "abfss") else parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path}".rstrip("/")


def without_secrets(text: str) -> str:
    """Text whose URLs have no user, password or query any more."""
    return URL.sub(lambda found: _bare(found[0]), text)


def _bare(url: str) -> str:
    try:
        return shown(urlsplit(url))
    except ValueError:
        return HIDDEN
