"""A folder of this machine answers as one at a URL does."""

import pytest

from aar_dist.base.local import Local
from aar_dist.base.remote import Missing, Refused, Remote


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_folder_and_a_url_answer_alike(tmp_path, kind):
    place = Local(tmp_path / "new") if kind == "folder" else Remote("memory://bucket/local")
    assert place.names() == []
    for name in ("a/b/one", "a/two", "ab"):
        place.write(name, name.encode())
    place.write("ab", b"again")
    assert place.names() == ["a/b/one", "a/two", "ab"]
    assert (place.names("a/"), place.names("a"), place.names("x/")) == (["a/b/one", "a/two"], place.names(), [])
    assert place.read("ab", limit=5) == b"again"
    assert (place.exists("a/two"), place.exists("b")) == (True, False)
    assert place.at("a/two") == f"{place}/a/two"
    for name in ("b", "a", "ab/c"):
        with pytest.raises(Missing, match="not there"):
            place.read(name)
    with pytest.raises(Refused, match="has "):
        place.read("ab", limit=4)
    for name in ("../ab", "/ab", "a//two", ""):
        with pytest.raises(Refused, match="is no name of a file in this folder"):
            place.write(name, b"x")


def test_unfinished_work_is_not_named(tmp_path):
    (tmp_path / "one.staging-host-1-1").write_text("half")
    assert Local(tmp_path).names() == []
