"""The files that models and trainings are kept in; nothing here computes."""
