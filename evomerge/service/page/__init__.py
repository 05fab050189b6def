"""The page of the service: static files, served as they are."""
