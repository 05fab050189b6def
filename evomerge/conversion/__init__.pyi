from .file import convert as convert
from .file import names_tasks as names_tasks
