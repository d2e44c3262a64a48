"""Fetching an archive over HTTP from whichever mirror gives it, in as many pieces as that takes; checking one that is there."""

import hashlib
import re
import time
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests

from fbnet.errors import InputError
from fbnet.provenance import file_hash
from fbnet.runtime import Progress, log

TRIES = 5  # of a mirror, one after the other without a byte more
TIMEOUT_S = 30  # without a byte
PAUSE_S = 1  # between tries; that much longer after each that gained nothing
PIECE = 1 << 12  # bytes; a broken connection loses one at most


def download(urls: list[str], checksum: str | None, folder: Path) -> tuple[Path, str]:
    """An archive in `folder`, and the mirror of `urls` that it is from: one that is there, or from the first that gives it.

    It is verified ("md5:…" or "sha256:…"). What a mirror has given is kept in a .part, from which the next try and the next run
    go on. Raises InputError, which says of each mirror why it failed, if all have; OSError where the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archives = {url: folder / f"{_short_hash(url)}-{PurePosixPath(urlsplit(url).path).name}" for url in urls}
    for url, archive in archives.items():
        if archive.is_file() and not _another(archive, checksum):
            log.info("%s is there already: %s", url, archive)
            return archive, url
    failures = []
    for url, archive in archives.items():
        part = folder / f"{_short_hash(f'{url} {checksum}')}.part"
        try:
            _fetch(url, part, checksum)
        except requests.RequestException as error:
            log.warning("%s gives no archive: %s", url, error)
            failures.append(f"{url} ({error})")
            continue
        except OSError as error:  # a full disk, which does not say whose
            raise OSError(error.errno, error.strerror, str(part)) from None
        part.replace(archive)
        for left_over in folder.glob("????????.part*"):  # also of mirrors that failed
            left_over.unlink()
        log.info("Downloaded %s; checksum: %s.", url, checksum or "none was asked for")
        return archive, url
    raise InputError(
        f"dataset.url: no archive from {'; '.join(failures)}. Check the addresses, dataset.checksum and the network, add a "
        f"mirror, or name a local copy as dataset.archive"
    )


def check_archive(path: Path, checksum: str | None) -> None:
    """Raise InputError unless a local archive has this checksum."""
    if another := _another(path, checksum):
        raise InputError(
            f"dataset.archive {path} {another}: name another archive, or set the checksum that you expect (null checks nothing)"
        )


def _another(path: Path, checksum: str | None) -> str | None:
    """In words, which checksum a file has instead of the one that is asked for."""
    algorithm, _, digest = (checksum or "").lower().partition(":")
    if not checksum or (found := file_hash(path, algorithm)) == digest:
        return None
    return f"has the {algorithm} {found}, but dataset.checksum is {digest}"


def _fetch(url: str, part: Path, checksum: str | None) -> None:
    """Bring a file to its end and verify it, in as many tries as that takes while they gain. Raises RequestException."""
    furthest, vain = _size(part), 0
    while True:
        try:
            _go_on(url, part, verifiable=checksum is not None)
            break
        except requests.RequestException as error:
            vain = 0 if _size(part) > furthest else vain + 1
            furthest = max(furthest, _size(part))
            if vain == TRIES:
                raise
            log.warning("%s: %.1f MB so far, trying again after: %s", url, _size(part) / 1e6, error)
            time.sleep(PAUSE_S * max(vain, 1))
    if another := _another(part, checksum):
        part.unlink()
        raise requests.RequestException(f"what it gives {another}")


def _go_on(url: str, part: Path, verifiable: bool) -> None:
    """Ask once for what a file still lacks, and append it. Raises RequestException where that is not all of it."""
    version_file = part.with_name(f"{part.name}.version")  # how the mirror tells this file from others at the address
    version = version_file.read_text(encoding="utf-8") if _size(part) and version_file.exists() else ""
    if not (verifiable or version):  # nobody could tell whether the pieces are of one file
        part.unlink(missing_ok=True)
    have = _size(part)
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={have}-" if have else None, "If-Range": version or None}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        given, now = response.headers.get("Content-Range", ""), _version(response)
        if response.status_code == 416 and given == f"bytes */{have}":
            return  # killed after the last byte
        expected = re.fullmatch(rf"bytes {have}-\d+/(\d+|\*)", given)
        if response.status_code in (206, 416) and not (expected and now in ("", version)):
            part.unlink(missing_ok=True)
            raise requests.RequestException(f"from byte {have} on it gives {given!r} of {now!r}, and not of {version!r}")
        response.raise_for_status()
        if response.status_code != 206:  # the whole file: it has changed, or the server knows no ranges
            part.unlink(missing_ok=True)
            version_file.write_text(now, encoding="utf-8")
            have = 0
        response.raw.headers.pop("Content-Encoding", None)  # else requests would unpack the archive
        total = have + (response.raw.length_remaining or 0)
        bar = Progress(unit="B", unit_scale=True, desc="download", initial=have, total=total)
        with bar, open(part, "ab") as file:
            for piece in response.iter_content(PIECE):
                file.write(piece)
                bar.update(len(piece))
        if expected and expected[1] not in ("*", str(_size(part))):
            raise requests.RequestException(f"it gives no more than {given!r}")


def _version(response: requests.Response) -> str:
    """What If-Range may name: a strong ETag, else the time of the last change, if the server says either."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified", "") if etag.startswith("W/") else etag


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
