"""Settings of a merged model: its configuration, and where the sources disagree."""
