"""New texts in, what they hold out: `medner extract` and `load_extractor`."""
