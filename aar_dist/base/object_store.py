"""s3, gs, az and http(s), by obstore.

The client's own retries are off: who asks knows what has come already, and reads on from there.
"""

import os
import re
from base64 import b64encode
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

from aar_dist.base import transport
from aar_dist.base.addresses import shown
from aar_dist.base.transport import PIECE_BYTES, Body, Exists, Missing, Refused, Restart, Trouble, gist

WEB = ("http", "https")
SCHEMES = (*WEB, "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")
NO_BUCKET = "<Code>NoSuchBucket<"
WORDS = {
    "kind: Timeout": "nothing came for too long",
    "dns error": "no such host",
    "ConnectionRefused": "connection refused",
    "ConnectionReset": "connection reset",
    "kind: Connect": "cannot connect",
    "kind: Interrupted": "the connection broke",
    "169.254.169.254": "no credentials found",
    "incorrectly configured region": "the bucket is in another region (set AWS_REGION)",
    "MissingContentLength": "the server does not tell the length of the file",
}


class ObjectStore:
    """A folder of a bucket, or of a web server, which is only read."""

    def __init__(self, parts: SplitResult) -> None:
        _refuse_after_fork(shown(parts))
        if not parts.netloc:
            raise Refused("the URL names no host")
        if parts.scheme not in WEB and (parts.password or parts.query):
            raise Refused("keys do not belong into such a URL; set them in the environment")
        import obstore
        from obstore.store import HTTPStore, from_url

        self._o, self._web = obstore, parts.scheme in WEB
        make: Any = HTTPStore.from_url if self._web else from_url
        options = {"client_options": _client_options(parts), "retry_config": {"max_retries": 0}}
        with self._sorted(""):
            url = parts._replace(netloc=parts.netloc.rpartition("@")[2]) if self._web else parts
            self._store = make(url.geturl(), **options, **(_aws_profile() if parts.scheme in ("s3", "s3a") else {}))

    def open(self, name: str, start: int) -> Body:
        with self._sorted(name):
            got = self._o.get(self._store, name, options={"range": {"offset": start}} if start else None)
            return Body(size=got.meta["size"], tag=got.meta["e_tag"], pieces=self._pieces(name, got))

    def _pieces(self, name: str, got: Any) -> Iterator[bytes]:
        with self._sorted(name):
            yield from got.stream(min_chunk_size=PIECE_BYTES)

    def size(self, name: str) -> int:
        with self._sorted(name):
            return int(self._o.head(self._store, name)["size"])

    def put(self, name: str, data: bytes | Path, *, only_if_new: bool) -> None:
        self._refuse_web("written")
        with self._sorted(name):
            if only_if_new:  # a conditional write is one request: parts would not do
                data = data if isinstance(data, bytes) else data.read_bytes()
                self._o.put(self._store, name, data, mode="create", use_multipart=False)
            else:
                self._o.put(self._store, name, data)

    def delete(self, name: str) -> None:
        self._refuse_web("deleted")
        with self._sorted(name):
            self._o.delete(self._store, name)

    def names(self, prefix: str) -> list[str]:
        self._refuse_web("listed")
        folder = prefix.rpartition("/")[0] or None  # a listing begins at a whole folder
        with self._sorted(prefix):
            found = [each["path"] for page in self._o.list(self._store, folder) for each in page]
        return sorted(name for name in found if name.startswith(prefix))

    def _refuse_web(self, what: str) -> None:
        if self._web:
            raise Refused(f"nothing can be {what} over http; use the store behind it (s3://, gs://, az://)")

    @contextmanager
    def _sorted(self, name: str) -> Iterator[None]:
        """Turn what obstore raises into the four kinds of this module."""
        from obstore import exceptions as e

        try:
            yield
        except FileNotFoundError as error:
            raise (Refused(told(error)) if NO_BUCKET in str(error) else Missing("not there")) from None
        except e.AlreadyExistsError:
            raise Exists(name) from None
        except e.NotSupportedError as error:
            raise (Restart if "Range" in str(error) else Refused)(told(error)) from None
        except e.GenericError as error:
            raise kind_of(str(error))(told(error)) from None
        except (e.BaseError, ValueError, TypeError) as error:
            raise Refused(told(error)) from None


def kind_of(text: str) -> type[Exception]:
    """``Trouble`` for a fault of the connection and an answer of 5xx, 408 or 429; ``Restart`` where the range asked for
    is not there (any more); ``Refused`` otherwise."""
    status = re.search(r"status code: (\d+)", text)
    if "InvalidRange" in text or (status and status[1] == "416"):
        return Restart
    if status:
        return Trouble if int(status[1]) >= 500 or status[1] in ("408", "429") else Refused
    return Trouble if "HttpError" in text else Refused


def told(error: BaseException) -> str:
    """What obstore's error says, in a few words."""
    text = str(error)
    if NO_BUCKET in text:
        return "there is no such bucket"
    if status := re.search(r"status code: (\d+[\w ]*)", text):
        code = re.search(r"<Code>(\w+)</Code>", text)
        return f"the server answered {status[1].strip()}" + (f" ({code[1]})" if code else "")
    return next((words for sign, words in WORDS.items() if sign in text), gist(error))


def _client_options(parts: SplitResult) -> dict[str, Any]:
    plain = parts.scheme == "http" or os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    options: dict[str, Any] = {
        "timeout": timedelta(days=1),  # of a whole body, however long: a stall has its own limit
        "read_timeout": timedelta(seconds=transport.STALL_S),
        "connect_timeout": timedelta(seconds=transport.CONNECT_S),
        **({"allow_http": True} if plain else {}),
    }
    if parts.scheme in WEB and parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        options["default_headers"] = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}
    return options


def _aws_profile() -> dict[str, str]:
    """Keys and region of ~/.aws, which obstore does not read, unless the environment has keys."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    profile = os.environ.get("AWS_PROFILE", "default")
    files = ConfigParser(interpolation=None)
    home = Path.home() / ".aws"
    files.read(
        [
            os.environ.get("AWS_SHARED_CREDENTIALS_FILE", home / "credentials"),
            os.environ.get("AWS_CONFIG_FILE", home / "config"),
        ]
    )
    known = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key",
             "aws_session_token": "session_token", "region": "region"}  # fmt: skip
    sections = [s for s in (f"profile {profile}", profile) if files.has_section(s)]
    return {ours: files[s][theirs] for s in sections for theirs, ours in known.items() if theirs in files[s]}


_used = _forked = False


def _mark_fork() -> None:
    global _forked
    _forked = _used


os.register_at_fork(after_in_child=_mark_fork)


def _refuse_after_fork(where: str) -> None:
    """obstore's threads do not live on in a forked child, where the first request would wait for ever."""
    global _used
    if _forked:
        raise Refused(f"{where}: this process was forked from one that had read from a server; start it by spawn")
    _used = True
