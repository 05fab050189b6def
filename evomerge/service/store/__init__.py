"""What the service keeps: jobs, events, people, audit; functions that return frozen dataclasses."""
