"""PMIDs as input: fetched over HTTP from a server on this machine that speaks as NCBI's E-utilities, kept, and read again."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
from tiny_gguf import make_tiny_gguf

from data.schema import InputError
from pipeline.cli import main
from pipeline.extract import pubmed
from pipeline.extract.pubmed import fetch_articles, parse_articles, read_pmids

HEAD = (
    '<?xml version="1.0" ?>\n<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2025//EN" '
    '"https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n'
)
ARTICLE = """<PubmedArticle><MedlineCitation Status="MEDLINE"><PMID Version="1">{pmid}</PMID><Article>
<ArticleTitle>Zoltamine (<i>ZOL</i>) &amp; gout{pmid}.</ArticleTitle><Abstract>
<AbstractText Label="BACKGROUND" NlmCategory="BACKGROUND">Zoltamine raised Ca<sup>2+</sup> by &gt;5 %.</AbstractText>
<AbstractText Label="RESULTS">Gout {pmid}
followed.</AbstractText><CopyrightInformation>Copyright.</CopyrightInformation></Abstract></Article>
<CommentsCorrectionsList><CommentsCorrections><PMID>999</PMID></CommentsCorrections></CommentsCorrectionsList>
</MedlineCitation><PubmedData/></PubmedArticle>"""
BARE = """<PubmedArticle><MedlineCitation><PMID>8</PMID><Article><ArticleTitle>[Tremor after lithium.]</ArticleTitle>
</Article></MedlineCitation></PubmedArticle>"""
BOOK = """<PubmedBookArticle><BookDocument><PMID>9</PMID><ArticleTitle>Berazepam</ArticleTitle>
<Abstract><AbstractText>In summary, safe.</AbstractText></Abstract></BookDocument></PubmedBookArticle>"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NCBI_API_KEY", raising=False)
    return tmp_path / "cache" / "pubmed"


@contextmanager
def eutils(monkeypatch, failures=()):
    """A server with articles 1 to 500, 8 without abstract, 9 a book's; first it answers each (status, text) of `failures`."""
    asked, left = [], list(failures)

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            asked.append((time.monotonic(), self.path, form))
            status, text = left.pop(0) if left else (200, None)
            numbers = [one for one in form["id"][0].split(",") if int(one) <= 500]
            articles = [{"8": BARE, "9": BOOK}.get(one) or ARTICLE.format(pmid=one) for one in reversed(numbers)]
            content = (text or f"{HEAD}<PubmedArticleSet>{''.join(articles)}</PubmedArticleSet>").encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MEDNER_EUTILS", f"http://127.0.0.1:{server.server_port}/entrez/eutils")
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


def test_articles_are_fetched_in_order_and_kept(cache, monkeypatch, capsys):
    with eutils(monkeypatch) as asked:
        first, book, bare = fetch_articles(["12", "9", "8"])
        assert (first.id, first.title) == ("12", "Zoltamine (ZOL) & gout12.")
        assert first.text == "BACKGROUND: Zoltamine raised Ca2+ by >5 %. RESULTS: Gout 12 followed."
        assert (book.title, book.text) == ("Berazepam", "In summary, safe.")
        assert (bare.title, bare.text) == (None, "[Tremor after lithium.]")
        assert "PMID 8: no abstract; its title alone is read" in capsys.readouterr().err
        assert [one.id for one in fetch_articles(["9", "13", "12"])] == ["9", "13", "12"]
    assert [path for _, path, _ in asked] == ["/entrez/eutils/efetch.fcgi"] * 2
    assert [form["id"] for _, _, form in asked] == [["12,9,8"], ["13"]]
    assert asked[0][2]["db"] == ["pubmed"] and asked[0][2]["tool"] == ["medner"] and "api_key" not in asked[0][2]
    monkeypatch.setenv("MEDNER_EUTILS", "http://127.0.0.1:9")  # nobody is there: what was fetched is still read
    assert [one.id for one in fetch_articles(["13", "8"])] == ["13", "8"]


