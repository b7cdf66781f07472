"""What this machine has and lacks for training, each with the command that mends it.

from ascend.doctor import device_in_use, examine
for check in examine():
    print(check.name, check.state, check.found, check.remedy)
"""

from ascend.doctor.check import STATES, Check, Places
from ascend.doctor.examination import device_in_use, examine

__all__ = ["STATES", "Check", "Places", "device_in_use", "examine"]
