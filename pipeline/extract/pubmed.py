"""Articles of PubMed by their numbers (PMIDs): title and abstract from NCBI's E-utilities, kept on disk once they were read.

Asks as NCBI wants to be asked: at most three requests a second, ten with a key of one's own in $NCBI_API_KEY, 100 articles a
request. What is in the cache ($MEDNER_CACHE/pubmed, a file an article) is not asked for again, so it is read offline too.
$MEDNER_EUTILS is the address of another server that speaks the same protocol.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from data.files import cache_folder, read_lines, write_json
from data.schema import Document, InputError

EUTILS = "https://eutils.ncbi.nlm.nih.gov/entrez/eutils"
PMID = re.compile(r"[1-9][0-9]{0,8}")
BATCH = 100  # articles a request
PAUSE, PAUSE_WITH_KEY = 0.35, 0.11  # seconds from one request to the next


def read_pmids(given: Sequence[str]) -> list[str]:
    """The numbers, and those that stand in files (white space or commas between them), each once, in their order."""
    found: dict[str, None] = {}
    for one in given:
        if PMID.fullmatch(one):
            found[one] = None
        elif not Path(one).is_file():
            raise InputError(f"--pmid {one}: neither a PMID (a number of at most nine digits) nor a file of them")
        else:
            found |= dict.fromkeys(_numbers_in(Path(one)))
    return list(found)


def _numbers_in(path: Path) -> Iterator[str]:
    for number, line in read_lines(path):
        for word in line.replace(",", " ").split():
            if not PMID.fullmatch(word):
                raise InputError(f"{path}:{number}: {word[:40]!r} is no PMID (a number of at most nine digits)")
            yield word


def fetch_articles(pmids: Sequence[str]) -> Iterator[Document]:
    """The articles in the order of their numbers, which are their ids.

    Raises InputError for a number that PubMed does not have, ConnectionError where NCBI cannot be reached.
    """
    last = 0.0
    for begin in range(0, len(pmids), BATCH):
        batch = pmids[begin : begin + BATCH]
        missing = [pmid for pmid in batch if not _kept(pmid).is_file()]
        if missing:
            time.sleep(max(0.0, last + (PAUSE_WITH_KEY if os.environ.get("NCBI_API_KEY") else PAUSE) - time.monotonic()))
            last = time.monotonic()
            for pmid, article in parse_articles(ask_ncbi(missing)).items():
                write_json(_kept(pmid), article)
        for pmid in batch:
            yield _read_kept(pmid)


def _kept(pmid: str) -> Path:
    return cache_folder() / "pubmed" / f"{pmid}.json"


def _read_kept(pmid: str) -> Document:
    path = _kept(pmid)
    if not path.is_file():
        raise InputError(f"--pmid {pmid}: PubMed has no article of this number")
    article = json.loads(path.read_text(encoding="utf-8"))
    if not article["abstract"]:
        print(f"PMID {pmid}: no abstract; its title alone is read", file=sys.stderr)
        return Document(pmid, article["title"])
    return Document(pmid, article["abstract"], article["title"] or None)


def ask_ncbi(pmids: Sequence[str]) -> bytes:
    """PubMed's XML of these articles. The key is never in a message: NCBI repeats a wrong one in its answer."""
    from eval.engines.client import open_server, send

    key = os.environ.get("NCBI_API_KEY")
    form = {"db": "pubmed", "retmode": "xml", "tool": "medner", "id": ",".join(pmids)} | ({"api_key": key} if key else {})
    try:
        with open_server(os.environ.get("MEDNER_EUTILS") or EUTILS, timeout=60, attempts=4, pause=0.5) as server:
            return send(server, "POST", "efetch.fcgi", data=form).content
    except (InputError, ConnectionError) as error:
        said = str(error).replace(key, "[NCBI_API_KEY]") if key else str(error)
        hint = "" if isinstance(error, InputError) else "; what was read before is kept, the same command goes on"
        raise type(error)(f"PubMed: {said}{hint}") from None


def parse_articles(xml: bytes) -> dict[str, dict[str, str]]:
    """{PMID: {"title", "abstract"}} of PubMed's XML; the parts of a structured abstract follow their labels.

    >>> parse_articles(
    ...     b"<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>7</PMID><Article>"
    ...     b"<ArticleTitle>Li<sup>+</sup></ArticleTitle><Abstract><AbstractText Label='AIM'>One.</AbstractText>"
    ...     b"<AbstractText>Two.</AbstractText></Abstract></Article></MedlineCitation></PubmedArticle></PubmedArticleSet>"
    ... )
    {'7': {'title': 'Li+', 'abstract': 'AIM: One. Two.'}}
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ConnectionError(f"PubMed: the answer is no whole XML ({error}); give the same command again") from None
    found = {}
    for article in root:
        pmid = article.findtext("MedlineCitation/PMID") or article.findtext("BookDocument/PMID")
        if pmid:
            title = article.find(".//ArticleTitle")
            parts = [part for part in article.iterfind(".//Abstract/AbstractText") if _text(part)]
            labelled = [f"{part.get('Label')}: {_text(part)}" if part.get("Label") else _text(part) for part in parts]
            found[pmid] = {"title": "" if title is None else _text(title), "abstract": " ".join(labelled)}
    return found


def _text(element: ElementTree.Element) -> str:
    """All text within the element, markup such as <sup> left out, white space made one space."""
    return " ".join("".join(element.itertext()).split())
