"""Corpora in, chat examples out: schema, readers, text, prompts, split, audit. Knows nothing of models."""
