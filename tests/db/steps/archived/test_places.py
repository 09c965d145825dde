"""Places of archived steps: folders, and an S3-compatible server on loopback."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from db.steps.archived import places
from db.steps.archived.places import FileMissing, Place, PlaceError, RemoteFile
from tests import object_store


@pytest.fixture(params=["folder", pytest.param("s3", marks=[pytest.mark.needs("moto_server"), pytest.mark.slow])])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "a place") if request.param == "folder" else f"{request.getfixturevalue('bucket')}/runs"


def test_a_file_comes_back_whole_in_parts_and_is_removed_once(url: str) -> None:
    place, content = Place(url), bytes(range(256)) * 40
    place.prepare(has_files=False)
    place.write("a%2Fb/1.parquet", content)
    assert place.read("a%2Fb/1.parquet") == content
    assert place.read("a%2Fb/1.parquet", 300, 310) == content[300:310]
    seen = place.look_at("a%2Fb/1.parquet")
    assert (seen.num_bytes, place.look_at("a%2Fb/1.parquet")) == (len(content), seen)
    place.write("a%2Fb/1.parquet", content[::-1])
    assert place.look_at("a%2Fb/1.parquet") != seen, "as long as before"
    place.write("a%2Fb/1.parquet", content)
    file = RemoteFile(place, "a%2Fb/1.parquet", len(content))
    file.seek(-10, io.SEEK_END)
    assert (file.read(4), file.tell(), file.read(), file.read()) == (content[-10:-6], 10_234, content[-6:], b"")
    place.remove("a%2Fb/1.parquet")
    place.remove("a%2Fb/1.parquet")
    for look in (place.read, place.look_at):
        with pytest.raises(FileMissing, match=r"there is no file .*1\.parquet"):
            look("a%2Fb/1.parquet")


def test_an_empty_folder_goes_with_its_last_file(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    place.prepare(has_files=False)
    place.write("run/x/1", b"1")
    place.write("run/y/2", b"2")
    place.remove("run/x/1")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["y"]


def test_nothing_counts_as_removed_from_a_folder_that_is_not_mounted(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "mount"))
    place.prepare(has_files=False)
    place.write("run/1", b"1")
    (tmp_path / "mount").rename(tmp_path / "elsewhere")
    (tmp_path / "mount").mkdir()
    attempts: list[Callable[[], object]] = [
        lambda: place.remove("run/1"),
        lambda: place.prepare(has_files=True),
        lambda: place.write("run/2", b"2"),
        lambda: place.read("run/1"),
    ]
    for attempt in attempts:
        with pytest.raises(PlaceError, match="is it mounted"):
            attempt()


@pytest.mark.slow
@pytest.mark.needs("moto_server")
def test_expired_credentials_are_one_sentence_for_each_thing_to_do(
    bucket: str, object_store_server: object_store.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(f"{bucket}/runs")
    place.write("run/1", b"1")
    object_store_server.refuse_requests()
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("write", lambda: place.write("run/2", b"2")),
        ("read", lambda: place.read("run/1")),
        ("remove", lambda: place.remove("run/1")),
    ]
    for verb, attempt in attempts:
        remedy = r"\(InvalidAccessKeyId\); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        with pytest.raises(PlaceError, match=f"^cannot {verb} {bucket}/runs/run/.*{remedy}") as failed:
            attempt()
        assert "\n" not in str(failed.value)
    object_store_server.accept_requests()
    assert place.read("run/1") == b"1"
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(PlaceError, match="set AWS_ALLOW_HTTP=true"):
        Place(f"{bucket}/runs").read("run/1")


@pytest.mark.slow
@pytest.mark.needs("moto_server")
def test_a_file_in_a_bucket_that_is_not_there_counts_neither_as_missing_nor_as_removed(bucket: str) -> None:
    """The address of another server says so too."""
    place = Place(f"{bucket}x/runs")
    for attempt in (place.read, place.look_at, place.remove):
        with pytest.raises(PlaceError, match=f": the bucket '{bucket[5:]}x' does not exist; create it") as failed:
            attempt("run/1")
        assert not isinstance(failed.value, FileMissing)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "it is empty"),
        ("memory://x", "memory keeps no files"),
        ("https://host/x", "https keeps no files"),
        ("simplecache::s3://b/x", "chained URLs"),
        ("sftp://me:secret@host/x", "put the credentials into the environment"),
        ("github://org:secret@repo", "put the credentials into the environment"),
        ("sftp://me:secret/1@host/x", "put the credentials into the environment"),
        ("sftp://me:secret@[host/x", "put the credentials into the environment"),
        ("az://container/x?sig=secret", "put the credentials into the environment"),
        ("simplecache::sftp://me:secret@host/x", "chained URLs"),
        ("s3://", "'s3://' is no place for archived steps: it names no bucket or folder"),
        ("s3:///x", "it names no bucket or folder"),
        ("file://x/y", "give a folder as file:///path"),
        ("nonsense://x", "nonsense://x cannot be opened"),
    ],
)
def test_a_url_that_cannot_keep_steps_is_refused_in_one_sentence(url: str, why: str) -> None:
    with pytest.raises(PlaceError, match=why) as refused:
        Place(url)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    place = Place(str(tmp_path))
    place.prepare(has_files=False)
    monkeypatch.setattr(places, "_write_durably", full)
    with pytest.raises(PlaceError, match=r"^cannot write file://.*/run/1: No space left on device$"):
        place.write("run/1", b"1")


def test_a_relative_folder_is_kept_as_an_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Place("steps").url == f"file://{tmp_path}/steps"


@pytest.mark.parametrize("text", ["..", ".", "a/b", "a b", "ü", "a%2Fb", "r1"])
def test_any_run_id_is_one_path_segment_of_its_own(text: str) -> None:
    segment = places.path_segment(text)
    assert "/" not in segment
    assert segment not in (".", "..", "")
    assert (segment == text) == (text == "r1")


@pytest.mark.parametrize("name", ["../victim", "run/../../victim", "/etc/hostname", "./1", "", "run\\..\\1", "run/\0"])
def test_no_name_leads_out_of_its_place(tmp_path: Path, name: str) -> None:
    place, victim = Place(str(tmp_path / "place")), tmp_path / "victim"
    place.prepare(has_files=False)
    victim.write_text("not ours")
    for attempt in (place.remove, place.read, partial(place.write, content=b""), place.look_at):
        with pytest.raises(PlaceError, match="this is not the name of a file in a place of archived steps"):
            attempt(name)
    assert victim.read_text() == "not ours"


def test_a_link_in_a_place_leads_to_nothing_outside_of_it(tmp_path: Path) -> None:
    place, outside = Place(str(tmp_path / "place")), tmp_path / "outside"
    place.prepare(has_files=False)
    outside.mkdir()
    (outside / "1").write_text("not ours")
    (tmp_path / "place" / "run").symlink_to(outside)
    (tmp_path / "place" / "2").symlink_to(outside / "1")
    for name in ("run/1", "2"):
        for attempt in (place.remove, place.read, place.look_at):
            with pytest.raises(PlaceError, match="a link leads out of the place of archived steps"):
                attempt(name)
    assert (outside / "1").read_text() == "not ours"


def test_a_place_that_is_reached_by_a_link_is_a_place(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "place").symlink_to(tmp_path / "disk")
    place = Place(str(tmp_path / "place"))
    place.prepare(has_files=False)
    place.write("run/1", b"1")
    assert place.read("run/1") == b"1"
