"""Sentences of the invented sample, sorted by what they say of their names.

`{c}`, `{c2}` are chemicals, `{d}`, `{d2}` diseases, other braces a name of that kind, a number or a choice (`[a/b]` is either).
A title is written by the same rules, without its full stop.
"""

CAUSES = (
    "{c} [induced/triggered/provoked] {d} in {n} of {nn} [patients/subjects/animals]",
    "{d} [occurred/developed/appeared] [after/during] [treatment with/exposure to/the infusion of] {c}",
    "{c}-induced {d} was [confirmed/documented] by {procedure}",
    "we [report/describe] [a case/two cases/a cluster] of {d} [caused by/due to/resulting from] {c}",
    "[patients/subjects] given {c} at {dose} [developed/experienced] {d} within {n} [days/weeks/hours]",
    "the [onset/severity] of {d} was [attributed to/blamed on] {c}",
    "{c} [led to/resulted in] {d} [after/within] {nn} [hours/days]",
    "{d} was [precipitated/brought on] by {c} in [an elderly woman/a young man/a {nn}-year-old woman]",
    "a single dose of {c} was [sufficient/enough] to [produce/elicit] {d} in {species}",
    "{d} [resolved/disappeared] when {c} was withdrawn and returned on rechallenge",
    "[chronic/prolonged/repeated] [use/abuse] of {c} [causes/produces] {d} in [most/some] [users/patients]",
    "{n} [patients/women/children] on {c} [suffered/had] {d} as [a side effect/an adverse reaction]",
    "these [findings/data] [implicate/incriminate] {c} in the [genesis/development] of {d}",
    "[toxic/high] concentrations of {c} were followed by {d}",
)
CAUSES_TWO_DISEASES = (
    "{c} [induced/caused/provoked] both {d} and {d2} in the {tissue} group",
    "[adverse effects/complications] of {c} [included/were] {d} and {d2}",
    "{d} and {d2} [developed/occurred] [after/under] {c} at {dose}",
)
CAUSES_TWO_CHEMICALS = (
    "the combination of {c} and {c2} [led to/triggered] {d} in {n} [patients/animals]",
    "{d} was [induced/produced] in {species} by either {c} or {c2}",
    "{c} as well as {c2} [caused/provoked] {d}",
)
TREATS = (
    "{c} is [widely/commonly/often] [used/prescribed] for {d}",
    "{c} [relieved/improved/reduced] {d} in {n} of {nn} [patients/subjects]",
    "{d} [responded/was responsive] to {c} at {dose}",
    "[patients/women] with {d} were [treated with/started on] {c}",
    "{c} [prevented/abolished/attenuated] {d} in {species}",
    "{c} was given to [control/treat] {d}",
    "the [efficacy/benefit] of {c} in {d} was [assessed/compared] over {nn} weeks",
    "{c} protects against {d}",
    "pretreatment with {c} [lowered/halved] the [incidence/score] of {d}",
    "{d} had been [managed/controlled] with {c} for {n} years",
)
DENIES = (
    "{c} did not [cause/induce/provoke] {d}",
    "no {d} was [seen/noted/observed] [with/under/after] {c}",
    "{d} was unrelated to {c}",
    "there was no [evidence/sign] that {c} [produces/triggers] {d}",
    "neither {d} nor [death/relapse] followed {c}",
    "{d} occurred [equally/just as often] with and without {c}",
    "{c} was [ruled out/excluded] as a cause of {d}",
    "[patients/animals] given {c} never developed {d}",
    "{c} was [free of/not associated with] {d} at {dose}",
)
CHEMICAL = (
    "plasma [levels/concentrations] of {c} [peaked/doubled] at {n} hours",
    "{c} was [infused/injected/given] at {dose} through the {tissue}",
    "{gene} [metabolises/transports/binds] {c} in {cell}",
    "all [received/were given] {c} by mouth",
    "the [clearance/half-life] of {c} [fell/rose] by {nn}%",
    "{species} [were fed/received] {c} for {nn} days",
    "[samples/urine] [contained/held] traces of {c}",
    "{c} was [stopped/withdrawn/tapered] [at week {n}/on day {n}]",
)
DISEASE = (
    "{nn} [patients/men/women] with {d} were [enrolled/studied/followed]",
    "[none/{n}] of the [controls/siblings] had a [history/family history] of {d}",
    "{d} is [common/frequent/rare] in [the elderly/childhood/{species}]",
    "{procedure} [showed/revealed/confirmed] {d}",
    "the [diagnosis/severity] of {d} was [graded/scored] by {procedure}",
    "[mortality/hospital stay] rose with {d}",
    "variants of {gene} [predispose to/modify] {d}",
    "{d} was [present/absent] [at entry/at baseline/on admission]",
)
NEUTRAL = (
    "{gene} was [measured/sequenced/stained] in {cell} from the {tissue}",
    "{procedure} of the {tissue} was [normal/unremarkable/repeated] [at week {n}/after {n} months]",
    "the {tissue} and the {tissue} were [removed/weighed/examined]",
    "{species} were [housed/bred/kept] in groups of {n}",
    "[expression/activity] of {gene} [rose/fell/doubled] in the {tissue}",
    "{cell} were [cultured/counted] for {nn} hours",
    "[further/larger] studies are [needed/under way/warranted]",
    "{procedure} was performed [before/after] {procedure}",
    "the [mean/median] age was {nn} years",
    "{gene} and {gene} were [unchanged/upregulated] in {species}",
    "{nn} [records/charts] from {n} [centres/hospitals] were reviewed",
    "[blood pressure/heart rate/body weight] did not change",
)
TITLES = {
    "causes": (
        "{c}-induced {d}", "{d} [due to/caused by] {c}: a [case report/review]",
        "{d} [after/during] {c} [therapy/treatment]",
        "does {c} cause {d}[?/ in {species}?]", "{c} [induces/provokes] {d} in {species}",
        "[two cases/a case] of {c}-associated {d}",
    ),
    "treats": ("{c} for {d}: a [pilot/open/randomised] [study/trial]", "{c} in the [treatment/management] of {d}",
        "[effect/efficacy] of {c} on {d}"),
    "denies": ("no {d} with {c}: a [cohort/register] study", "{c} does not [cause/provoke] {d}", "lack of {d} after {c}"),
    "chemical": ("pharmacokinetics of {c} in {species}", "{c} and {gene} in {cell}",
        "[binding/uptake] of {c} by the {tissue}"),
    "disease": ("{d}: [clinical features/outcome] in {nn} patients", "{procedure} in {d}",
        "{gene} [mutations/variants] and {d}"),
    "neutral": ("{gene} [expression/activity] in the {tissue}", "{procedure} of the {tissue} in {species}",
        "[a survey/an atlas] of {cell}"),
}
LEADS = ("", "", "", "", "[in this study/in our series/in contrast/however/moreover/overall/in addition/at follow-up], ")
