"""Retrieval among millions: vectors and what they stand for, added, deleted and searched.

from taichu.index import Index
index = Index.open("found")
index.search(model.embed(image=["a.png"]), top=5, modality="text")
"""

from taichu.index.index import Found, Index

__all__ = ["Found", "Index"]
