"""What every test shares."""

from __future__ import annotations

from hypothesis import settings

# A busy machine may take seconds for what takes milliseconds; that is no failure of a property.
settings.register_profile("evomerge", deadline=None)
settings.load_profile("evomerge")
