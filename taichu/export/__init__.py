"""A model folder turned into graphs that run without this framework's model code.

`onnx_folder` writes ONNX graphs, which need neither MindSpore here nor there; `mindir_folder` has
MindSpore write its own format.
"""
