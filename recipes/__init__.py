"""Recipes: short programs that read from top to bottom, each with its YAML beside it."""
