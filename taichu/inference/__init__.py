"""Models in use: embedding, generation and retrieval, whatever computes them."""
