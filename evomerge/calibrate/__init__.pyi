from .calibration import Calibration as Calibration
from .calibration import OpenCalibrator as OpenCalibrator
from .calibration import Written as Written
from .calibration import calibrate as calibrate
from .node_calibrator import NodeCalibrator as NodeCalibrator
from .node_calibrator import RemoteCalibrator as RemoteCalibrator
from .progress import CalibrationProgress as CalibrationProgress
from .text import Text as Text
