from .calibration import Calibration as Calibration
from .calibration import Written as Written
from .calibration import calibrate as calibrate
from .progress import CalibrationProgress as CalibrationProgress
