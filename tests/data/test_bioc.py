"""BioC corpora: the same documents as from PubTator, and broken or hostile XML refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.readers.bioc import read_bioc
from data.readers.pubtator import read_pubtator
from data.schema import Document, InputError, Mention, Relation

HEAD = "<?xml version='1.0' encoding='UTF-8'?><!DOCTYPE collection SYSTEM 'BioC.dtd'>\n<collection><source>x</source>\n"
GOUT = '<annotation id="1"><infon key="type">Disease</infon><infon key="MESH">D1</infon><location offset="8" length="4"/>\n\
<text>gout</text></annotation>'
PARTS = """
<annotation id="2"><infon key="type">Disease</infon><infon key="CompositeRole">CompositeMention</infon>
  <infon key="MESH">D2|D3</infon><location offset="14" length="25"/><text>renal and hepatic failure</text></annotation>
<annotation id="3"><infon key="type">Disease</infon><infon key="CompositeRole">IndividualMention</infon>
  <infon key="MESH">D2</infon><location offset="14" length="5"/><location offset="32" length="7"/>
  <text>renal failure</text></annotation>
<annotation id="4"><infon key="type">Disease</infon><infon key="CompositeRole">IndividualMention</infon>
  <infon key="MESH">D3</infon><location offset="24" length="15"/><text>hepatic failure</text></annotation>"""
ZOL = '<annotation id="5"><infon key="type">Chemical</infon><infon key="MESH">-1</infon><location offset="46" length="5"/>\
<text>&lt;Zol&gt;</text></annotation>'
RELATION = '<relation id="R0"><infon key="relation">CID</infon><infon key="Chemical">C1</infon>\
<infon key="Disease">D3</infon></relation>'
CHEMICAL = '<annotation id="6"><infon key="type">Chemical</infon><infon key="MESH">C1</infon><location offset="0" length="3"/>\
<text>Zol</text></annotation>'


def document(title: str = CHEMICAL + GOUT, text: str = PARTS + ZOL, end: str = RELATION, name: str = "7") -> str:
    return f"""<document><id>{name}</id>
<passage><infon key="type">title</infon><offset>0</offset><text>Zol and gout.</text>{title}</passage>
<passage><infon key="type">abstract</infon><offset>14</offset>
<text>renal and hepatic failure after &lt;Zol&gt;</text>{text}</passage>
{end}</document>"""


def write(folder: Path, *documents: str, head: str = HEAD, tail: str = "</collection>") -> Path:
    path = folder / "corpus.xml"
    path.write_text(head + "\n".join(documents) + tail, encoding="utf-8")
    return path


EXPECTED = Document(
    id="7",
    title="Zol and gout.",
    text="renal and hepatic failure after <Zol>",
    mentions=(
        Mention("Zol", "Chemical", 0, 3, ("C1",)),
        Mention("gout", "Disease", 8, 12, ("D1",)),
        Mention("renal and hepatic failure", "Disease", 14, 39, ("D2", "D3")),
        Mention("<Zol>", "Chemical", 46, 51),
    ),
    relations=(Relation("Zol", "renal and hepatic failure", "C1", "D3"),),
)


def test_composites_are_read_whole_and_their_parts_passed_over(tmp_path):
    assert read_bioc(write(tmp_path, document())) == [EXPECTED]


def test_crlf_bom_and_missing_prolog_change_nothing(tmp_path):
    path = write(tmp_path, document())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_bioc(path) == [EXPECTED]
    assert read_bioc(write(tmp_path, document(), head="<collection>")) == [EXPECTED]


def test_offsets_follow_the_passage_that_holds_them(tmp_path):
    # some tools leave two characters between title and text
    moved = document().replace("<offset>14<", "<offset>15<")
    for offset in (14, 24, 32, 46):
        moved = moved.replace(f'offset="{offset}"', f'offset="{offset + 1}"')
    assert read_bioc(write(tmp_path, moved)) == [EXPECTED]


def test_a_corpus_reads_alike_from_both_formats(corpus):
    bioc = read_bioc(corpus.bioc)
    assert bioc == read_pubtator(corpus.pubtator)
    assert len(bioc) in (8, 500)


ENTITY = "<!DOCTYPE collection [<!ENTITY {0}>]><collection>"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (document(), "no element found"),  # truncated: no end of <collection>
        (document()[:-30], "no element found"),
        (document().replace("</passage>", "", 1) + "</collection>", "mismatched tag"),
        ("</collection>", "without a <document>"),
        (document(name="") + "</collection>", "needs an <id>"),
        ("<document><id>7</id></document></collection>", "a <passage>"),
        (document() + document() + "</collection>", "duplicate document id '7'"),
        (document(title=GOUT.replace('"8"', '"9"') + CHEMICAL) + "</collection>", "bad offset: 'gout'"),
        (document(title=GOUT.replace('"8"', '"eight"')) + "</collection>", "'eight' is not a number"),
        (document(title=GOUT.replace('"8"', '"800"')) + "</collection>", "outside the article"),
        (document(title=GOUT.replace('<location offset="8" length="4"/>', "")) + "</collection>", "0 locations"),
        (document(title=GOUT.replace("Disease", "disease")) + "</collection>", "unknown type 'disease'"),
        (document(title=GOUT) + "</collection>", "no Chemical mention"),
        (document(end=RELATION.replace("CID", "PPI")) + "</collection>", "no CID"),
        (document(end=RELATION.replace(">D3<", "><")) + "</collection>", "no CID"),
    ],
)
def test_faults_are_one_line_with_file_and_place(tmp_path, text, reason):
    path = write(tmp_path, text, tail="")
    with pytest.raises(InputError) as error:
        read_bioc(path)
    assert str(error.value).startswith(str(path))
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "head",
    [
        ENTITY.format('a "aaaaaaaaaa"'),
        ENTITY.format('secret SYSTEM "file:///etc/hostname"'),
        ENTITY.format('% remote SYSTEM "http://127.0.0.1/x.dtd"'),
        ENTITY.format('a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"'),
    ],
)
def test_declared_entities_are_refused(tmp_path, head):
    with pytest.raises(InputError, match=r"corpus\.xml:1: the XML contains the entity"):
        read_bioc(write(tmp_path, document(), head=head))


def test_an_entity_of_the_dtd_that_is_never_fetched_is_refused(tmp_path):
    with pytest.raises(InputError, match="the entity 'alpha'"):
        read_bioc(write(tmp_path, document().replace("<text>Zol and", "<text>&alpha;Zol and")))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"7|t|Zol\n7|a|Zol\n", "broken XML"),
        (b"<html></html>", "expected <collection>, got <html>"),
        (b'<collection xmlns="urn:x"></collection>', "expected <collection>"),
        (HEAD.encode() + b"<document><id>\xe9</id></document></collection>", "not UTF-8"),
    ],
)
def test_what_is_not_bioc_is_refused(tmp_path, raw, reason):
    path = tmp_path / "corpus.xml"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=reason):
        read_bioc(path)
