"""Models are brought from hosts that behave well and badly; a wrong or a half file is never taken for a model."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_model import NAMES
from file_host import FileHost, Served, file_host
from layouts.rfdetr import export

from seg_perception.cli.main import main
from seg_perception.core.catalogue import CatalogueEntry, Checksum, catalogue
from seg_perception.core.errors import BackendUnavailable, ConfigurationError, SourceError
from seg_perception.core.share import share_directory
from seg_perception.offboard.models.fetch import WrongFileError, fetch_file

pytest.importorskip("requests", reason="requests is not installed: `make setup`")

from seg_perception.offboard.models import download
from seg_perception.offboard.models import download as downloads
from seg_perception.offboard.models.download import DownloadError

BODY = random.Random(1).randbytes(1 << 20)
OTHER = random.Random(2).randbytes(1 << 20)
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()
TRIES = 3
CHECKSUMS = [Checksum("sha256", SHA256), Checksum("sha256-prefix", SHA256[:8]), Checksum("md5", MD5)]


@pytest.fixture
def host() -> Iterator[FileHost]:
    with file_host() as host:
        yield host


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEG_PERCEPTION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("SEG_PERCEPTION_MODELS", raising=False)
    for name, value in {"_TRIES": TRIES, "_BACKOFF_S": 0.0, "_TIMEOUT_S": 0.5}.items():
        monkeypatch.setattr(download, name, value)
    return tmp_path / "home" / "models"


def entry_at(host: FileHost, *paths: str, checksum: Checksum = CHECKSUMS[0], size: int = 0) -> CatalogueEntry:
    urls = tuple(host.address + path for path in paths or ("/a/model.pth",))
    return replace(catalogue().entry("rtmdet-ins-tiny"), urls=urls, file="model.pth", checksum=checksum, size=size)


def fetch(entry: CatalogueEntry, origin: str = "") -> tuple[Path, str]:
    path, record = fetch_file(entry, origin, lambda line: None)
    return path, record.sha256


def left(home: Path) -> list[str]:
    return sorted(path.name for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize("checksum", [*CHECKSUMS, Checksum()])
def test_a_file_comes_and_is_recorded(checksum: Checksum, host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(BODY)
    path, sha256 = fetch(entry_at(host, checksum=checksum))
    assert path == home / "downloads" / "model.pth"
    assert path.read_bytes() == BODY
    assert left(home) == ["model.pth", "model.pth.json"]
    record = json.loads((home / "downloads" / "model.pth.json").read_text())
    assert (record["sha256"], record["size"], record["checked"]) == (SHA256, len(BODY), str(checksum))
    assert record["source"] == f"{host.address}/a/model.pth"
    assert sha256 == SHA256


def test_what_is_here_is_not_fetched_again_unless_it_was_changed(host: FileHost):
    host.files["/a/model.pth"] = Served(BODY)
    path, _ = fetch(entry_at(host))
    fetch(entry_at(host))
    assert len(host.requests) == 1
    path.write_bytes(OTHER)
    fetch(entry_at(host))
    assert len(host.requests) == 2
    assert path.read_bytes() == BODY


def test_redirects_are_followed(host: FileHost):
    host.files["/resolve/model.pth"] = Served(location="/cdn/blob?signature=1")
    host.files["/cdn/blob?signature=1"] = Served(BODY)
    assert fetch(entry_at(host, "/resolve/model.pth"))[1] == SHA256


def test_redirects_without_end(host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(location="/a/model.pth")
    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch(entry_at(host))
    assert left(home) == []


def test_a_redirect_that_leaves_https_is_refused(host: FileHost, monkeypatch: pytest.MonkeyPatch):
    """The server speaks no https, so the check is asked directly."""
    import requests

    response = requests.Response()
    response.url = "http://mirror.example/model.pth"
    with pytest.raises(DownloadError, match="without https"):
        downloads._refuse_downgrade("https://example.org/model.pth", response)
    downloads._refuse_downgrade("http://example.org/model.pth", response)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_faults_that_pass_are_tried_again(status: int, host: FileHost):
    host.files["/a/model.pth"] = Served(BODY, status=[status, status])
    assert fetch(entry_at(host))[1] == SHA256
    assert len(host.requests) == 3


def test_a_fault_that_stays(host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(BODY, status=[503] * 9)
    with pytest.raises(DownloadError, match=r"the server answers 503 .*SEG_PERCEPTION_MODELS"):
        fetch(entry_at(host))
    assert len(host.requests) == TRIES
    assert left(home) == []


def test_a_server_that_asks_for_an_hour_gets_a_minute():
    import urllib3

    retry = downloads._Retry(1)
    response = urllib3.HTTPResponse(headers={"Retry-After": "3600"})
    assert retry.get_retry_after(response) == 60
    assert retry.get_retry_after(urllib3.HTTPResponse(headers={"Retry-After": "2"})) == 2
    assert retry.get_retry_after(urllib3.HTTPResponse()) is None


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_tried_again(status: int, host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(BODY, status=[status])
    with pytest.raises(DownloadError, match=f"the server answers {status}"):
        fetch(entry_at(host))
    assert len(host.requests) == 1
    assert left(home) == []


def test_nobody_answers(host: FileHost, home: Path):
    entry = replace(entry_at(host), urls=("http://127.0.0.1:9/model.pth",))
    with pytest.raises(DownloadError, match=r"cannot be reached .*refused"):
        fetch(entry)
    assert left(home) == []


def test_the_second_address_helps_and_all_are_named_if_none_does(host: FileHost):
    host.files["/b/model.pth"] = Served(BODY)
    entry = entry_at(host, "/a/model.pth", "/b/model.pth")
    assert fetch(entry)[1] == SHA256
    host.files["/c/model.pth"] = Served(OTHER)
    with pytest.raises(SourceError, match=r"(?s)no address gave it.*/a/x.* 404 .*/c/model.pth: expected the sha256"):
        fetch(replace(entry_at(host, "/a/x", "/c/model.pth"), file="x"))


@pytest.mark.parametrize("how", [Served(BODY, cut=[300_000, 200_000]), Served(BODY, stall=[300_000])])
@pytest.mark.parametrize("validator", ["etag", "modified"])
def test_a_transfer_that_breaks_off_goes_on_where_it_ended(how: Served, validator: str, host: FileHost, home: Path):
    served = replace(how, cut=list(how.cut), stall=list(how.stall))
    if validator == "modified":
        served = replace(served, etag='W/"weak"', modified="Mon, 30 Nov 2026 12:00:00 GMT")
    host.files["/a/model.pth"] = served
    assert fetch(entry_at(host))[1] == SHA256
    first, *others = host.ranges_asked()
    assert first == ""
    assert others
    assert all(int(asked[6:-1]) > 200_000 for asked in others)
    assert left(home) == ["model.pth", "model.pth.json"]


@pytest.mark.parametrize("served", [
    Served(BODY, ranges=False, cut=[300_000]),
    Served(BODY, etag="", cut=[300_000]),
    Served(BODY, etag='W/"weak"', cut=[300_000]),
    Served(BODY, shift=10, cut=[300_000]),
])  # fmt: skip
def test_without_ranges_it_begins_again(served: Served, host: FileHost):
    """Also where the server does not say which version it sends, or sends another part."""
    host.files["/a/model.pth"] = replace(served, cut=list(served.cut))
    assert fetch(entry_at(host))[1] == SHA256


def test_a_link_that_never_brings_it_all(host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(BODY, ranges=False, cut=[300_000] * 99)
    with pytest.raises(DownloadError, match=r"broke off.*3 times in a row; run the command again"):
        fetch(entry_at(host))
    assert "model.pth" not in left(home)


def interrupted(host: FileHost, monkeypatch: pytest.MonkeyPatch, entry: CatalogueEntry) -> None:
    """Fetch, and press Ctrl-C when the link breaks."""

    def press(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("seg_perception.offboard.models.download.time.sleep", press)
        with pytest.raises(KeyboardInterrupt):
            fetch(entry)


def test_an_interrupted_fetch_goes_on_the_next_time(host: FileHost, home: Path, monkeypatch: pytest.MonkeyPatch):
    host.files["/a/model.pth"] = Served(BODY, cut=[300_000])
    interrupted(host, monkeypatch, entry_at(host))
    assert left(home) == ["model.pth.part", "model.pth.part.json"]
    assert main(["models"]) == 0
    assert fetch(entry_at(host))[1] == SHA256
    assert int(host.ranges_asked()[-1][6:-1]) > 200_000
    assert left(home) == ["model.pth", "model.pth.json"]


@pytest.mark.parametrize(
    ("etag", "checksum"),
    [('"two"', CHECKSUMS[0]), ('"two"', Checksum()), ('"one"', CHECKSUMS[0]), ('"one"', CHECKSUMS[2])],
)
def test_a_file_that_changed_in_between_is_not_put_together(
    etag: str, checksum: Checksum, host: FileHost, monkeypatch: pytest.MonkeyPatch
):
    """By its ETag; where a server keeps that, by the checksum."""
    host.files["/a/model.pth"] = Served(OTHER, cut=[300_000])
    interrupted(host, monkeypatch, entry_at(host, checksum=checksum))
    host.files["/a/model.pth"] = Served(BODY, etag=etag)
    assert fetch(entry_at(host, checksum=checksum))[1] == SHA256


def test_a_part_of_another_address_is_not_gone_on_with(host: FileHost, monkeypatch: pytest.MonkeyPatch):
    host.files["/a/model.pth"] = Served(OTHER, cut=[300_000])
    interrupted(host, monkeypatch, entry_at(host, checksum=Checksum()))
    host.files["/b/model.pth"] = Served(BODY)
    assert fetch(entry_at(host, "/b/model.pth", checksum=Checksum()))[1] == SHA256


@pytest.mark.parametrize("part", [BODY, BODY + b"more"])
def test_a_part_that_is_all_or_too_much(part: bytes, host: FileHost, home: Path):
    url = f"{host.address}/a/model.pth"
    (home / "downloads").mkdir(parents=True)
    (home / "downloads" / "model.pth.part").write_bytes(part)
    (home / "downloads" / "model.pth.part.json").write_text(json.dumps({"url": url, "validator": '"one"'}))
    host.files["/a/model.pth"] = Served(BODY)
    assert fetch(entry_at(host))[1] == SHA256


@pytest.mark.parametrize("note", ["", "[", "[]", '{"url": 1}', '{"validator": 3}'])
def test_a_part_of_which_nothing_is_known_begins_again(note: str, host: FileHost, home: Path):
    (home / "downloads").mkdir(parents=True)
    (home / "downloads" / "model.pth.part").write_bytes(OTHER[:1000])
    (home / "downloads" / "model.pth.part.json").write_text(note)
    host.files["/a/model.pth"] = Served(BODY)
    assert fetch(entry_at(host, checksum=Checksum()))[1] == SHA256


def test_two_fetches_at_once(host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(BODY)
    (home / "downloads").mkdir(parents=True)
    with (
        downloads._opened(home / "downloads" / "model.pth"),
        pytest.raises(DownloadError, match="another process fetches this file"),
    ):
        fetch(entry_at(host))


@pytest.mark.parametrize(("body", "expected"), [
    (OTHER, "expected the sha256"),
    (BODY[:-1], "a damaged or a different file"),
    (b"", "an empty one"),
    (b"\n<!DOCTYPE HTML><html><body>Log in</body></html>", "a web page"),
    (b"<html><head>blocked by the proxy", "a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "a Git LFS pointer"),
])  # fmt: skip
def test_of_a_wrong_file_nothing_is_kept(body: bytes, expected: str, host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(body)
    with pytest.raises(WrongFileError, match=expected):
        fetch(entry_at(host))
    assert left(home) == []


@pytest.mark.parametrize("checksum", CHECKSUMS[1:])
def test_other_checksums_find_a_wrong_file(checksum: Checksum, host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(OTHER)
    with pytest.raises(WrongFileError, match=checksum.digits):
        fetch(entry_at(host, checksum=checksum))
    assert left(home) == []


def test_a_web_page_is_found_without_a_checksum(host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(b"<!doctype html>...")
    with pytest.raises(WrongFileError, match="web page"):
        fetch(entry_at(host, checksum=Checksum()))
    assert left(home) == []


@pytest.mark.parametrize("length", [True, False])
def test_a_file_that_is_longer_than_it_may_be(length: bool, host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(BODY, length=length)
    with pytest.raises(DownloadError, match="expected at most 1000 bytes"):
        fetch(entry_at(host, size=1000))
    assert left(home) == []


def test_a_server_that_compresses_all_the_same(host: FileHost):
    host.files["/a/model.pth"] = Served(gzip.compress(BODY), encoding="gzip")
    assert fetch(entry_at(host))[1] == SHA256


def test_without_length_and_checksum_a_cut_file_could_not_be_told(host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(BODY, length=False, cut=[300_000])
    with pytest.raises(DownloadError, match="expected a server that says how long the file is"):
        fetch(entry_at(host, checksum=Checksum()))
    assert left(home) == []
    host.files["/a/model.pth"] = Served(BODY, length=False, cut=[300_000])
    with pytest.raises(WrongFileError, match="expected the md5"):
        fetch(entry_at(host, checksum=CHECKSUMS[2]))


def test_a_file_that_is_shorter_than_its_size(host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(BODY, length=False)
    with pytest.raises(WrongFileError, match=f"expected {len(BODY) + 1} bytes, got {len(BODY)}"):
        fetch(entry_at(host, size=len(BODY) + 1))
    assert left(home) == []


@pytest.mark.parametrize("checksum", [Checksum(), CHECKSUMS[1]])
def test_without_a_full_checksum_the_first_file_is_held(checksum: Checksum, host: FileHost, home: Path):
    host.files["/a/model.pth"] = Served(BODY)
    path, _ = fetch(entry_at(host, checksum=checksum))
    path.unlink()
    host.files["/a/model.pth"] = Served(OTHER, etag='"two"')
    digits = hashlib.sha256(OTHER).hexdigest()[: len(checksum.digits)]
    changed = entry_at(host, checksum=replace(checksum, digits=digits))
    with pytest.raises(WrongFileError, match=rf"(?s)the file that came on .*{SHA256}.*delete .*model.pth.json"):
        fetch(changed)
    assert left(home) == ["model.pth.json"]
    (home / "downloads" / "model.pth.json").unlink()
    assert fetch(changed)[1] == hashlib.sha256(OTHER).hexdigest()


def test_a_new_full_checksum_goes_before_what_came_once(host: FileHost):
    host.files["/a/model.pth"] = Served(BODY)
    fetch(entry_at(host))
    host.files["/a/model.pth"] = Served(OTHER, etag='"two"')
    other = hashlib.sha256(OTHER).hexdigest()
    assert fetch(entry_at(host, checksum=Checksum("sha256", other)))[1] == other


RECORD = {"name": "n", "source": "s", "sha256": "0", "size": 1, "checked": "", "fetched": ""}
RECORD |= {"code_licence": "MIT", "weights_licence": "MIT"}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"sha256": 1}', json.dumps(RECORD | {"size": "1"}), json.dumps(RECORD | {"sha256": 0}), "\xff"],
)
def test_a_record_that_cannot_be_read(text: str, host: FileHost, home: Path):
    (home / "downloads").mkdir(parents=True)
    (home / "downloads" / "model.pth.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"model.pth.json: .*delete it"):
        fetch(entry_at(host))


def test_a_mirror_that_is_a_folder_a_file_or_an_address(
    host: FileHost, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "model.pth").write_bytes(BODY)
    host.files["/mirror/model.pth"] = Served(BODY)
    entry = entry_at(host, "/nowhere")
    for origin in (str(mirror), str(mirror / "model.pth"), f"{host.address}/mirror", f"{host.address}/mirror/"):
        shutil.rmtree(home, ignore_errors=True)
        assert fetch(entry, origin)[1] == SHA256
        shutil.rmtree(home)
        monkeypatch.setenv("SEG_PERCEPTION_MODELS", origin)
        assert fetch(entry)[1] == SHA256
        monkeypatch.delenv("SEG_PERCEPTION_MODELS")
    assert all(path != "/nowhere" for path, _ in host.requests)


def test_a_mirror_is_asked_alone_and_the_option_goes_before_it(
    host: FileHost, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    host.files["/a/model.pth"] = Served(BODY)
    monkeypatch.setenv("SEG_PERCEPTION_MODELS", str(tmp_path))
    with pytest.raises(SourceError, match=r"model.pth: expected the file of the model, there is none"):
        fetch(entry_at(host))
    assert host.requests == []
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "model.pth").write_bytes(OTHER)
    with pytest.raises(WrongFileError, match=r"wrong/model\.pth: expected the sha256"):
        fetch(entry_at(host), str(tmp_path / "wrong"))
    assert left(home) == []


@pytest.mark.parametrize("origin", ["s3://bucket", "ftp://host/models", "file:///models"])
def test_what_is_no_mirror(origin: str, host: FileHost):
    with pytest.raises(ConfigurationError, match="--from: expected a folder, a file or an address with http"):
        fetch(entry_at(host), origin)


def test_a_password_is_sent_and_not_shown(host: FileHost, home: Path):
    host.files["/model.pth"] = Served(BODY)
    fetch(entry_at(host), host.address.replace("http://", "http://me:secret@"))
    assert host.requests[0][1]["Authorization"].startswith("Basic ")
    record = (home / "downloads" / "model.pth.json").read_text()
    assert "secret" not in record
    assert f"{host.address}/model.pth" in record


def test_a_proxy_is_asked(host: FileHost, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", host.address)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    host.files["http://models.invalid/model.pth"] = Served(BODY)
    entry = replace(entry_at(host), urls=("http://models.invalid/model.pth",))
    assert fetch(entry)[1] == SHA256


def test_a_folder_that_cannot_be_made(host: FileHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEG_PERCEPTION_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="name another folder with SEG_PERCEPTION_HOME"):
        fetch(entry_at(host))


def test_a_full_disk(host: FileHost, monkeypatch: pytest.MonkeyPatch):
    host.files["/a/model.pth"] = Served(BODY)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads, "_write", full)
    with pytest.raises(DownloadError, match=r"model.pth.part: cannot be written \(No space left on device\)"):
        fetch(entry_at(host))


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of which the catalogue has a model of coloured rectangles, ready and as a checkpoint."""
    original, share = share_directory(), tmp_path / "prefix" / "share" / "seg_perception"
    shutil.copytree(original / "config", share / "config")
    shutil.copy(original / "package.xml", share)
    raw = tmp_path / "mirror" / "colours.onnx"
    raw.parent.mkdir()
    export(raw)
    (raw.parent / "colours.pth").write_bytes(BODY)
    (share / "config" / "classes" / "colours.yaml").write_text(
        f"name: colours\nclasses: {list(NAMES)}\ngroups: {{pedestrian: [person], vehicle: [car]}}\n"
    )
    (share / "config" / "models.yaml").write_text(f"""
recipes:
  own: {{packages: colours-net==1, how: "colours-export {{file}} --net {{variant}}"}}
groups:
  - shared: {{family: rfdetr, task: instances, input: 192x320, classes: colours, data: rectangles, code_licence: MIT}}
    models:
      colours:
        weights_licence: MIT
        urls: [https://models.invalid/colours.onnx]
        checksum: sha256:{hashlib.sha256(raw.read_bytes()).hexdigest()}
        export: onnx
      colours-large:
        weights_licence: CC-BY-NC-4.0
        urls: [https://models.invalid/colours.pth]
        checksum: none
        export: own
        variant: L
""")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"))
    monkeypatch.setenv("SEG_PERCEPTION_MODELS", str(raw.parent))
    return share


