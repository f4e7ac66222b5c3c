"""The BioCreative V CDR corpus (BC5CDR), fetched, checked and written in the shapes that people train from.

Reads the official archive from its address, from a copy of it, or from a folder that it was unpacked to. Writes for each split
the corpus file as it is (`train.PubTator`: offsets and ids, what `medner run` learns most from), instruct rows
(`train.jsonl`) and the same prompts and completions as Parquet (`train.parquet`, for any other trainer).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from data.files import write_text
from data.readers.pubtator import read_pubtator
from data.readers.rows import document_rows, render_rows
from data.schema import SPLITS, Document, InputError, JsonObject
from data.table import Table, as_text

ADDRESS = "https://huggingface.co/datasets/bigbio/bc5cdr/resolve/5c273539832ad0c6933b63f78b748524818693ba/CDR_Data.zip"
SHA256 = "0a359a7f038d283a7b05b084fa73de014e7410e1f5d7034bf3fd01f016fc2444"
LICENCE = "Public Domain Mark 1.0; cite Li et al. 2016, doi:10.1093/database/baw068"
FILES = {
    "train": "CDR_TrainingSet.PubTator.txt",
    "validation": "CDR_DevelopmentSet.PubTator.txt",
    "test": "CDR_TestSet.PubTator.txt",
}
COUNTED = ("articles", "chemicals", "diseases", "relations")
PUBLISHED = {
    "train": (500, 5203, 4182, 1038),
    "validation": (500, 5347, 4244, 1012),
    "test": (500, 5385, 4424, 1066),
}
LARGEST = 200_000_000  # bytes; the archive has 20 million, its largest text 1.2


def fetch_bc5cdr(out: Path, source: str | None = None, sha256: str | None = None) -> JsonObject:
    """Write the corpus to the folder `out`; returns what was found: source, sha256, counts, files.

    `source`: a copy, a folder or another address instead of the official one; `sha256`: what such an archive must have.
    Raises InputError where the archive is another one, lacks a split, or `out` has other files of these names.
    """
    source = source or ADDRESS
    texts, seen = read_folder(Path(source)), None
    if not texts:
        archive = download(source) if source.startswith(("http://", "https://")) else read_archive(Path(source))
        seen = check_archive(archive, source, (sha256 or SHA256).lower())
        texts = read_members(archive, source)
    elif sha256:
        raise InputError(f"{source}: --sha256 is of an archive, and this is a folder")
    check_splits(texts, source)
    documents = read_splits(texts)
    files = write_splits(out, texts, documents)
    counts = {split: dict(zip(COUNTED, count_annotations(documents[split]), strict=True)) for split in SPLITS}
    as_published = all(tuple(counts[split].values()) == PUBLISHED[split] for split in SPLITS)
    facts = {"source": source, "sha256": seen, "licence": LICENCE, "counts": counts}
    return facts | {"as_published": as_published, "files": files}


def download(address: str) -> bytes:
    """The bytes at the address. Raises ConnectionError where they cannot be read."""
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content: bytes = answer.read(LARGEST + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(f"{address} cannot be read ({reason}); from a copy: data fetch bc5cdr --from FILE") from None
    return content


def read_archive(path: Path) -> bytes:
    """The bytes of CDR_Data.zip. Raises InputError where it is missing, or too large to be it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; --from takes CDR_Data.zip, or the folder that it unpacks to")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: has {path.stat().st_size:,} bytes, and the corpus 20 million: it is another file")
    return path.read_bytes()


def check_archive(archive: bytes, source: str, expected: str) -> str:
    """The archive's sha256. Raises InputError where it is not the expected one."""
    seen = hashlib.sha256(archive).hexdigest()
    if seen != expected:
        raise InputError(
            f"{source}: its sha256 is {seen}, expected {expected}: cut off, changed, or repacked; "
            f"fetch it again, or if you know it to be right, add --sha256 {seen}"
        )
    return seen


