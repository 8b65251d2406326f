"""Download a file over HTTP such that an interrupted transfer goes on where it ended.

What has come so far is in `NAME.part`, and `NAME.part.json` says of which version of which file. Neither is ever taken
for the file itself: the caller verifies `NAME.part` and gives it its name.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from seg_perception import __version__
from seg_perception.core.errors import BackendUnavailable, SourceError
from seg_perception.core.text import printable

from .records import discard_part, note_of, part_of, shown

try:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry
except ImportError as error:
    raise BackendUnavailable(
        f"downloads need the Python package requests ({error}): pip install requests, or, on a ROS distribution, apt "
        "install python3-requests; without it, give the file or a folder that holds it with --from"
    ) from error

# What a server says where another try may help: too many requests, and faults that pass.
_TRANSIENT = (429, 500, 502, 503, 504)
_CHUNK = 1 << 16
# Of a request that fails, and of a transfer that breaks off without having brought anything.
_TRIES = 5
# Waited before the second try, doubled for each one after it; and without a byte, after which a connection is broken.
_BACKOFF_S, _TIMEOUT_S = 1.0, 30.0
_LONGEST_WAIT_S = 60.0
# No file of a catalogue is larger; a server that sends without end must not fill the disk.
_MOST_BYTES = 8 << 30


class DownloadError(SourceError):
    """A file could not be brought from an address."""


class _Retry(Retry):
    """Waits as long as the server asks for, within reason."""

    def get_retry_after(self, response: Any) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, _LONGEST_WAIT_S)


class _BrokenOff(Exception):
    """A transfer ended early; another one may go on where it ended."""


def download(url: str, target: Path, expected_bytes: int = 0, *, needs_length: bool = False) -> bool:
    """Bring a file into `part_of(target)`, with a progress bar.

    Args:
        url: with http or https; proxies and certificates are taken from the environment, as requests does.
        target: what the file will be called.
        expected_bytes: size of the file; 0 where it is unknown.
        needs_length: whether to refuse a server that does not state the length of the file: without a checksum, a
            truncated file could not be told from a whole one.

    Returns:
        Whether the file was put together out of several transfers.

    Raises:
        DownloadError: it could not be brought. What has come stays for the next time where the server can go on from
            there.
    """
    limit = expected_bytes or _MOST_BYTES
    with _opened(target) as file, _session() as session:
        fruitless, most = 0, _size(file)
        while True:
            try:
                return _transfer(session, url, file, note_of(target), limit, needs_length)
            except _BrokenOff as failure:
                # A server that cannot go on begins again, which alone is no progress.
                fruitless = 0 if _size(file) > most else fruitless + 1
                most = max(most, _size(file))
                if fruitless >= _TRIES:
                    raise DownloadError(
                        f"{shown(url)}: {failure}, {fruitless} times in a row; run the command again to go on"
                    ) from failure
                time.sleep(min(_BACKOFF_S * 2**fruitless, _LONGEST_WAIT_S))
            except requests.RequestException as failure:
                raise DownloadError(f"{shown(url)}: cannot be reached ({_reason(failure)}){_ADVICE}") from failure
            except OSError as failure:
                reason = failure.strerror or failure
                raise DownloadError(f"{part_of(target)}: cannot be written ({reason})") from failure


_ADVICE = "; check the network and the proxy (HTTPS_PROXY), or name a mirror with --from or SEG_PERCEPTION_MODELS"


def _transfer(session: requests.Session, url: str, file: IO[bytes], note: Path, limit: int, needs_length: bool) -> bool:
    """Do one request, and write what it gives; return whether it went on from what was there."""
    here = _size(file)
    validator = _validator(note, url) if here else ""
    headers = {"Range": f"bytes={here}-", "If-Range": validator} if validator else {}
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        _refuse_downgrade(url, response)
        if response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{here}":
            return True
        if response.status_code in (206, 416) and _begin_of(response) != here:
            file.truncate(0)
            raise _BrokenOff("the server does not go on from where the last transfer ended")
        if response.status_code not in (200, 206):
            raise DownloadError(f"{shown(url)}: the server answers {response.status_code} {response.reason}{_ADVICE}")
        goes_on = response.status_code == 206
        if not goes_on:
            # A server that knows no ranges, or has another version of the file by now.
            file.truncate(0)
        _write_note(note, url, response)
        total = _total(response, _size(file), needs_length)
        if total <= limit:
            _write(response, file, total, limit)
        if max(total, _size(file)) > limit:
            file.truncate(0)
            raise DownloadError(f"{shown(url)}: expected at most {limit} bytes, got more")
    return goes_on


def _total(response: requests.Response, begin: int, needs_length: bool) -> int:
    """The announced size of the whole file in bytes; 0 where there is none."""
    length = response.headers.get("Content-Length", "")
    # Compressed all the same, the length is not the file's.
    known = length.isdecimal() and "Content-Encoding" not in response.headers
    if needs_length and not known and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise DownloadError(
            f"{shown(response.url)}: expected a server that says how long the file is, as nobody published a checksum: "
            "a transfer that is cut could not be told from a whole one; name a mirror with --from"
        )
    return begin + int(length) if known else 0


def _write(response: requests.Response, file: IO[bytes], total: int, limit: int) -> None:
    """Append what comes, up to a chunk beyond the limit."""
    begin = file.seek(0, os.SEEK_END)
    # Nothing is drawn where nobody watches.
    with tqdm(
        initial=begin, total=total or None, unit="B", unit_scale=True, unit_divisor=1024, disable=None, leave=False
    ) as bar:
        try:
            for chunk in response.iter_content(_CHUNK):
                bar.update(file.write(chunk))
                if file.tell() > limit:
                    return
        except requests.RequestException as error:
            raise _BrokenOff(f"the transfer broke off ({_reason(error)})") from error
        finally:
            file.flush()
    if total and file.tell() != total:
        raise _BrokenOff(f"the transfer broke off (expected {total} bytes, got {file.tell()})")


def _session() -> requests.Session:
    retry = _Retry(
        total=_TRIES - 1,
        backoff_factor=_BACKOFF_S,
        status_forcelist=_TRANSIENT,
        allowed_methods=("GET",),
        # After the last try the status is ours to report.
        raise_on_status=False,
    )
    session = requests.Session()
    session.mount("https://", HTTPAdapter(max_retries=retry))
    session.mount("http://", HTTPAdapter(max_retries=retry))
    # Compressed on the way, ranges and lengths would be those of something else.
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": f"seg_perception/{__version__}"})
    return session


def _refuse_downgrade(url: str, response: requests.Response) -> None:
    """Refuse a way that leaves https: whoever is on it could put another file in its place."""
    way = [url, *(answer.url for answer in response.history), response.url]
    if url.startswith("https:") and not all(step.startswith("https:") for step in way):
        raise DownloadError(f"{shown(url)}: the server redirects to an address without https, which is not followed")


@contextmanager
def _opened(target: Path) -> Iterator[IO[bytes]]:
    """The part of a file, open and for this process alone."""
    part = part_of(target)
    try:
        # As "r+b", which makes no file, and "w+b", which would empty it.
        file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
    except OSError as error:
        raise DownloadError(f"{part}: cannot be written ({error.strerror or error})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DownloadError(f"{part}: another process fetches this file just now; wait until it is done") from error
        try:
            yield file
        except BaseException:
            # Nothing came: nothing is left.
            if not _size(file):
                discard_part(target)
            raise


def _write_note(note: Path, url: str, response: requests.Response) -> None:
    """Remember which version of the file is coming; a weak ETag does not tell versions apart byte by byte."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    if "Content-Encoding" in response.headers:
        validator = ""
    note.write_text(json.dumps({"url": shown(url), "validator": validator}))


def _validator(note: Path, url: str) -> str:
    """Return the server's name of the version of which a part is here; empty where the transfer begins again."""
    try:
        content: Any = json.loads(note.read_text())
    except (OSError, ValueError):
        return ""
    known = isinstance(content, dict) and content.get("url") == shown(url)
    validator = content.get("validator") if known else ""
    return validator if isinstance(validator, str) and validator.isprintable() and validator.isascii() else ""


def _begin_of(response: requests.Response) -> int:
    """Return where a partial answer begins; -1 where it does not tell."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    begin = rest.partition("-")[0]
    return int(begin) if unit == "bytes" and begin.isdecimal() else -1


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _reason(error: Exception) -> str:
    """The innermost cause, which is the one that says something."""
    innermost: BaseException = error
    while (cause := innermost.__cause__ or innermost.__context__) is not None:
        innermost = cause
    return printable(f"{type(innermost).__name__}: {innermost}")
