"""Training few parameters beside a model's own: one method a file, all of one interface."""
