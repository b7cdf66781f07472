"""Published encoders of sentences, on their own: a model's texts are read by its backbone."""
