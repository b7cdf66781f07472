"""The hardware layer: which device is used and which form each operator takes on it."""

import os

# MindSpore reads this once, when it is imported: without it, its log lines (stack traces of
# fallbacks it has already handled) bury a command's own output. GLOG_v=1 brings them back.
os.environ.setdefault("GLOG_v", "4")

from ascend import cuda

cuda.prepare()  # before MindSpore is imported, too
