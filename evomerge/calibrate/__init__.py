"""Statistics of models on a user's text, computed once: what `evomerge calibrate` does.

What a file of statistics looks like is said in `evomerge.statistics`; what a merge method makes of
it is not known here.
"""

from evomerge.calibrate.calibration import Calibration, Written, calibrate
from evomerge.calibrate.progress import CalibrationProgress

__all__ = ["Calibration", "CalibrationProgress", "Written", "calibrate"]
