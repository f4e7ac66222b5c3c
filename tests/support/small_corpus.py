"""BC5CDR as its archive has it, but of six invented articles."""

from __future__ import annotations

import io
import zipfile

from data import fetch

ARTICLE = """{id}|t|Tremor after zolamine.
{id}|a|Zolamine gave tremor to one of {id} patients.
{id}\t0\t6\tTremor\tDisease\tD014202
{id}\t13\t21\tzolamine\tChemical\tD000001
{id}\t23\t31\tZolamine\tChemical\tD000001
{id}\t37\t43\ttremor\tDisease\tD014202
{id}\tCID\tD000001\tD014202

"""


def texts(newline: str = "\n") -> dict[str, str]:
    parts = {"train": range(1, 4), "validation": range(4, 6), "test": range(6, 7)}
    return {fetch.FILES[s]: "".join(ARTICLE.format(id=n) for n in ids).replace("\n", newline) for s, ids in parts.items()}


def pack(files: dict[str, str], folder: str = "CDR_Data/CDR.Corpus.v010516/") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(folder + name, text)
    return packed.getvalue()
