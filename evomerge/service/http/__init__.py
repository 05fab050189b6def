"""The service over HTTP: routes, security, live events, downloads, metrics and logs."""
