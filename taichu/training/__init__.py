"""Objectives, the compiled step, the loop around it, and what keeps a long run alive."""
