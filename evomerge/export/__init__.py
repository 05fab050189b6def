"""Export: recipe, checkpoint, model card and manifest in one folder, and its verification."""

from evomerge.export.delivery import export_checkpoint
from evomerge.export.folder import check_free
from evomerge.export.recipe_file import merge_recipe
from evomerge.export.verify import Verification, verify
from evomerge.export.winner import ExportReport, export_winner

__all__ = [
    "ExportReport",
    "Verification",
    "check_free",
    "export_checkpoint",
    "export_winner",
    "merge_recipe",
    "verify",
]
