"""Any other scheme that fsspec has a driver for (hdfs, sftp, hf, memory …), for those who keep shards there.

The driver is the user's to install. fsspec retries nothing and knows no create-only write; the rest is as elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aar_dist.base.transport import PIECE_BYTES, Body, Exists, Missing, Refused, Trouble, gist

TAGS = ("ETag", "etag", "mtime", "modified", "last_modified", "created")


class AnyStore:
    """A folder by fsspec."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        scheme = url.partition("://")[0]
        try:
            self._fs, self._root = url_to_fs(url)
        except ImportError as error:
            raise Refused(f"{scheme}:// needs a package that is not installed: {gist(error)}") from None
        except ValueError as error:
            raise Refused(f"{scheme}:// is no scheme that is known here: {gist(error)}") from None
        except Exception as error:
            raise Trouble(gist(error)) from None

    def open(self, name: str, start: int) -> Body:
        with _sorted():
            info = self._fs.info(self._at(name))
            tag = next((str(info[key]) for key in TAGS if key in info), None)
            return Body(size=int(info["size"]), tag=tag, pieces=self._pieces(name, start))

    def _pieces(self, name: str, start: int) -> Iterator[bytes]:
        with _sorted(), self._fs.open(self._at(name), "rb") as file:
            file.seek(start)
            while piece := file.read(PIECE_BYTES):
                yield piece

    def size(self, name: str) -> int:
        with _sorted():
            return int(self._fs.info(self._at(name))["size"])

    def put(self, name: str, data: bytes | Path, *, only_if_new: bool) -> None:
        with _sorted():
            if only_if_new and self._fs.exists(self._at(name)):
                raise Exists(name)
            self._fs.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
            if isinstance(data, bytes):
                self._fs.pipe_file(self._at(name), data)
            else:
                self._fs.put_file(str(data), self._at(name))

    def delete(self, name: str) -> None:
        with _sorted():
            self._fs.rm_file(self._at(name))

    def names(self, prefix: str) -> list[str]:
        with _sorted():
            self._fs.invalidate_cache()
            found: list[Any] = self._fs.find(self._root)
        names = [path[len(self._root) :].lstrip("/") for path in found]
        return sorted(name for name in names if name.startswith(prefix))

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


@contextmanager
def _sorted() -> Iterator[None]:
    """Turn what drivers raise into missing, refused, and what may pass."""
    try:
        yield
    except (Exists, Trouble):
        raise
    except (FileNotFoundError, IsADirectoryError):
        raise Missing("not there") from None
    except (PermissionError, NotImplementedError, ValueError, TypeError) as error:
        # No rights, no such operation, or no such option of a driver: trying again would not help.
        raise Refused(gist(error)) from None
    except Exception as error:  # each driver has classes of its own; what does not pass is told at the deadline
        raise Trouble(gist(error)) from None
