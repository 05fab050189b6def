from .delivery import export_checkpoint as export_checkpoint
from .folder import check_free as check_free
from .recipe_file import merge_recipe as merge_recipe
from .shards import Weights as Weights
from .verification import Verification as Verification
from .verification import verify as verify
from .winner import ExportReport as ExportReport
from .winner import export_winner as export_winner
