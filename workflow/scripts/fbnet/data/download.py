"""Fetching an archive over HTTP, and checking one that is there."""

import hashlib
import logging
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pooch
import requests

from fbnet.errors import InputError
from fbnet.provenance import file_hash
from fbnet.runtime import Progress, log

RETRIES = 4
TIMEOUT_S = 30


def download(url: str, checksum: str | None, folder: Path) -> Path:
    """Fetch a file over HTTP(S) into `folder`, unless it is there already, and verify it ("md5:…" or "sha256:…").

    A broken connection or a wrong checksum starts again, up to RETRIES times. Raises InputError after that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_by_a_kill in folder.glob("tmp*"):
        left_by_a_kill.unlink()
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{PurePosixPath(urlsplit(url).path).name}"
    pooch_log = pooch.get_logger()
    pooch_log.handlers, pooch_log.parent, pooch_log.propagate = [], logging.getLogger(log.name), True
    fetcher = pooch.create(
        folder, base_url="", registry={name: checksum}, urls={name: url}, retry_if_failed=RETRIES, allow_updates=True
    )
    bar = Progress(unit="B", unit_scale=True, desc="download", total=0)
    try:
        path = fetcher.fetch(name, downloader=pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT_S))
    except requests.RequestException as error:
        raise InputError(
            f"dataset.url {url} could not be downloaded in {RETRIES + 1} tries ({type(error).__name__}: {error}): "
            f"check the address and the network, or name a local copy as dataset.archive"
        ) from None
    except ValueError as error:
        raise InputError(
            f"what dataset.url {url} gives has another checksum than dataset.checksum: {error} "
            f"Give the right checksum, or another address"
        ) from None
    finally:
        bar.close()
    log.info("Downloaded %s: %s has the right checksum (%s).", url, name, checksum or "none was asked for")
    return Path(path)


def check_archive(path: Path, checksum: str | None) -> None:
    """Raise InputError unless a local archive has this checksum."""
    if checksum:
        algorithm, _, digest = checksum.partition(":")
        found = file_hash(path, algorithm)
        if found != digest.lower():
            raise InputError(
                f"dataset.archive {path} has the {algorithm} {found}, but dataset.checksum is {digest}: "
                f"name another archive, or set the checksum to what you expect (null checks nothing)"
            )
