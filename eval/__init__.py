"""Generate, parse, score, compare, report. Imports `data`, never `pipeline`."""
