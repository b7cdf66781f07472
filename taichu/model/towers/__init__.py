"""Towers: published vision and sound encoders that stand before a modality's patches."""
