"""What a training would take on so many devices of a type, computed without running it.

From a recipe and ``ascend/rates.yaml``: parameters, operations, memory by part, what is sent, and
the device matrix (`ascend.device_matrix`) that is fastest of those that fit. The memory is that of
the graphs that MindSpore compiles for an Ascend; on other devices, whose operators have other
forms, it is a guide only.
"""

from taichu.plan.search import Plan, PlanError, find_plans
from taichu.plan.workload import Workload, workload_of

__all__ = ["Plan", "PlanError", "Workload", "find_plans", "workload_of"]
