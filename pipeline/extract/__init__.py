"""New texts in, their names and relations out: `medner extract` and `load_extractor`."""
