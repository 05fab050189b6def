"""What people see of a search: the terminal while it runs, its status, and the HTML report."""