def test_many_are_asked_for_a_hundred_at_a_time_and_not_too_fast(monkeypatch):
    with eutils(monkeypatch) as asked:
        assert [one.id for one in fetch_articles(list(map(str, range(1, 301))))] == list(map(str, range(1, 301)))
        times = [when for when, _, _ in asked]
        assert [len(form["id"][0].split(",")) for _, _, form in asked] == [100, 100, 100]
        assert times[2] - times[0] >= 2 * pubmed.PAUSE - 0.1, "three a second at most"
        monkeypatch.setenv("NCBI_API_KEY", "secret-key")
        assert len(list(fetch_articles(["301"]))) == 1
        assert asked[-1][2]["api_key"] == ["secret-key"]
    assert pubmed.PAUSE_WITH_KEY >= 0.1


def test_a_busy_server_is_asked_again(monkeypatch):
    with eutils(monkeypatch, [(429, '{"error":"API rate limit exceeded"}'), (502, "bad gateway")]) as asked:
        assert [one.id for one in fetch_articles(["5"])] == ["5"]
    assert len(asked) == 3


def test_what_is_not_there_or_not_to_be_had_is_said(cache, monkeypatch):
    with eutils(monkeypatch), pytest.raises(InputError, match="--pmid 600: PubMed has no article of this number"):
        list(fetch_articles(["5", "600"]))
    assert (cache / "5.json").is_file(), "what came is kept"
    monkeypatch.setenv("NCBI_API_KEY", "secret-key")
    refusal = (400, '{"error":"API key invalid","api-key":"secret-key"}')
    with eutils(monkeypatch, [refusal]), pytest.raises(InputError, match="PubMed: .*API key invalid") as told:
        list(fetch_articles(["7"]))
    assert "secret-key" not in str(told.value) and "[NCBI_API_KEY]" in str(told.value)
    with eutils(monkeypatch, [(200, "<PubmedArticleSet><Pub")]), pytest.raises(ConnectionError, match="no whole XML"):
        list(fetch_articles(["7"]))


def test_xml_that_would_eat_all_memory_is_refused():
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol" * 100}">' for n in range(12))
    with pytest.raises(ConnectionError, match="no whole XML"):
        parse_articles(f"<!DOCTYPE a [{entities}]><a>&e11;</a>".encode())


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["12", "7", "12"], ["12", "7"]),
        (["{list}"], ["31", "32", "5", "33"]),
        (["5", "{list}"], ["5", "31", "32", "33"]),
    ],
)
def test_numbers_and_files_of_them(tmp_path, given, found):
    path = tmp_path / "pmids.txt"
    path.write_bytes(b"31, 32\r\n\r\n5\t33\r\n31\r\n")
    assert read_pmids([one.format(list=path) for one in given]) == found


@pytest.mark.parametrize(
    ("pmids", "said"),
    [
        (["abc"], "--pmid abc: neither a PMID"),
        (["0"], "--pmid 0: neither a PMID"),
        (["1234567890"], "neither a PMID"),
        (["{wrong}"], "wrong.txt:2: 'PMC7' is no PMID"),
        ([], "nothing to read: give a text, files, folders, - for standard input, or --pmid"),
    ],
)
def test_what_is_no_pmid_is_said(tmp_path, capsys, pmids, said):
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("12\nPMC7\n")
    more = ["--pmid", *(one.format(wrong=wrong) for one in pmids)] if pmids else []
    assert main(["extract", "--model", "tests", *more]) == 2
    assert said in capsys.readouterr().err


def test_the_command_reads_pmids_beside_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "note.txt").write_text("Lithium caused tremor.")
    gguf = make_tiny_gguf(tmp_path)
    with eutils(monkeypatch):
        command = ["extract", str(tmp_path / "note.txt"), "--model", str(gguf), "--pmid", "3", "4", "--json"]
        assert main(command) == 0
    documents = json.loads(capsys.readouterr().out)["documents"]
    assert [one["id"] for one in documents] == ["note", "3", "4"]
    assert documents[1]["text"].startswith("Zoltamine (ZOL) & gout3.\nBACKGROUND: ")
