"""Published language models into taichu folders and back, by their files alone: neither MindSpore
nor PyTorch is imported, and no pickle is read."""
