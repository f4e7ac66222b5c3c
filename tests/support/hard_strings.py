"""Texts on which tokenizers part: what a biomedical article holds and what a split by a pattern may get wrong."""

HARD = [
    "N-methyl-4-phenyl-1,2,3,6-tetrahydropyridine (MPTP)",
    "1-(2-chloro-4-methoxyphenyl)-3-[3-(2-methylimidazol-1-yl)propyl]thiourea",
    "(+)-catechin, (±)-ketamine; [3H]-5-HT(1A) 5′-deoxy-5-fluorouridine",
    "α-methyldopa β₂-agonist γ-aminobutyric µ-opioid μg Δ9-THC κB",
    "1234567 12 123 1234 0.00012345 99mTc-DTPA 2-3×10⁶ ½",
    "title\ntext\n\nList of\r\nextracted\n \n\n\n- a\n- b | c\n",
    "  two  spaces   three\t\ttabs \u00a0nbsp \u2009thin \u3000wide ",
    "it's IT'S we'Ll don’t 'tis rock'n'roll",
    "Na+ Ca2+/K+ CO2 H2O2 pH<7.4 p=0.05 ≥50% ~10°C",
    "naïve Sjögren Ménière’s Guillain–Barré São İstanbul ﬁbrosis e\u0301",
    "肝炎 ヘパリン гепарин ἀλκαλοειδές 😀🧬👩‍🔬 \u200b\ufeffzero",
    "AAAAAAAAAAAAAAAA----------........((((((((",
    "",
    " ",
    "\n",
]  # fmt: skip