def test_a_fetched_model_is_used_by_its_name(
    share: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert main(["fetch", "colours", "--precision", "fp32", "fp16"]) == 0
    told = capsys.readouterr().out
    assert "verified   against the published sha256" in told
    assert f"use it as model:={'colours-fp16'}" in told
    assert {"colours.onnx", "colours-fp16.onnx"} <= set(left(home))
    monkeypatch.chdir(tmp_path)
    image = np.full((192, 320, 3), 114, np.uint8)
    image[40:120, 60:160] = (214, 14, 14)  # in BGR, of the class car
    cv2.imwrite("image.png", image)
    for name in ("colours", "colours-fp16"):
        assert main(["image", "image.png", "--model", name, "--classes", "colours", "-o", f"out-{name}"]) == 0
        assert "1" in capsys.readouterr().out
        assert main(["inspect", name, "--classes", "colours"]) == 0
        assert "rfdetr" in capsys.readouterr().out
    assert main(["models"]) == 0
    assert "ready (fp32, fp16)" in capsys.readouterr().out


def test_a_licence_has_to_be_accepted(share: Path, home: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["fetch", "colours-large"]) == 1
    told = capsys.readouterr()
    assert "weights CC-BY-NC-4.0" in told.out
    assert "not for commercial use" in told.err
    assert "seg_perception fetch colours-large --accept-licence" in told.err
    assert left(home) == []


def test_a_checkpoint_comes_and_the_way_on_is_told(share: Path, home: Path, capsys: pytest.CaptureFixture[str]):
    """It is not there by its name yet, so that is no success."""
    assert main(["fetch", "colours-large", "--accept-licence", "--precision", "fp16"]) == 1
    told = capsys.readouterr().out
    file = home / "downloads" / "colours.pth"
    assert "NOT against a published checksum" in told
    assert SHA256 in told
    assert "pip install colours-net==1" in told
    assert f"colours-export {file} --net L" in told
    assert "seg_perception prepare EXPORT.onnx --family rfdetr --classes colours --precision fp16" in told
    assert f"-o {home}/colours-large-fp16.onnx" in told
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines()[2].endswith("file")
    (home / "colours-large-fp16.onnx").touch()
    assert main(["fetch", "colours-large", "--accept-licence", "--precision", "fp16"]) == 0
    assert "model:=colours-large-fp16" in capsys.readouterr().out


def test_a_file_of_another_family_is_not_guessed(
    share: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    catalogue_file = share / "config" / "models.yaml"
    catalogue_file.write_text(catalogue_file.read_text().replace("family: rfdetr", "family: yolov8"))
    assert main(["fetch", "colours"]) == 1
    assert "yolov8" in capsys.readouterr().err
    assert "colours.onnx" not in [path.name for path in home.iterdir() if path.is_file()]


@pytest.mark.parametrize(("arguments", "expected"), [
    (["colour"], "did you mean colours"),
    (["colours", "--precision", "int8"], "seg_perception quantize colours --calibration"),
    (["colours", "--from", "s3://x"], "expected a folder, a file or an address"),
])  # fmt: skip
def test_wrong_usage_of_fetch(arguments: list[str], expected: str, share: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["fetch", *arguments]) == 1
    assert expected in capsys.readouterr().err


def test_the_models_of_the_package_need_no_fetch(capsys: pytest.CaptureFixture[str]):
    assert main(["fetch", "street-nano"]) == 0
    assert "comes with the package" in capsys.readouterr().out
    assert main(["fetch", "street-nano", "--precision", "fp16"]) == 1


def test_without_requests_a_mirror_in_a_folder_serves(share: Path, monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "requests", None)
    monkeypatch.delitem(sys.modules, "seg_perception.offboard.models.download")
    entry = catalogue().entry("colours")
    with pytest.raises(BackendUnavailable, match="pip install requests"):
        fetch(entry, "http://127.0.0.1:9")
    fetch(entry)
