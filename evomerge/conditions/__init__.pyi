from . import metrics as metrics
from .metrics import read_last_number as read_last_number
from .settings import parse_conditions as parse_conditions
