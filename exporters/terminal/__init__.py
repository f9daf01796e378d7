"""``terminal``: who calls whom on this machine, as a table refreshed in place."""
