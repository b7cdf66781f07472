"""The network: the shared blocks, what feeds them, and the codecs beside them."""
