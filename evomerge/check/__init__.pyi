from .report import CheckReport as CheckReport
from .report import check_job as check_job
