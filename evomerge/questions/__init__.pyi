from .columns import Ask as Ask
from .columns import Role as Role
from .from_file import QuestionOptions as QuestionOptions
from .from_file import make_task as make_task
from .table import read_table as read_table
from .task_report import TaskReport as TaskReport
