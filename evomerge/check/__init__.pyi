from .devices import DEVICES as DEVICES
from .devices import Device as Device
from .devices import Group as Group
from .devices import known_devices as known_devices
from .devices import read_devices as read_devices
from .devices import read_prices as read_prices
from .report import CheckReport as CheckReport
from .report import check_job as check_job
