"""What is added to a score or a logit that must not count."""

MASKED = -1e9  # its exponential is exactly zero in float32