def read_folder(folder: Path) -> dict[str, bytes]:
    """The corpus files anywhere below `folder`, by split; none where it is no folder."""
    if not folder.is_dir():
        return {}
    found = {path.name: path for path in sorted(folder.rglob("*.PubTator.txt"))}
    texts = {split: found[name].read_bytes() for split, name in FILES.items() if name in found}
    if not texts:
        raise InputError(f"{folder}: contains none of {', '.join(FILES.values())}")
    return texts


def read_members(archive: bytes, source: str) -> dict[str, bytes]:
    """The corpus files of the archive, by split, in memory: nothing is unpacked, so no name in it can reach the disk."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as packed:
            members = {Path(member.filename).name: member for member in packed.infolist()}
            wanted = {split: members[name] for split, name in FILES.items() if name in members}
            for member in wanted.values():
                if member.file_size > LARGEST:
                    raise InputError(f"{source}: {member.filename} has {member.file_size:,} bytes; it is no corpus file")
            return {split: packed.read(member) for split, member in wanted.items()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise InputError(f"{source}: not a zip archive that can be read ({error})") from None


def check_splits(texts: dict[str, bytes], source: str) -> None:
    """Raises InputError naming the files of the three splits that `texts`, by split, lacks."""
    missing = [name for split, name in FILES.items() if split not in texts]
    if missing:
        raise InputError(f"{source}: contains no {' and no '.join(missing)}; the corpus has three splits")


def read_splits(texts: dict[str, bytes]) -> dict[str, list[Document]]:
    """The documents of each split. Raises InputError where a file is no PubTator."""
    with tempfile.TemporaryDirectory() as folder:
        documents = {}
        for split in SPLITS:
            path = Path(folder, FILES[split])
            path.write_bytes(texts[split])
            try:
                documents[split] = read_pubtator(path)
            except InputError as error:  # the file is gone when its name is read
                raise InputError(str(error).replace(f"{folder}/", "")) from None
    return documents


def count_annotations(documents: Sequence[Document]) -> tuple[int, ...]:
    """Articles, chemical mentions, disease mentions and relations, as `COUNTED` names them."""
    kinds = [mention.type for document in documents for mention in document.mentions]
    relations = sum(len(document.relations) for document in documents)
    return len(documents), kinds.count("Chemical"), kinds.count("Disease"), relations


def write_splits(out: Path, texts: dict[str, bytes], documents: dict[str, list[Document]]) -> list[str]:
    """Writes all files or, where one of these files exists with other content, none; returns their paths."""
    written = {}
    for split in SPLITS:
        written[out / f"{split}.PubTator"] = texts[split].decode("utf-8-sig").replace("\r\n", "\n")
        written[out / f"{split}.jsonl"] = render_rows(documents[split])
    for path, text in written.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise InputError(f"{path}: exists already with other content; nothing was written; choose another --out")
    for path, text in written.items():
        write_text(path, text)
    return [*map(str, written), *(str(write_parquet(out / f"{split}.parquet", documents[split])) for split in SPLITS)]


def write_parquet(path: Path, documents: Sequence[Document]) -> Path:
    """The rows as a table of prompt, completion, document and task."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'medner[formats]'") from None
    part = path.with_name(path.name + ".part")
    parquet.write_table(pyarrow.Table.from_pylist(document_rows(documents)), part)
    return part.replace(path)


def render_fetched(facts: JsonObject) -> str:
    """What was fetched, for a terminal."""
    rows = tuple((split, *(f"{number:,}" for number in facts["counts"][split].values())) for split in SPLITS)
    note = "As published." if facts["as_published"] else "NOT the published counts: another corpus, or a part of it."
    source = [f"BC5CDR from {facts['source']}", *([f"sha256 {facts['sha256']}"] if facts["sha256"] else []), LICENCE]
    folder = Path(facts["files"][0]).parent
    given = " ".join(f"data.{split}={folder / split}.PubTator" for split in SPLITS)
    use = f"medner run --set {given} --out runs/bc5cdr"
    return "\n".join([*source, "", as_text(Table(("split", *COUNTED), rows, note=note)), "", *facts["files"], "", use])
